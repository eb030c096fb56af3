"""What a critic says of recorded episodes: values of the executed actions and of all candidates, and features."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from vgps_bringup.improvement.episodes import Recorded
from vgps_critic.critic import Critic

BATCH = 128  # frames encoded at a time


@dataclass(frozen=True)
class Scored:
    """One episode of T steps under one critic; values are the ensemble minimum, in steps of discounted return."""

    done: np.ndarray          # (T,) value of the action that was sent
    candidates: np.ndarray    # (T, K) values, NaN where there was no candidate
    disagreement: np.ndarray  # (T,) mean over candidates of max - min over members
    features: np.ndarray      # (T, D) float32, the encoder's
    embedding: np.ndarray     # (L,) float32, of the instruction

    @property
    def spread(self) -> np.ndarray:
        """Return (T,) max - min over candidates, 0 where there was one."""
        return np.nan_to_num(np.nanmax(self.candidates, 1) - np.nanmin(self.candidates, 1))


@torch.inference_mode()
def score(critic: Critic, episodes: Sequence[Recorded], encoded: Sequence[np.ndarray] | None = None) -> list[Scored]:
    """Return what a critic says of episodes, one for each.

    Args:
        critic: whose values.
        episodes: what was seen, proposed and done.
        encoded: features (T, D) of each, where a critic with the same encoder has made them: most of the time is there.

    Raises:
        UnknownInstructionError: its instruction encoder cannot embed an instruction.

    """
    network, result = critic.network, []
    for number, episode in enumerate(episodes):
        embedding = np.asarray(critic.instructions.encode(episode.instruction), np.float32)
        language = torch.from_numpy(embedding.copy())[None]
        if encoded is not None:
            features = torch.from_numpy(encoded[number])
        else:
            parts = np.array_split(np.arange(len(episode)), math.ceil(len(episode) / BATCH))
            features = torch.cat([network.encoder(torch.from_numpy(episode.frames[part]), language) for part in parts])
        known = np.isfinite(episode.candidates).all(2)                                     # (T, K)
        filled = np.where(known[..., None], episode.candidates, episode.actions[:, None])
        actions = np.concatenate([episode.actions[:, None], filled], 1)  # (T, 1 + K, 7)
        normalized = torch.from_numpy(critic.action_space.normalize(actions))
        q = network.q_values(features, normalized).numpy()  # (E, T, 1 + K)
        minimum, span = q.min(0), np.ptp(q, axis=0)
        known[~known.any(1), 0] = True  # without candidates: what was done is the only one
        result.append(Scored(minimum[:, 0], np.where(known, minimum[:, 1:], np.nan),
                             np.nanmean(np.where(known, span[:, 1:], np.nan), 1), features.numpy(), embedding))
    return result
