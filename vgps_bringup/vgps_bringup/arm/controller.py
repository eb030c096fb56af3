"""The controller's state machine: commands, watchdog, stop, home and reset, for any arm. No ROS; time is passed in.

READY -> MOVING (one step of 0.2 s) -> READY is the normal course. A command refused for what it asks leaves READY with
the reason. A fault the watchdog finds leads to HOLDING until it is gone. STOPPED, after ~/stop or where a move to a
pose was cut short, is left by reset or home alone: a READY would tell the policy that the pose was reached.
"""

from dataclasses import dataclass, field

import numpy as np

from vgps_bringup.arm import previous_target
from vgps_bringup.arm.gate import CommandGate
from vgps_bringup.arm.kinematics import JOINT_NAMES, Kinematics
from vgps_bringup.arm.motion import Motion
from vgps_bringup.arm.reason import Reason, State
from vgps_bringup.arm.step_controller import StepController
from vgps_bringup.arm.watchdog import RESUMED_BY_COMMAND, Fault, Watchdog

_LONGEST_PERIOD = 0.05  # s that a move advances per control period at most
_SETTLE = 0.4           # s after a move, the time the arm needs to catch up
_REACHED = 0.1          # rad, BridgeData's check of the neutral pose
_FAR = 0.6              # rad: an arm further behind its command is blocked, or its joint states are wrong
_RECOVERY_LIMIT = 30.0  # s for a reboot of the servos
_ANCHORED = 0.1         # rad: a resting arm closer than this to its command is where it was told to be
_RESETTABLE = (Reason.EFFORT, Reason.MOTOR_ERROR)    # what ~/reset and ~/home may start from
# Something touches the arm or its state is in doubt: do not finish the step, stay where it is.
_FREEZE = (Reason.EFFORT, Reason.JOINT_JUMP, Reason.MOTOR_ERROR)


@dataclass(frozen=True)
class ControllerConfig:
    """Course of the steps and the poses to go to."""

    base_frame: str = field(default='wx250s/base_link', metadata={
        'description': "frame the commands must be in: the arm's base", 'read_only': True})
    dry_run: bool = field(default=True, metadata={
        'description': "compute and check everything but move nothing; each step starts at the arm's present pose"})
    step_duration: float = field(default=0.2, metadata={
        'description': 'time of one control step, 5 Hz as BridgeData [s]', 'range': (0.1, 1.0)})
    # BridgeData gives up on images older than this.
    max_image_age: float = field(default=1.0, metadata={
        'description': 'oldest image a command may be made from [s]', 'range': (0.05, 30.0)})
    move_speed: float = field(default=1.0, metadata={
        'description': 'largest joint speed on the way to neutral and start pose [rad/s]', 'range': (0.1, 1.5)})
    neutral_joints: tuple[float, ...] = field(
        default=(-0.13192235, -0.76238847, 0.44485444, -0.01994175, 1.7564081, -0.15953401), metadata={
            'description': "joints of ~/home [rad], BridgeData's", 'read_only': True})
    start_state: tuple[float, ...] = field(default=(0.3, 0.0, 0.15, 0.0, 0.0, 0.0), metadata={
        'description': "gripper pose of ~/reset: x y z [m], roll pitch yaw [rad] in BridgeData's convention",
        'read_only': True})

    def start_joints(self):
        """Return the (6,) joints of the start pose; ValueError where the arm cannot reach it from neutral."""
        if len(self.neutral_joints) != len(JOINT_NAMES) or len(self.start_state) != 6:
            raise ValueError('neutral_joints needs 6 joint positions and start_state x y z roll pitch yaw')
        solution = Kinematics().inverse(previous_target.pose_from_state(self.start_state), self.neutral_joints)
        if not solution.ok:
            raise ValueError(f'start_state {self.start_state} is out of reach')
        return solution.joint_positions


