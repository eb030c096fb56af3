"""Success rates with honest uncertainty: Wilson intervals, paired differences, exact tests."""

from dataclasses import dataclass

import numpy as np
from scipy import stats


@dataclass(frozen=True)
class Rate:
    """A success rate with its interval."""

    successes: int
    trials: int
    low: float
    high: float

    @property
    def rate(self) -> float:
        """Successes over trials, NaN without trials."""
        return self.successes / self.trials if self.trials else float('nan')


@dataclass(frozen=True)
class PairedComparison:
    """Two conditions on the same seeds."""

    pairs: int
    wins: int            # only the second succeeded
    losses: int          # only the first succeeded
    difference: float    # rate of the second minus rate of the first
    low: float
    high: float
    p_value: float       # exact McNemar test, two-sided


def wilson(successes: int, trials: int, confidence: float = 0.95) -> Rate:
    """Return the Wilson score interval of a success rate (Wilson 1927).

    Raises:
        ValueError: more successes than trials, or a confidence outside (0, 1).

    """
    if not 0 <= successes <= trials:
        raise ValueError(f'{successes} successes of {trials} trials')
    if not 0 < confidence < 1:
        raise ValueError(f'confidence is {confidence}, must lie between 0 and 1')
    if trials == 0:
        return Rate(0, 0, 0.0, 1.0)
    z = stats.norm.isf((1 - confidence) / 2)
    p = successes / trials
    centre = (p + z**2 / (2 * trials)) / (1 + z**2 / trials)
    half = z / (1 + z**2 / trials) * np.sqrt(p * (1 - p) / trials + z**2 / (4 * trials**2))
    # exactly 0 and 1 at the ends, where rounding would leave 1e-18
    low = 0.0 if successes == 0 else float(centre - half)
    return Rate(successes, trials, low, 1.0 if successes == trials else float(centre + half))


def mcnemar_exact(wins: int, losses: int) -> float:
    """Return the two-sided p-value of the exact McNemar test: are wins and losses equally likely?"""
    discordant = wins + losses
    if discordant == 0:
        return 1.0
    return float(min(1.0, 2 * stats.binom.cdf(min(wins, losses), discordant, 0.5)))


def paired_interval(pairs: int, wins: int, losses: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return the interval of a difference of paired rates: Wald with half a pair added to each of the four cells.

    Agresti and Min 2005, "Simple improved confidence intervals for comparing matched proportions", which keeps its
    coverage for few pairs where the plain Wald interval has none.
    """
    if pairs == 0:
        return -1.0, 1.0
    z = stats.norm.isf((1 - confidence) / 2)
    n, b, c = pairs + 2, wins + 0.5, losses + 0.5
    middle = (b - c) / n
    half = z * np.sqrt(b + c - (b - c)**2 / n) / n
    return float(max(-1.0, middle - half)), float(min(1.0, middle + half))


def compare_paired(first: list[bool], second: list[bool]) -> PairedComparison:
    """Compare two conditions whose trials ran on the same seeds, in the same order.

    Raises:
        ValueError: different numbers of trials.

    """
    if len(first) != len(second):
        raise ValueError(f'{len(first)} trials of one condition cannot be paired with {len(second)} of the other')
    a, b = np.asarray(first, bool), np.asarray(second, bool)
    wins, losses = int((b & ~a).sum()), int((a & ~b).sum())
    low, high = paired_interval(len(a), wins, losses)
    return PairedComparison(len(a), wins, losses, (wins - losses) / len(a) if len(a) else float('nan'), low, high,
                            mcnemar_exact(wins, losses))
