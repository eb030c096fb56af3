"""Score recorded steps again: other critics, other K, other beta, all settings in one pass over the bag.

Each frame is encoded once per critic and all its candidates are scored once; every setting is then a selection among
known values, made by the very code the live node runs (``vgps_critic.steering.choose_each``).
"""

import os
import time
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import product
from typing import NamedTuple, TypeVar

import numpy as np
import torch
import yaml

from vgps_critic.steering import Failure, Scores, Steerer, SteeringConfig, choose_each, step_seed
from vgps_msgs_py import stamps
from vgps_msgs_py.bags.reader import Bag, EpisodeRecord, Step
from vgps_msgs_py.bags.storage import BagError
from vgps_msgs_py.robot_state import measured_state
from vgps_msgs_py.vocabulary import SteeringReason, words
from vgps_policy_bridge.errors import PolicyError
from vgps_policy_bridge.policy import Observation, check_widowx

# Decisions that a clock, an outlook or an operator made: the same frame and candidates need not repeat them.
OTHERS_REASONS = tuple(words(SteeringReason, reason) for reason in (
    SteeringReason.FRAME_MISSING, SteeringReason.DEADLINE_MISSED, SteeringReason.OUT_OF_DATA,
    SteeringReason.CRITIC_HARMFUL, SteeringReason.INSTRUCTION_UNFAMILIAR, SteeringReason.OUTLOOK_ALARM,
    SteeringReason.OPERATOR_CORRECTED))

Item, Result = TypeVar('Item'), TypeVar('Result')


