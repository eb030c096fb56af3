"""May this candidate steer? Only if held-out episodes show it, and the episodes are what they say they are.

Two kinds of question, each answered with a number, its interval and a named reason:

- about the recordings (`check_data`): enough of both outcomes, a gripper that follows its commands, a scene that the
  start critic knows;
- about the candidate (`judge`), on episodes that it was not trained on. *Outcomes*: do its values tell successes from
  failures before they are over? *Labels*: at the end everybody can see the outcome; values that cannot, disagree with
  the labels. *Actions*: which of the K candidates was sent is a draw with known chances, a coin toss that neither scene
  nor policy decides, so episodes whose draws the critic likes better than the average draw are a randomised trial of
  its taste. *Action AUC*: an action is right at its moment. Does the critic place what was done in a success higher
  among the same episode's actions at other moments than what was done in a failure? What a frame is worth plays no
  part in that. *Calibration*: of ten episodes given a chance of 70 %, seven succeed. *Choices*: it has an opinion.

Over twelve critics of known quality the action AUC foretold best how well one steers, and outcomes and labels hardly;
over seven others outcomes did best. Each finds critics that the others let pass (training/README.md, Validation).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from vgps_bringup.improvement.episodes import Recorded
from vgps_bringup.improvement.scoring import Scored
from vgps_critic.outlook import WINDOW, Outlook, auc

BOOTSTRAPS = 2000
LAST = 3  # steps in which the outcome shows


@dataclass(frozen=True)
class GateConfig:
    """What is asked of a candidate and its data."""

    episodes: int = 20             # judged, at least
    each: int = 8                  # successes and failures each, at least
    labels: float = 0.75           # AUC of the values in the last steps, lower end of its interval
    outcomes: float = 0.55         # AUC of the values at half time, lower end of its interval
    action_auc: float = 0.5        # AUC of what was done among the actions of other moments, lower end of its interval
    calibration: float = 0.15      # mean difference of chance and success rate, at most
    spread: float = 0.02           # median max - min over candidates, steps of discounted return, at least
    gripper: float = 0.3           # correlation of commanded and measured openness, at least
    strangers: float = 0.25        # share of episodes that may be out of the start critic's data
    confidence: float = 0.9        # of the intervals, two-sided: 5 % on the side that matters


@dataclass(frozen=True)
class Interval:
    """A metric with its bootstrap interval over episodes."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f'{self.value:.2f} [{self.low:.2f}, {self.high:.2f}]'


@dataclass
class Verdict:
    """What the gate says."""

    reasons: list[str] = field(default_factory=list)            # why it is refused; empty: accepted
    remarks: list[str] = field(default_factory=list)            # what a reader should know
    metrics: dict[str, Interval | float] = field(default_factory=dict)

    @property
    def accepted(self) -> bool:
        """Tell whether nothing speaks against the candidate."""
        return not self.reasons


def check_data(episodes: Sequence[Recorded], config: GateConfig = GateConfig(), known: Outlook | None = None,
               seen: Sequence[Scored] | None = None) -> Verdict:
    """Judge recordings before anything is trained on them.

    Args:
        episodes: all of them.
        config: thresholds.
        known: outlook of the critic they start from, if it has one.
        seen: the episodes under that critic, for ``known``.

    """
    verdict, successes = Verdict(), sum(e.success for e in episodes)
    failures = len(episodes) - successes
    verdict.metrics.update(episodes=len(episodes), successes=successes)
    if len(episodes) < config.episodes:
        verdict.reasons.append(f'TOO_FEW_EPISODES: {len(episodes)} judged episodes, at least {config.episodes} are '
                               'needed')
    elif min(successes, failures) < config.each:
        verdict.reasons.append(f'ONE_OUTCOME: {successes} successes and {failures} failures, at least {config.each} of '
                               'each are needed to tell them apart')
    _check_gripper(episodes, config, verdict)
    if known is not None and seen is not None and math.isfinite(known.limit):
        strange = np.mean([_farthest(known, s) > known.limit for s in seen])
        verdict.metrics['out_of_data'] = float(strange)
        if strange > config.strangers:
            typical = np.median([_farthest(known, s) for s in seen])
            verdict.reasons.append(
                f'OTHER_SCENE: in {strange:.0%} of the episodes the frames are not like those of the critic in use '
                f'(median distance {typical:.2f}, limit {known.limit:.2f}): another camera or pose, table, light or '
                'robot; --new-scene trains on it all the same')
    return verdict


