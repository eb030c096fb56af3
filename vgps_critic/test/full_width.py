"""Weights and inputs at the published width that every machine makes alike; 100 MB need not be stored."""

import numpy as np

from vgps_critic import flax_names
from vgps_critic.config import NetworkConfig


def full_width_case():
    """Return the reference's 178 leaves, images (2, 256, 256, 3), language (2, 512), normalised actions (2, 5, 7).

    `RandomState` draws the same numbers in every numpy. All leaves are noisy, so that FiLM and every bias matter.
    """
    draw = np.random.RandomState(0)
    leaves = {}
    for name, leaf in sorted(flax_names.expected_leaves(NetworkConfig()).items()):
        noise = draw.standard_normal(leaf.shape).astype(np.float32)
        if name.endswith('kernel'):
            fan_in = np.prod(leaf.shape[1:-1] if name.startswith('network') else leaf.shape[:-1])
            leaves[name] = noise * np.float32(np.sqrt((1 if 'Film' in name else 4) / fan_in))
        else:
            leaves[name] = noise * np.float32(0.1) + np.float32(name.endswith('scale'))
    coarse = draw.randint(0, 256, (2, 16, 16, 3)).astype(np.uint8)  # patches: pure noise would all look alike
    images = coarse.repeat(16, axis=1).repeat(16, axis=2)
    language = draw.standard_normal((2, 512)).astype(np.float32) / np.float32(np.sqrt(512))
    actions = draw.uniform(-1, 1, (2, 5, 7)).astype(np.float32)
    return leaves, images, language, actions
