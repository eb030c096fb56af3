"""What a critic says of recorded episodes: values of what was done, of all candidates and of other moments' actions."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from vgps_bringup.improvement.episodes import Recorded
from vgps_critic.critic import Critic

BATCH = 128  # frames encoded at a time
MOMENTS = 16  # other moments of its episode whose actions each step's is compared with


@dataclass(frozen=True)
class Scored:
    """One episode of T steps under one critic; values are the ensemble minimum, in steps of discounted return."""

    done: np.ndarray          # (T,) value of the action that was sent
    candidates: np.ndarray    # (T, K) values, NaN where there was no candidate
    disagreement: np.ndarray  # (T,) mean over candidates of max - min over members
    rank: np.ndarray          # (T,) share of the episode's actions at other moments with a higher value, 0.5: chance
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
        moments = np.random.default_rng(0).integers(len(episode), size=(len(episode), MOMENTS))
        actions = np.concatenate([episode.actions[:, None], filled, episode.actions[moments]], 1)
        normalized = torch.from_numpy(critic.action_space.normalize(actions))
        q = network.q_values(features, normalized).numpy()  # (E, T, 1 + K + MOMENTS)
        (minimum, others), span = np.split(q.min(0), [-MOMENTS], 1), np.ptp(q[..., :-MOMENTS], axis=0)
        own = minimum[:, :1]
        known[~known.any(1), 0] = True  # without candidates: what was done is the only one
        result.append(Scored(minimum[:, 0], np.where(known, minimum[:, 1:], np.nan),
                             np.nanmean(np.where(known, span[:, 1:], np.nan), 1),
                             ((others > own) + 0.5 * (others == own)).mean(1), features.numpy(), embedding))
    return result