def _check_gripper(episodes: Sequence[Recorded], config: GateConfig, verdict: Verdict) -> None:
    told = [(e.actions[:-1, 6], e.states[1:, 6]) for e in episodes if e.states is not None and len(e) > 2]
    if not told:
        verdict.remarks.append('no robot states were recorded: whether the gripper follows its commands was not '
                               'checked')
        return
    commanded, measured = (np.concatenate(part) for part in zip(*told))
    if min(commanded.std(), measured.std()) < 1e-3:
        verdict.remarks.append('the gripper never moved: whether it follows its commands was not checked')
        return
    correlation = float(np.corrcoef(commanded, measured)[0, 1])
    verdict.metrics['gripper_follows'] = correlation
    if correlation < config.gripper:
        sign = 'the wrong way round (0 is closed, 1 open)' if correlation < -config.gripper else 'unrelated'
        verdict.reasons.append(f'GRIPPER: commanded and measured openness are {sign}: correlation {correlation:.2f}, '
                               f'at least {config.gripper:.2f} is needed')


def _farthest(outlook: Outlook, scored: Scored) -> float:
    distance = np.array([outlook.distance(f, scored.embedding) for f in scored.features])
    window = min(WINDOW, len(distance))
    return float(np.convolve(distance, np.ones(window) / window, 'valid').max())


def judge(episodes: Sequence[Recorded], candidate: Sequence[Scored], in_use: Sequence[Scored] | None,
          calibration_error: float, config: GateConfig = GateConfig()) -> Verdict:
    """Judge a candidate by held-out episodes.

    Args:
        episodes: judged, not corrected by an operator.
        candidate: the same under critics that were not trained on them.
        in_use: the same under the critic that steers now, None where none does.
        calibration_error: of its chances of success, out of fold.
        config: thresholds.

    """
    verdict, success = Verdict(), np.array([e.success for e in episodes])
    draws = _draws(success, config)
    questions = {'labels': last_value, 'outcomes': value_at_half, 'actions': taste, 'action_auc': place}
    for name, measure in questions.items():
        mine = np.array([measure(e, s) for e, s in zip(episodes, candidate)])
        interval, samples = _auc_interval(mine, success, draws, config)
        verdict.metrics[name] = interval
        if in_use is not None and np.isfinite(mine).all():
            theirs = np.array([measure(e, s) for e, s in zip(episodes, in_use)])
            before, theirs_samples = _auc_interval(theirs, success, draws, config)
            low, high = np.quantile(samples - theirs_samples, _ends(config))
            verdict.metrics[f'{name}_in_use'] = before
            verdict.metrics[f'{name}_difference'] = Interval(interval.value - before.value, float(low), float(high))
            if high < 0 and name != 'labels':
                verdict.reasons.append(f'WORSE_{name.upper()}: AUC {interval} against {before} of the critic in use, '
                                       f'difference {interval.value - before.value:+.2f} [{low:+.2f}, {high:+.2f}]')
    _ask(verdict, config, episodes, candidate, in_use, calibration_error)
    return verdict


