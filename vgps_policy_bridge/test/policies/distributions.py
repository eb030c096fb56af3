"""Do draws follow the probabilities they should? Pearson's chi-square test, on counts of rare cells put together."""

import numpy as np
from scipy import stats


def p_value(observed, expected) -> float:
    """Return how likely counts (n,) at least this far from `expected` (n,), in any unit, are by chance."""
    observed, expected = np.asarray(observed, float), np.asarray(expected, float)
    expected = expected * (observed.sum() / expected.sum())  # in float64: the test refuses sums that differ
    rare = expected < 5
    cells = [np.append(counts[~rare], counts[rare].sum()) for counts in (observed, expected)]
    possible = cells[1] > 0
    assert not cells[0][~possible].any(), 'drawn, but impossible'
    return stats.chisquare(cells[0][possible], cells[1][possible]).pvalue
