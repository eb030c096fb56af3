"""Decide which candidate goes to the robot: the pure core of `critic_node` and of offline re-scoring.

Both run this code, so the same frame, candidates, beta and seed give the same choice. Whatever goes wrong becomes a
named reason and a fallback; nothing here raises for bad input of a running episode.
"""

import contextlib
import math
import time
from collections import deque
from dataclasses import replace

import numpy as np

from vgps_critic.action_space import ACTION_DIM, ActionSpaceError
from vgps_critic.critic import Critic, EncodedObservation
from vgps_critic.decision import (
    ALWAYS_HOLD,
    MAX_CANDIDATES,
    Decision,
    Failure,
    Scores,
    SteeringConfig,
    choose_each,
    first_actions,
    step_seed,
)
from vgps_critic.outlook import SAME_WORDS, Outlook, Tracker
from vgps_critic.retreat import Retreat
from vgps_critic.text import UnknownInstructionError
from vgps_msgs_py.vocabulary import SteeringReason as Reason, Verdict

__all__ = ['ALWAYS_HOLD', 'MAX_CANDIDATES', 'Decision', 'Failure', 'Reason', 'Scores', 'Steerer', 'SteeringConfig',
           'Verdict', 'choose_each', 'first_actions', 'step_seed']

_TREND_STEPS = 10  # values behind value_trend: two seconds at 5 Hz


