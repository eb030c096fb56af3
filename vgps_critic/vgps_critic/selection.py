"""Choose one of K candidates by the critic's values: equation 2 of the paper."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Selection:
    """The choice and the distribution it was drawn from."""

    index: int  # of the chosen candidate, 0..K-1
    probabilities: np.ndarray  # (K,) float64, sums to 1; one-hot for argmax
    values: np.ndarray  # (K,) float32, minimum over the members


def ensemble_minimum(q_values: np.ndarray) -> np.ndarray:
    """Return (K,) float32, the minimum over members of (E, K), or (K,) as it is.

    Raises:
        ValueError: wrong shape, no candidate, or a value that is NaN or infinite; says which.

    """
    q_values = np.asarray(q_values, np.float32)
    if q_values.ndim not in (1, 2) or 0 in q_values.shape:
        raise ValueError(f'Q-values have shape {q_values.shape}, expected (E, K) or (K,) with K >= 1')
    bad = np.argwhere(~np.isfinite(q_values))
    if len(bad):
        at = tuple(int(i) for i in bad[0])
        raise ValueError(f'{len(bad)} of {q_values.size} Q-values are not finite, first {q_values[at]} at index {at}')
    return q_values.min(axis=0) if q_values.ndim == 2 else q_values


def select(q_values: np.ndarray, beta: float, rng: np.random.Generator) -> Selection:
    """Draw a candidate from softmax(min over members of Q / beta), or take the best for beta <= 0.

    Args:
        q_values: (E, K) or (K,) float; discounted returns.
        beta: temperature, same unit as the Q-values; <= 0 is argmax, and ties go to the first maximum.
        rng: consumed only when beta > 0, by exactly one uniform draw.

    Raises:
        ValueError: `beta` or a Q-value is NaN or infinite, or the shape is wrong.

    Source: paper, equation 2; reference behaviour 5 (6).

    """
    if not np.isfinite(beta):
        raise ValueError(f'beta must be finite, got {beta}')
    values = ensemble_minimum(q_values)
    if beta <= 0:
        index = int(values.argmax())
        probabilities = np.zeros(len(values))
        probabilities[index] = 1.0
        return Selection(index, probabilities, values)
    with np.errstate(over='ignore'):  # a logit of -inf is a probability of 0
        logits = (values.astype(np.float64) - values.max()) / beta  # the maximum is 0: exp cannot overflow
    probabilities = np.exp(logits)
    probabilities /= probabilities.sum()
    cumulative = probabilities.cumsum()
    # scaled by the last entry, since rounding may leave it a little under 1
    index = int(np.searchsorted(cumulative, rng.random() * cumulative[-1], side='right'))
    return Selection(min(index, len(values) - 1), probabilities, values)
