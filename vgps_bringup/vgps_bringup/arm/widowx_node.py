"""The arm's controller: EndEffectorCommand in, joint commands and ControllerState out.

::

    ros2 run vgps_bringup widowx_node --ros-args -p arm:=simulated -p dry_run:=false

This node only converts messages and keeps time; the modules beside it decide. The control period runs on the steady
clock, because with simulated time a paused /clock would stop the watchdog, too.
"""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from sensor_msgs.msg import CameraInfo
from std_msgs.msg import Header
from std_srvs.srv import Trigger

from vgps_bringup.arm.arms import Arm, MotorHealth, Reading
from vgps_bringup.arm.controller import Answer, ArmController
from vgps_bringup.arm.controller_config import ControllerConfig
from vgps_bringup.arm.gate import Command
from vgps_bringup.arm.gripper import GripperConfig
from vgps_bringup.arm.report import fill_state
from vgps_bringup.arm.simulated_arm import SimulatedArm
from vgps_bringup.arm.step_controller import StepControllerConfig
from vgps_bringup.arm.watchdog import WatchdogConfig
from vgps_msgs.msg import ActionCandidates, ControllerState, EndEffectorCommand, Episode
from vgps_msgs.srv import ResetForEpisode
from vgps_msgs_py import node_main, parameters, qos
from vgps_msgs_py.configuration import ConfigurationPublisher
from vgps_msgs_py.parameters import Config
from vgps_msgs_py.stamps import seconds
from vgps_msgs_py.vocabulary import ArmState as State, ControllerReason as Reason

CONTROL_PERIOD = 0.02   # s
REPORT_PERIOD = 0.1     # s, without a change
DIAGNOSE_PERIOD = 1.0   # s
COMMANDING = ('command', 'candidates', 'episode')    # topics that one node each may publish
_OK = (State.READY, State.MOVING, State.HOMING)


@dataclass(frozen=True)
class ArmConfig:
    """Which arm, and where its driver is."""

    arm: str = field(default='interbotix', metadata={
        'description': 'interbotix: the real arm, through interbotix_xs_modules; simulated: an arm behind topics',
        'choices': ('interbotix', 'simulated'), 'read_only': True})
    robot_model: str = field(default='wx250s', metadata={
        'description': 'Interbotix model; only the limits and kinematics of wx250s are implemented',
        'choices': ('wx250s',), 'read_only': True})
    robot_name: str = field(default='wx250s', metadata={
        'description': "namespace of Interbotix's driver", 'read_only': True})


