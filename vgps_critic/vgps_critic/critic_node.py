"""Encode the policy's frame while the policy samples, score its candidates, and send one on to the arm.

Nothing slow runs in the executor: encoding and scoring happen in a worker thread, and at the deadline a late or hanging
critic is replaced by a named fallback. All decisions are made in `steering`; this node moves messages and keeps time.
"""

import time
from array import array
from collections import Counter, OrderedDict
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import rclpy.clock
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.node import Node
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from vgps_critic import loading
from vgps_critic.config import CriticNodeConfig
from vgps_critic.corrections import Corrections
from vgps_critic.steering import Decision, Failure, Steerer, SteeringConfig, step_seed
from vgps_msgs.msg import ActionCandidates, EndEffectorCommand, Episode, SteeringDecision, StepStarted
from vgps_msgs_py import images, node_main, parameters, qos, stamps
from vgps_msgs_py.configuration import ConfigurationPublisher
from vgps_msgs_py.vocabulary import HEALTHY, PASSING, SteeringReason as Reason, Verdict

FRAMES_KEPT_NS = 2_000_000_000  # two seconds, measured by the frames' own stamps
TICK_S = 0.02  # how finely deadlines are kept
NEW_WORDS_MS = 3000.0  # to load the encoder for words it never embedded on this machine; policy_node waits for 5 s


@dataclass
class Step:
    """One control step between StepStarted and its decision."""

    episode_id: str
    step: int
    stamp: int  # ns, identifies the frame
    instruction: str
    encoded: Future[Any] | None = None  # of EncodedObservation | Failure
    candidates: Any = None  # ActionCandidates
    arrived: float = 0.0  # monotonic s, of the candidates
    grace: float = 0.0  # ms, added to their deadline
    actions: Any = None  # (K, H, 7) array, until it is decided
    scores: Future[Any] | None = None  # of Scores | Failure
    decided: bool = False


