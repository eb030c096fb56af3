"""A made-up robot whose episodes are told by six numbers a frame: quick to record, learn from and corrupt.

Some of an action is good in itself (its second number), some on one side of the scene only (its first).
"""

from dataclasses import replace

import numpy as np

from vgps_bringup.improvement import calibration
from vgps_bringup.improvement.episodes import Recorded
from vgps_bringup.improvement.scoring import MOMENTS, Scored
from vgps_critic.outlook import Outlook

STEPS, K, D = 40, 8, 6
FLOOR = -50.0
WORDS = 'put the cup on the shelf'
EMBEDDING = np.eye(1, 16, dtype=np.float32)[0]


def record(seed, count=100, camera=0.0):
    """Return (episodes, features of each (T, D)): scene and luck with the draws decide; `camera` moves features."""
    rng = np.random.default_rng(seed)
    mixing = np.random.default_rng(0).normal(0, 1, (4, D))  # the same camera for every seed
    episodes, features = [], []
    for number in range(count):
        fits, itself = rng.normal(0, 1, (2, STEPS, K))
        draws = (fits + itself) / np.sqrt(2)                      # how good each candidate is
        side = rng.choice([-1.0, 1.0], STEPS)
        chosen = rng.integers(0, K, STEPS)
        luck = draws[np.arange(STEPS), chosen] - draws.mean(1)
        way = rng.normal(0, 1.2) + np.concatenate([[0], np.cumsum(0.25 * luck + rng.normal(0, 0.1, STEPS))])
        success = bool(way[-1] > 0)
        shown = np.stack([way[:-1], np.arange(STEPS) / STEPS, side, rng.normal(0, 1, STEPS)], 1)  # before each action
        seen = shown @ mixing + 0.3 * rng.normal(0, 1, (STEPS, D)) + camera
        candidates = np.zeros((STEPS, K, 7), np.float32)
        candidates[..., 0], candidates[..., 1] = 0.01 * fits * side[:, None], 0.01 * itself
        openness = np.where(np.arange(STEPS) < 20, 1.0, 0.0).astype(np.float32)
        candidates[..., 6] = openness[:, None]
        states = np.zeros((STEPS, 7), np.float32)
        states[1:, 6] = openness[:-1]
        states[0, 6] = 1.0
        episodes.append(Recorded(
            f'bag/{number}', f'{seed}-{number}', WORDS, success, STEPS, np.zeros((STEPS, 4, 4, 3), np.uint8),
            candidates[np.arange(STEPS), chosen], states, candidates, np.full((STEPS, K), 1 / K, np.float32), chosen,
            np.zeros(STEPS, bool)))
        features.append(seen.astype(np.float32))
    return episodes, features


def flipped(episodes, share, seed=5):
    """Return the episodes with the verdicts of a share of them turned round."""
    wrong = np.random.default_rng(seed).permutation(len(episodes))[:round(share * len(episodes))]
    return [replace(e, success=not e.success) if i in wrong else e for i, e in enumerate(episodes)]


def learn(episodes, features, fold, taste=1.0, looks=True):
    """Return the episodes scored by linear critics, each trained on the labels of the other folds.

    Without `looks` their taste in actions is the same whatever a frame shows.
    """
    returns = np.array([0.0 if e.success else FLOOR for e in episodes])
    scored = [None] * len(episodes)
    for number in np.unique(fold):
        others = np.flatnonzero(fold != number)
        rows = np.concatenate([_inputs(features[i], episodes[i].actions[:, None], looks)[:, 0] for i in others])
        targets = np.repeat(returns[others], STEPS)
        weights = np.linalg.solve(rows.T @ rows + np.eye(rows.shape[1]), rows.T @ targets)
        for i in np.flatnonzero(fold == number):
            moments = episodes[i].actions[np.random.default_rng(i).integers(STEPS, size=(STEPS, MOMENTS))]
            actions = np.concatenate([episodes[i].actions[:, None], episodes[i].candidates, moments], 1)
            values = _inputs(features[i], actions, looks) @ weights
            level = values[:, 1:1 + K].mean(1, keepdims=True)
            own, proposed, others = np.split(level + taste * (values - level), [1, 1 + K], 1)
            rank = ((others > own) + 0.5 * (others == own)).mean(1)
            scored[i] = Scored(own[:, 0], proposed, np.full(STEPS, 0.5), rank, features[i], EMBEDDING)
    return scored


def _inputs(features, actions, looks):
    """Return (T, N, 3 D + 4) inputs of a linear critic: frame, its growth, action, frame times action, a constant."""
    steps, count = actions.shape[:2]
    time = np.linspace(0, 1, steps)[:, None]
    seen = np.concatenate([features, features * time, time], 1)[:, None].repeat(count, 1)
    moved = 100 * actions[..., :2]
    both = looks * features[:, None] * moved[..., :1]
    return np.concatenate([seen, moved, both, np.ones((steps, count, 1))], 2)


def outlook_of(features):
    """Return an outlook that knows distances only, its limit calibrated on these features."""
    means, whitening = calibration.distances(features, np.zeros(len(features), int), 1)
    base = Outlook('abc', (WORDS,), EMBEDDING[None], means, whitening, np.zeros(9, np.float32), FLOOR)
    distance = [max(np.convolve([base.distance(f, EMBEDDING) for f in rows], np.ones(5) / 5, 'valid'))
                for rows in features]
    return replace(base, limit=-calibration.conformal_low(-np.array(distance), 0.02))
