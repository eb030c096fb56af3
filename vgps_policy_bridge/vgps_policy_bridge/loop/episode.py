"""One episode as a pure state machine: what to wait for, what to do next, when it is over.

The loop is step-synchronous (BridgeData's blocking control): the arm reports that a step is over, the newest frame
taken *after* that goes to the policy, its candidates go to the critic, the chosen action goes to the arm. Nothing is
ever composed on a frame older than the last motion.

The machine sees no ROS: the node feeds it events and carries out the effects it returns. `now` is a monotonic clock
in seconds (timeouts); stamps are integer nanoseconds of the robot's clock (order of frames).
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from enum import Enum

from vgps_policy_bridge.loop.events import (
    Announce,
    ArmReport,
    ArmState,
    DecisionReport,
    Finish,
    Goal,
    Outcome,
    ResetArm,
    ResetScene,
    Sample,
    StepDone,
    WithdrawReset,
)

# The controller takes no command while it holds for one of these; for any other reason the next good command resumes.
ARM_FAULTS = frozenset({'STALE_JOINT_STATES', 'BAD_JOINT_STATES', 'JOINT_JUMP', 'EFFORT', 'MOTOR_ERROR', 'TEMPERATURE',
                        'DRIVER_LOST', 'STOP_REQUESTED', 'NOT_READY', 'FAULT', 'TWO_PUBLISHERS', 'BAD_FINGER',
                        'NO_EFFORT', 'CONTROLLER_LOST'})
# Why the controller is ready although the start pose was not reached: this goal did not want it any more.
GIVEN_UP = frozenset({'HOLD_REQUESTED', 'POLICY_LOST'})
SETTLES = 0.5  # [s] from a new scene to the request for the start pose: the arm stands elsewhere
ABSENT = 1.0  # [s] between two ticks that are still this node's own business
RENEW = 0.1  # [s] between two requests: the controller moves for a goal only while it goes on asking


class Phase(Enum):
    """What the machine waits for; the value is the phrase used in messages."""

    IDLE = 'no episode'
    SCENE = 'reset_scene to answer'
    ARM = 'the controller to take the reset'
    HOMING = 'the arm to reach its start pose'
    START = 'the controller to report ready'
    FRAME = 'a camera frame'
    SAMPLE = 'the policy'
    DECIDE = 'the critic'
    MOVE = 'the controller to finish the step'


@dataclass(frozen=True)
class Limits:
    """How long each part may stay silent before the episode is aborted by name."""

    camera: float = 2.0  # [s] without a frame newer than the last motion
    policy: float = 60.0  # [s] for K candidates
    critic: float = 5.0  # [s] for a decision
    controller: float = 5.0  # [s] for one step, or for a fault of the arm to clear
    reset: float = 30.0  # [s] for reset_scene, for the controller to take the reset and for homing, each
    unmoved_steps: int = 10  # steps in a row that did not move the arm


Effects = list[object]


class EpisodeMachine:
    """Runs one episode at a time. Every method is an event and returns the effects to carry out, in order."""

    def __init__(self, limits: Limits):
        self.limits = limits
        self.phase = Phase.IDLE
        self.goal: Goal | None = None  # of the running or the latest episode
        self.outcome: Outcome | None = None  # of self.goal once announced; RUNNING until it is over
        self.step = 0
        self._since = 0.0  # [s] start of the phase
        self._ticked = math.inf  # [s] when the limits were checked last
        self._frame_stamp = -1  # [ns] newest frame seen
        self._frame_after = -1  # [ns] frames up to here show the arm before its last motion
        self._arm: ArmReport | None = None  # newest report
        self._before: ArmReport | None = None  # report when the candidates went out
        self._unmoved = 0
        self._ask_at = math.inf  # [s] the next request for the start pose
        self._asked = False  # whether the controller may still act on one
        self._reset_stamp = -1  # [ns]
        self._decision: DecisionReport | None = None

    @property
    def has_looked(self) -> bool:
        """Tell whether the running episode has taken a frame."""
        return self.running and (self.step > 0 or self.phase in (Phase.SAMPLE, Phase.DECIDE, Phase.MOVE))

    @property
    def running(self) -> bool:
        """Tell whether a goal is being worked on."""
        return self.phase is not Phase.IDLE

    @property
    def current(self) -> Goal:
        """Return the goal of the running or the latest episode; RuntimeError before the first."""
        if self.goal is None:
            raise RuntimeError('no goal was taken yet')
        return self.goal

    def expects_candidates(self, episode_id: str, step: int) -> bool:
        """Tell whether candidates for this step are still wanted (not after a cancel or a timeout)."""
        return self.phase is Phase.SAMPLE and self.goal.episode_id == episode_id and self.step == step

    def expects_decision(self, decision: DecisionReport) -> bool:
        """Tell whether this is the decision that the present step waits for."""
        return self.phase is Phase.DECIDE and (decision.episode_id, decision.step) == (
            self.goal.episode_id, self.step)

    # --- events -------------------------------------------------------------------------------------------------

    def start(self, goal: Goal, now: float) -> Effects:
        """Take a goal. The caller makes sure that none is running."""
        self.goal, self.outcome, self.step = goal, None, 0
        self._ticked = math.inf
        self._decision, self._unmoved, self._asked = None, 0, False
        if goal.task:
            self._enter(Phase.SCENE, now)
            return [ResetScene()]
        return self._scene_ready(now)

    def scene_reset(self, success: bool, message: str, instruction: str, now: float) -> Effects:
        """Take the simulation's answer; its instruction is used where the goal gave none."""
        if self.phase is not Phase.SCENE:
            return []
        if not success:
            return self._over(Outcome.ABORTED, f'reset_scene failed: {message}')
        self.goal = replace(self.goal, instruction=self.goal.instruction or instruction)
        return self._scene_ready(now)

    def arm_reset(self, success: bool, message: str, stamp: int, now: float) -> Effects:
        """Take the controller's answer to a request, given at stamp: the motion is under way, or refused for good."""
        if self.phase not in (Phase.ARM, Phase.HOMING):
            return []
        if not success:
            return self._over(Outcome.ABORTED, f'the arm could not be reset: {message}')
        if self.phase is Phase.HOMING:
            return []
        self._reset_stamp = stamp  # older reports speak of the time before the motion
        self._enter(Phase.HOMING, now)
        return []

    def arm(self, report: ArmReport, now: float) -> Effects:
        """Take a report of the controller."""
        self._arm = report
        if self.running and report.state is ArmState.STOPPED:
            outcome = Outcome.CANCELLED if report.reason == 'STOP_REQUESTED' else Outcome.ABORTED
            return self._over(outcome, f'the controller was stopped: {report.words()}')
        if self.phase is Phase.HOMING and report.stamp > self._reset_stamp:
            if report.state is ArmState.HOLDING or report.reason in GIVEN_UP:
                return self._over(Outcome.ABORTED, f'the arm could not be reset: {report.words()}')
            return self._begin(now) if report.state is ArmState.READY else []
        if self.outcome is not Outcome.RUNNING:
            return []
        if self.phase is not Phase.START and report.state is ArmState.HOMING:
            return self._over(Outcome.CANCELLED, 'the operator moves the arm')
        if self.phase is Phase.START and self._takes_commands(report):
            return self._next_frame(report.stamp, now)
        return self._step_over(now)

    def frame(self, stamp: int, now: float) -> Effects:
        """Take the stamp of a new camera frame."""
        self._frame_stamp = stamp
        if self.phase is not Phase.FRAME or stamp <= self._frame_after:
            return []
        self._enter(Phase.SAMPLE, now)
        return [Sample(self.step)]

    def sampled(self, now: float) -> Effects:
        """Note that candidates were published."""
        self._before = self._arm
        self._decision = None
        self._enter(Phase.DECIDE, now)
        return []

    def sample_failed(self, message: str) -> Effects:
        """Note that the policy raised or broke its promise."""
        return self._over(Outcome.ABORTED, f'policy failed: {message}')

    def decision(self, decision: DecisionReport, now: float) -> Effects:
        """Take the critic's decision."""
        if not self.expects_decision(decision):
            return []
        self._decision = decision
        self._enter(Phase.MOVE, now)
        return self._step_over(now)

    def judge(self, episode_id: str, success: bool, failure: str) -> tuple[Effects, str]:
        """Take the operator's word. Return effects and, when it is refused, why."""
        if self.outcome is None:
            return [], 'there is no episode to judge'
        if episode_id not in ('', self.goal.episode_id):
            return [], f'the latest episode is {self.goal.episode_id}, not {episode_id}'
        outcome = Outcome.SUCCESS if success else Outcome.FAILURE
        message = failure or ('judged a success' if success else 'judged a failure')
        if self.outcome is Outcome.RUNNING:
            return self._over(outcome, message), ''
        self.outcome = outcome  # the last word counts: an operator may correct the oracle
        return [Announce(outcome, message)], ''

    def cancel(self, message: str) -> Effects:
        """Stop the episode. The arm gets no further command."""
        return self._over(Outcome.CANCELLED, message) if self.running else []

    def tick(self, now: float) -> Effects:
        """Check the limits; call a few times a second."""
        if self.phase is not Phase.SAMPLE:  # what this process slept through is not the silence of the others
            self._since = min(now, self._since + max(0.0, now - self._ticked - ABSENT))
        self._ticked = now
        silent = now - self._since
        limit, who = {
            Phase.SCENE: (self.limits.reset, 'simulation lost'), Phase.ARM: (self.limits.reset, 'controller lost'),
            Phase.HOMING: (self.limits.reset, 'controller lost'),
            Phase.START: (self.limits.controller, 'controller lost'), Phase.FRAME: (self.limits.camera, 'camera lost'),
            Phase.SAMPLE: (self.limits.policy, 'policy lost'), Phase.DECIDE: (self.limits.critic, 'critic lost'),
            Phase.MOVE: (self.limits.controller, 'controller lost'),
        }.get(self.phase, (math.inf, ''))
        if silent <= limit:
            return self._ask(now) if self.phase in (Phase.ARM, Phase.HOMING) and now >= self._ask_at else []
        return self._over(Outcome.ABORTED, f'{who}: waited {silent:.1f} s for {self.phase.value}{self._detail()}')

    # --- transitions --------------------------------------------------------------------------------------------

    def _enter(self, phase: Phase, now: float) -> None:
        self.phase, self._since = phase, now

    def _scene_ready(self, now: float) -> Effects:
        if not self.goal.instruction.strip():
            return self._over(Outcome.ABORTED, 'the goal has no instruction and names no task to take one from')
        if self.goal.task or self.goal.reset:
            self._enter(Phase.ARM, now)
            if self.goal.task:
                # The new scene put the arm elsewhere: homing that begins before the controller has seen its joints
                # jump would be stopped by that jump.
                self._ask_at = now + SETTLES
                return []
            return self._ask(now)
        return self._begin(now)

    def _ask(self, now: float) -> Effects:
        """Ask for the start pose. Of a simulated task only once the arm is well: a scene's jump is nobody's fault."""
        self._ask_at = now + RENEW
        if self.goal.task and not self._asked and self._arm is not None and not self._takes_commands(self._arm):
            return []
        self._asked = True
        return [ResetArm()]

    def _begin(self, now: float) -> Effects:
        self.outcome, self._asked = Outcome.RUNNING, False
        self._arm = None  # reports from before the start say nothing about now
        self._enter(Phase.START, now)
        return [Announce(Outcome.RUNNING)]

    def _next_frame(self, after: int, now: float) -> Effects:
        self._frame_after = after
        self._enter(Phase.FRAME, now)
        return self.frame(self._frame_stamp, now)

    @staticmethod
    def _takes_commands(report: ArmReport) -> bool:
        return report.state is ArmState.READY or (
            report.state is ArmState.HOLDING and report.reason not in ARM_FAULTS)

    def _step_over(self, now: float) -> Effects:
        """Go on to the next step once the decision is known and the controller is done with it."""
        report = self._arm
        if self.phase is not Phase.MOVE or report is None or not self._takes_commands(report):
            return []
        if report.last_command() == self._before.last_command():
            return []
        taken = report.episode_id == self.goal.episode_id and report.step >= self.step
        if not taken and report.refused <= self._before.refused:
            return []
        effects = [StepDone(self._decision, report)]
        self._unmoved = 0 if taken and report.reason == 'ACCEPTED' else self._unmoved + 1
        self.step += 1
        if self._unmoved >= self.limits.unmoved_steps:
            return effects + self._over(Outcome.ABORTED, f'{self._unmoved} steps in a row did not move the arm; the '
                                                         f'controller says {report.words()}')
        if self.step >= self.goal.max_steps:
            return effects + self._over(Outcome.TIMEOUT, f'{self.step} steps used up')
        return effects + self._next_frame(report.stamp, now)

    def _over(self, outcome: Outcome, message: str) -> Effects:
        announced = self.outcome is Outcome.RUNNING
        self.phase = Phase.IDLE
        if announced:
            self.outcome = outcome
        asked, self._asked = self._asked, False
        withdrawal, announcement = [WithdrawReset()] if asked else [], [Announce(outcome, message)] if announced else []
        return withdrawal + announcement + [Finish(outcome, message, self.step)]

    def _detail(self) -> str:
        if self.phase is Phase.FRAME:
            if self._frame_stamp < 0:
                return '; none ever arrived'
            behind = (self._frame_after - self._frame_stamp) * 1e-9
            return f'; the newest is {behind:.3f} s older than the last motion (are the clocks synchronised?)'
        if self.phase in (Phase.ARM, Phase.HOMING, Phase.START, Phase.MOVE):
            return f'; it last said {self._arm.words()}' if self._arm else '; it said nothing'
        return ''


def episode_name(utc: str, task: str, instruction: str, seed: int) -> str:
    """Return an episode id that is a safe file name, e.g. 20260102T030405678_put_carrot_on_plate_s7."""
    words = re.sub(r'[^a-z0-9]+', '_', (task or instruction).lower()).strip('_')[:40].strip('_')
    return '_'.join(filter(None, (utc, words, f's{seed}')))