def _ask(verdict: Verdict, config: GateConfig, episodes, candidate, in_use, calibration_error: float) -> None:
    metrics = verdict.metrics
    if not metrics['labels'].low >= config.labels:
        verdict.reasons.append(f'LABELS: at the end of an episode values tell success from failure with AUC '
                               f'{metrics["labels"]}, the lower bound must reach {config.labels:.2f}: wrong labels, or '
                               'frames that do not show the outcome')
    elif not metrics['outcomes'].low >= config.outcomes:
        verdict.reasons.append(f'OUTCOMES: at half time values tell success from failure with AUC '
                               f'{metrics["outcomes"]}, the lower bound must reach {config.outcomes:.2f}')
    if math.isnan(metrics['actions'].value):
        verdict.remarks.append('ACTIONS not tested: one candidate per step was recorded; with selection:=first and '
                               'num_candidates above 1 plain episodes test it')
    elif metrics['actions'].high < 0.5 or metrics['actions'].value < 0.5:
        verdict.reasons.append(f'ACTIONS: episodes whose executed actions it prefers do not succeed more often: AUC '
                               f'{metrics["actions"]}')
    if not metrics['action_auc'].low >= config.action_auc:
        verdict.reasons.append('ACTION_AUC: among the actions of an episode, what was done in successes does not stand '
                               f'clearly higher than what was done in failures: AUC {metrics["action_auc"]}, the lower '
                               f'bound must reach {config.action_auc:.2f}')
    metrics['calibration_error'] = calibration_error
    if not calibration_error <= config.calibration:
        verdict.reasons.append(f'CALIBRATION: chances of success are off by {calibration_error:.2f}, at most '
                               f'{config.calibration:.2f} is allowed')
    several = [s for s in candidate if s.candidates.shape[1] > 1]
    if several:
        spread = metrics['spread'] = float(np.median(np.concatenate([s.spread for s in several])))
        if spread < config.spread:
            verdict.reasons.append(f'FLAT: candidates differ in value by {spread:.3g} (median), at least '
                                   f'{config.spread:.3g} is needed to choose')
        if in_use is not None:
            other = [np.nanargmax(a.candidates, 1) != np.nanargmax(b.candidates, 1)
                     for a, b in zip(candidate, in_use) if a.candidates.shape[1] > 1]
            metrics['choices_differ'] = float(np.concatenate(other).mean())


def last_value(episode: Recorded, scored: Scored) -> float:
    """Return the mean value of what was done in the last steps."""
    return float(scored.done[-LAST:].mean())


def value_at_half(episode: Recorded, scored: Scored) -> float:
    """Return the mean value over a second before half of the most steps (or before the end)."""
    stop = min(episode.max_steps // 2, len(episode))
    return float(scored.done[max(0, stop - WINDOW):stop].mean())


def taste(episode: Recorded, scored: Scored) -> float:
    """Return how much the critic likes what was drawn above the average draw, in standard deviations; NaN: no draws."""
    rows = np.flatnonzero((episode.chosen >= 0) & (np.isfinite(episode.chances).sum(1) > 1) & ~episode.corrected)
    if not len(rows):
        return math.nan
    chances, values = np.nan_to_num(episode.chances[rows]), np.nan_to_num(scored.candidates[rows])
    expected = (chances * values).sum(1)
    variance = (chances * (values - expected[:, None])**2).sum(1)
    drawn = scored.candidates[rows, episode.chosen[rows]]
    return float((drawn - expected).sum() / math.sqrt(max(variance.sum(), 1e-12)))


def place(episode: Recorded, scored: Scored) -> float:
    """Return how high what was done stands among the episode's actions at other moments: minus the mean rank."""
    return -float(scored.rank.mean())


def _ends(config: GateConfig) -> tuple[float, float]:
    return (1 - config.confidence) / 2, (1 + config.confidence) / 2


def _draws(success: np.ndarray, config: GateConfig) -> tuple[np.ndarray, np.ndarray]:
    """Return how often each success and each failure is drawn in every bootstrap."""
    rng = np.random.default_rng(0)
    return tuple(rng.multinomial(n, np.full(n, 1 / n), BOOTSTRAPS).astype(float) if n else np.zeros((BOOTSTRAPS, 0))
                 for n in (int(success.sum()), int((~success).sum())))


def _auc_interval(scores: np.ndarray, success: np.ndarray, draws, config: GateConfig) -> tuple[Interval, np.ndarray]:
    good, bad = scores[success], scores[~success]
    if not len(good) or not len(bad) or not np.isfinite(scores).all():
        return Interval(math.nan, math.nan, math.nan), np.full(BOOTSTRAPS, math.nan)
    wins = (good[:, None] > bad) + 0.5 * (good[:, None] == bad)
    samples = ((draws[0] @ wins) * draws[1]).sum(1) / (len(good) * len(bad))
    return Interval(auc(good, bad), *map(float, np.quantile(samples, _ends(config)))), samples
