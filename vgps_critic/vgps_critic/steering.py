"""Decide which candidate goes to the robot: the pure core of `critic_node` and of every offline re-judgement.

Both run this code, so the same frame, candidates, beta and seed give the same choice. Whatever goes wrong becomes a
named reason and a fallback; nothing here raises for bad input of a running episode.
"""

import contextlib
import math
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from vgps_critic.action_space import ACTION_DIM, ActionSpaceError
from vgps_critic.critic import Critic, EncodedObservation
from vgps_critic.selection import Selection, select_each
from vgps_critic.text import UnknownInstructionError
from vgps_msgs_py.vocabulary import SteeringReason as Reason
from vgps_msgs_py.vocabulary import Verdict

_SELECTION_STREAM = int.from_bytes(b'select', 'big')  # keeps these seeds apart from the policy's of the same step
MAX_CANDIDATES = 1000  # K of one step, policy_node's limit too: more would keep the critic busy for seconds
_TREND_STEPS = 10  # values behind value_trend: two seconds at 5 Hz


# Candidates in doubt are never sent, whatever the fallback: other failures doubt the critic, these doubt the policy
ALWAYS_HOLD = frozenset({Reason.CANDIDATES_INVALID, Reason.ACTION_SPACE_MISMATCH})


@dataclass(frozen=True)
class SteeringConfig:
    """How to choose and when not to trust the values."""

    beta: float = field(default=0.0, metadata={
        'description': 'temperature of the softmax over values, in steps of discounted return; 0 takes the best '
                       '(paper: 0 on the robot; 0, 0.1 and 1 in simulation)', 'range': (0.0, 10.0)})
    selection: str = field(default='value', metadata={
        'description': 'value: by the critic; first: the plain policy; random: uniform, the control of the paper',
        'choices': ('value', 'first', 'random')})
    deadline_ms: float = field(default=500.0, metadata={
        'description': 'ms from the arrival of the candidates to the decision; later values are not used',
        'range': (1.0, 10000.0)})
    min_spread: float = field(default=0.0, metadata={
        'description': 'smallest max - min of the values over candidates, in steps of discounted return; below it the '
                       'critic has no opinion; 0: off', 'range': (0.0, 50.0)})
    max_disagreement: float = field(default=0.0, metadata={
        'description': 'largest mean difference between the members, in steps of discounted return; 0: off',
        'range': (0.0, 50.0)})
    fallback: str = field(default='hold', metadata={
        'description': 'when the critic did not choose. hold: nothing moves for any reason but STEERED, CONTROL_FIRST '
                       'and CONTROL_RANDOM; first: the plain policy moves the arm, also where nothing could be judged '
                       '(a frame or values missing), but for CANDIDATES_INVALID and ACTION_SPACE_MISMATCH',
        'choices': ('hold', 'first')})


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


