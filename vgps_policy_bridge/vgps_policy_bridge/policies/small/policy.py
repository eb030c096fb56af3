"""The two small policies behind the seam: `flow` and `binned`."""

from __future__ import annotations

import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from vgps_policy_bridge.errors import MissingExtraError, PolicyError
from vgps_policy_bridge.policies.small.instruction import embed
from vgps_policy_bridge.policy import GRIPPER, Candidates, Observation, StepSeeds

SHIPPED = Path(__file__).parents[2] / 'checkpoints'


class SmallPolicy:
    """A trained small policy. K candidates cost one encoder pass and K rows of a small head.

    Args:
        kind: 'flow' or 'binned'; the checkpoint must be of that kind.
        checkpoint: .safetensors file; empty takes the one shipped with the package.
    """

    def __init__(self, kind: str, checkpoint: str = ''):
        if find_spec('torch') is None or find_spec('safetensors') is None:
            raise MissingExtraError(kind, 'small', ModuleNotFoundError('torch, safetensors'))
        from vgps_policy_bridge.policies.small import checkpoint as files
        path = Path(checkpoint).expanduser() if checkpoint else SHIPPED / f'{kind}.safetensors'
        self._network, digest = files.load(path)
        if self._network.config.kind != kind:
            raise PolicyError(f'{path} holds a {self._network.config.kind!r} policy, not {kind!r}')
        self.temperature = 1.0
        self._identity = ' '.join(dict.fromkeys((kind, path.stem, digest)))  # flow.safetensors is a flow: said once
        self._seeds = StepSeeds()
        self._embedding = None

    def reset(self, instruction: str, seed: int = 0) -> None:
        """Begin an episode; embeds the instruction once."""
        self._seeds = StepSeeds(seed)
        self._embedding = embed(instruction)

    def propose(self, observation: Observation, k: int) -> Candidates:
        """Draw k chunks (k, H, 7)."""
        import torch

        from vgps_policy_bridge.policies.small.encoder import shrink
        if self._embedding is None:
            raise PolicyError('propose was called before reset')
        config, seed, start = self._network.config, self._seeds.next(), time.perf_counter()
        state = torch.from_numpy(observation.require_state(config.kind)[None].copy()) if config.uses_state else None
        image = torch.from_numpy(shrink(observation.image, config.image_size)[None].copy())
        resized = time.perf_counter()
        with torch.inference_mode():
            context = self._network.encoder(image, torch.from_numpy(self._embedding[None].copy()), state)
            encoded = time.perf_counter()
            generator = torch.Generator().manual_seed(seed)
            actions, log_probabilities = self._network.sample(context, k, float(self.temperature), generator)
        actions = actions.numpy()
        actions[..., GRIPPER] = np.clip(actions[..., GRIPPER], 0.0, 1.0)
        if config.binary_gripper:
            actions[..., GRIPPER] = actions[..., GRIPPER] > 0.5
        stages = {'resize': resized - start, 'encode': encoded - resized, 'sample': time.perf_counter() - encoded}
        return Candidates(
            actions, policy=self._identity, temperature=float(self.temperature), seed=seed,
            log_probabilities=None if log_probabilities is None else log_probabilities.numpy(),
            stages={stage: 1e3 * seconds for stage, seconds in stages.items()},
            used=('image', 'instruction') + (('state',) if config.uses_state else ()))


def flow(checkpoint: str = '') -> SmallPolicy:
    """Build the flow-matching policy (entry point `flow`); checkpoint '' is the shipped one."""
    return SmallPolicy('flow', checkpoint)


def binned(checkpoint: str = '') -> SmallPolicy:
    """Build the autoregressive policy (entry point `binned`); checkpoint '' is the shipped one."""
    return SmallPolicy('binned', checkpoint)
