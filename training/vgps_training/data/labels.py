"""Rewards, masks and returns of an episode (V-GPS section 5; authors' data loader)."""
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np


@dataclass(frozen=True)
class LabelConfig:
    """How an episode's outcome becomes rewards."""

    success_steps: int = 3       # H, last steps of a success that count as the goal, >= 1; paper 3
    failures: str = 'failures'   # 'failures': label them so; 'successes': the paper's labels; 'skip': leave out


class Labels(NamedTuple):
    """Per-step labels, each (T,) float32."""

    rewards: np.ndarray
    masks: np.ndarray    # 0 where the target is the reward alone
    returns: np.ndarray  # discounted sum of rewards to the end


def labels_at(position: np.ndarray, length: np.ndarray, success: np.ndarray, discount: float,
              config: LabelConfig) -> Labels:
    """Return the labels of single steps, in closed form.

    A success: reward 0 and mask 0 on the last `success_steps`, -1 and 1 before (paper section 5, authors' code).
    A failure: -1 for ever, so every return is -1 / (1 - discount); the last step has no successor and carries that
    value itself. The paper has successes only.

    Args:
        position: (n,) int, step within its episode.
        length: (n,) int, steps of that episode.
        success: (n,) outcome of that episode.
        discount: gamma.
        config: how outcomes become rewards.

    Raises ValueError for an unknown `config.failures`.
    """
    if config.failures not in ('failures', 'successes', 'skip'):
        raise ValueError(f"labels.failures is '{config.failures}'; it must be 'failures', 'successes' or 'skip'")
    good = np.asarray(success, bool) | (config.failures == 'successes')
    left = np.asarray(length) - np.asarray(position)  # steps to the end, this one included
    n = np.minimum(config.success_steps, length)
    absorbing = -1.0 / (1.0 - discount)
    goal = good & (left <= n)
    last = ~good & (left == 1)
    rewards = np.where(goal, 0.0, np.where(last, absorbing, -1.0))
    returns = np.where(good, -(1.0 - np.power(float(discount), np.maximum(left - n, 0))) / (1.0 - discount), absorbing)
    return Labels(rewards.astype(np.float32), (~(goal | last)).astype(np.float32), returns.astype(np.float32))


def label(length: int, success: bool, discount: float, config: LabelConfig) -> Labels:
    """Return the labels of an episode of `length` steps; see `labels_at`."""
    return labels_at(np.arange(length), np.full(length, length), np.full(length, success), discount, config)
