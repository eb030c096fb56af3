"""The actor of Cal-QL or IQL behind the seam: the paper's Table 11 plays it as a policy."""

from __future__ import annotations

import time
import warnings
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from vgps_msgs_py.embeddings import MUSE, MUSE_NUMPY
from vgps_msgs_py.lanczos import resize
from vgps_policy_bridge.errors import MissingExtraError, PolicyError
from vgps_policy_bridge.policies.checkpoints import openness
from vgps_policy_bridge.policies.small.instruction import embed
from vgps_policy_bridge.policy import GRIPPER, Candidates, Observation, StepSeeds


class ActorPolicy:
    """Play the actor that vgps-train left beside its critic.

    The first candidate is the mode of its distribution, what the actor does by itself: the authors' code takes the mode
    wherever it judges an actor (`sample_actions(argmax=True)`). All others are samples. So K = 1 gives the mode.

    Args:
        checkpoint: `actor.safetensors` of `vgps-train cal-ql`, or of `vgps-train iql --algorithm.train-actor`.
    """

    def __init__(self, checkpoint: str):
        if find_spec('torch') is None or find_spec('safetensors') is None:
            raise MissingExtraError('actor', 'small', ModuleNotFoundError('torch, safetensors'))
        from vgps_policy_bridge.policies.actor import checkpoint as files
        path = Path(checkpoint).expanduser()
        self._network, self.config, self._known, digest = files.load(path)
        self._identity = f'actor {self.config.algorithm} {digest}'
        self.temperature = 1.0  # of the sampling: a factor on the variance, as in the authors' code
        self._seeds = StepSeeds()
        self._embedding: np.ndarray | None = None

    def reset(self, instruction: str, seed: int = 0) -> None:
        """Begin an episode; embeds the instruction once."""
        self._seeds = StepSeeds(seed)
        self._embedding = self._embed(instruction)

    def _embed(self, instruction: str) -> np.ndarray:
        """Return the embedding (L,) float32 from the file, else MUSE's. Raises PolicyError where neither has one."""
        trained_with = self.config.text_encoder
        if instruction in self._known:
            return self._known[instruction]
        if trained_with not in (MUSE, MUSE_NUMPY):
            raise PolicyError(f'actor: the instruction {instruction!r} is not among the {len(self._known)} that its '
                              f'training embedded with {trained_with!r}: {"; ".join(list(self._known)[:12])}')
        if trained_with != MUSE_NUMPY:
            warnings.warn(f'the actor was trained with {trained_with}, and {MUSE_NUMPY} embeds {instruction!r}: '
                          'near-identical (cosine >= 0.99), not exact', stacklevel=2)
        return embed(instruction, 'actor')

    def propose(self, observation: Observation, k: int) -> Candidates:
        """Return (k, 1, 7): the mode, then k - 1 samples."""
        import torch
        if self._embedding is None:
            raise PolicyError('propose was called before reset')
        config, seed, start = self.config, self._seeds.next(), time.perf_counter()
        image = torch.from_numpy(np.array(resize(observation.image, config.image_size)[None]))
        resized = time.perf_counter()
        with torch.inference_mode():
            mean, std = self._network(image, torch.from_numpy(self._embedding[None].copy()))
            encoded = time.perf_counter()
            noise = torch.randn((k, mean.shape[1]), generator=torch.Generator().manual_seed(seed))
            noise[0] = 0.0
            std = std * float(self.temperature) ** 0.5
            drawn, log_density = self._network.sample(mean, std, noise[None])
        actions = config.physical(drawn[0].numpy())
        actions[:, GRIPPER] = openness(actions[:, GRIPPER], 'actor')
        if config.binary_gripper:
            actions[:, GRIPPER] = actions[:, GRIPPER] > 0.5
        stages = {'resize': resized - start, 'encode': encoded - resized, 'sample': time.perf_counter() - encoded}
        return Candidates(
            actions[:, None], policy=self._identity, temperature=float(self.temperature), seed=seed,
            statistics=config.data,
            log_probabilities=log_density[0].numpy() if self.temperature > 0 else None,  # of normalised actions
            stages={stage: 1e3 * seconds for stage, seconds in stages.items()})
