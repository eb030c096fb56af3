"""What re-scoring says about each critic, in one sentence."""

from collections import Counter

import numpy as np

from vgps_bringup.rejudging.rejudge import Judgement
from vgps_critic.outlook import auc

FEWEST = 3  # successes and failures each from which on an AUC is printed
BAD = ('failure', 'timeout')  # outcomes of an episode that did not succeed; an aborted one tells nothing


def sentences(rows: list[Judgement], outcomes: dict[tuple[str, str], str]) -> list[str]:
    """Return one sentence per critic: how often it would have chosen otherwise, how well it tells how episodes end.

    All speak of one setting: that of the recording where it was judged, else the largest K and the smallest beta.

    Args:
        rows: every judgement.
        outcomes: (bag, episode) -> outcome in words.

    """
    recorded = Counter((row.k, row.beta) for row in rows if row.as_recorded)
    k, beta = recorded.most_common(1)[0][0] if recorded else max(((r.k, r.beta) for r in rows), default=(0, 0.0),
                                                                 key=lambda setting: (setting[0], -setting[1]))
    return [f'{critic} {_choices(own, k, beta)}; {_outcomes(own, outcomes)}.'
            for critic in dict.fromkeys(row.critic for row in rows)
            if (own := [row for row in rows if row.critic == critic])]


def _choices(rows: list[Judgement], k: int, beta: float) -> str:
    compared = [row for row in rows if (row.k, row.beta) == (k, beta) and row.executed >= 0]
    if not compared:
        return f'chose among candidates that nobody executed (K = {k}, β = {beta:g}): nothing to compare with'
    share = sum(row.differs for row in compared) / len(compared)
    return f'would have chosen differently in {100 * share:.0f} % of {len(compared)} steps (K = {k}, β = {beta:g})'


def _outcomes(rows: list[Judgement], outcomes: dict[tuple[str, str], str]) -> str:
    """Compare an episode's mean value of what was done with how it ended."""
    done: dict[tuple[str, str], dict[int, float]] = {}
    for row in rows:  # the value does not depend on K or beta, but the executed candidate is among the first k or not
        if np.isfinite(row.executed_value):
            done.setdefault((row.bag, row.episode_id), {})[row.step] = row.executed_value
    means = {episode: float(np.mean(list(steps.values()))) for episode, steps in done.items()}
    good = [value for episode, value in means.items() if outcomes.get(episode) == 'success']
    bad = [value for episode, value in means.items() if outcomes.get(episode) in BAD]
    count = f'{len(good)} success{"es" * (len(good) != 1)} and {len(bad)} failure{"s" * (len(bad) != 1)}'
    if min(len(good), len(bad)) < FEWEST:
        return f'how well it agrees with outcomes cannot be told from {count}'
    return f'agrees with outcomes: AUC {auc(np.array(good), np.array(bad)):.2f} over {count}'
