"""Check from times and values what must be alive and plausible while the arm moves.

Times are monotonic seconds given by the caller: a wall clock may jump, and a jump must not look like a lost driver.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from vgps_bringup.arm.kinematics import JOINT_LOWER, JOINT_NAMES, JOINT_UPPER
from vgps_msgs_py.vocabulary import ControllerReason as Reason

# Silence of policy and critic is no danger to a step-synchronous arm, which rests after each step: the arm holds, says
# so, and the next good command resumes. Every other fault refuses commands while it lasts.
RESUMED_BY_COMMAND = (Reason.STALE_COMMAND, Reason.POLICY_LOST, Reason.CRITIC_LOST)

_LIMIT_TOLERANCE = 0.05      # rad beyond a joint's limits: zero offset and play of the servos
_HARDWARE_ERRORS = {0: 'input voltage', 2: 'overheating', 3: 'encoder', 4: 'electrical shock', 5: 'overload',
                    7: 'nothing, a register read failed'}


@dataclass(frozen=True)
class WatchdogConfig:
    """When something counts as lost or wrong."""

    joint_states_timeout: float = field(default=0.25, metadata={
        'description': 'age of the joint states at which the arm holds [s]', 'range': (0.05, 0.5)})
    driver_timeout: float = field(default=2.0, metadata={
        'description': 'age of the joint states at which the driver counts as lost [s]', 'range': (0.5, 30.0)})
    image_timeout: float = field(default=0.5, metadata={
        'description': 'silence of the camera, once it has been seen, at which the arm holds [s]',
        'range': (0.1, 10.0)})
    command_timeout: float = field(default=2.0, metadata={
        'description': 'silence of policy or critic during an episode at which the arm holds [s]',
        'range': (0.2, 60.0)})
    recovery_time: float = field(default=0.5, metadata={
        'description': 'how long a fault must be gone before commands are accepted again [s]', 'range': (0.1, 10.0)})
    max_joint_jump: float = field(default=0.6, metadata={
        'description': 'largest change of a measured joint between two joint states [rad]', 'range': (0.1, 0.6)})
    effort_limits: tuple[float, ...] = field(default=(1360.0, 1700.0, 1020.0, 1020.0, 1020.0, 1190.0), metadata={
        'description': "largest |effort| per joint [mA]; BridgeData's", 'read_only': True})
    effort_margin: float = field(default=10.0, metadata={
        'description': 'margin above the effort limits at which the arm holds [mA]', 'range': (0.0, 500.0)})
    require_efforts: bool = field(default=False, metadata={
        'description': 'hold while the driver reports no efforts (set by the robot launch). If efforts were reported '
                       'before and stop, the arm holds in any case'})
    max_temperature: float = field(default=65.0, metadata={
        'description': 'largest temperature of a servo [degrees Celsius]; the servos switch off at 72',
        'range': (40.0, 70.0)})

    def __post_init__(self) -> None:
        if len(self.effort_limits) != len(JOINT_NAMES):
            raise ValueError(f'effort_limits has {len(self.effort_limits)} values, one is needed per joint: '
                             f'{", ".join(JOINT_NAMES)}')


@dataclass(frozen=True)
class Fault:
    """Something that makes the arm hold."""

    reason: Reason
    message: str


class Watchdog:
    """Remembers when each part was last heard and what is wrong with it."""

    def __init__(self, config: WatchdogConfig | None = None):
        self.config = config or WatchdogConfig()
        self.positions: np.ndarray | None = None       # (6,) rad, the last sane frame
        self._last_frame: np.ndarray | None = None     # (6,) rad, the last finite one
        self._heard: dict[str, float] = {}             # part -> monotonic time
        self._joints_fault: Fault | None = None
        self._motors_fault: Fault | None = None
        self._present: Fault | None = None             # since when it was last found
        self._since = -np.inf
        self._episode = self._policy_known = self._efforts_known = False
        self.second_publisher: Fault | None = None     # while a topic that commands the arm has two publishers
        self.second_driver: Fault | None = None        # while the joint states have
        self.stalled: Fault | None = None              # for a moment after the controller itself did not run
        self._stalled_until = 0.0

    @property
    def measured(self) -> np.ndarray:
        """`positions`, for what is done once there are some; RuntimeError before."""
        if self.positions is None:
            raise RuntimeError('no joint states yet')
        return self.positions

    def publishers(self, names: Mapping[str, Sequence[str]]) -> None:
        """Take the full names of the nodes that publish, by topic: one may command the arm."""
        self.second_publisher = None
        for topic, nodes in names.items():
            if len(nodes) > 1:
                self.second_publisher = Fault(
                    Reason.TWO_PUBLISHERS, f'{topic} has {len(nodes)} publishers, {" and ".join(sorted(nodes))}: stop '
                                           'one (a killed process still counts for about 5 s)')
                return

    def drivers(self, topic: str, nodes: Sequence[str]) -> None:
        """Take the full names of the nodes that publish the joint states: of two, nobody knows which arm is meant."""
        self.second_driver = None if len(nodes) < 2 else Fault(
            Reason.BAD_JOINT_STATES, f'{topic} has {len(nodes)} publishers, {" and ".join(sorted(nodes))}: a recording '
                                     'that is played, or a second driver; stop one (a process that was killed counts '
                                     'for some 5 s more)')

    @property
    def note(self) -> str:
        """What is not watched, '' for nothing."""
        return '' if self._efforts_known else 'the driver reports no efforts: obstacles will not be felt'

    def notice_stall(self, gap: float, now: float) -> Fault | None:
        """Take the seconds since the controller ran last; return the Fault where its joint states are old by that.

        What waited in its queues meanwhile, joint states too, arrives within `recovery_time`.
        """
        if gap <= self.config.joint_states_timeout:
            return None
        self.stalled = Fault(Reason.STALE_JOINT_STATES, f'the controller itself was suspended for {gap:.2f} s: what '
                                                        'arrived meanwhile is out of date')
        self._stalled_until = now + self.config.recovery_time
        return self.stalled

    def relocated(self) -> None:
        """Expect the next frame anywhere: a simulation has put the arm elsewhere."""
        self._last_frame = None

    def joints(self, positions: np.ndarray, efforts: np.ndarray | None, now: float, finger: float = 0.0) -> bool:
        """Take (6,) positions [rad], (6,) efforts [mA] or None and the finger [m]; return whether they are sane."""
        self._heard['joint states'] = now
        positions = np.asarray(positions, float)
        fault = self._judge_positions(positions)
        if fault is None:
            self.positions = positions
            fault = self._judge_finger(finger) or self._judge_efforts(efforts)
        self._joints_fault = fault
        return fault is None or fault.reason in (Reason.EFFORT, Reason.NO_EFFORT)

    def _judge_positions(self, positions: np.ndarray) -> Fault | None:
        if positions.shape != (6,) or not np.isfinite(positions).all():
            return Fault(Reason.BAD_JOINT_STATES, f'joint states are not 6 finite numbers: {positions}')
        if np.allclose(positions, -np.pi, atol=1e-3):
            # Interbotix's driver publishes raw zeros as -pi when a bus read failed.
            return Fault(Reason.BAD_JOINT_STATES, 'every joint at -pi: the driver failed to read the servos')
        outside = np.maximum(JOINT_LOWER - positions, positions - JOINT_UPPER)
        worst = int(outside.argmax())
        if outside[worst] > _LIMIT_TOLERANCE:
            return Fault(Reason.BAD_JOINT_STATES, f'{JOINT_NAMES[worst]} reads {positions[worst]:.3f} rad, outside '
                                                  f'{JOINT_LOWER[worst]:.3f} to {JOINT_UPPER[worst]:.3f}')
        previous, self._last_frame = self._last_frame, positions
        if previous is not None:
            jump = np.abs(positions - previous)
            worst = int(jump.argmax())
            if jump[worst] > self.config.max_joint_jump:
                return Fault(Reason.JOINT_JUMP, f'{JOINT_NAMES[worst]} jumped {jump[worst]:.2f} rad between two joint '
                                                'states')
        return None

    def _judge_finger(self, finger: float) -> Fault | None:
        if np.isfinite(finger):
            return None
        return Fault(Reason.BAD_FINGER, f'the finger reads {finger}: the gripper is not driven until it reads a number')

    def _judge_efforts(self, efforts: np.ndarray | None) -> Fault | None:
        if efforts is None:
            if not (self.config.require_efforts or self._efforts_known):
                return None
            return Fault(Reason.NO_EFFORT, 'the driver reports no efforts'
                         + (' any more' if self._efforts_known else '') + ': obstacles would not be felt')
        self._efforts_known = True
        excess = np.abs(efforts) - np.array(self.config.effort_limits)
        worst = int(np.argmax(excess))
        if not np.isfinite(excess).all() or excess[worst] > self.config.effort_margin:
            return Fault(Reason.EFFORT, f'{JOINT_NAMES[worst]} draws {abs(efforts[worst]):.0f} mA, more than '
                                        f'{self.config.effort_limits[worst]:.0f}: is something in the way?')
        return None

    def motors(self, names: Sequence[str], errors: Sequence[int], temperatures: Sequence[float]) -> None:
        """Take servo names with their hardware error status and temperatures [C]; empty lists where unknown."""
        for name, error in zip(names, errors):
            if error:
                what = [text for bit, text in _HARDWARE_ERRORS.items() if error >> bit & 1] or [f'status {error}']
                self._motors_fault = Fault(Reason.MOTOR_ERROR, f'servo {name} reports ' + ', '.join(what)
                                           + '; ~/reset reboots it')
                return
        for name, temperature in zip(names, temperatures):
            if temperature > self.config.max_temperature:
                self._motors_fault = Fault(Reason.TEMPERATURE, f'servo {name} is at {temperature:.0f} C, more than '
                                                               f'{self.config.max_temperature:.0f}: let it cool down')
                return
        self._motors_fault = None

    def fresh(self, now: float) -> bool:
        """Tell whether `positions` are those of this moment."""
        return (self.positions is not None and self.stalled is None and self.second_driver is None
                and now - self._heard['joint states'] <= self.config.joint_states_timeout
                and (self._joints_fault is None or self._joints_fault.reason is Reason.EFFORT))

    def excuse(self, stalled: float) -> None:
        """Do not count `stalled` seconds in which the controller itself did not run as silence of the others."""
        self._heard = {part: heard + stalled for part, heard in self._heard.items()}

    def image(self, now: float) -> None:
        """Note a camera frame."""
        self._heard['image'] = now

    def candidates(self, now: float) -> None:
        """Note a sign of life of the policy: the first since the last command, from which the critic has its time."""
        self._policy_known = True
        if self._heard.get('policy', -np.inf) <= self._heard.get('command', -np.inf):
            self._heard['policy'] = now

    def command(self, now: float) -> None:
        """Note a command of the critic."""
        self._heard['command'] = now

    def episode(self, running: bool, now: float) -> None:
        """Note that an episode began or ended: commands are only missed during one."""
        if running and not self._episode:
            self._heard['command'] = now
            self._heard.pop('policy', None)     # what it said in an earlier episode is no sign of life in this one
        self._episode = running

    def check(self, now: float, waiting: bool) -> Fault | None:
        """Return the Fault that holds the arm, or None.

        `waiting` is true while the arm is ready for the next command. A fault stays for `recovery_time` after its
        cause has gone, so that a flickering one does not let single commands through.
        """
        if self.stalled is not None and now >= self._stalled_until:
            self.stalled = None
        if self.stalled is not None:
            return self.stalled
        fault = self._find(now, waiting)
        if fault is not None:
            self._present, self._since = fault, now
        elif self._present is not None and (self._present.reason in RESUMED_BY_COMMAND
                                            or now - self._since >= self.config.recovery_time):
            self._present = None
        if self._present is None or self._present.reason in RESUMED_BY_COMMAND:
            return self.second_publisher or self._present
        return self._present

    def _find(self, now: float, waiting: bool) -> Fault | None:
        c = self.config
        age = now - self._heard.get('joint states', now)
        if age > c.driver_timeout:
            return Fault(Reason.DRIVER_LOST, f'no joint states for {age:.1f} s: is the driver running?')
        if age > c.joint_states_timeout:
            return Fault(Reason.STALE_JOINT_STATES, f'no joint states for {age:.2f} s')
        if (fault := self.second_driver or self._joints_fault) is not None:
            return fault
        if self._motors_fault is not None:
            return self._motors_fault
        age = now - self._heard.get('image', now)
        if age > c.image_timeout:
            return Fault(Reason.STALE_IMAGE, f'no camera frame for {age:.2f} s')
        return self._find_silence(now) if self._episode and waiting else None

    def _find_silence(self, now: float) -> Fault | None:
        last = self._heard['command']
        silence = now - last
        if silence <= self.config.command_timeout:
            return None
        proposed = self._heard.get('policy')
        if proposed is None:
            if not self._policy_known:
                return Fault(Reason.STALE_COMMAND, f'no command for {silence:.1f} s')
            return Fault(Reason.POLICY_LOST, f'no candidates in the {silence:.1f} s of this episode: policy_node '
                                             'hangs or is not running')
        if proposed > last:
            if now - proposed <= self.config.command_timeout:
                return None
            return Fault(Reason.CRITIC_LOST, f'candidates {now - proposed:.1f} s ago but no command: '
                                             'is critic_node running?')
        return Fault(Reason.POLICY_LOST, f'no candidates for {now - proposed:.1f} s: policy_node hangs or is not '
                                         'running')
