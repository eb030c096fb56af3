"""Trials that stop when enough is known: a paired comparison with a stated error rate, looked at after every pair.

Looking at a fixed test after every pair and stopping at p < 0.05 errs far more often than 5 %. Here the error is spent
along the planned pairs (Lan and DeMets 1983, with Pocock's function) and the boundaries are exact, not asymptotic: if
the conditions are equal, a pair in which exactly one succeeds is a win or a loss with equal chance, so the chance of
every path of wins minus losses is known whatever the rate of ties is.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cache

import numpy as np
from scipy import stats


class Verdict(Enum):
    """What is known so far."""

    OPEN = 'go on'
    SECOND = 'the second condition is better'
    FIRST = 'the first condition is better'
    NONE = 'no difference shown'


def spending(share: float) -> float:
    """Return which part of the error may be spent when this share (0..1) of the planned pairs is played: Pocock's."""
    return math.log1p((math.e - 1) * min(max(share, 0.0), 1.0))


@dataclass
class SequentialComparison:
    """Two conditions, pair by pair, on the same seeds.

    At most ``pairs`` pairs are played. If the conditions are equal, the chance that ``add`` ever returns FIRST or
    SECOND is at most ``error``; stopping earlier for any other reason (an empty battery) only lowers it.

    Raises:
        ValueError: no pairs, or an error outside (0, 1).

    """

    pairs: int
    error: float = 0.05
    played: int = 0
    wins: int = 0            # only the second condition succeeded
    losses: int = 0          # only the first did
    verdict: Verdict = Verdict.OPEN
    spent: float = 0.0       # error used up so far

    def __post_init__(self):
        if self.pairs < 1 or not 0 < self.error < 1:
            raise ValueError(f'{self.pairs} pairs at error {self.error}: need pairs >= 1 and an error between 0 and 1')
        self._paths = np.zeros(2 * self.pairs + 1)  # chance of every difference without having stopped, if equal
        self._paths[self.pairs] = 1.0

    def add(self, first: bool, second: bool) -> Verdict:
        """Take the next pair's two successes and say whether enough is known.

        Raises:
            ValueError: the comparison is over.

        """
        if self.verdict is not Verdict.OPEN:
            raise ValueError(f'the comparison ended after {self.played} pairs: {self.verdict.value}')
        self.played += 1
        if first != second:
            self.wins, self.losses = self.wins + second, self.losses + first
            self._paths = 0.5 * (np.append(0.0, self._paths[:-1]) + np.append(self._paths[1:], 0.0))
        boundary = self._boundary(spending(self.played / self.pairs) * self.error)
        difference = self.wins - self.losses
        if abs(difference) >= boundary:
            self.verdict = Verdict.SECOND if difference > 0 else Verdict.FIRST
        elif self.played == self.pairs or not self._reachable(abs(difference)):
            self.verdict = Verdict.NONE
        return self.verdict

    def words(self) -> str:
        """Return the verdict with its numbers; a p-value of the fixed test would not be right after stopping early."""
        return (f'{self.verdict.value} after {self.played} of {self.pairs} pairs ({self.wins} won by the second, '
                f'{self.losses} lost), with at most {self.error:.0%} chance of error if they are equal')

    def _boundary(self, allowed: float) -> int:
        """Return the smallest difference to stop at, and take the paths that stop there out."""
        middle = self.pairs
        tails = np.cumsum(self._paths[middle + 1:][::-1])[::-1] * 2  # [d - 1]: chance of |difference| >= d
        within = np.flatnonzero(self.spent + tails <= allowed)
        boundary = int(within[0]) + 1 if len(within) else self.pairs + 1
        if boundary <= self.pairs:
            self.spent += float(tails[boundary - 1])
            self._paths[middle + boundary:] = self._paths[:middle - boundary + 1] = 0.0
        return boundary

    def _reachable(self, difference: int) -> bool:
        """Tell whether any outcome of the pairs that are left could still decide."""
        left = self.pairs - self.played
        # wins in all that is left, judged as leniently as the fixed test would
        return difference + left >= _smallest_difference(self.wins + self.losses + left, self.error)


@cache
def _smallest_difference(discordant: int, error: float) -> int:
    """Return the smallest wins minus losses that the fixed test calls a difference."""
    differences = np.arange(discordant % 2, discordant + 1, 2)
    p_values = 2 * stats.binom.sf((discordant + differences) // 2 - 1, discordant, 0.5)
    enough = differences[p_values <= error]
    return int(enough[0]) if len(enough) else discordant + 1


def so_far(trials: Sequence, results: Mapping[str, Mapping], error: float, first: str) -> SequentialComparison:
    """Return the comparison of two conditions after the trials that are done.

    Args:
        trials: every planned trial in order (`plan.Trial`).
        results: journal lines by the trial's identity.
        error: as in `SequentialComparison`.
        first: name of the condition that the other is compared with.

    """
    pairs: dict = {}
    for trial in trials:
        pairs.setdefault((trial.task.name, trial.task.instruction, trial.seed), []).append(trial)
    comparison = SequentialComparison(len(pairs), error)
    for pair in pairs.values():
        if comparison.verdict is not Verdict.OPEN or any(trial.identity not in results for trial in pair):
            break
        success = {trial.condition.name: bool(results[trial.identity]['success']) for trial in pair}
        comparison.add(success.pop(first), *success.values())
    return comparison
