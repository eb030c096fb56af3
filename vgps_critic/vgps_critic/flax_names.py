"""How the reference's flax parameters map to ours (reference behaviour 1.9, appendix A)."""

import re
from collections.abc import Mapping

import numpy as np
import torch

_RULES = (
    (r'encoder/encoder/conv_init/kernel', 'encoder.conv_init.weight', 'conv'),
    (r'encoder/encoder/norm_init/scale', 'encoder.norm_init.weight', 'same'),
    (r'encoder/encoder/norm_init/bias', 'encoder.norm_init.bias', 'same'),
    (r'encoder/encoder/ResNetBlock_(\d+)/Conv_([01])/kernel', r'encoder.blocks.\1.conv_\2.weight', 'conv'),
    (r'encoder/encoder/ResNetBlock_(\d+)/MyGroupNorm_([01])/scale', r'encoder.blocks.\1.norm_\2.weight', 'same'),
    (r'encoder/encoder/ResNetBlock_(\d+)/MyGroupNorm_([01])/bias', r'encoder.blocks.\1.norm_\2.bias', 'same'),
    (r'encoder/encoder/ResNetBlock_(\d+)/conv_proj/kernel', r'encoder.blocks.\1.conv_proj.weight', 'conv'),
    (r'encoder/encoder/ResNetBlock_(\d+)/norm_proj/scale', r'encoder.blocks.\1.norm_proj.weight', 'same'),
    (r'encoder/encoder/ResNetBlock_(\d+)/norm_proj/bias', r'encoder.blocks.\1.norm_proj.bias', 'same'),
    # TRAP: the source calls Dense_0 "add", but it multiplies; Dense_1 ("mult") shifts
    (r'encoder/encoder/FilmConditioning_(\d+)/Dense_0/kernel', r'encoder.films.\1.multiplier.weight', 'dense'),
    (r'encoder/encoder/FilmConditioning_(\d+)/Dense_0/bias', r'encoder.films.\1.multiplier.bias', 'same'),
    (r'encoder/encoder/FilmConditioning_(\d+)/Dense_1/kernel', r'encoder.films.\1.shift.weight', 'dense'),
    (r'encoder/encoder/FilmConditioning_(\d+)/Dense_1/bias', r'encoder.films.\1.shift.bias', 'same'),
    (r'network/Dense_(\d+)/kernel', r'weights.\1', 'same'),  # (E, in, out), as ours
    (r'network/Dense_(\d+)/bias', r'biases.\1', 'same'),
    (r'Dense_0/kernel', 'last.weight', 'dense'),
    (r'Dense_0/bias', 'last.bias', 'same'),
)
_LAYOUTS = {
    'same': lambda a: a,
    'conv': lambda a: a.transpose(3, 2, 0, 1),  # HWIO -> OIHW
    'dense': lambda a: a.transpose(1, 0),  # (in, out) -> (out, in)
}


def torch_name_and_layout(flax_name: str) -> tuple[str, str]:
    """Return our name of a critic leaf such as `encoder/encoder/conv_init/kernel`, and its layout.

    Raises:
        KeyError: the leaf is not part of a critic.

    """
    for pattern, name, layout in _RULES:
        match = re.fullmatch(pattern, flax_name)
        if match:
            return match.expand(name), layout
    raise KeyError(flax_name)


def to_torch(flax_name: str, leaf: np.ndarray) -> tuple[str, torch.Tensor]:
    """Return our name and a float32 tensor in our layout for one leaf of the critic."""
    name, layout = torch_name_and_layout(flax_name)
    leaf = np.asarray(leaf)
    expected = {'conv': 4, 'dense': 2}.get(layout, leaf.ndim)
    if leaf.ndim != expected:
        raise ValueError(f'{flax_name} has shape {leaf.shape}, expected {expected} dimensions')
    return name, torch.from_numpy(np.ascontiguousarray(_LAYOUTS[layout](leaf), dtype=np.float32))


def state_from_flax(leaves: Mapping[str, np.ndarray]) -> dict[str, torch.Tensor]:
    """Return a `CriticNetwork` state from all leaves under the reference's `modules_critic`."""
    return dict(to_torch(name, leaf) for name, leaf in leaves.items())
