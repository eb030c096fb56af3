"""One decision from values, or from their absence: what there is to say about a step, and which candidate is sent.

Pure functions of scores, candidates, configuration and seed; `steering.Steerer` adds what depends on the steps before.
"""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from vgps_critic.action_space import ACTION_DIM
from vgps_critic.selection import Selection, select_each
from vgps_msgs_py.vocabulary import SteeringReason as Reason, Verdict

MAX_CANDIDATES = 1000  # K of one step, policy_node's limit too: more would keep the critic busy for seconds
_SELECTION_STREAM = int.from_bytes(b'select', 'big')  # keeps these seeds apart from the policy's of the same step


# Candidates in doubt are never sent, whatever the fallback: other failures doubt the critic, these doubt the policy
ALWAYS_HOLD = frozenset({Reason.CANDIDATES_INVALID, Reason.ACTION_SPACE_MISMATCH})


@dataclass(frozen=True)
class SteeringConfig:
    """How to choose and when not to trust the values."""

    beta: float = field(default=0.0, metadata={
        'description': 'temperature of the softmax over values, in steps of discounted return; 0 takes the best '
                       'candidate (paper: 0 on the robot; 0, 0.1 and 1 in simulation)', 'range': (0.0, 10.0)})
    selection: str = field(default='value', metadata={
        'description': 'how a candidate is chosen. value: by the critic; first: the plain policy; random: uniformly '
                       "(the paper's control)",
        'choices': ('value', 'first', 'random')})
    deadline_ms: float = field(default=500.0, metadata={
        'description': 'longest time from the arrival of the candidates to the decision [ms]; later values are not '
                       'used',
        'range': (1.0, 10000.0)})
    min_spread: float = field(default=0.0, metadata={
        'description': 'smallest max - min of the values over candidates, in steps of discounted return; with less, '
                       'the critic has no preference and does not choose; 0: off', 'range': (0.0, 50.0)})
    max_disagreement: float = field(default=0.0, metadata={
        'description': 'largest mean difference between the members, in steps of discounted return; with more, the '
                       'critic does not choose; 0: off',
        'range': (0.0, 50.0)})
    fallback: str = field(default='hold', metadata={
        'description': 'what happens when the critic did not choose. hold: nothing moves for any reason but STEERED, '
                       'CONTROL_FIRST and CONTROL_RANDOM; first: the plain policy acts, even if a frame or values are '
                       'missing, except on CANDIDATES_INVALID and ACTION_SPACE_MISMATCH',
        'choices': ('hold', 'first')})
    switch_off: str = field(default='plain', metadata={
        'description': 'what happens when the outlook says that the values should not be trusted (OUT_OF_DATA, '
                       'INSTRUCTION_UNFAMILIAR, CRITIC_HARMFUL). plain: the plain policy acts; hold: nothing moves; '
                       'never: the critic goes on choosing', 'choices': ('plain', 'hold', 'never')})
    on_alarm: str = field(default='nothing', metadata={
        'description': 'what happens when the outlook predicts failure. nothing: it is reported; hold: nothing moves '
                       'until the operator judges, corrects or changes this; retry: the gripper opens, rises and goes '
                       'back to where the episode began, and the policy tries again',
        'choices': ('nothing', 'hold', 'retry')})
    after_correction: str = field(default='continue', metadata={
        'description': "what happens when the operator's corrections end. continue: the critic chooses again; hold: "
                       'nothing moves until the next correction or a verdict', 'choices': ('continue', 'hold')})
    max_retries: int = field(default=1, metadata={
        'description': 'most retries per episode; later alarms are only reported', 'range': (0, 10)})


@dataclass(frozen=True)
class Failure:
    """Why a frame could not be encoded or scored in time."""

    reason: Reason
    message: str


