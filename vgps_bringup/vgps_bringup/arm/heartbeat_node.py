"""Hold the arm, and say so, when widowx_node hangs or dies; offer a ~/stop that answers even then.

::

    ros2 run vgps_bringup heartbeat_node --ros-args -p arm:=simulated
    ros2 service call /vgps/heartbeat_node/stop std_srvs/srv/Trigger

A small process of its own. It listens to ``controller_state`` and the joint states, and sends to the arm's driver only
while the controller is silent or after its own ``~/stop``. In a dry run it moves nothing.
"""

import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from sensor_msgs.msg import JointState
from std_srvs.srv import Trigger

from vgps_bringup.arm.arms import reading_from_joint_state
from vgps_bringup.arm.heartbeat import Heartbeat, Hold
from vgps_bringup.arm.kinematics import JOINT_NAMES
from vgps_msgs.msg import ControllerState
from vgps_msgs_py import node_main, parameters, qos
from vgps_msgs_py.vocabulary import ArmState as State, ControllerReason as Reason

PERIOD = 0.02         # s
REPORT_PERIOD = 0.1   # s, while the controller is lost
DIAGNOSE_PERIOD = 1.0  # s
ASK_PERIOD = 0.5       # s between two attempts to stop a controller that does not answer
_MOVING = (State.MOVING, State.HOMING)


@dataclass(frozen=True)
class HeartbeatConfig:
    """Whose heart, and how long it may pause."""

    arm: str = field(default='interbotix', metadata={
        'description': 'which arm to hold; as for widowx_node', 'choices': ('interbotix', 'simulated'),
        'read_only': True})
    robot_name: str = field(default='wx250s', metadata={
        'description': "namespace of Interbotix's driver", 'read_only': True})
    heartbeat_timeout: float = field(default=0.35, metadata={
        'description': 'silence of widowx_node after which the arm is held [s]; it reports every 0.1 s',
        'range': (0.25, 0.45), 'read_only': True})


class SimulatedDriver:
    """Holds the simulated arm by one joint command."""

    def __init__(self, node: Node):
        self._node = node
        self._publisher = node.create_publisher(JointState, 'joint_command', 10)

    def hold(self, hold: Hold, command: np.ndarray) -> None:
        """Send a Hold; `command` is what the arm was told last, (6,) rad, that of the Hold included."""
        message = JointState(name=[*JOINT_NAMES, 'gripper'], position=[*map(float, command), float(hold.openness)])
        message.header.stamp = self._node.get_clock().now().to_msg()
        self._publisher.publish(message)

    def relax(self) -> None:
        """Nothing pushes on."""


class InterbotixDriver:
    """Holds the real arm through its driver's topics."""

    def __init__(self, node: Node, robot_name: str):
        from interbotix_xs_msgs.msg import JointGroupCommand, JointSingleCommand
        self._group, self._single = JointGroupCommand, JointSingleCommand
        self._joints = node.create_publisher(JointGroupCommand, f'/{robot_name}/commands/joint_group', 10)
        self._gripper = node.create_publisher(JointSingleCommand, f'/{robot_name}/commands/joint_single', 10)

    def hold(self, hold: Hold, command: np.ndarray) -> None:
        """Send the joints of a Hold, once: repeated, the arm would sink."""
        if hold.positions is not None:
            self._joints.publish(self._group(name='arm', cmd=[float(p) for p in hold.positions]))

    def relax(self) -> None:
        """Have the gripper push no more."""
        self._gripper.publish(self._single(name='gripper', cmd=0.0))


