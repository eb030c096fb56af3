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


def label_success(length: int, discount: float, success_steps: int) -> Labels:
    """Return 0 reward and 0 mask on the last `success_steps`, -1 and 1 before (paper section 5, authors' code)."""
    n = min(success_steps, length)
    rewards = np.full(length, -1.0, np.float32)
    masks = np.ones(length, np.float32)
    rewards[length - n:] = 0.0
    masks[length - n:] = 0.0
    steps = np.maximum(np.arange(length - n, -n, -1), 0)
    returns = -(1.0 - np.power(float(discount), steps)) / (1.0 - discount)
    return Labels(rewards, masks, returns.astype(np.float32))


def label_failure(length: int, discount: float) -> Labels:
    """Return labels of an episode that never succeeds: -1 for ever, so every return is -1 / (1 - discount).

    The paper has successes only. The last step has no successor and carries the absorbing value itself.
    """
    absorbing = -1.0 / (1.0 - discount)
    rewards = np.full(length, -1.0, np.float32)
    masks = np.ones(length, np.float32)
    rewards[-1], masks[-1] = absorbing, 0.0
    return Labels(rewards, masks, np.full(length, absorbing, np.float32))


def label(length: int, success: bool, discount: float, config: LabelConfig) -> Labels:
    """Return the labels of an episode of `length` steps. Raises ValueError for an unknown `config.failures`."""
    if config.failures not in ('failures', 'successes', 'skip'):
        raise ValueError(f"labels.failures is '{config.failures}'; it must be 'failures', 'successes' or 'skip'")
    if success or config.failures == 'successes':
        return label_success(length, discount, config.success_steps)
    return label_failure(length, discount)
