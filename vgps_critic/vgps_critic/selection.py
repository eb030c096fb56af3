"""Choose one of K candidates by the critic's values: equation 2 of the paper."""

from collections.abc import Sequence
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
    finite = np.isfinite(q_values)
    if not finite.all():
        at = tuple(int(i) for i in np.argwhere(~finite)[0])
        raise ValueError(f'{(~finite).sum()} of {q_values.size} Q-values are not finite, first {q_values[at]} at index '
                         f'{at}')
    return q_values.min(axis=0) if q_values.ndim == 2 else q_values


def select(q_values: np.ndarray, beta: float, rng: np.random.Generator) -> Selection:
    """Draw a candidate from softmax(min over members of Q / beta), or take the best for beta <= 0.

    Args:
        q_values: (E, K) or (K,) float; discounted returns.
        beta: temperature, same unit as the Q-values; <= 0 is argmax, and ties go to the first maximum.
        rng: consumed only when beta > 0, by exactly one uniform draw.

    Raises:
        ValueError: `beta` or a Q-value is NaN or infinite, or the shape is wrong.

    Source: paper, equation 2; the authors' evaluation code.

    """
    return select_each(q_values, (beta,), rng)[0]


def select_each(q_values: np.ndarray, betas: Sequence[float], rng: np.random.Generator) -> list[Selection]:
    """Return what `select` would choose at each of several temperatures, all from the same draw."""
    betas = np.asarray(betas, np.float64)
    if not np.isfinite(betas).all():
        raise ValueError(f'beta must be finite, got {betas[~np.isfinite(betas)][0]}')
    values = ensemble_minimum(q_values)
    best, warm = int(values.argmax()), betas > 0
    indices = np.full(len(betas), best)
    probabilities = np.zeros((len(betas), len(values)))
    probabilities[~warm, best] = 1.0
    if warm.any():
        with np.errstate(over='ignore'):  # a logit of -inf is a probability of 0
            logits = (values.astype(np.float64) - values[best]) / betas[warm, None]  # at most 0: exp cannot overflow
        softmax = np.exp(logits)
        softmax /= softmax.sum(axis=1, keepdims=True)
        cumulative = softmax.cumsum(axis=1)
        # scaled by the last entry, since rounding may leave it a little under 1
        drawn = (cumulative <= rng.random() * cumulative[:, -1:]).sum(axis=1)
        indices[warm], probabilities[warm] = np.minimum(drawn, len(values) - 1), softmax
    return [Selection(index, row, values) for index, row in zip(indices.tolist(), probabilities)]
