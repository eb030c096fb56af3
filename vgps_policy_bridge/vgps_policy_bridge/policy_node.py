"""Run ExecuteInstruction episodes, and propose K action candidates for each step's frame.

The episode itself is the state machine in `episode.py`; this node feeds it messages and carries out its effects. The
action server appears once the policy is loaded and warm, and critic and controller are there.
"""

from __future__ import annotations

import queue
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.action import ActionServer, CancelResponse
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from sensor_msgs.msg import CompressedImage, Image

from vgps_msgs.action import ExecuteInstruction
from vgps_msgs.msg import ActionCandidates, ControllerState, Episode, SteeringDecision, StepStarted
from vgps_msgs.srv import JudgeEpisode, ResetForEpisode, ResetScene
from vgps_msgs_py import images, node_main, parameters, qos, stamps
from vgps_msgs_py.configuration import ConfigurationPublisher
from vgps_policy_bridge.loop import events, goals, wire
from vgps_policy_bridge.loop.episode import Effects, EpisodeMachine
from vgps_policy_bridge.loop.policy_config import PolicyNodeConfig
from vgps_policy_bridge.loop.session import PolicySession
from vgps_policy_bridge.worker import PolicyWorker


class PolicyNode(Node):
    """Topics, services and the action of the policy side; no maths and no model code."""

    def __init__(self) -> None:
        super().__init__('policy_node')
        self.config = parameters.declare(self, PolicyNodeConfig, live=self._on_parameters)
        self.machine = EpisodeMachine(self.config.limits())
        nothing: Any = None
        self.frame = self.wrist = self.arm = nothing  # the newest message of each
        self.goal_handle, self.span, self.answers = nothing, nothing, goals.GoalAnswers()  # of the running episode
        self.call: goals.PatientCall | None = None  # of the running goal's scene
        self.health = (DiagnosticStatus.WARN, f'loading {self.config.policy}')
        self.loaded, self.action_server = False, None
        self.waiting: list[Callable[[], None]] = []
        self.step_started = self.create_publisher(StepStarted, 'step_started', qos.EVENT)
        self.candidates = self.create_publisher(ActionCandidates, 'candidates', qos.EVENT)
        self.episode = self.create_publisher(Episode, 'episode', qos.LATCHED)
        self.diagnostics = self.create_publisher(DiagnosticArray, '/diagnostics', qos.EVENT)
        self.configuration = ConfigurationPublisher(self, 'vgps_policy_bridge')
        self.create_subscription(ControllerState, 'controller_state', self._on_controller, qos.EVENT)
        self.create_subscription(SteeringDecision, 'decision', self._on_decision, qos.EVENT)
        self.create_service(JudgeEpisode, 'judge_episode', self._on_judge)
        self.reset_scene = self.create_client(ResetScene, 'reset_scene')
        self.reset_arm = goals.Renewals(self.create_client(ResetForEpisode, 'widowx_node/reset_for_episode'))
        self.client_watch = goals.ClientWatch(partial(
            self.count_subscribers, self.resolve_topic_name('execute_instruction/_action/feedback')))
        self.later: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()  # from the worker to the executor
        steady = Clock(clock_type=ClockType.STEADY_TIME)  # a paused simulation clock must not pause the limits
        camera = partial(images.CameraSubscription, self, profile=qos.IMAGE, transport=self.config.image_transport,
                         clock=steady, settled=lambda: self.machine.has_looked)
        camera(self._on_image)
        if self.config.wrist_topic:
            camera(lambda message: setattr(self, 'wrist', message), topic=self.config.wrist_topic)
        self.create_timer(0.05, self._on_tick, clock=steady)
        self.create_timer(1.0, self._publish_diagnostics, clock=steady)
        self.worker, self.session = PolicyWorker(), PolicySession(self.config)
        self.worker.submit(self.session.load, partial(self._soon, self._on_loaded))
        self.get_logger().info(f'loading policy {self.config.policy!r} ...')

    def _on_loaded(self, warm_up_ms: float, error: Exception | None) -> None:
        """Look for the other nodes, or end the process with what is wrong."""
        if error is not None:
            raise parameters.ParameterError(f'policy {self.config.policy!r}: {error}') from error
        self.configuration.publish(model=self.session.identity)
        self.get_logger().info(f'{self.session.identity}: K = {self.config.num_candidates} takes {warm_up_ms:.0f} ms')
        self.loaded = True

    def _open(self) -> None:
        """Offer the action once critic and controller are there: an episode without them would only be aborted."""
        missing = [topic for topic in ('decision', 'controller_state') if not self.count_publishers(topic)]
        self.health = (DiagnosticStatus.WARN, f'waiting for {", ".join(missing)}')
        if not missing:
            self.health = (DiagnosticStatus.OK, 'ready')
            self.action_server = ActionServer(self, ExecuteInstruction, 'execute_instruction', self.answers.execute,
                                              handle_accepted_callback=self._on_goal, cancel_callback=self._on_cancel)
            self.get_logger().info('ready for instructions')

    def _on_parameters(self, config: PolicyNodeConfig) -> None:
        """Apply a live change: K and temperature from the next step on, limits at once."""
        self.config = config
        self.machine.limits = config.limits()
        self._soon(self.configuration.publish, self.session.identity)  # after the change has taken place

    def _on_goal(self, handle: Any, give_up: float | None = None) -> None:
        """Begin an episode, or answer why not (a rejected goal could not carry a reason)."""
        give_up = give_up or time.monotonic() + goals.BUSY_PATIENCE
        outcome, reason = goals.refusal(handle, self.machine, self.session)
        if reason == goals.BUSY and time.monotonic() < give_up:
            self.waiting.append(partial(self._on_goal, handle, give_up))  # an unwanted answer is still computed
            return
        if reason:
            self.get_logger().warning(f'goal refused: {reason}')
            self.answers.answer(handle, ExecuteInstruction.Result(outcome=int(outcome), message=reason))
            return
        self.goal_handle, self.span = handle, goals.Span(self.get_clock())
        self._apply(self.machine.start(goals.goal_of(handle.request, self.config.max_steps), time.monotonic()))

    def _on_cancel(self, _handle: Any) -> CancelResponse:
        """Accept; the goal handle may be answered only after this returned."""
        self._soon(lambda: self._apply(self.machine.cancel('cancelled by the action client')))
        return CancelResponse.ACCEPT

    def _on_image(self, message: Image | CompressedImage) -> None:
        self.frame = message
        self._apply(self.machine.frame(stamps.nanoseconds(message.header.stamp), time.monotonic()))

    def _on_controller(self, message: ControllerState) -> None:
        self.arm = message
        self._apply(self.machine.arm(wire.arm_report(message), time.monotonic()))

    def _on_decision(self, message: SteeringDecision) -> None:
        """Pass the critic's decision on, and tell the policy's tools what was chosen."""
        decision = wire.decision_report(message)
        if self.machine.expects_decision(decision):
            self.session.committed(message.chosen)
        self._apply(self.machine.decision(decision, time.monotonic()))

    def _on_judge(self, request: JudgeEpisode.Request, response: JudgeEpisode.Response) -> JudgeEpisode.Response:
        effects, refusal = self.machine.judge(request.episode_id, request.success, request.failure)
        self._apply(effects)
        response.accepted, response.message = not refusal, refusal or self.machine.current.episode_id
        return response

    def _on_tick(self) -> None:
        """Retry a service that was not there yet; check the limits and that somebody still wants the episode."""
        self._run_later()  # what came before there was an executor
        if self.call is not None:
            self.call.retry()
        for _ in range(len(self.waiting)):
            self.waiting.pop(0)()
        if self.loaded and self.action_server is None:
            self._open()
        self._apply(self.machine.tick(time.monotonic()))
        if self.client_watch.gone(self.machine.running, time.monotonic()):
            self._apply(self.machine.cancel('the action client is gone'))

    def _on_sampled(self, header: Any, step: int, episode_id: str, candidates: Any, error: Exception | None) -> None:
        """Publish the candidates, unless the episode ended meanwhile."""
        if not self.machine.expects_candidates(episode_id, step):
            return
        if error is not None:
            self.health = (DiagnosticStatus.ERROR, f'{type(error).__name__}: {error}')
            self._apply(self.machine.sample_failed(self.health[1]))
            return
        self.health = (DiagnosticStatus.OK, 'ready')
        message = wire.fill_candidates(ActionCandidates(
            header=header, episode_id=episode_id, step=step, instruction=self.machine.current.instruction), candidates)
        self._apply(self.machine.sampled(time.monotonic()))  # first: the decision may arrive at once
        self.candidates.publish(message)

    def _apply(self, effects: Effects) -> None:
        carry_out: dict[type, Any] = {events.ResetScene: self._do_reset_scene, events.ResetArm: self._do_reset_arm,
                     events.WithdrawReset: lambda _: self.reset_arm.send(self._reset_request(withdraw=True)),
                     events.Announce: self._do_announce, events.Sample: self._do_sample,
                     events.StepDone: self._do_step_done, events.Finish: self._do_finish}
        for effect in effects:
            carry_out[type(effect)](effect)

    def _do_reset_scene(self, _effect: events.ResetScene) -> None:
        request = ResetScene.Request(task=self.machine.current.task, seed=self.machine.current.seed)
        self.call = goals.PatientCall(self.reset_scene, request, lambda r: self._apply(
                self.machine.scene_reset(r.success, r.message, r.instruction, time.monotonic())), self._still_wanted())

    def _do_reset_arm(self, _effect: events.ResetArm) -> None:
        self.reset_arm.send(self._reset_request(), lambda r: self._apply(self.machine.arm_reset(
            r.success, r.message, self.get_clock().now().nanoseconds, time.monotonic())), self._still_wanted())

    def _reset_request(self, withdraw: bool = False) -> ResetForEpisode.Request:
        return ResetForEpisode.Request(stamp=self.get_clock().now().to_msg(), withdraw=withdraw,
                                       episode_id=self.machine.current.episode_id)

    def _still_wanted(self) -> Callable[[], bool]:
        asked_by = self.machine.current.episode_id
        return lambda: self.machine.running and self.machine.current.episode_id == asked_by

    def _do_announce(self, effect: events.Announce) -> None:
        goal = self.machine.current
        message = Episode(episode_id=goal.episode_id, instruction=goal.instruction, task=goal.task, seed=goal.seed,
                          max_steps=goal.max_steps, outcome=int(effect.outcome), message=effect.message)
        message.header.stamp = self.span.stamp()
        if effect.outcome is events.Outcome.RUNNING:
            self.session.begin(goal.instruction, goal.seed)
        self.episode.publish(message)
        self.get_logger().info(f'episode {goal.episode_id}: {effect.outcome.name} {effect.message}')

    def _do_sample(self, effect: events.Sample) -> None:
        """Announce the frame, then let the worker look at it."""
        goal, frame, c = self.machine.current, self.frame, self.config
        self.step_started.publish(StepStarted(header=frame.header, episode_id=goal.episode_id, step=effect.step,
                                              instruction=goal.instruction))
        self.worker.submit(
            partial(self.session.propose, frame, self.wrist, wire.measured(self.arm), c.num_candidates, c.temperature,
                    wire.age_ms(frame, self.get_clock().now().nanoseconds)),
            partial(self._soon, self._on_sampled, frame.header, effect.step, goal.episode_id))

    def _do_step_done(self, effect: events.StepDone) -> None:
        self.goal_handle.publish_feedback(ExecuteInstruction.Feedback(
            step=effect.decision.step, value=effect.decision.value, chosen=effect.decision.chosen,
            reason=effect.decision.code, steering=effect.decision.words, controller_state=int(effect.arm.state),
            controller_reason=effect.arm.code, controller=effect.arm.words()))

    def _do_finish(self, effect: events.Finish) -> None:
        handle, self.goal_handle = self.goal_handle, None
        self.answers.answer(handle, ExecuteInstruction.Result(
            episode_id='' if self.machine.outcome is None else self.machine.current.episode_id, steps=effect.steps,
            outcome=int(effect.outcome), message=effect.message, duration=self.span.seconds))

    def _soon(self, callback: Callable[..., object], *arguments: object) -> None:
        """Run callback in the executor, from any thread."""
        self.later.put(partial(callback, *arguments))
        node_main.soon(self, self._run_later)

    def _run_later(self) -> None:
        while not self.later.empty():
            self.later.get()()

    def _publish_diagnostics(self) -> None:
        now = self.get_clock().now().nanoseconds
        facts = wire.health_facts(self.session, self.machine, self.config, self.frame, now)
        array = DiagnosticArray(status=[DiagnosticStatus(
            level=self.health[0], name=self.get_fully_qualified_name(), message=self.health[1],
            hardware_id=self.config.policy, values=[KeyValue(key=k, value=str(v)) for k, v in facts.items()])])
        array.header.stamp = self.get_clock().now().to_msg()
        self.diagnostics.publish(array)

    def close(self) -> None:
        """Say that the episode is over when the node is stopped in the middle of it."""
        effects = self.machine.cancel('policy_node was stopped')
        self._apply([effect for effect in effects if not isinstance(effect, events.Finish)])
        if self.worker.close():
            self.session.close()
        else:
            self.get_logger().warning('the policy does not return; exiting without it')


def main(args: list[str] | None = None) -> None:
    """Run the node."""
    node_main.run(PolicyNode, args, events=True)