class HeartbeatNode(Node):
    """Listens, and holds the arm in the controller's place."""

    def __init__(self) -> None:
        super().__init__('heartbeat_node')
        config = parameters.declare(self, HeartbeatConfig)
        simulated = config.arm == 'simulated'
        self._heart = Heartbeat(config.heartbeat_timeout)
        self._driver: SimulatedDriver | InterbotixDriver = (
            SimulatedDriver(self) if simulated else InterbotixDriver(self, config.robot_name))
        self._last: Any = None          # a ControllerState: the controller's last report
        self._said = self._diagnosed = self._asked = float('-inf')
        self._stopping = False          # whether widowx_node, or its successor, has still to be stopped
        self._stop: Any = None          # the answer that is waited for
        self._states = self.create_publisher(ControllerState, 'controller_state', qos.EVENT)
        self._diagnostics = self.create_publisher(DiagnosticArray, '/diagnostics', 10)
        self.create_subscription(ControllerState, 'controller_state', self._on_state, qos.EVENT)
        self.create_subscription(JointState, 'joint_states' if simulated else f'/{config.robot_name}/joint_states',
                                 self._on_joint_states, 10)
        self._controller = self.create_client(Trigger, 'widowx_node/stop')
        self.create_service(Trigger, '~/stop', self._on_stop)
        self.create_timer(PERIOD, self._on_period, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def _on_state(self, message: ControllerState) -> None:
        if message.reason == Reason.CONTROLLER_LOST:    # our own
            return
        now = time.monotonic()
        if self._heart.lost:
            self.get_logger().info(f'widowx_node answers again after {self._heart.silence(now):.1f} s')
        self._last = message
        self._heart.beat(message.state in _MOVING, message.joint_command, message.gripper_target, now)

    def _on_joint_states(self, message: JointState) -> None:
        reading = reading_from_joint_state(message.name, message.position, message.effort)
        if reading is not None:
            self._heart.reading(reading, time.monotonic())

    def _on_stop(self, _request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        self._hold(time.monotonic())
        self._stopping = True           # until the controller has said that it is stopped, however late it wakes
        response.success = True
        response.message = 'the arm is held; widowx_node ' + (
            'hangs or is dead: it will be stopped when it answers' if self._heart.lost else
            'is being stopped' if self._heart.heard else 'has not reported yet')
        return response

    def _on_period(self) -> None:
        now = time.monotonic()
        if self._heart.tick(now):
            # what was stopped stays stopped for a successor, too: it remembers nothing
            self._stopping |= self._last.state == State.STOPPED
            self._hold(now)
            self.get_logger().error(self._what(now))
        if self._heart.lost and now - self._said >= REPORT_PERIOD:
            self._said = now
            self._say(now)
        if now - self._diagnosed >= DIAGNOSE_PERIOD:
            self._diagnosed = now
            self._diagnose(now)
        self._pass_on_stop(now)

    def _pass_on_stop(self, now: float) -> None:
        if self._stop is not None and self._stop.done():
            self._stopping, self._stop = not self._stop.result().success, None
        elif self._stopping and now - self._asked >= ASK_PERIOD and self._controller.service_is_ready():
            if self._stop is not None:   # asked of a process that died: its successor is asked again
                self._controller.remove_pending_request(self._stop)
            self._asked, self._stop = now, self._controller.call_async(Trigger.Request())

    def _hold(self, now: float) -> None:
        if self._last is None or self._last.dry_run:
            return
        self._driver.relax()
        if (hold := self._heart.hold(now)) is not None and self._heart.command is not None:
            self._driver.hold(hold, self._heart.command)

    def _what(self, now: float) -> str:
        return (f'widowx_node has said nothing for {self._heart.silence(now):.2f} s: it hangs or is dead; '
                + ('a dry run, nothing is sent' if self._last.dry_run else 'the arm is held'))

    def _say(self, now: float) -> None:
        message = self._last
        message.header.stamp = self.get_clock().now().to_msg()
        message.state, message.reason = int(State.STOPPED), int(Reason.CONTROLLER_LOST)
        message.message = self._what(now)
        self._states.publish(message)
        if not message.dry_run:
            self._driver.relax()

    def _others(self) -> str:
        """Return who reports beside the controller and this node, by name."""
        if self.count_publishers(self._states.topic_name) <= 2:    # the names take a millisecond, the count does not
            return ''
        names = [info.node_name for info in self.get_publishers_info_by_topic(self._states.topic_name)]
        for known in (self.get_name(), 'widowx_node'):
            if known in names:
                names.remove(known)
        return ' and '.join(sorted(names))

    def _diagnose(self, now: float) -> None:
        lost, others = self._heart.lost, self._others()
        message = self._what(now) if lost else 'alive' if self._heart.heard else 'not heard yet'
        if others:
            message += f'; {others} may hide a controller that hangs: it publishes controller_state too '\
                       '(a killed process still counts for about 5 s)'
            self.get_logger().warning(message, throttle_duration_sec=10.0)
        status = DiagnosticStatus(name=f'{self.get_name()}: controller', message=message,
                                  level=DiagnosticStatus.ERROR if lost or others else DiagnosticStatus.OK)
        array = DiagnosticArray(status=[status])
        array.header.stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(array)


def main(args: list[str] | None = None) -> None:
    """Run the node."""
    node_main.run(HeartbeatNode, args, shared_memory=False)


if __name__ == '__main__':
    main()