@dataclass(frozen=True)
class Scores:
    """Finite values of all candidates; what follows from them alone is computed once, whatever is chosen."""

    q_values: np.ndarray  # (E, K) float32
    milliseconds: dict[str, float]  # per stage: embed, resize, encode, score
    distance: float = math.nan  # of the frame's features from the critic's data, 1 is typical; NaN without an outlook
    familiarity: float = math.nan  # cosine of the instruction with the nearest it was trained on; likewise

    @cached_property
    def spread(self) -> float:
        """Difference of the best and the worst candidate, each valued by the ensemble minimum."""
        return float(np.ptp(self.q_values.min(axis=0)))

    @cached_property
    def disagreement(self) -> float:
        """Mean over candidates of the difference between the largest and the smallest member."""
        return float(np.ptp(self.q_values, axis=0).mean())


@dataclass(frozen=True)
class Decision:
    """Which candidate goes to the robot and what the critic thought of all of them; mirrors SteeringDecision.msg."""

    num_candidates: int  # K
    num_members: int  # E, 0 when nothing was scored
    q_values: np.ndarray  # (E, K) float32, or (0, 0) when nothing was scored
    probabilities: np.ndarray  # (K,) float32 softmax(min over members / beta), or (0,)
    chosen: int  # index, -1 for hold
    action: np.ndarray  # (7,) float32 physical, first of the chosen chunk; zeros for hold
    beta: float
    seed: int
    verdict: Verdict
    reason: Reason
    message: str  # the reason in words, with the numbers
    spread: float  # max - min over candidates of the ensemble minimum
    disagreement: float  # mean over candidates of max - min over members
    effective_sample_size: float  # 1 / sum p^2, 1..K
    value: float  # ensemble minimum of the chosen candidate, NaN when nothing was scored
    value_trend: float  # slope of value over the last steps, per step, NaN before the second
    stages: dict[str, float]  # milliseconds
    success_chance: float = math.nan  # 0..1 that this episode will succeed, NaN without an outlook
    chance_threshold: float = math.nan  # below it the outlook is an alarm
    alarm: bool = False
    feature_distance: float = math.nan  # of the last frames from the critic's data, 1 is typical
    retries: int = 0  # retreats so far in this episode


def step_seed(episode_seed: int, step: int) -> int:
    """Return the uint64 seed of the selection at one step, a fixed function of the episode's seed."""
    sequence = np.random.SeedSequence([episode_seed, step, _SELECTION_STREAM])
    return int(sequence.generate_state(1, np.uint64)[0])


def first_actions(actions: np.ndarray) -> np.ndarray:
    """Return the (K, 7) first actions of K chunks (K, H, 7); `ValueError` for another shape, NaN, inf or too many."""
    actions = np.asarray(actions, np.float32)
    if actions.ndim == 3 and len(actions) > MAX_CANDIDATES:
        raise ValueError(f'{len(actions)} candidates, at most {MAX_CANDIDATES} are scored')
    if actions.ndim != 3 or actions.shape[2] != ACTION_DIM or 0 in actions.shape:
        raise ValueError(f'candidates have shape {actions.shape}, expected (K, H, {ACTION_DIM}) with K, H >= 1')
    finite = np.isfinite(actions).all(axis=(1, 2))
    if not finite.all():
        bad = np.flatnonzero(~finite)
        raise ValueError(f'{len(bad)} of {len(actions)} candidates hold NaN or inf, the first is {bad[0]}')
    return actions[:, 0]


def choose_each(scores: Scores | Failure, actions: np.ndarray, configs: Sequence[SteeringConfig], *,
                seed: int, doubt: Failure | None = None) -> list[Decision]:
    """Return the decision under each of several configurations, without a trend: that needs the steps before.

    What does not depend on the configuration is computed once: judging a recording under many settings costs little
    more than under one. Arguments as in `Steerer.choose`; `doubt`: why the values are recorded and not followed.
    """
    start = time.perf_counter()
    count, firsts = len(np.atleast_1d(actions)), None
    try:
        firsts = first_actions(actions)
    except ValueError as e:
        scores = Failure(Reason.CANDIDATES_INVALID, str(e))
    selections = [None] * len(configs)
    if isinstance(scores, Scores):
        selections = select_each(scores.q_values, [config.beta for config in configs], np.random.default_rng(seed))
    decisions = []
    for config, selection in zip(configs, selections):
        reason, message, chosen = _judge(config, scores, selection, count, seed, doubt)
        if chosen is None:
            chosen, message = _fall_back(config, reason, message)
        decisions.append(Decision(
            num_candidates=count, chosen=chosen,
            action=np.zeros(ACTION_DIM, np.float32) if chosen < 0 else firsts[chosen].copy(), beta=config.beta,
            seed=seed, verdict=_verdict(reason, chosen), reason=reason, message=message, value_trend=math.nan,
            **_values(scores, selection, chosen, start)))
    return decisions


