"""The controller's state machine: commands, watchdog, stop, home and reset, for any arm. No ROS; time is passed in.

READY -> MOVING (one step of 0.2 s) -> READY is the normal course. A command refused for what it asks leaves READY with
the reason. A fault the watchdog finds leads to HOLDING until it is gone. STOPPED, after ~/stop or where a move to a
pose went wrong, ends the running episode and is left by the operator's reset or home alone. A move that a goal asked
for ends where the arm is when the goal is over or falls silent; nothing is ever tried again by itself.
"""

import numpy as np

from vgps_bringup.arm.arms import Arm, Reading
from vgps_bringup.arm.authority import Authority
from vgps_bringup.arm.controller_config import ControllerConfig
from vgps_bringup.arm.gate import Command, CommandGate
from vgps_bringup.arm.homing import Homing, to_start_pose
from vgps_bringup.arm.outlet import Outlet
from vgps_bringup.arm.step_controller import StepController, StepControllerConfig, StepResult
from vgps_bringup.arm.watchdog import RESUMED_BY_COMMAND, Fault, Watchdog, WatchdogConfig
from vgps_msgs_py.vocabulary import ArmState as State, ControllerReason as Reason

Answer = tuple[bool, str]    # success, message
_LONGEST_PERIOD = 0.05  # s that a move advances per control period at most
_RECOVERY_LIMIT = 30.0  # s for a reboot of the servos
# Something touches the arm, or its state or master is in doubt: do not finish the step, stay where it is.
_FREEZE = (Reason.EFFORT, Reason.JOINT_JUMP, Reason.MOTOR_ERROR, Reason.TWO_PUBLISHERS)
# A command that was not meant for now: it uses up no step.
_NOT_TAKEN = (Reason.TOO_SOON, Reason.OUT_OF_ORDER, Reason.WRONG_FRAME, Reason.NO_EPISODE, Reason.TWO_PUBLISHERS)
_HARMLESS = (*RESUMED_BY_COMMAND, Reason.STALE_IMAGE)    # a move to a pose needs neither policy nor camera
_PASSES = (Reason.EFFORT, Reason.MOTOR_ERROR)    # what the operator's reset is there to get away from


