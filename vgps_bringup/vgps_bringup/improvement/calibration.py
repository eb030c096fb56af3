"""Fit an outlook to judged episodes: a chance of success and two thresholds that hold on held-out ones.

Everything a threshold is set by is out of fold: an episode's values come from a critic that was not trained on it, its
chance from a logistic model that was not fitted to it. The thresholds are conformal: with n exchangeable successes, a
new one is below the k-th smallest of theirs with a chance of at most k / (n + 1).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vgps_bringup.improvement.episodes import Recorded
from vgps_bringup.improvement.scoring import Scored
from vgps_critic.outlook import Outlook, Probes, Tracker, auc

SHRINKAGE = 0.1    # of the features' covariance towards a ball
RIDGE = 1.0        # of the logistic weights, in episodes
PROBES = 24        # judged moments kept of successes, and as many of failures
PROBE_AT = 0.5     # part of max_steps at which they are taken: the outcome shows but is not over
STRANGE = 0.02     # share of known episodes that may ever count as out of the data


@dataclass(frozen=True)
class Track:
    """One episode followed step by step."""

    features: np.ndarray  # (T, len(FEATURES))
    distance: float       # largest mean distance over the window
    success: bool
    max_steps: int


def distances(features: Sequence[np.ndarray], instruction: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return means (I, D) and whitening (D, D) of features, each (T, D) of one episode, by its instruction's index."""
    rows, index = np.concatenate(features).astype(float), np.repeat(instruction, [len(f) for f in features])
    means = np.stack([rows[index == i].mean(0) if (index == i).any() else rows.mean(0) for i in range(count)])
    centred = rows - means[index]
    covariance = centred.T @ centred / len(centred)
    size = np.trace(covariance) / len(covariance)
    eigenvalues, axes = np.linalg.eigh((1 - SHRINKAGE) * covariance + SHRINKAGE * size * np.eye(len(covariance)))
    return means.astype(np.float32), (axes / np.sqrt(np.maximum(eigenvalues, 1e-12))).astype(np.float32)


def follow(outlook: Outlook, episode: Recorded, scored: Scored) -> Track:
    """Follow one episode as the robot would have: the runtime's own code, step by step."""
    tracker, rows, farthest = Tracker(outlook), [], 0.0
    tracker.reset(episode.max_steps)
    for step in range(len(episode)):
        mean, _ = tracker.look(outlook.distance(scored.features[step], scored.embedding))
        farthest = max(farthest, mean)
        rows.append(tracker.features(scored.done[step], scored.spread[step], scored.disagreement[step]))
    return Track(np.stack(rows), farthest, episode.success, episode.max_steps)


def fit_chance(tracks: Sequence[Track]) -> np.ndarray:
    """Return logistic weights (len(FEATURES) + 1,), each episode weighing the same, the constant last."""
    x = np.concatenate([track.features for track in tracks])
    y = np.repeat([float(track.success) for track in tracks], [len(track.features) for track in tracks])
    share = np.concatenate([np.full(len(track.features), 1 / len(track.features)) for track in tracks])
    mean, deviation = x.mean(0), x.std(0) + 1e-6
    design = np.concatenate([(x - mean) / deviation, np.ones((len(x), 1))], 1)
    weights, penalty = np.zeros(design.shape[1]), RIDGE * np.eye(design.shape[1])
    penalty[-1, -1] = 1e-6
    for _ in range(50):  # Newton; the penalty keeps it from running away where outcomes separate
        chance = 1 / (1 + np.exp(-np.clip(design @ weights, -30, 30)))
        gradient = design.T @ (share * (y - chance)) - penalty @ weights
        hessian = (design * (share * np.maximum(chance * (1 - chance), 1e-6))[:, None]).T @ design + penalty
        step = np.linalg.solve(hessian, gradient)
        weights += step / max(1.0, np.abs(step).max() / 2)
        if np.abs(step).max() < 1e-8:
            break
    weights[-1] -= (weights[:-1] * mean / deviation).sum()
    weights[:-1] /= deviation
    return weights.astype(np.float32)


