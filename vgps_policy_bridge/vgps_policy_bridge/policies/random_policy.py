"""The paper's control: candidates drawn without looking at anything (`random-policy`)."""

from __future__ import annotations

import time

import numpy as np

from vgps_policy_bridge.errors import PolicyError
from vgps_policy_bridge.policy import GRIPPER, Candidates, Observation, StepSeeds


class RandomPolicy:
    """Draw every action uniformly within fixed bounds. It sees neither the image nor the instruction.

    Args:
        translation: [m] largest |dx|, |dy|, |dz|; BridgeData's per-step clip by default.
        rotation: [rad] largest |droll|, |dpitch|, |dyaw|; BridgeData's per-step clip by default.
        horizon: actions in a chunk.
    """

    def __init__(self, translation: float = 0.05, rotation: float = 0.25, horizon: int = 1):
        if translation < 0 or rotation < 0 or horizon < 1:
            raise PolicyError('random-policy: translation and rotation must be >= 0 and horizon >= 1')
        self._high = np.array([translation] * 3 + [rotation] * 3 + [1.0], np.float32)
        self._low = -self._high
        self._low[GRIPPER] = 0.0
        self._horizon = horizon
        self._seeds = StepSeeds()

    def reset(self, instruction: str, seed: int = 0) -> None:
        """Begin an episode; the instruction is ignored."""
        self._seeds = StepSeeds(seed)

    def propose(self, observation: Observation, k: int) -> Candidates:
        """Draw (k, horizon, 7) actions, independent of the observation."""
        start = time.perf_counter()
        seed = self._seeds.next()
        rng = np.random.default_rng(seed)
        actions = rng.uniform(self._low, self._high, (k, self._horizon, 7)).astype(np.float32)
        log_density = -float(np.log((self._high - self._low)[self._high > self._low]).sum()) * self._horizon
        return Candidates(actions, policy='random-policy', log_probabilities=np.full(k, log_density), seed=seed,
                          stages={'sample': 1e3 * (time.perf_counter() - start)}, used=())
