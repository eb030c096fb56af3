"""The real WidowX behind the arm's seam, through Interbotix's own interbotix_xs_modules.

Their API blocks without limit, keeps process-wide state and spins the node it is given, so it lives on a node and a
thread of its own and never sees the controller's executor; what the controller does each period (joint commands,
gripper PWM) are plain publications. Their pose and trajectory calls are not used: the NaN that becomes a zero pose,
the velocity check against the wrong moving time and the times that are never written to the servos all live there.
Start-up and recovery write the time profile and read it back, since no service of the driver reports success.
"""

import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from vgps_bringup.arm.arms import MotorHealth, Reading, reading_from_joint_state
from vgps_bringup.arm.gripper import GripperConfig, GripperLoop
from vgps_bringup.arm.kinematics import JOINT_LOWER, JOINT_NAMES, JOINT_UPPER

# Milliseconds, BridgeData's for a step of 0.2 s: a little longer than the step, so that joints do not stop between two.
PROFILE = {'Profile_Velocity': 250, 'Profile_Acceleration': 100}
SERVOS = (*JOINT_NAMES, 'gripper')
_SERVICE_TIMEOUT = 10.0   # s; the longest is a reboot of every servo
_POLL_PERIOD = 1.0        # s: each register read is a bus transaction per servo and holds up the joint states
_RETRY_PERIOD = 2.0       # s
_QUIET = 0.2              # s after a command in which registers are left alone, unless commands come without a pause
_LATEST = 0.5             # s that a poll waits for such a pause: servo errors must be seen while the arm moves, too
# Units of 20 ms without any instruction on the servo's bus, after which the servo stops of itself and refuses goals. It
# is the driver that keeps the bus busy, so this ends the pushing when driver, computer or cable fail, not when we do.
BUS_WATCHDOG = 25
_TRIPPED = (-1, 255)      # what Bus_Watchdog reads then, as a signed and as an unsigned byte
_BUS_WAS_DEAD = ('the servos stopped by themselves, because nothing was sent on their bus for 0.5 s (Bus_Watchdog '
                 'reads {}): check the driver, support the arm, then call ~/reset')
_NO_ANSWER = 1 << 7       # error status of our own making; bit 7 is unused by the servos