class Steerer:
    """Encode, score, select, and fall back by name. One per critic; `reset` at the start of every episode."""

    def __init__(self, critic: Critic, config: SteeringConfig = SteeringConfig()):
        self.critic = critic
        self.config = config  # may be replaced between steps
        self._values: deque[float] = deque(maxlen=_TREND_STEPS)

    def reset(self) -> None:
        """Forget the last episode's values."""
        self._values.clear()

    def embed(self, instruction: str) -> None:
        """Embed an instruction before its first frame; what fails here is named when a frame needs it."""
        with contextlib.suppress(Exception):
            self.critic.instructions.encode(instruction)

    def encode(self, image: np.ndarray, instruction: str | np.ndarray) -> EncodedObservation | Failure:
        """Encode a frame (H, W, 3) uint8 RGB, or say by name why that is impossible."""
        try:
            return self.critic.encode(image, instruction)
        except UnknownInstructionError as e:
            return Failure(Reason.INSTRUCTION_UNKNOWN, str(e))
        except Exception as e:  # whatever the critic raises, the arm must get an answer
            return Failure(Reason.CRITIC_FAILED, f'encoding raised {type(e).__name__}: {e}')

    def score(self, encoded: EncodedObservation | Failure | None, actions: np.ndarray) -> Scores | Failure:
        """Return the values of candidates (K, H, 7) physical, or why there are none; keeps no state, so any thread may.

        Args:
            encoded: of the very frame the policy looked at, or why there is none (None: frame missing).
            actions: only the first action of each chunk is scored (reference behaviour 5).

        """
        start = time.perf_counter()
        try:
            firsts = first_actions(actions)
        except ValueError as e:
            return Failure(Reason.CANDIDATES_INVALID, str(e))
        if encoded is None:
            return Failure(Reason.FRAME_MISSING, 'no frame was encoded for these candidates')
        if isinstance(encoded, Failure):
            return encoded
        try:
            self.critic.action_space.check(firsts)
            q_values = self.critic.score(encoded, firsts)
        except ActionSpaceError as e:
            return Failure(Reason.ACTION_SPACE_MISMATCH, str(e))
        except Exception as e:  # whatever the critic raises, the arm must get an answer
            return Failure(Reason.CRITIC_FAILED, f'scoring raised {type(e).__name__}: {e}')
        bad = int((~np.isfinite(q_values)).sum())
        if bad:
            return Failure(Reason.VALUES_NOT_FINITE, f'{bad} of {q_values.size} Q-values are NaN or inf')
        return Scores(q_values, {**encoded.milliseconds, 'score': 1e3 * (time.perf_counter() - start)})

    def decide(self, encoded: EncodedObservation | Failure | None, actions: np.ndarray, *, seed: int) -> Decision:
        """Score and choose in one go; arguments as in `score` and `choose`."""
        return self.choose(self.score(encoded, actions), actions, seed=seed)

    def choose(self, scores: Scores | Failure, actions: np.ndarray, *, seed: int) -> Decision:
        """Turn values, or their absence, into a decision.

        Args:
            scores: from `score`.
            actions: the same candidates (K, H, 7).
            seed: of the selection, see `step_seed`.

        """
        decision, = choose_each(scores, actions, (self.config,), seed=seed)
        self._values.append(decision.value)
        return replace(decision, value_trend=self._trend())

    def _trend(self) -> float:
        values = np.array(self._values)
        steps = np.flatnonzero(np.isfinite(values))
        if len(steps) < 2:
            return math.nan
        centred = steps - steps.mean()
        return float(centred @ values[steps] / (centred @ centred))  # least squares; polyfit takes 40 times as long

def choose_each(scores: Scores | Failure, actions: np.ndarray, configs: Sequence[SteeringConfig], *,
                seed: int) -> list[Decision]:
    """Return the decision under each of several configurations, without a trend: that needs the steps before.

    What does not depend on the configuration is computed once: judging a recording under many settings costs little
    more than under one. Arguments as in `Steerer.choose`.
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
        reason, message, chosen = _judge(config, scores, selection, count, seed)
        if chosen is None and (reason in ALWAYS_HOLD or config.fallback == 'hold'):
            chosen, message = -1, f'{message}; holding'
        elif chosen is None:
            chosen, message = 0, f'{message}; sending the first candidate'
        if chosen < 0:
            verdict = Verdict.HOLD
        else:
            verdict = Verdict.CHOSEN if reason in (Reason.STEERED, Reason.CONTROL_RANDOM) else Verdict.FIRST_CANDIDATE
        if selection is None:
            q_values, probabilities, stages, value = np.empty((0, 0), np.float32), np.empty(0), {}, math.nan
            spread = disagreement = effective_sample_size = math.nan
        else:
            q_values, probabilities, stages = scores.q_values, selection.probabilities, scores.milliseconds
            spread, disagreement = scores.spread, scores.disagreement
            effective_sample_size = float(1 / (probabilities @ probabilities))
            value = float(selection.values[chosen]) if chosen >= 0 else math.nan
        decisions.append(Decision(
            num_candidates=count, num_members=len(q_values), q_values=q_values,
            probabilities=probabilities.astype(np.float32), chosen=chosen,
            action=np.zeros(ACTION_DIM, np.float32) if chosen < 0 else firsts[chosen].copy(),
            beta=config.beta, seed=seed, verdict=verdict, reason=reason, message=message, spread=spread,
            disagreement=disagreement, effective_sample_size=effective_sample_size, value=value,
            value_trend=math.nan, stages={**stages, 'select': 1e3 * (time.perf_counter() - start)}))
    return decisions


def _judge(config: SteeringConfig, scores: Scores | Failure, selection: Selection | None, count: int,
           seed: int) -> tuple[Reason, str, int | None]:
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
    spread, disagreement = scores.spread, scores.disagreement
    # one candidate has no spread, and there is nothing to choose
    if count > 1 and spread < config.min_spread:
        return Reason.FLAT_VALUES, f'values differ by {spread:.4g}, min_spread is {config.min_spread:.4g}', None
    if 0 < config.max_disagreement < disagreement:
        return Reason.MEMBERS_DISAGREE, (
            f'members differ by {disagreement:.4g}, max_disagreement is {config.max_disagreement:.4g}'), None
    return Reason.STEERED, f'values differ by {spread:.4g}, members by {disagreement:.4g}', selection.index