class CriticNode(Node):
    """Subscribes image_raw, episode, step_started, candidates; publishes decision, command, configuration."""

    def __init__(self) -> None:
        super().__init__('critic_node')
        self.config = parameters.declare(self, CriticNodeConfig)
        steering_config = parameters.declare(self, SteeringConfig, live=self._reconfigure)
        self._steerer, self._corrections = self._load(steering_config), Corrections()
        self._frames: OrderedDict[int, Image | CompressedImage] = OrderedDict()  # stamp in ns -> message
        self._episode: Any = None  # the latest Episode
        self._step: Step | None = None
        self._counts: Counter[Reason] = Counter()
        self._status = (DiagnosticStatus.OK, 'waiting for candidates')
        self._last: Decision | None = None
        self._reconfigured = True  # publish the configuration at the next tick
        self._worker = ThreadPoolExecutor(1, 'critic')
        self._embedding: Future[Any] = self._worker.submit(int)  # nothing yet
        self._decisions = self.create_publisher(SteeringDecision, 'decision', qos.EVENT)
        self._commands = self.create_publisher(EndEffectorCommand, 'command', qos.EVENT)
        self._diagnostics = self.create_publisher(DiagnosticArray, '/diagnostics', qos.EVENT)
        self._configuration = ConfigurationPublisher(self, 'vgps_critic')
        self.create_subscription(EndEffectorCommand, 'correction', self._on_correction, qos.EVENT)
        self.create_subscription(Episode, 'episode', self._on_episode, qos.LATCHED)
        self.create_subscription(StepStarted, 'step_started', self._on_step_started, qos.EVENT)
        self.create_subscription(ActionCandidates, 'candidates', self._on_candidates, qos.EVENT)
        steady = rclpy.clock.Clock(clock_type=rclpy.clock.ClockType.STEADY_TIME)  # deadlines run in real time
        self._camera = images.CameraSubscription(self, self._on_image, qos.FRAMES, self.config.image_transport, steady,
                                                 changed=self._frames.clear)
        self.create_timer(TICK_S, self._advance, clock=steady)
        self.create_timer(1.0, self._diagnose, clock=steady)
        self.get_logger().info(f'ready: {self._model}')

    def close(self) -> None:
        """Let the worker go."""
        self._worker.shutdown(wait=False, cancel_futures=True)

    def _load(self, steering: SteeringConfig) -> Steerer:
        """Return a steerer that has looked at its critic; a bad one is a start-up error."""
        try:
            loaded = loading.load(self.config, self.get_logger().warning)
        except ValueError as e:
            raise parameters.ParameterError(f'critic_node cannot use its critic: {e}') from e
        self._model, steerer = loaded.name, Steerer(loaded.critic, steering, loaded.outlook)
        if veto := steerer.examine():
            self.get_logger().error(f'the critic does not steer, {veto.reason.name}: {veto.message}')
        return steerer

    def _reconfigure(self, config: SteeringConfig) -> None:
        self._steerer.config = config
        self._reconfigured = True

    def _on_image(self, message: Image | CompressedImage) -> None:
        stamp = stamps.nanoseconds(message.header.stamp)
        self._frames[stamp] = message
        for old in list(self._frames):
            if not 0 <= stamp - old <= FRAMES_KEPT_NS:  # also drops a future left behind by a clock set back
                del self._frames[old]
        self._advance()

    def _on_episode(self, message: Episode) -> None:
        if self._episode is None or message.episode_id != self._episode.episode_id:
            self._steerer.reset(message.max_steps)
            self._corrections.reset()
        self._episode = message
        if message.outcome == Episode.RUNNING:  # embed the instruction before the first step needs it
            self._embedding = self._worker.submit(self._steerer.embed, message.instruction)

    def _on_correction(self, message: EndEffectorCommand) -> None:
        if refusal := self._corrections.take(message.action, time.monotonic()):
            self.get_logger().warning(refusal)

    def _on_step_started(self, message: StepStarted) -> None:
        self._camera.look()  # it must be the camera of policy_node, which has looked
        self._begin(message)
        self._advance()

    def _on_candidates(self, message: ActionCandidates) -> None:
        if (step := self._begin(message)) is None or step.candidates is not None:
            self.get_logger().warning(f'ignoring candidates of step {message.step}: that step has been decided')
            return
        step.candidates, step.arrived = message, time.monotonic()
        step.grace = 0.0 if self._embedding.done() else NEW_WORDS_MS  # it may still wait for the worker
        step.actions = np.frombuffer(message.actions, np.float32)
        if step.actions.size == message.num_candidates * message.horizon * 7:  # others are refused by name in steering
            step.actions = step.actions.reshape(message.num_candidates, message.horizon, 7)
        self._advance()

    def _begin(self, message: StepStarted | ActionCandidates) -> Step | None:
        """Return the step a message belongs to, None if it is over; a new one supersedes what is open."""
        key, step = (message.episode_id, message.step, stamps.nanoseconds(message.header.stamp)), self._step
        if step is not None and step.episode_id == message.episode_id and message.step < step.step and (
                step.candidates is not None or isinstance(message, StepStarted)):  # a word alone locks nobody out
            return None
        if step is None or key != (step.episode_id, step.step, step.stamp):
            self._step = Step(*key, message.instruction)
            if step is not None and step.encoded is not None:
                step.encoded.cancel()  # or a critic slower than the steps would fall behind without end
            if step is not None and step.candidates is not None and not step.decided:
                self._decide(step, Failure(Reason.DEADLINE_MISSED, f'step {message.step} began before the values came'))
        return self._step

    def _advance(self) -> None:
        """Move the present step as far as it can go now; called by every event and every tick."""
        if self._reconfigured:
            self._reconfigured = False
            self._configuration.publish(self._model, self._steerer.critic.hash)
        step = self._step
        if step is None or step.decided:
            return
        if step.encoded is None and step.stamp in self._frames:
            step.encoded = self._submit(self._encode, self._frames[step.stamp], step.instruction)
        if step.candidates is None:
            return
        waited, deadline = 1e3 * (time.monotonic() - step.arrived), self._steerer.config.deadline_ms
        if step.encoded is None and waited > self.config.frame_wait_ms:
            self._decide(step, self._steerer.score(None, step.actions))
        elif step.encoded is not None and step.encoded.done() and step.scores is None:
            step.scores = self._submit(self._steerer.score, step.encoded.result(), step.actions)
        elif step.scores is not None and step.scores.done():
            self._decide(step, step.scores.result())
        if not step.decided and waited > deadline + step.grace:
            self._decide(step, Failure(Reason.DEADLINE_MISSED, (
                f'no values after {waited:.0f} ms, deadline_ms is {deadline:.0f}')))

    def _submit(self, function: Any, *args: Any) -> Future[Any]:
        future = self._worker.submit(function, *args)
        future.add_done_callback(lambda _: node_main.soon(self, self._advance))
        return future

    def _encode(self, message: Image | CompressedImage, instruction: str) -> Any:
        try:
            image = images.to_array(message)
        except Exception as e:  # a broken driver must not end the node
            return Failure(Reason.CRITIC_FAILED, f'frame cannot be read: {e}')
        return self._steerer.encode(image, instruction)

    def _decide(self, step: Step, scores: Any) -> None:
        """Publish command and decision for a step, once; the command first: readers of decisions delay no arm."""
        message = step.candidates
        known = self._episode is not None and self._episode.episode_id == step.episode_id
        seed = self._episode.seed if known else message.seed
        decision = self._steerer.choose(scores, step.actions, seed=step_seed(seed, step.step))
        decision = self._corrections.apply(decision, time.monotonic(), self._steerer.config.after_correction)
        self._steerer.sent(decision)
        decision.stages['candidates_to_decision'] = 1e3 * (time.monotonic() - step.arrived)
        step.decided, step.actions = True, None
        hold, names = decision.verdict == Verdict.HOLD, dict(episode_id=step.episode_id, step=step.step)
        self._commands.publish(EndEffectorCommand(
            **names, header=Header(stamp=message.header.stamp, frame_id=self.config.base_frame),
            kind=EndEffectorCommand.HOLD if hold else EndEffectorCommand.ACTION,
            action=decision.action.astype(np.float64), message=decision.message if hold else ''))
        self._decisions.publish(SteeringDecision(
            **names, header=message.header, instruction=step.instruction, policy=message.policy,
            critic_hash=self._steerer.critic.hash, num_candidates=message.num_candidates,
            num_members=decision.num_members, chosen=decision.chosen, q_values=array('f', decision.q_values.tobytes()),
            probabilities=array('f', decision.probabilities), action=decision.action, beta=decision.beta,
            seed=decision.seed, verdict=int(decision.verdict), reason=int(decision.reason), message=decision.message,
            spread=decision.spread, disagreement=decision.disagreement, value=decision.value,
            effective_sample_size=decision.effective_sample_size, value_trend=decision.value_trend,
            success_chance=decision.success_chance, chance_threshold=decision.chance_threshold, alarm=decision.alarm,
            feature_distance=decision.feature_distance, retries=decision.retries, stages=list(decision.stages),
            stage_milliseconds=list(decision.stages.values())))
        self._report(decision)

    def _report(self, decision: Decision) -> None:
        """Count, and say it in log and diagnostics when the reason changes."""
        reason = decision.reason
        changed, self._last = self._last is None or self._last.reason != reason, decision
        self._counts[reason] += 1
        healthy, level = reason in HEALTHY, DiagnosticStatus.WARN if reason in PASSING else DiagnosticStatus.ERROR
        self._status = (DiagnosticStatus.OK if healthy else level, f'{reason.name}: {decision.message}')
        if changed:
            self._diagnose()
            if healthy:  # two calls: rclpy refuses to change the severity at one place
                self.get_logger().info(self._status[1])
            else:
                self.get_logger().warning(self._status[1])

    def _diagnose(self) -> None:
        values = {'critic': self._model, 'critic_hash': self._steerer.critic.hash,
                  **{f'count {reason.name}': n for reason, n in sorted(self._counts.items())}}
        if self._last is not None:
            values |= {f'{name} [ms]': f'{ms:.1f}' for name, ms in self._last.stages.items()}
            values |= {name: f'{getattr(self._last, name):.4g}' for name in (
                'value', 'value_trend', 'spread', 'disagreement', 'effective_sample_size', 'success_chance',
                'chance_threshold', 'feature_distance')}
        status = [DiagnosticStatus(level=self._status[0], message=self._status[1],
                                   name=f'{self.get_fully_qualified_name()[1:]}: steering',
                                   values=[KeyValue(key=k, value=str(v)) for k, v in values.items()])]
        self._diagnostics.publish(DiagnosticArray(header=Header(stamp=self.get_clock().now().to_msg()), status=status))


def main() -> None:
    """Run the node."""
    node_main.run(CriticNode, events=True)


if __name__ == '__main__':
    main()