def _fall_back(config: SteeringConfig, reason: Reason, message: str) -> tuple[int, str]:
    """Return what is sent when the critic did not choose, and say so."""
    if reason in ALWAYS_HOLD or config.fallback == 'hold':
        return -1, f'{message}; holding'
    return 0, f'{message}; sending the first candidate'


def _verdict(reason: Reason, chosen: int) -> Verdict:
    if chosen < 0:
        return Verdict.HOLD
    return Verdict.CHOSEN if reason in (Reason.STEERED, Reason.CONTROL_RANDOM) else Verdict.FIRST_CANDIDATE


def _values(scores: Scores | Failure, selection: Selection | None, chosen: int, start: float) -> dict:
    """Return what a decision says of the values, and the time since `start`; NaN and empty where there are none."""
    if selection is None:
        values, stages = {'q_values': np.empty((0, 0), np.float32), 'probabilities': np.empty(0, np.float32)}, {}
        values |= dict.fromkeys(('spread', 'disagreement', 'effective_sample_size', 'value'), math.nan)
    else:
        values, stages = {
            'q_values': scores.q_values, 'probabilities': selection.probabilities.astype(np.float32),
            'spread': scores.spread, 'disagreement': scores.disagreement,
            'effective_sample_size': float(1 / (selection.probabilities @ selection.probabilities)),
            'value': float(selection.values[chosen]) if chosen >= 0 else math.nan}, scores.milliseconds
    return values | {'num_members': len(values['q_values']),
                     'stages': {**stages, 'select': 1e3 * (time.perf_counter() - start)}}


def _judge(config: SteeringConfig, scores: Scores | Failure, selection: Selection | None, count: int,
           seed: int, doubt: Failure | None) -> tuple[Reason, str, int | None]:
    """Return reason, message and the chosen index, None for the fallback."""
    invalid = isinstance(scores, Failure) and scores.reason is Reason.CANDIDATES_INVALID
    if config.selection != 'value' and not invalid:  # the controls do not depend on the critic
        absent = f'; no values: {scores.message}' if isinstance(scores, Failure) else ''
        if config.selection == 'first':
            return Reason.CONTROL_FIRST, f'steering is off, the plain policy{absent}', 0
        chosen = int(np.random.default_rng(seed).integers(count))
        return Reason.CONTROL_RANDOM, f'the random control, uniform choice{absent}', chosen
    if isinstance(scores, Failure):
        return scores.reason, scores.message, None
    if doubt is not None and config.switch_off == 'hold':
        return doubt.reason, f'{doubt.message}; holding', -1
    if doubt is not None:
        return doubt.reason, f'{doubt.message}; the plain policy acts', 0
    spread, disagreement = scores.spread, scores.disagreement
    # one candidate has no spread, and there is nothing to choose
    if count > 1 and spread < config.min_spread:
        return Reason.FLAT_VALUES, f'values differ by {spread:.4g}, min_spread is {config.min_spread:.4g}', None
    if 0 < config.max_disagreement < disagreement:
        return Reason.MEMBERS_DISAGREE, (
            f'members differ by {disagreement:.4g}, max_disagreement is {config.max_disagreement:.4g}'), None
    return Reason.STEERED, f'values differ by {spread:.4g}, members by {disagreement:.4g}', selection.index