class ArmController:
    """Decides what the arm does. Every method takes `now`, monotonic seconds, and none blocks."""

    def __init__(self, arm, config=None, step_config=None, watchdog_config=None):
        self.arm, self.config = arm, config or ControllerConfig()
        self.watchdog, self.gate = Watchdog(watchdog_config), CommandGate()
        self.steps = StepController(step_config)
        self.state, self.reason, self.message = State.STARTING, Reason.NOT_READY, 'waiting for joint states'
        self.episode_id, self.step = '', 0
        self.accepted = self.refused = 0
        self.last = None                  # StepResult of the last command that got as far as the guards
        self.image_to_command = 0.0       # s, of the last step
        self.reading = None
        self._step_end, self._sent = 0.0, None
        self._waypoints, self._motion, self._elapsed, self._started, self._ticked = [], None, 0.0, 0.0, 0.0
        self._start_joints = self.config.start_joints()

    def configure(self, config):
        """Take a new ControllerConfig; a bad one raises ValueError and changes nothing."""
        start_joints = config.start_joints()
        if config.dry_run != self.config.dry_run and self.watchdog.positions is not None:
            # What a dry run imagined is not where the arm is, nor whether its gripper is open.
            openness = self.reading.openness if self.config.dry_run else self.steps.gripper
            self.steps.reset(self.watchdog.positions, openness)
        self.config, self._start_joints = config, start_joints

    # ---- what comes in -----------------------------------------------------------------------------------------

    def on_reading(self, reading, now):
        """Take a frame of joint states."""
        if reading.relocated:
            self.watchdog.relocated()
        sane = self.watchdog.joints(reading.positions, reading.efforts, now)
        if sane:
            self.reading = reading
            if reading.relocated:
                self._begin_here()

    def on_command(self, command, now, ros_now):
        """Take or refuse one Command; `ros_now` is the clock that stamps the images [s]."""
        if self.state is State.MOVING and now < self._step_end:
            reason, message = Reason.TOO_SOON, f'step {command.step} came while step {self.step} is moving'
        else:
            reason, message = self.gate.check(command, ros_now, self.config.base_frame, self.config.max_image_age)
        if reason in (Reason.TOO_SOON, Reason.OUT_OF_ORDER, Reason.WRONG_FRAME):
            self.refused += 1
            if self.state is State.READY:    # a step that moves keeps its verdict: a flood must not cover it up
                self.reason, self.message = reason, message
            return
        self.episode_id, self.step = command.episode_id, command.step
        self.watchdog.command(now)
        if self._blocked():
            self.refused += 1
            return
        if reason is Reason.ACCEPTED:
            reason, message = self._execute(command, now, ros_now)
        if reason is not Reason.ACCEPTED:
            self.refused += 1
            self._enter(State.READY, reason, message)

    def on_episode(self, episode_id, running, now):
        """Take the announcement of an episode's start or end."""
        self.gate.episode(episode_id, running)
        self.watchdog.episode(running, now)

    def _blocked(self):
        """Whether commands are refused now for the reason already shown."""
        return self.state in (State.STARTING, State.HOMING, State.STOPPED) or (
            self.state is State.HOLDING and self.reason not in RESUMED_BY_COMMAND)

    def _execute(self, command, now, ros_now):
        if command.hold:
            return Reason.HOLD_REQUESTED, command.message
        if not self.arm.ready:
            return Reason.NOT_READY, self.arm.message
        measured = self.watchdog.positions
        if self.config.dry_run:
            self._anchor(force=True)
        result = self.last = self.steps.step(command.action, measured)
        if result.accepted:
            self._send(result.joint_command, result.gripper)
            self.accepted += 1
            self.image_to_command = ros_now - command.stamp
            self._step_end = now + self.config.step_duration
            self._enter(State.MOVING, Reason.ACCEPTED, '')
        return result.reason, result.message

    # ---- services ----------------------------------------------------------------------------------------------

    def stop(self):
        """Stay where the arm is, until reset or home."""
        self._freeze()
        self._enter(State.STOPPED, Reason.STOP_REQUESTED, '~/stop was called; ~/reset or ~/home resumes')

    def fail(self, error):
        """Stop because the controller itself raised: a bug must not move the arm twice."""
        self._freeze()
        self._enter(State.STOPPED, Reason.FAULT, f'{type(error).__name__}: {error}; ~/reset resumes')

    def home(self, now):
        """Go to the neutral pose, gripper as it is. Returns (started, message)."""
        return self._go([np.array(self.config.neutral_joints)], now)

    def reset(self, now):
        """Reboot servos in error, open the gripper, go to neutral and on to the start pose."""
        started = self._go([np.array(self.config.neutral_joints), self._start_joints], now)
        if started[0]:
            self.steps.gripper = 1.0
        return started

    def _go(self, waypoints, now):
        if self.watchdog.positions is None:
            return False, 'no joint states yet'
        fault = self.watchdog.check(now, False)
        if not self.arm.ready or (fault is not None and fault.reason is Reason.MOTOR_ERROR):
            if self.config.dry_run:
                return False, 'dry run: the servos are left alone; set dry_run to false first'
            self.arm.recover()
        elif fault is not None and fault.reason not in (*RESUMED_BY_COMMAND, Reason.STALE_IMAGE, *_RESETTABLE):
            return False, f'{fault.reason.name}: {fault.message}'
        self._waypoints, self._motion, self._started = list(waypoints), None, now
        self._enter(State.HOMING, Reason.ACCEPTED, 'dry run: the arm is not moved' if self.config.dry_run else '')
        return True, 'on the way'

    # ---- time --------------------------------------------------------------------------------------------------

    def tick(self, now, ros_now):
        """Run one control period: watchdog, end of the step, moves between poses."""
        # A controller that was kept waiting goes on where it was instead of leaping ahead.
        stalled = max(0.0, now - self._ticked - _LONGEST_PERIOD) if self._ticked else 0.0
        period, self._ticked = min(now - self._ticked, _LONGEST_PERIOD), now
        self.watchdog.excuse(stalled)
        self.arm.tick(now)
        jump = self.gate.watch_clock(ros_now, now)
        if jump:
            self.message = f'the clock jumped by {jump:.3f} s'
        if self.state is State.STARTING:
            if self.reading is not None and self.arm.ready:
                self.steps.reset(self.reading.positions, self.reading.openness)
                self._enter(State.READY, Reason.ACCEPTED, '')
            elif self.arm.message:
                self.message = self.arm.message
            return
        fault = self.watchdog.check(now, self.state in (State.READY, State.HOLDING))
        if self.state is State.HOMING:
            self._tick_homing(fault, now, period)
        elif self.state is not State.STOPPED:
            self._tick_stepping(fault, now)

    def _tick_stepping(self, fault, now):
        if not self.arm.ready:
            fault = fault or Fault(Reason.NOT_READY, self.arm.message)
        if fault is not None:
            if fault.reason in RESUMED_BY_COMMAND and self.state is State.MOVING:
                return
            self._hold(fault)
        elif self.state is State.HOLDING:
            self._anchor()
            self._enter(State.READY, Reason.ACCEPTED, '')
        elif self.state is State.MOVING and now >= self._step_end:
            self._enter(State.READY, self.reason, self.message)

    def _tick_homing(self, fault, now, period):
        # What reset is there to get away from needs a moment to go away.
        recovering = fault is not None and fault.reason in _RESETTABLE
        if self._motion is None and (recovering or not self.arm.ready) and now - self._started < _RECOVERY_LIMIT:
            self.message = self.arm.message or fault.message
        elif not self.arm.ready:
            self._abandon(Reason.NOT_READY, self.arm.message)
        elif fault is not None and fault.reason not in (*RESUMED_BY_COMMAND, Reason.STALE_IMAGE):
            self._abandon(fault.reason, fault.message)
        elif self.config.dry_run:
            self._enter(State.READY, Reason.ACCEPTED, 'dry run: the arm was not moved')
        elif self._motion is None:
            self._motion = Motion(self._anchor(), self._waypoints.pop(0), self.config.move_speed)
            self._elapsed = 0.0
        else:
            self._elapsed += period
            self._follow()

    def _follow(self):
        wanted = self._motion.at(self._elapsed)
        behind = np.abs(wanted - self.watchdog.positions)
        worst = int(behind.argmax())
        if behind[worst] > _FAR:
            self._abandon(Reason.JOINT_STEP, f'{JOINT_NAMES[worst]} is {behind[worst]:.2f} rad behind on the way: is '
                                             'something in the way? ~/reset tries again')
        elif self._elapsed < self._motion.duration + _SETTLE:
            self._send(wanted, self.steps.gripper)
        elif behind[worst] > _REACHED:
            self._abandon(Reason.NOT_READY, f'{JOINT_NAMES[worst]} stopped {behind[worst]:.2f} rad short of the pose; '
                                            '~/reset tries again')
        else:
            # The target is what was commanded: the measured pose sags, and would sag further with each step.
            self.steps.reset(wanted, self.steps.gripper)
            self._motion = None
            if not self._waypoints:
                self._enter(State.READY, Reason.ACCEPTED, '')

    def _abandon(self, reason, message):
        self._freeze()
        self._enter(State.STOPPED, reason, message)

    def _begin_here(self):
        """Go on from where a simulation has put the arm: the last command belongs to the scene before."""
        if self.state is not State.STARTING:
            self._anchor(force=True)
        if self.state is State.HOMING and self._motion is not None:
            self._waypoints.insert(0, self._motion.goal)
            self._motion = None

    # ---- helpers -----------------------------------------------------------------------------------------------

    def _enter(self, state, reason, message):
        self.state, self.reason, self.message = state, reason, message

    def _send(self, joint_positions, openness):
        self._sent = joint_positions
        if not self.config.dry_run:
            self.arm.command(joint_positions, openness)

    def _hold(self, fault):
        if self.state is State.MOVING and fault.reason in _FREEZE:
            self._freeze()
        self._enter(State.HOLDING, fault.reason, fault.message)

    def _freeze(self):
        """Cut a motion short: the goal becomes where the arm is now, once (repeated, it would sink)."""
        if self.state not in (State.MOVING, State.HOMING) or self._sent is None or not self.arm.ready:
            return
        # Joint states that far off are not to be believed: then the last command stands.
        if np.abs(self.watchdog.positions - self._sent).max() <= _FAR:
            self._anchor(force=True)
            self._send(self.steps.joint_command, self.steps.gripper)

    def _anchor(self, force=False):
        """Start the next motion from the last command, or from the measured joints where the arm is elsewhere."""
        measured = self.watchdog.positions
        if force or np.abs(measured - self.steps.joint_command).max() > _ANCHORED:
            self.steps.reset(measured, self.steps.gripper)
        return self.steps.joint_command