def chances(weights: np.ndarray, track: Track) -> np.ndarray:
    """Return (T,) chances of success along an episode."""
    logits = np.concatenate([track.features, np.ones((len(track.features), 1))], 1) @ weights
    return 1 / (1 + np.exp(-np.clip(logits, -30, 30)))


def crossed(tracks: Sequence[Track], fold: np.ndarray) -> list[np.ndarray]:
    """Return the chances along each episode from a model fitted to the other folds."""
    result: list = [None] * len(tracks)
    for number in np.unique(fold):
        others = [track for track, f in zip(tracks, fold) if f != number]
        weights = fit_chance(others)
        for i in np.flatnonzero(fold == number):
            result[i] = chances(weights, tracks[i])
    return result


def conformal_low(scores: np.ndarray, share: float) -> float:
    """Return the threshold below which a new exchangeable score falls at most with chance `share`; -inf if none."""
    rank = math.floor(share * (len(scores) + 1))
    return float(np.sort(scores)[rank - 1]) if rank >= 1 else -math.inf


def at_half(series: Sequence[np.ndarray], tracks: Sequence[Track]) -> np.ndarray:
    """Return the chance at half of the most steps, or at the end of an episode that was shorter."""
    return np.array([s[min(track.max_steps // 2, len(s)) - 1] for s, track in zip(series, tracks)])


def calibrated(base: Outlook, tracks: Sequence[Track], fold: np.ndarray, false_alarms: float) -> tuple[Outlook, dict]:
    """Return an outlook with weights and thresholds, and what they are worth out of fold."""
    success = np.array([track.success for track in tracks])
    series = crossed(tracks, fold)
    half = at_half(series, tracks)
    lowest = np.array([s.min() for s in series])
    threshold = max(0.0, conformal_low(lowest[success], false_alarms))
    limit = -conformal_low(-np.array([track.distance for track in tracks]), STRANGE)
    if not math.isfinite(limit):  # too few for a quantile: a tenth beyond the farthest seen
        limit = 1.1 * max(track.distance for track in tracks)
    alarms = lowest < threshold
    rate = success.mean()
    facts = {'auroc_at_half': auc(half[success], half[~success]), 'brier': float(((half - success)**2).mean()),
             'brier_of_the_rate': float(rate * (1 - rate)),
             'calibration_error': calibration_error(half, success), 'caught': float(alarms[~success].mean()),
             'false_alarms': float(alarms[success].mean()), 'threshold': threshold, 'limit': limit}
    outlook = Outlook(**{**vars(base), 'weights': fit_chance(tracks), 'threshold': threshold, 'limit': limit,
                         'false_alarms': false_alarms, 'facts': facts})
    return outlook, facts


def calibration_error(chance: np.ndarray, success: np.ndarray) -> float:
    """Return the mean difference of chance and rate over five bins with equally many episodes."""
    order = np.array_split(np.argsort(chance), 5)
    return float(sum(abs(chance[part].mean() - success[part].mean()) * len(part) for part in order if len(part))
                 / len(chance))


def probes(episodes: Sequence[Recorded], instructions: Sequence[str]) -> Probes:
    """Return judged moments of both outcomes, spread over the episodes."""
    picked = []
    for success in (True, False):
        of_outcome = [e for e in episodes if e.success == success and not e.corrected.any()]
        picked += [of_outcome[i] for i in np.linspace(0, len(of_outcome) - 1, min(PROBES, len(of_outcome))).astype(int)]
    at = [min(int(PROBE_AT * e.max_steps), len(e) - 1) for e in picked]
    return Probes(np.stack([e.frames[i] for e, i in zip(picked, at)]),
                  np.stack([e.actions[i] for e, i in zip(picked, at)]),
                  np.array([list(instructions).index(e.instruction) for e in picked], np.int32),
                  np.array([e.success for e in picked]))