class Steerer:
    """Encode, score, select, and fall back by name. One per critic; `reset` at the start of every episode."""

    def __init__(self, critic: Critic, config: SteeringConfig | None = None, outlook: Outlook | None = None):
        """Take an outlook where the critic has one; that of another critic lends only its probes, see `examine`."""
        self.critic = critic
        self.config = config or SteeringConfig()  # may be replaced between steps
        self.outlook = outlook
        self.veto: Failure | None = None  # why this critic never steers, from `examine`
        fits = outlook is not None and critic is not None and outlook.critic_hash == critic.hash
        self._tracker = Tracker(outlook) if fits else None
        self._values: deque[float] = deque(maxlen=_TREND_STEPS)
        self._retries, self._retreat = 0, Retreat()

    def examine(self) -> Failure | None:
        """Ask the critic about the outlook's probes, and let it steer only if it ranks them; about a second."""
        if self.outlook is not None and self.outlook.probes is not None:
            try:
                found = self.outlook.probes.ask(self.critic, self.outlook.instructions)
                if not found >= self.outlook.probes.least:
                    self.veto = Failure(Reason.CRITIC_HARMFUL, (
                        f"ranks this robot's judged moments with an AUC of {found:.2f}, "
                        f'{self.outlook.probes.least:.2f} is needed: inverted values, or a critic for another task or '
                        'camera'))
            except Exception as e:  # a critic that cannot answer must not steer, whatever it raises
                self.veto = Failure(Reason.CRITIC_HARMFUL, f"cannot score this robot's judged moments: {e}")
        return self.veto

    def reset(self, max_steps: int = 0) -> None:
        """Forget the last episode; `max_steps` of the next one, 0 where it is not known."""
        self._values.clear()
        self._retries = 0
        self._retreat.reset()
        if self._tracker is not None:
            self._tracker.reset(max_steps)

    def embed(self, instruction: str) -> None:
        """Embed an instruction before its first frame; what fails here is named when a frame needs it."""
        with contextlib.suppress(Exception):
            self.critic.instructions.encode(instruction)

    def encode(self, image: np.ndarray, instruction: str | np.ndarray) -> EncodedObservation | Failure:
        """Encode a frame (H, W, 3) uint8 RGB, or say by name why that is impossible."""
        try:
            encoded = self.critic.encode(image, instruction)
            if self._tracker is None:
                return encoded
            words = self.critic.instructions.encode(instruction) if isinstance(instruction, str) else instruction
            features = encoded.features[0].float().cpu().numpy()
            return replace(encoded, distance=self.outlook.distance(features, words),
                           familiarity=self.outlook.knows(words))
        except UnknownInstructionError as e:
            return Failure(Reason.INSTRUCTION_UNKNOWN, str(e))
        except Exception as e:  # whatever the critic raises, the arm must get an answer
            return Failure(Reason.CRITIC_FAILED, f'encoding raised {type(e).__name__}: {e}')

    def score(self, encoded: EncodedObservation | Failure | None, actions: np.ndarray) -> Scores | Failure:
        """Return the values of candidates (K, H, 7) physical, or why there are none; keeps no state, so any thread may.

        Args:
            encoded: of the very frame the policy looked at, or why there is none (None: frame missing).
            actions: only the first action of each chunk is scored.

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
        stages = {**encoded.milliseconds, 'score': 1e3 * (time.perf_counter() - start)}
        return Scores(q_values, stages, encoded.distance, encoded.familiarity)

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
        doubt = self._doubt(scores) if isinstance(scores, Scores) else None
        decision, = choose_each(scores, actions, (self.config,), seed=seed, doubt=doubt)
        self._values.append(decision.value)
        decision = replace(decision, value_trend=self._trend())
        return decision if self._tracker is None else self._look_ahead(decision)

    def sent(self, decision: Decision) -> None:
        """Take note of what went to the arm, the operator's corrections included: a retry leads back the same way."""
        if decision.verdict is not Verdict.HOLD:
            self._retreat.sent(decision.action)

    def _doubt(self, scores: Scores) -> Failure | None:
        """Return why these values should not be followed although they are there."""
        distance, strange = (math.nan, False) if self._tracker is None else self._tracker.look(scores.distance)
        if self.config.switch_off == 'never' or self.veto is not None:
            return None if self.config.switch_off == 'never' else self.veto
        if scores.familiarity < SAME_WORDS:
            return Failure(Reason.INSTRUCTION_UNFAMILIAR, (
                f'cosine {scores.familiarity:.2f} to the nearest training instruction, {SAME_WORDS} is needed'))
        if strange:
            return Failure(Reason.OUT_OF_DATA, f'the frames are at distance {distance:.2f} from the training data, '
                                               f'the limit is {self.outlook.limit:.2f}')
        return None

    def _look_ahead(self, decision: Decision) -> Decision:
        """Add the outlook, and act on its alarm as configured."""
        expected = self._tracker.judge(decision.value, decision.spread, decision.disagreement)
        decision = replace(decision, success_chance=expected.chance, chance_threshold=self.outlook.threshold,
                           alarm=expected.alarm, feature_distance=expected.distance)
        if decision.verdict is Verdict.HOLD:
            return decision
        if expected.alarm and self.config.on_alarm == 'hold':
            return replace(decision, verdict=Verdict.HOLD, reason=Reason.OUTLOOK_ALARM, chosen=-1,
                           action=np.zeros(ACTION_DIM, np.float32), message=self._alarm(expected.chance, 'holding'))
        if expected.alarm and self.config.on_alarm == 'retry' and not self._retreat and \
                self._retries < self.config.max_retries:
            self._retries += 1
            self._retreat.plan()
        decision = replace(decision, retries=self._retries)
        if not self._retreat:
            return decision
        action = self._retreat.pop()
        if not self._retreat:
            self._tracker.forget()  # what follows is another attempt
        return replace(decision, verdict=Verdict.RETREAT, reason=Reason.OUTLOOK_ALARM, chosen=-1, action=action,
                       message=self._alarm(expected.chance, f'retreating for retry {self._retries}'))

    def _alarm(self, chance: float, what: str) -> str:
        return f'chance of success {chance:.2f}, the threshold is {self.outlook.threshold:.2f}; {what}'

    def _trend(self) -> float:
        values = np.array(self._values)
        steps = np.flatnonzero(np.isfinite(values))
        if len(steps) < 2:
            return math.nan
        centred = steps - steps.mean()
        return float(centred @ values[steps] / (centred @ centred))  # least squares; polyfit takes 40 times as long