class InterbotixArm:
    """The arm in the driver's namespace `robot_name`. The constructor returns at once; `ready` says when it is up."""

    def __init__(self, node: Any, robot_name: str, gripper_config: GripperConfig,
                 on_reading: Callable[[Reading], None], on_health: Callable[[MotorHealth], None]):
        from sensor_msgs.msg import JointState
        self.gripper, self._bus_watchdog = GripperLoop(gripper_config), gripper_config.bus_watchdog
        self.ready, self.message = False, f"waiting for Interbotix's driver in namespace /{robot_name}"
        self._logger, self._robot_name = node.get_logger(), robot_name
        self._on_reading, self._on_health = on_reading, on_health
        self._finger, self._finger_at = float('nan'), -np.inf
        self._commanded = -np.inf           # monotonic time of the last joint command
        self._pwm = 0.0
        self._robot: Any = None             # Interbotix's own, once there is one
        self._answered: set[str] = set()    # registers this driver has been seen to know
        self._recover, self._closing = threading.Event(), threading.Event()
        # On the controller's own executor: joint states must arrive while the thread waits for a service.
        node.create_subscription(JointState, f'/{robot_name}/joint_states', self._on_joint_states, 10)
        self._thread = threading.Thread(target=self._run, name='interbotix', daemon=True)
        self._thread.start()

    # ---- called by the controller ------------------------------------------------------------------------------

    def command(self, joint_positions: np.ndarray, openness: float | None) -> None:
        """Go to (6,) joint positions [rad] and gripper openness (0 closed, 1 open); None leaves the fingers alone."""
        positions = np.asarray(joint_positions, float)
        # The driver turns NaN into 0 rad and sends what is out of range: the last line of defence.
        if positions.shape != (6,) or not ((positions >= JOINT_LOWER) & (positions <= JOINT_UPPER)).all():
            raise ValueError(f'joint command outside the limits: {positions}')
        if not self.ready:
            raise RuntimeError(f'the arm takes no commands: {self.message}')
        self._commanded = time.monotonic()
        self._robot.core.robot_write_commands('arm', positions.tolist())
        if openness is not None:
            self.gripper.set_goal(openness, self._commanded)

    def hold(self) -> None:
        """Push no more, but for what the fingers hold, and that with the holding PWM at most."""
        self.gripper.hold(self._finger, time.monotonic())

    def tick(self, now: float) -> None:
        """Drive the fingers, once per control period; a gripper that is not ready or not measured is not pushed."""
        if self._robot is None:
            return
        pwm = self.gripper.pwm(self._finger, now, now - self._finger_at) if self.ready else 0.0
        if pwm or self._pwm:
            self._robot.core.robot_write_joint_command('gripper', pwm)
        self._pwm = pwm

    def recover(self) -> None:
        """Reboot servos in error and set modes and profile again; the arm sags for a moment."""
        self.ready, self.message = False, 'rebooting servos'
        self._recover.set()

    def close(self) -> None:
        """End the thread; the joints hold their pose, the fingers stop pushing."""
        if self._robot is not None and self._pwm:
            self._robot.core.robot_write_joint_command('gripper', 0.0)
        self._closing.set()
        self._thread.join(timeout=2.0)

    def _on_joint_states(self, message: Any) -> None:
        reading = reading_from_joint_state(message.name, message.position, message.effort)
        if reading is not None:
            self._finger, self._finger_at = reading.finger, time.monotonic()
            self._on_reading(reading)

    # ---- the thread --------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            node = self._connect()
        # SystemExit is how Interbotix's constructor reports a robot model that does not fit.
        except (Exception, SystemExit) as error:
            if not self._closing.is_set():
                self.message = f'{type(error).__name__}: {error}'
                self._logger.error(f"cannot use Interbotix's API: {self.message}")
            return
        import rclpy
        next_poll, polls = 0.0, 0
        while not self._closing.is_set():
            try:
                now = time.monotonic()
                if self._recover.is_set():
                    self._reboot()
                elif not self.ready:
                    self._prepare()
                elif now >= next_poll and (now - self._commanded > _QUIET or now >= next_poll + _LATEST):
                    self._poll(polls)
                    next_poll, polls = now + _POLL_PERIOD, polls + 1
                rclpy.spin_once(node, timeout_sec=0.02)
            except Exception as error:
                if self._closing.is_set():
                    break
                if str(error) != self.message:
                    self._logger.error(f'arm: {error}')
                self.ready, self.message = False, str(error)
                self._closing.wait(_RETRY_PERIOD)
        node.destroy_node()

    def _connect(self) -> Any:
        """Build Interbotix's robot on a node of its own. Waits for the driver for as long as it takes."""
        import rclpy
        try:
            from interbotix_common_modules.common_robot.robot import InterbotixRobotNode
            from interbotix_xs_modules.xs_robot.arm import InterbotixManipulatorXS
        except ImportError as error:
            raise ImportError(f'{error}: install interbotix_ros_manipulators (its xsarm_install.sh) and source its '
                              'workspace, or run with arm:=simulated') from error

        class BoundedNode(InterbotixRobotNode):
            """Waits for services with an end; theirs would wait forever for a driver that died."""

            def wait_until_future_complete(self, future: Any, timeout_sec: float | None = None) -> None:
                rclpy.spin_until_future_complete(self, future, timeout_sec=timeout_sec or _SERVICE_TIMEOUT)
                if not future.done():
                    raise TimeoutError("Interbotix's driver does not answer")

        node = BoundedNode(node_name='widowx_interbotix')
        # No gripper of theirs: its timer fights our finger loop. No FK updates: nobody reads them.
        self._robot = InterbotixManipulatorXS('wx250s', gripper_name=None, robot_name=self._robot_name, node=node,
                                              iterative_update_fk=False)
        return node

    def _prepare(self, set_modes: bool = False) -> None:
        """Check that this is the robot we know, set modes where allowed, write the time profile and read it back."""
        core = self._robot.core
        arm, gripper = core.robot_get_robot_info('group', 'arm'), core.robot_get_robot_info('single', 'gripper')
        if tuple(arm.joint_names) != JOINT_NAMES:
            raise RuntimeError(f'the driver has joints {list(arm.joint_names)}, wx250s has {list(JOINT_NAMES)}: '
                               'wrong robot_model?')
        limits = np.array([arm.joint_lower_limits, arm.joint_upper_limits])
        if not np.allclose(limits, [JOINT_LOWER, JOINT_UPPER], atol=0.01):
            raise RuntimeError(f'the driver has other joint limits than wx250s: {limits.round(3).tolist()}')
        wrong = (arm.mode, arm.profile_type, gripper.mode) != ('position', 'time', 'pwm')
        if set_modes:
            core.robot_set_operating_modes('group', 'arm', 'position', 'time', *PROFILE.values())
            core.robot_set_operating_modes('single', 'gripper', 'pwm')
        elif wrong:
            raise RuntimeError(f'arm is in mode {arm.mode} with {arm.profile_type} profile, gripper in {gripper.mode}; '
                               'required are position, time and pwm: ~/reset sets them (support the arm, it sags)')
        if self._bus_watchdog:
            self._arm_bus_watchdog(cleared=set_modes)
        for register, value in PROFILE.items():
            core.robot_set_motor_registers('group', 'arm', register, value)
            read = list(core.robot_get_motor_registers('group', 'arm', register))
            if read != [value] * len(JOINT_NAMES):
                raise RuntimeError(f'{register} reads {read} after {value} was written')
        self._robot.arm.capture_joint_positions()
        self.ready, self.message = True, ''
        self._logger.info('arm: ' + ', '.join(f'{k} {v} ms' for k, v in PROFILE.items()))

    def _arm_bus_watchdog(self, cleared: bool) -> None:
        """Have the servos stop by themselves on a dead bus, and read it back; `cleared` lets a tripped one go on."""
        core = self._robot.core
        read = self._read('Bus_Watchdog')
        if not cleared and any(value in _TRIPPED for value in read):
            raise RuntimeError(_BUS_WAS_DEAD.format(read))
        # 0 first: it clears a trip, and a servo that has tripped takes no other value
        for value in (0, BUS_WATCHDOG):
            core.robot_set_motor_registers('group', 'all', 'Bus_Watchdog', value)
        read = self._read('Bus_Watchdog')
        if not read:
            raise RuntimeError('this driver has no register Bus_Watchdog: the gripper would go on pushing if the '
                               'driver died; bus_watchdog:=false accepts that')
        if set(read) != {BUS_WATCHDOG}:
            raise RuntimeError(f'Bus_Watchdog reads {list(read)} after {BUS_WATCHDOG} was written')

    def _reboot(self) -> None:
        """Reboot the servos that report an error. RAM registers are lost with it, and so is what the gripper held."""
        self._recover.clear()
        self.ready = False
        self.gripper = GripperLoop(self.gripper.config)
        self._robot.core.robot_reboot_motors('group', 'all', enable=True, smart_reboot=True)
        self._prepare(set_modes=True)
        self._poll(0)

    def _poll(self, turn: int) -> None:
        """Read one kind of register; the kinds take turns, errors every other one."""
        core = self._robot.core
        if turn % 2 == 0:
            self._errors = self._read('Hardware_Error_Status')
        elif turn % 6 == 1:
            self._temperatures = self._read('Present_Temperature')
        elif turn % 6 == 3 and self._bus_watchdog:
            read = self._read('Bus_Watchdog')
            if any(value in _TRIPPED for value in read):
                raise RuntimeError(_BUS_WAS_DEAD.format(list(read)))
        else:
            profile = list(core.robot_get_motor_registers('group', 'arm', 'Profile_Velocity'))
            if profile != [PROFILE['Profile_Velocity']] * len(JOINT_NAMES):
                raise RuntimeError(f'Profile_Velocity reads {profile}: the driver or a servo was restarted')
        self._on_health(MotorHealth(SERVOS, self._errors, self._temperatures))

    _errors: tuple[int, ...] = ()
    _temperatures: tuple[float, ...] = ()

    def _read(self, register: str) -> tuple[int, ...]:
        """Return a register of every servo, () where this driver does not know it, all _NO_ANSWER where it failed."""
        values = tuple(self._robot.core.robot_get_motor_registers('group', 'all', register))
        if len(values) == len(SERVOS):
            self._answered.add(register)
            return values
        return (_NO_ANSWER,) * len(SERVOS) if values or register in self._answered else ()