class WidowXNode(Node):
    """Converts messages for an ArmController and publishes what it did."""

    def __init__(self) -> None:
        super().__init__('widowx_node')
        self.callback_errors = node_main.CallbackErrors(self, self._stop_after)
        arm_config = parameters.declare(self, ArmConfig)
        # Changes that arrive while the controller is being built have nothing to act on yet.
        self._controller: Any = None
        self._reconfigured = True  # say the configuration in the next period, when a change has taken place
        config = self._declare(ControllerConfig, lambda c: self._controller.configure(c), lambda c: c.start_joints())
        steps = self._declare(StepControllerConfig, lambda c: setattr(self._controller.steps, 'config', c))
        watchdog = self._declare(WatchdogConfig, lambda c: setattr(self._controller.watchdog, 'config', c))
        self._arm: Any = self._make_arm(arm_config)
        try:
            self._controller = ArmController(self._arm, config, steps, watchdog)
        except ValueError as error:
            raise parameters.ParameterError(f'widowx_node: {error}') from error
        self._camera_stamp = self._reported = self._diagnosed = -np.inf
        self._shown: tuple[Any, ...] | None = None

        self._states = self.create_publisher(ControllerState, 'controller_state', qos.EVENT)
        self._diagnostics = self.create_publisher(DiagnosticArray, '/diagnostics', 10)
        for message_type, topic, callback, profile in (
                (EndEffectorCommand, 'command', self._on_command, qos.EVENT),
                (Episode, 'episode', self._on_episode, qos.LATCHED),
                (ActionCandidates, 'candidates', self._on_candidates, qos.EVENT),
                # Published with every image and a thousandth of its size: a pulse of the camera.
                (CameraInfo, 'camera_info', self._on_camera_info, qos.IMAGE)):
            self.create_subscription(message_type, topic, partial(self._guarded, callback), profile)
        joints = 'joint_states' if arm_config.arm == 'simulated' else f'/{arm_config.robot_name}/joint_states'
        self._watched = [self.resolve_topic_name(topic) for topic in (joints, *COMMANDING)]
        self._looked = -np.inf    # for second publishers
        self.create_service(Trigger, '~/home', partial(self._on_move, self._controller.home))
        self.create_service(Trigger, '~/reset', partial(self._on_move, partial(self._controller.reset, operator=True)))
        self.create_service(ResetForEpisode, '~/reset_for_episode', self._on_reset_for_episode)
        self.create_service(Trigger, '~/stop', self._on_stop)    # last: of what waits together it is served last
        self.create_timer(CONTROL_PERIOD, self._on_period, clock=Clock(clock_type=ClockType.STEADY_TIME))
        self._configuration = ConfigurationPublisher(self, 'vgps_bringup')

    def _declare(self, config_class: type[Config], apply: Callable[[Config], None],
                 check: Callable[[Config], object] = lambda config: None) -> Config:
        def live(config: Config) -> None:
            apply(config)
            self._reconfigured = True
        return parameters.declare(self, config_class, live, check)

    def _make_arm(self, config: ArmConfig) -> Arm:
        if config.arm == 'simulated':
            return SimulatedArm(self, self._on_reading)
        from vgps_bringup.arm.interbotix_arm import InterbotixArm
        gripper = self._declare(GripperConfig, lambda c: setattr(self._arm.gripper, 'config', c))
        return InterbotixArm(self, config.robot_name, gripper, self._on_reading, self._on_health)

    # ---- what comes in -----------------------------------------------------------------------------------------

    def _guarded(self, act: Callable[..., Any], *arguments: object) -> Any:
        """Run `act`; an error in our own code stops the arm instead of leaving it to the next command, or ending us."""
        result = self.callback_errors.call(act, *arguments)
        try:
            self._show()
        except Exception as error:    # the heartbeat holds an arm whose controller is not heard
            self.callback_errors.note(error)
        return result

    def _stop_after(self, error: Exception) -> None:
        if self._controller is not None:
            self._controller.fail(error, time.monotonic())

    def _look_for_publishers(self) -> None:
        """Tell the watchdog who publishes what moves the arm, as far as the ROS graph knows."""
        self._looked, joints = time.monotonic(), self._watched[0]
        names = {topic: [f'{i.node_namespace.rstrip("/")}/{i.node_name}'
                         for i in self.get_publishers_info_by_topic(topic)]
                 for topic in self._watched if self.count_publishers(topic) > 1}    # a count is cheap, names take 1 ms
        self._controller.watchdog.drivers(joints, names.pop(joints, ()))
        self._controller.watchdog.publishers(names)

    def _ros_now(self) -> float:
        return float(self.get_clock().now().nanoseconds * 1e-9)

    def _on_reading(self, reading: Reading) -> None:
        self._guarded(self._controller.on_reading, reading, time.monotonic())

    def _on_health(self, health: MotorHealth) -> None:
        self._controller.watchdog.motors(health.names, health.errors, health.temperatures)

    def _on_command(self, message: EndEffectorCommand) -> None:
        command = Command(seconds(message.header.stamp), message.header.frame_id, message.episode_id, message.step,
                          message.kind != EndEffectorCommand.ACTION, np.array(message.action), message.message[:500])
        self._look_for_publishers()
        self._controller.on_command(command, time.monotonic(), self._ros_now())

    def _on_episode(self, message: Episode) -> None:
        self._controller.on_episode(message.episode_id, message.outcome == Episode.RUNNING, time.monotonic())

    def _on_candidates(self, _message: ActionCandidates) -> None:
        self._controller.watchdog.candidates(time.monotonic())

    def _on_camera_info(self, message: CameraInfo) -> None:
        stamp = seconds(message.header.stamp)
        if stamp != self._camera_stamp:    # a hung driver may repeat its last frame
            self._camera_stamp = stamp
            self._controller.watchdog.image(time.monotonic())

    def _on_stop(self, _request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        self._guarded(self._controller.stop, time.monotonic())
        response.success, response.message = True, self._controller.message
        return response

    def _on_move(self, begin: Callable[[float], Answer], _request: Trigger.Request, response: Trigger.Response
                 ) -> Trigger.Response:
        response.success, response.message = self._guarded(begin, time.monotonic()) or (
            False, self._controller.message)
        return response

    def _on_reset_for_episode(self, request: ResetForEpisode.Request, response: ResetForEpisode.Response
                              ) -> ResetForEpisode.Response:
        self._guarded(self._look_for_publishers)
        answer = self._guarded(self._controller.withdraw, request.episode_id, time.monotonic()) if request.withdraw \
            else self._guarded(self._controller.reset_for, request.episode_id, seconds(request.stamp),
                               time.monotonic(), self._ros_now())
        response.success, response.message = answer or (False, self._controller.message)
        return response

    def _on_period(self) -> None:
        self._guarded(self._controller.tick, time.monotonic(), self._ros_now())
        self._guarded(self._report)

    def _report(self) -> None:
        """Say what recurs, and look at what nobody tells."""
        if time.monotonic() - self._looked >= REPORT_PERIOD:
            self._look_for_publishers()
        if self._reconfigured:
            self._reconfigured = False
            self._configuration.publish()
        if time.monotonic() - self._reported >= REPORT_PERIOD:
            self._publish()
        if time.monotonic() - self._diagnosed >= DIAGNOSE_PERIOD:
            self._diagnose()

    # ---- what goes out -----------------------------------------------------------------------------------------

    def _show(self) -> None:
        """Publish and log, if there is something new."""
        c = self._controller
        shown = (c.state, c.reason, c.episode_id, c.step, c.accepted)
        if shown == self._shown:
            return
        before, self._shown = self._shown, shown
        if before is None or before[1] != c.reason or (c.state in _OK) != (before[0] in _OK):
            text = f'{c.state.name}, {c.reason.name}: {c.message}' if c.message else f'{c.state.name}, {c.reason.name}'
            if c.reason is Reason.ACCEPTED:  # rclpy wants one severity per line of code
                self.get_logger().info(text)
            else:
                self.get_logger().warning(text)
            self._diagnose()
        self._publish()

    def _publish(self) -> None:
        self._reported = time.monotonic()
        message = fill_state(ControllerState(), self._controller)
        message.header.stamp = self.get_clock().now().to_msg()
        self._states.publish(message)

    def _diagnose(self) -> None:
        self._diagnosed, c = time.monotonic(), self._controller
        fine = DiagnosticStatus.OK if c.reason is Reason.ACCEPTED else DiagnosticStatus.WARN
        level = fine if c.state in _OK else DiagnosticStatus.ERROR
        values = {'state': c.state.name, 'reason': c.reason.name, 'episode': c.episode_id, 'step': c.step,
                  'accepted': c.accepted, 'refused': c.refused, **asdict(c.config)}
        status = DiagnosticStatus(level=level, name=f'{self.get_name()}: arm', message=c.message or c.state.name,
                                  values=[KeyValue(key=k, value=str(v)) for k, v in values.items()])
        header = Header(stamp=self.get_clock().now().to_msg())
        self._diagnostics.publish(DiagnosticArray(header=header, status=[status]))

    def close(self) -> None:
        """Let go of the driver; the arm keeps its pose."""
        self._arm.close()


def main(args: list[str] | None = None) -> None:
    """Run the node."""
    node_main.run(WidowXNode, args, shared_memory=False)


if __name__ == '__main__':
    main()