def ahead(work: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """Yield ``work(item)`` in order while the next items are worked on, one on each core.

    One frame a core beats one frame on all cores: threads of a small network mostly wait for each other. Frames are not
    batched: each is computed as the live node computes it, up to the order in which threads add.
    """
    cores = len(os.sched_getaffinity(0))
    with ThreadPoolExecutor(cores, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        waiting = deque()
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) > 2 * cores:  # frames are large: only a few in memory
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


@dataclass(frozen=True)
class Scored:
    """What one critic says of one step, before any choice."""

    values: Scores | Failure
    encode_ms: float
    score_ms: float

    def first(self, k: int) -> 'Scored':
        """Return the same of the first k candidates alone."""
        if isinstance(self.values, Failure):
            return self
        return replace(self, values=Scores(self.values.q_values[:, :k], self.values.milliseconds))


class Judgement(NamedTuple):
    """What one setting says of one step; one row of the table. A tuple: there are many, and they cost the least."""

    bag: str
    episode_id: str
    step: int
    stamp: int                      # of the frame [ns]
    critic: str                     # name of the checkpoint as given
    critic_hash: str
    k: int                          # candidates considered: the first k that were drawn
    beta: float                     # temperature of the selection
    as_recorded: bool               # critic, K and beta are those of the recording
    chosen: int                     # -1 for hold
    executed: int                   # what was sent to the robot then; -1 for hold or unknown
    differs: bool
    value: float                    # of the choice: ensemble minimum, discounted return
    executed_value: float           # of what was executed, by this critic; NaN if it is not among the first k
    regret: float                   # best value among the first k minus executed_value
    spread: float
    disagreement: float
    effective_sample_size: float
    reason: str
    recorded_reason: str
    encode_ms: float
    score_ms: float


@dataclass(frozen=True)
class JudgedStep:
    """A step with its frame and all its judgements."""

    step: Step
    image: np.ndarray | None        # (H, W, 3) uint8 RGB, None where the frame was not recorded
    judgements: list[Judgement]


def recorded_steering(bag: Bag) -> SteeringConfig:
    """Return the thresholds and fallback the live critic ran with; where the bag does not say, it sends something."""
    names = ('min_spread', 'max_disagreement', 'fallback', 'selection')
    for message in bag.configurations.values():
        if 'min_spread' in message.parameters:  # the critic's; parsing them all would take longer than judging
            parameters = yaml.safe_load(message.parameters)
            return SteeringConfig(**{name: parameters[name] for name in names if name in parameters})
    return SteeringConfig(fallback='first')


class Rejudge:
    """Re-judges episodes under every combination of critics, K and beta."""

    def __init__(self, critics: dict[str, object], ks: tuple[int, ...] = (), betas: tuple[float, ...] = (0.0,),
                 policy=None):
        """Take critics by name; ``ks`` empty: as many candidates as were recorded.

        ``policy`` (optional) proposes afresh, ``max(ks)`` candidates a step, in place of the recorded candidates.
        """
        self.critics = critics
        self.ks = tuple(sorted(set(ks)))
        self.betas = tuple(sorted(set(betas)))
        self.policy = policy

    def run(self, bag: Bag, episode: EpisodeRecord, topic: str | None = None):
        """Yield a JudgedStep per finished step, in order.

        Raises:
            BagError: no candidates and no policy to propose them, or more candidates asked for than recorded.

        """
        ks = self._answerable(bag, episode)
        base = replace(recorded_steering(bag), selection='value')
        configs = [replace(base, beta=beta) for beta in self.betas]
        if self.policy is not None:
            self.policy.reset(episode.instruction, episode.seed)
        for step, image, actions, scores in ahead(self._score, self._observed(bag, episode, topic)):
            rows = []
            count = 0 if actions is None else len(actions)
            for name, k in product(scores, ks or (count,)):
                if k <= count:  # K may have been smaller at this step
                    rows += self._judge(bag, episode, step, name, configs, actions[:k], scores[name].first(k))
            yield JudgedStep(step, image, rows)

    def _answerable(self, bag: Bag, episode: EpisodeRecord) -> tuple[int, ...]:
        """Return the numbers of candidates that the recording can answer; those left out are named in its problems."""
        if self.policy is not None:
            if not self.ks:
                raise BagError('give --k, the number of candidates that the policy shall propose')
            return self.ks
        recorded = [s.candidates.num_candidates for s in episode.finished_steps if s.candidates is not None]
        if not recorded:
            raise BagError(f'{bag.path}: episode {episode.episode_id} holds no candidates; propose them anew with '
                           '--policy, or see its value curve only (no --k)')
        ks = tuple(k for k in self.ks if k <= max(recorded))
        if missing := [k for k in self.ks if k > max(recorded)]:
            text = (f'k = {", ".join(map(str, missing))} asks for more than the {max(recorded)} candidates recorded '
                    'per step; record with a larger num_candidates or propose anew with --policy')
            if not ks:
                raise BagError(f'{bag.path}: {text}')
            bag.problems.append(text)
        return ks

    def _observed(self, bag: Bag, episode: EpisodeRecord, topic: str | None) -> Iterator[tuple]:
        """Yield (step, frame or None, candidates or None); what has no frame comes last, not judged but named."""
        states = sorted(((stamps.nanoseconds(m.header.stamp), m) for _, m, _ in bag.of_type('ControllerState')),
                        key=lambda item: item[0]) if self.policy is not None else []
        waiting: dict[int, list[Step]] = {}
        for step in episode.finished_steps:
            waiting.setdefault(step.stamp, []).append(step)
        for frame in bag.frames(topic, wanted=set(waiting)) if bag.image_stamps else ():
            try:
                image = frame.image()
            except ValueError:
                continue  # as if it had not been recorded
            for step in waiting.pop(frame.stamp, ()):
                yield step, image, step.actions if self.policy is None else self._propose(bag, step, image, states)
        for steps in waiting.values():
            for step in steps:
                yield step, None, step.actions if self.policy is None else None

    def _propose(self, bag: Bag, step: Step, image: np.ndarray, states: list[tuple[int, object]]) -> np.ndarray:
        # the last before the frame, as live and in training (the first where there is none): a step's own states come
        # after its command
        state = None
        if states:
            _, measured = states[max(0, bisect_right(states, step.stamp, key=lambda item: item[0]) - 1)]
            state = measured_state(measured.measured_pose, measured.gripper_position)
        try:
            proposed = self.policy.propose(Observation(image, step.stamp * 1e-9, state), max(self.ks))
            return check_widowx(proposed).actions
        except PolicyError as error:
            raise BagError(f'{bag.path}, step {step.index}: {error}') from error

    def _score(self, observed: tuple) -> tuple:
        """Return (step, frame, candidates, critic -> Scored): the costly part, once for all settings."""
        step, image, actions = observed
        scores = {}
        for name, critic in self.critics.items() if actions is not None else ():
            steerer, began = Steerer(critic), time.perf_counter()
            encoded = None if image is None else steerer.encode(image, step.instruction)
            middle = time.perf_counter()
            values = steerer.score(encoded, actions)
            scores[name] = Scored(values, 1e3 * (middle - began), 1e3 * (time.perf_counter() - middle))
        return step, image, actions, scores

    def _judge(self, bag: Bag, episode: EpisodeRecord, step: Step, critic: str, configs: list[SteeringConfig],
               actions: np.ndarray, scored: Scored) -> Iterator[Judgement]:
        """Yield what a critic makes of these candidates under each configuration."""
        decision, critic_hash, k = step.decision, self.critics[critic].hash, len(actions)
        seed = int(decision.seed) if decision is not None else step_seed(episode.seed, step.index)
        own = self.policy is None  # only recorded candidates can be compared with what was executed
        executed = int(decision.chosen) if decision is not None and own else -1
        executed_value = regret = float('nan')
        if isinstance(scored.values, Scores) and 0 <= executed < k:
            minimum = scored.values.q_values.min(axis=0)
            executed_value, regret = float(minimum[executed]), float(minimum.max() - minimum[executed])
        same_values = own and decision is not None and k == decision.num_candidates \
            and critic_hash == decision.critic_hash
        for result in choose_each(scored.values, actions, configs, seed=seed):
            yield Judgement(
                bag=str(bag.path), episode_id=episode.episode_id, step=step.index, stamp=step.stamp,
                critic=critic, critic_hash=critic_hash, k=k, beta=result.beta,
                as_recorded=same_values and np.float32(result.beta) == np.float32(decision.beta),
                chosen=result.chosen, executed=executed,
                differs=own and decision is not None and result.chosen != executed,
                value=result.value, executed_value=executed_value, regret=regret, spread=result.spread,
                disagreement=result.disagreement, effective_sample_size=result.effective_sample_size,
                reason=words(SteeringReason, result.reason),
                recorded_reason=words(SteeringReason, decision.reason) if decision is not None else '',
                encode_ms=scored.encode_ms, score_ms=scored.score_ms)


def agreement(rows: list[Judgement]) -> tuple[int, int]:
    """Return (same, all) over the steps judged exactly as recorded that the critic's values alone decided."""
    comparable = [r for r in rows if r.as_recorded and r.recorded_reason not in OTHERS_REASONS
                  and not r.recorded_reason.startswith('control')]
    return sum(not r.differs for r in comparable), len(comparable)


def summarize(rows: list[Judgement]) -> list[dict]:
    """Return one line per setting: how often it differs, what it is worth, how sure it is."""
    groups: dict[tuple, list[Judgement]] = {}
    for row in rows:
        groups.setdefault((row.critic, row.k, row.beta), []).append(row)
    lines = []
    for (critic, k, beta), group in groups.items():
        finite = [r for r in group if np.isfinite(r.value)]

        def mean(name, finite=finite):
            values = [getattr(r, name) for r in finite if np.isfinite(getattr(r, name))]
            return float(np.mean(values)) if values else float('nan')

        regrets = [r.regret for r in group if np.isfinite(r.regret)]
        encode_ms = [r.encode_ms for r in group if np.isfinite(r.encode_ms)]
        same, comparable = agreement(group)
        lines.append({
            'critic': critic, 'critic_hash': group[0].critic_hash, 'k': k, 'beta': beta, 'steps': len(group),
            'differs': sum(r.differs for r in group) / len(group), 'value': mean('value'),
            'executed_value': mean('executed_value'), 'regret': mean('regret'),
            'regret_p95': float(np.percentile(regrets, 95)) if regrets else float('nan'),
            'spread': mean('spread'), 'disagreement': mean('disagreement'),
            'effective_sample_size': mean('effective_sample_size'),
            'fallbacks': sum(r.reason != 'steered' for r in group),
            'encode_ms_p50': float(np.median(encode_ms)) if encode_ms else float('nan'),
            'score_ms_p50': float(np.median([r.score_ms for r in group])),
            'agrees_with_live': f'{same}/{comparable}' if comparable else ''})
    return lines