class ArmController:
    """Decides what the arm does. Every method takes `now`, monotonic seconds, and none blocks."""

    def __init__(self, arm: Arm, config: ControllerConfig | None = None,
                 step_config: StepControllerConfig | None = None, watchdog_config: WatchdogConfig | None = None):
        self.arm, self.config = arm, config or ControllerConfig()
        self.watchdog, self.gate, self.authority = Watchdog(watchdog_config), CommandGate(), Authority()
        self.steps = StepController(step_config)
        self._enter(State.STARTING, Reason.NOT_READY, 'waiting for joint states')
        self.episode_id, self.step, self.accepted, self.refused = '', 0, 0, 0
        self.last: StepResult | None = None    # of the last command that got as far as the guards
        self.image_to_command = np.nan    # s, of the last step; NaN where nothing was sent
        self.reading: Reading | None = None
        self._outlet = Outlet(arm, self.steps)
        self._homing, self._step_end, self._ticked = Homing([], 0.0), 0.0, 0.0    # nowhere to go
        self._start_joints = self.config.start_joints()

    def configure(self, config: ControllerConfig) -> None:
        """Take a new ControllerConfig; a bad one raises ValueError and changes nothing."""
        start_joints = config.start_joints()
        if config.dry_run != self.config.dry_run and self.reading is not None:
            # What a dry run imagined is not where the arm is, nor whether its gripper is open.
            self._anchor(force=True, openness=self.reading.openness if self.config.dry_run else None)
            if config.dry_run:
                self._outlet.hold()    # fingers that are on their way
        self.config, self._start_joints = config, start_joints

    def on_reading(self, reading: Reading, now: float) -> None:
        """Take a frame of joint states."""
        if reading.relocated:
            self.watchdog.relocated()
        if self.watchdog.joints(reading.positions, reading.efforts, now, reading.finger):
            self.reading = reading
            if reading.relocated:
                self._begin_here()

    def on_command(self, command: Command, now: float, ros_now: float) -> None:
        """Take or refuse one Command; `ros_now` is the clock that stamps the images [s]."""
        self._notice_stall(now, ros_now)
        if second := self.watchdog.second_publisher:
            reason, message = second.reason, second.message
        elif self.state is State.MOVING and now < self._step_end:
            reason, message = Reason.TOO_SOON, f'step {command.step} came while step {self.step} is moving'
        else:
            reason, message = self.gate.check(command, now, ros_now, self.config.base_frame,
                                              self.config.max_image_age)
        if reason in _NOT_TAKEN:
            self.refused += 1
            if self.state is State.READY:    # a step that moves keeps its verdict: a flood must not cover it up
                self.reason, self.message = reason, message
            return
        self.episode_id, self.step, self.image_to_command = command.episode_id, command.step, np.nan
        self.watchdog.command(now)
        if self._blocked():
            self.refused += 1
            return
        if reason is Reason.ACCEPTED:
            reason, message = self._execute(command, now, ros_now)
        if reason is not Reason.ACCEPTED:
            self.refused += 1
            self._enter(State.READY, reason, message)

    def on_episode(self, episode_id: str, running: bool, now: float) -> None:
        """Take the announcement of an episode's start or end."""
        self.gate.episode(episode_id, running, now)
        self.watchdog.episode(self.gate.running is not None, now)

    def _blocked(self) -> bool:
        """Whether commands are refused now for the reason already shown."""
        return self.state in (State.STARTING, State.HOMING, State.STOPPED) or (
            self.state is State.HOLDING and self.reason not in RESUMED_BY_COMMAND)

    def _execute(self, command: Command, now: float, ros_now: float) -> tuple[Reason, str]:
        if command.hold:
            return Reason.HOLD_REQUESTED, command.message
        if not self.arm.ready:
            return Reason.NOT_READY, self.arm.message
        if self.config.dry_run:
            self._anchor(force=True)
        note = self._outlet.follow(self.watchdog.measured, now)
        result = self.last = self.steps.step(command.action, self.watchdog.measured)
        if result.accepted:
            self._outlet.send(result.joint_command, now, self.config.dry_run, self.steps.gripper)
            self.accepted += 1
            self.image_to_command = ros_now - command.stamp
            self._step_end = now + self.config.step_duration
            self._enter(State.MOVING, Reason.ACCEPTED, note)
        return result.reason, result.message

    def stop(self, now: float | None = None) -> None:
        """Stay where the arm is, until the operator resets or homes. Cannot fail."""
        self._halt(Reason.STOP_REQUESTED, '~/stop was called; ~/reset or ~/home resumes', now)

    def fail(self, error: Exception, now: float | None = None) -> None:
        """Stop because the controller itself raised: a bug must not move the arm twice. Cannot fail."""
        self._halt(Reason.FAULT, f'{type(error).__name__}: {error}; ~/reset resumes', now)

    def _halt(self, reason: Reason, message: str, now: float | None = None) -> None:
        """Be STOPPED first, and only then work out where: nothing that goes wrong on the way may undo the stop."""
        before = self.state
        self._enter(State.STOPPED, reason, message)
        for act in (self._end_episode, lambda: self._freeze(before, now), self._outlet.hold):
            try:
                act()
            except Exception as error:    # nor keep the rest from being done
                self.message = f'{message} (the servos keep the last command: {type(error).__name__}: {error})'

    def home(self, now: float) -> Answer:
        """Go to the neutral pose on the operator's call, gripper as it is. Returns (started, message)."""
        return self._go([np.array(self.config.neutral_joints)], now)

    def reset(self, now: float, operator: bool = False) -> Answer:
        """Open the gripper, go to the start pose, by neutral where the arm is elsewhere. Returns (started, message).

        Only the operator leaves a stop, comes away from what is in the way and has servos in error rebooted.
        """
        if not operator and (refusal := self._not_without_operator(now)):
            return False, refusal
        waypoints = to_start_pose(self.watchdog.positions, self.config.neutral_joints, self._start_joints)
        started = self._go(waypoints, now, 1.0)
        if started[0]:
            self.steps.gripper = 1.0
        return started

    def reset_for(self, episode_id: str, stamp: float, now: float, ros_now: float) -> Answer:
        """Take a goal's request, made at `stamp` [ROS s], for the start pose. Returns (success, message).

        It is asked again and again while the goal wants it; that begins nothing anew, and resets no stop or fault.
        """
        self._notice_stall(now, ros_now)
        if refusal := self.authority.refusal(episode_id, stamp, ros_now):
            return False, refusal
        if self.authority.goal == episode_id and self.state not in (State.STARTING, State.STOPPED):
            self.authority.grant(episode_id, stamp, now)
            return True, 'on the way' if self.state is State.HOMING else 'there'
        started = self.reset(now)
        if started[0]:
            self.authority.grant(episode_id, stamp, now)
        else:
            self.authority.end(episode_id)    # what was refused is not tried again
        return started

    def _not_without_operator(self, now: float) -> str:
        """Return why no program may begin a move now, '' where one may."""
        if self.state in (State.STARTING, State.STOPPED):
            return f"{self.state.name}: {self.message or 'the operator resumes'}"
        if self.state is State.HOMING:
            return 'the arm is already on its way to a pose'
        fault = self._fault(now)
        if fault is None and not self.arm.ready:
            fault = Fault(Reason.NOT_READY, self.arm.message)
        return '' if fault is None or fault.reason in _HARMLESS else f'{fault.reason.name}: {fault.message}'

    def withdraw(self, episode_id: str, now: float) -> Answer:
        """End the move of a goal that is over where the arm is, and serve no request of it that is still to come."""
        if self.state is State.HOMING and self.authority.goal == episode_id:
            self._give_up_move(Reason.HOLD_REQUESTED, f"episode '{episode_id}' is over before its start pose", now)
        self.authority.end(episode_id)
        return True, ''

    def _go(self, waypoints: list[np.ndarray], now: float, openness: float | None = None) -> Answer:
        self._notice_stall(now)
        if self.watchdog.positions is None:
            return False, 'no joint states yet'
        if self.watchdog.stalled is not None:
            return False, f'{self.watchdog.stalled.message}; call again if it is still wanted'
        fault = self.watchdog.check(now, False)
        if not self.arm.ready or (fault is not None and fault.reason is Reason.MOTOR_ERROR):
            if self.config.dry_run:
                return False, 'dry run: the servos are left alone; set dry_run to false first'
            self.arm.recover()
        elif fault is not None and fault.reason not in (*_HARMLESS, *_PASSES, Reason.TWO_PUBLISHERS):
            return False, f'{fault.reason.name}: {fault.message}'
        self._end_episode()
        if not self._outlet.anchored:
            self._anchor(force=True, openness=self.reading.openness if self.reading else None)
        self._homing = Homing(waypoints, now, openness)
        self._enter(State.HOMING, Reason.ACCEPTED, 'dry run: the arm is not moved' if self.config.dry_run else '')
        return True, 'on the way'

    def _end_episode(self) -> None:
        """Serve no further command or request of the present episode: it is over."""
        self.authority.end(self.authority.goal)
        self.gate.end(self.gate.running)
        self.watchdog.episode(False, 0.0)

    def tick(self, now: float, ros_now: float) -> None:
        """Run one control period: watchdog, end of the step, moves between poses."""
        self._notice_stall(now, ros_now)
        late = max(0.0, now - self._ticked - _LONGEST_PERIOD) if self._ticked else 0.0
        self.watchdog.excuse(late)    # a controller that was kept waiting goes on where it was and does not leap ahead
        period, self._ticked = min(now - self._ticked, _LONGEST_PERIOD), now
        self.arm.tick(now)
        if jump := self.gate.watch_clock(ros_now, now):
            self.message = f'the clock jumped by {jump:.3f} s'
        if self.state is State.STARTING:
            if self.reading is not None and self.arm.ready:
                self._anchor(force=True, openness=self.reading.openness)
                self._enter(State.READY, Reason.ACCEPTED, self.watchdog.note)
            elif self.arm.message:
                self.message = self.arm.message
            elif (fault := self.watchdog.check(now, False)) is not None:
                self.reason, self.message = fault.reason, fault.message
            return
        fault = self._fault(now)
        if self.state is State.HOMING:
            self._tick_homing(fault, now, period)
        elif self.state is not State.STOPPED:
            self._tick_stepping(fault, now)

    def _fault(self, now: float) -> Fault | None:
        return self.watchdog.check(now, self.state in (State.READY, State.HOLDING))

    def _notice_stall(self, now: float, ros_now: float | None = None) -> None:
        """Hold for a moment after the controller itself did not run: what waited in its queues is old."""
        stall = self.watchdog.notice_stall(now - self._ticked, now) if self._ticked else None
        if stall is not None:
            if ros_now is not None:
                self.authority.wake(now, ros_now)
            if self.state in (State.READY, State.MOVING, State.HOLDING):
                self._hold(stall)
            elif self.state is State.HOMING and self.authority.goal is None:
                # heartbeat_node has held the arm meanwhile and said so: whoever comes near it counts on that
                self._halt(Reason.STALE_JOINT_STATES, f'{stall.message}; call again to go on', now)

    def _tick_stepping(self, fault: Fault | None, now: float) -> None:
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

    def _tick_homing(self, fault: Fault | None, now: float, period: float) -> None:
        silence = self.authority.silent(now)
        if silence == 'over':
            self._give_up_move(Reason.POLICY_LOST, 'the goal that asked for the start pose fell silent', now)
            return
        if silence or self.watchdog.stalled is not None:
            self._homing.pause()
            self.message = fault.message if fault else 'paused: the goal has stopped asking for the start pose'
            if self.watchdog.stalled is not None or fault is None or fault.reason in _HARMLESS:
                return    # any other fault ends a move that rests, too
        if fault is not None and fault.reason is Reason.TWO_PUBLISHERS and self.authority.goal is None:
            fault = None    # the operator's own move is nobody else's business
        # The operator's move waits a moment for those to go away.
        recovering = self.authority.goal is None and fault is not None and fault.reason in _PASSES
        if not self._homing.moving and (recovering or not self.arm.ready) and (
                now - self._homing.started < _RECOVERY_LIMIT):
            self.message = self.arm.message or (fault.message if fault else '')
        elif not self.arm.ready:
            self._halt(Reason.NOT_READY, self.arm.message, now)
        elif fault is not None and fault.reason not in _HARMLESS:
            # Joint states that came late touch nobody: the move is over, but the next goal may ask for its own.
            if fault.reason in (Reason.STALE_JOINT_STATES, Reason.TWO_PUBLISHERS) and self.authority.goal is not None:
                self._give_up_move(fault.reason, fault.message, now, State.HOLDING)
            else:
                self._halt(fault.reason, fault.message, now)
        elif self.config.dry_run and not self._homing.moving:
            self._enter(State.READY, Reason.ACCEPTED, 'dry run: the arm was not moved')
        elif self.config.dry_run:
            self._halt(Reason.NOT_READY, 'dry_run was switched on before the pose was reached', now)
        elif not self._homing.moving:
            if failure := self._homing.set_off(self._anchor(), self.config, self.steps):
                self._halt(*failure, now)
        else:
            self._follow(period, now)

    def _give_up_move(self, reason: Reason, message: str, now: float, state: State = State.READY) -> None:
        """End the move of a goal where the arm is."""
        self._freeze(self.state, now)
        self._outlet.hold()
        self.authority.end(self.authority.goal)
        self._enter(state, reason, message)

    def _follow(self, period: float, now: float) -> None:
        wanted = self._homing.advance(period, self.watchdog.measured)
        if isinstance(wanted, tuple):
            self._halt(*wanted, now)
            return
        self._outlet.send(wanted, now, self.config.dry_run, self._homing.openness)
        if not self._homing.moving:
            self.steps.reset(self._outlet.sent, self.steps.gripper)
        if self._homing.over:
            self._enter(State.READY, Reason.ACCEPTED, '')

    def _begin_here(self) -> None:
        """Go on from where a simulation has put the arm: the last command belongs to the scene before."""
        if self.state is not State.STARTING:
            self._anchor(force=True)
        if self.state is State.HOMING:
            self._homing.pause()

    def _enter(self, state: State, reason: Reason, message: str) -> None:
        self.state, self.reason, self.message = state, reason, message

    def _anchor(self, force: bool = False, openness: float | None = None) -> np.ndarray:
        return self._outlet.anchor(self.watchdog.measured, force, openness)

    def _hold(self, fault: Fault) -> None:
        before = self.state
        self._enter(State.HOLDING, fault.reason, fault.message)
        if before is State.MOVING and fault.reason in _FREEZE:
            self._freeze(before, None)
        self._outlet.hold()

    def _freeze(self, before: State, now: float | None) -> None:
        """Cut a motion short; without joint states to believe, the last command stands."""
        now = self._ticked if now is None else now
        moving = before in (State.MOVING, State.HOMING) or (
            before is not State.STOPPED and self._outlet.on_the_way(now))
        if moving and self.watchdog.fresh(now):
            self._outlet.freeze(self.watchdog.measured, now, self.config.dry_run)
