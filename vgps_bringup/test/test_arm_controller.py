"""The controller's state machine against a pure arm: order of commands, watchdogs, stop, home and reset."""

from dataclasses import replace

import numpy as np
import pytest

from vgps_bringup.arm.arms import FINGER_CLOSED, FINGER_OPEN, Reading, reading_from_joint_state
from vgps_bringup.arm.controller import ArmController, ControllerConfig
from vgps_bringup.arm.gate import Command
from vgps_bringup.arm.gripper import GripperConfig, GripperLoop
from vgps_bringup.arm.kinematics import JOINT_LOWER, JOINT_NAMES, JOINT_UPPER
from vgps_bringup.arm.motion import Motion
from vgps_bringup.arm.reason import Reason, State
from vgps_bringup.arm.step_controller import StepControllerConfig
from vgps_bringup.arm.watchdog import Watchdog, WatchdogConfig

PERIOD = 0.02
ROS_OFFSET = 1.7e9   # the clock of stamps is not the monotonic one
CONFIG = ControllerConfig(base_frame='base', dry_run=False)
NEUTRAL = np.array(CONFIG.neutral_joints)


class FakeArm:
    """Goes where it is told within one control period, unless blocked; keeps every command."""

    ready, message = True, ''

    def __init__(self, positions=NEUTRAL):
        self.positions, self.openness = np.array(positions, float), 1.0
        self.commands, self.blocked, self.recovered = [], False, 0

    def command(self, joint_positions, openness):
        self.commands.append((np.array(joint_positions), openness))
        if not self.blocked:
            self.positions, self.openness = np.array(joint_positions), openness

    def tick(self, now):
        pass

    def recover(self):
        self.recovered += 1

    def close(self):
        pass


class World:
    """A controller, its arm and a clock that only this test moves."""

    def __init__(self, config=CONFIG, positions=NEUTRAL, **others):
        self.now, self.arm = 100.0, FakeArm(positions)
        self.controller = ArmController(self.arm, config, **others)
        self.ros_jump, self.step = 0.0, 0
        self.frames, self.camera, self.efforts, self.override = True, True, np.zeros(6), None
        self.run(0.1)

    @property
    def ros_now(self):
        return self.now + ROS_OFFSET + self.ros_jump

    def run(self, duration):
        for _ in range(round(duration / PERIOD)):
            self.now += PERIOD
            if self.frames:
                positions = self.arm.positions if self.override is None else self.override
                finger = FINGER_CLOSED + self.arm.openness * (FINGER_OPEN - FINGER_CLOSED)
                self.controller.on_reading(Reading(positions, self.efforts, finger), self.now)
            if self.camera:
                self.controller.watchdog.image(self.now)
            self.controller.tick(self.now, self.ros_now)

    def send(self, dx=0.0, *, step=None, episode='a', age=0.05, frame='base', hold=False, action=None):
        self.step = self.step + 1 if step is None else step
        action = np.array([dx, 0, 0, 0, 0, 0, 1.0]) if action is None else np.asarray(action, float)
        self.controller.on_command(Command(self.ros_now - age, frame, episode, self.step, hold, action, 'because'),
                                   self.now, self.ros_now)
        return self.controller.reason

    @property
    def shown(self):
        return self.controller.state, self.controller.reason


@pytest.fixture
def world():
    return World()


def test_it_starts_with_the_first_joint_states_and_not_before():
    controller = ArmController(FakeArm(), CONFIG)
    controller.tick(1.0, 1.0)
    assert (controller.state, controller.reason) == (State.STARTING, Reason.NOT_READY)
    assert World().shown == (State.READY, Reason.ACCEPTED)


def test_it_waits_for_an_arm_that_is_not_initialised(world):
    arm = FakeArm()
    arm.ready, arm.message = False, 'waiting for the driver'
    controller = ArmController(arm, CONFIG)
    controller.on_reading(Reading(NEUTRAL, None, 0.02), 1.0)
    controller.tick(1.0, 1.0)
    assert (controller.state, controller.message) == (State.STARTING, 'waiting for the driver')


def test_a_step_moves_for_a_fifth_of_a_second_and_is_then_over(world):
    assert world.send(0.02) is Reason.ACCEPTED
    assert world.controller.state is State.MOVING
    assert len(world.arm.commands) == 1
    world.run(0.16)
    assert world.controller.state is State.MOVING
    world.run(0.06)
    assert world.shown == (State.READY, Reason.ACCEPTED)
    assert world.controller.image_to_command == pytest.approx(0.05, abs=1e-6)


def test_a_command_during_a_step_is_too_soon_and_does_not_use_up_its_step(world):
    world.send(0.02, step=1)
    world.send(0.02, step=2)
    assert len(world.arm.commands) == 1
    assert world.shown == (State.MOVING, Reason.ACCEPTED)   # the step's own verdict stays
    assert world.controller.refused == 1
    world.run(0.22)
    assert world.send(0.02, step=2) is Reason.ACCEPTED


@pytest.mark.parametrize('second', [dict(step=5), dict(step=4), dict(step=6, age=0.6)])
def test_duplicates_and_older_steps_or_images_are_out_of_order(world, second):
    world.send(0.01, step=5)
    world.run(0.22)
    assert world.send(0.01, **second) is Reason.OUT_OF_ORDER
    assert len(world.arm.commands) == 1


def test_a_new_episode_counts_its_steps_anew_and_the_old_one_is_over(world):
    world.send(0.01, step=50)
    world.run(0.22)
    assert world.send(0.01, step=0, episode='b') is Reason.ACCEPTED
    world.run(0.22)
    assert world.send(0.01, step=51, episode='a') is Reason.OUT_OF_ORDER


def test_while_an_episode_runs_no_other_is_served_and_when_it_ends_it_stays_over(world):
    world.controller.on_episode('a', True, world.now)
    assert world.send(0.01, step=0, episode='b') is Reason.OUT_OF_ORDER
    assert world.send(0.01, step=0, episode='a') is Reason.ACCEPTED
    world.run(0.22)
    world.controller.on_episode('a', False, world.now)
    assert world.send(0.01, step=1, episode='a') is Reason.OUT_OF_ORDER
    assert len(world.arm.commands) == 1


def test_commands_of_another_frame_or_an_old_or_future_image_are_refused(world):
    assert world.send(0.01, frame='camera') is Reason.WRONG_FRAME
    assert world.send(0.01, age=1.5) is Reason.STALE_IMAGE
    assert world.send(0.01, age=-0.5) is Reason.STALE_IMAGE
    assert world.arm.commands == []
    assert world.shown == (State.READY, Reason.STALE_IMAGE)
    assert world.send(0.01) is Reason.ACCEPTED


@pytest.mark.parametrize('jump', [-3600.0, 3600.0])
def test_a_clock_jump_delays_no_later_step(world, jump):
    world.send(0.01)
    world.run(0.22)
    world.ros_jump = jump
    world.run(0.02)
    assert world.send(0.01, age=0.05 - jump) in (Reason.STALE_IMAGE, Reason.OUT_OF_ORDER)   # an image stamped before it
    assert world.send(0.01) is Reason.ACCEPTED


def test_a_hold_moves_nothing_and_says_who_asked(world):
    world.controller.on_episode('a', True, world.now)
    assert world.send(hold=True) is Reason.HOLD_REQUESTED
    assert world.controller.state is State.READY
    assert world.controller.message == 'because'
    assert world.arm.commands == []


def test_a_refused_action_uses_up_its_step_and_the_next_is_taken(world):
    assert world.send(action=[np.nan] * 7) is Reason.NOT_FINITE
    assert world.controller.step == world.step
    assert world.arm.commands == []
    world.run(PERIOD)
    assert world.send(0.01) is Reason.ACCEPTED


def test_stop_freezes_a_step_at_once_and_only_reset_or_home_resumes(world):
    world.arm.blocked = True
    world.send(0.05)
    world.controller.stop()
    np.testing.assert_allclose(world.arm.commands[-1][0], NEUTRAL)     # where the arm is, not where it was going
    assert world.shown == (State.STOPPED, Reason.STOP_REQUESTED)
    world.run(5.0)
    assert world.send(0.01) is Reason.STOP_REQUESTED
    assert len(world.arm.commands) == 2
    world.arm.blocked = False
    assert world.controller.home(world.now)[0]
    world.run(3.0)
    assert world.shown == (State.READY, Reason.ACCEPTED)
    assert world.send(0.01) is Reason.ACCEPTED


def test_stop_during_a_move_to_a_pose_ends_it(world):
    world.controller.reset(world.now)
    world.run(0.5)
    world.controller.stop()
    sent = len(world.arm.commands)
    world.run(2.0)
    assert len(world.arm.commands) == sent
    assert world.controller.state is State.STOPPED


def test_reset_goes_to_the_start_pose_slowly_and_steps_start_there():
    world = World(positions=[0.0, -1.80, 1.55, 0.0, 0.8, 0.0])     # from the sleep pose
    assert world.controller.reset(world.now)[0]
    assert world.controller.state is State.HOMING
    assert world.send(0.01) is world.controller.reason
    world.run(10.0)
    assert world.shown == (State.READY, Reason.ACCEPTED)
    np.testing.assert_allclose(world.controller.steps.target_pose[:3, 3], [0.3, 0, 0.15], atol=1e-4)
    path = np.array([joints for joints, _ in world.arm.commands])
    assert np.abs(np.diff(path, axis=0)).max() <= CONFIG.move_speed * PERIOD * 1.001
    assert {openness for _, openness in world.arm.commands} == {1.0}


def test_a_blocked_move_ends_stopped_and_not_ready(world):
    world.arm.blocked = True
    world.controller.reset(world.now)
    world.run(5.0)
    assert world.controller.state is State.STOPPED
    assert world.controller.reason in (Reason.JOINT_STEP, Reason.NOT_READY)


def test_a_controller_kept_waiting_does_not_leap_ahead(world):
    world.controller.reset(world.now)
    world.run(0.4)
    before = world.arm.commands[-1][0]
    world.now += 2.0
    world.controller.on_reading(Reading(world.arm.positions, None, 0.02), world.now)
    world.controller.tick(world.now, world.ros_now)
    assert np.abs(world.arm.commands[-1][0] - before).max() <= CONFIG.move_speed * 0.05 * 1.001


def test_a_dry_run_computes_everything_and_sends_nothing():
    world = World(replace(CONFIG, dry_run=True))
    for _ in range(20):     # further than one step may go: each starts from the measured arm
        assert world.send(0.05) is Reason.ACCEPTED
        world.run(0.22)
    assert world.controller.last.joint_command is not None
    assert world.controller.reset(world.now)[0]
    world.run(0.5)
    world.controller.stop()
    assert world.arm.commands == []
    np.testing.assert_array_equal(world.arm.positions, NEUTRAL)


def test_leaving_a_dry_run_starts_from_the_measured_arm():
    world = World(replace(CONFIG, dry_run=True))
    world.send(0.05)
    world.run(0.22)
    world.controller.configure(CONFIG)
    assert world.send() is Reason.ACCEPTED
    np.testing.assert_allclose(world.arm.commands[-1][0], NEUTRAL, atol=1e-3)


def breakage(world, what):
    if what == 'silent driver':
        world.frames = False
    elif what == 'failed bus read':
        world.override = np.full(6, -np.pi)
    elif what == 'not a number':
        world.override = np.full(6, np.nan)
    elif what == 'jump':
        world.override = world.arm.positions + [0.7, 0, 0, 0, 0, 0]
    elif what == 'effort':
        world.efforts = np.array([0, 1800.0, 0, 0, 0, 0])
    elif what == 'motor':
        world.controller.watchdog.motors(('elbow',), (32,), (40,))
    elif what == 'heat':
        world.controller.watchdog.motors(('elbow',), (0,), (70,))
    elif what == 'camera':
        world.camera = False


def repair(world):
    world.frames, world.camera, world.override, world.efforts = True, True, None, np.zeros(6)
    world.controller.watchdog.motors(('elbow',), (0,), (40,))


@pytest.mark.parametrize(('what', 'reason'), [
    ('silent driver', Reason.STALE_JOINT_STATES), ('failed bus read', Reason.BAD_JOINT_STATES),
    ('not a number', Reason.BAD_JOINT_STATES), ('jump', Reason.JOINT_JUMP), ('effort', Reason.EFFORT),
    ('motor', Reason.MOTOR_ERROR), ('heat', Reason.TEMPERATURE), ('camera', Reason.STALE_IMAGE)])
def test_a_fault_holds_within_half_a_second_and_clears_without_a_restart(world, what, reason):
    world.send(0.01)
    world.run(0.3)
    breakage(world, what)
    seen = set()
    for _ in range(27):
        world.run(PERIOD)
        seen.add(world.shown)
    assert (State.HOLDING, reason) in seen
    if what != 'jump':      # a jump is over after one frame
        assert world.shown == (State.HOLDING, reason)
        assert world.send(0.01) is reason
        assert len(world.arm.commands) == 1
    repair(world)
    world.run(1.2 if what == 'jump' else 0.6)
    assert world.controller.state is State.READY
    assert world.send(0.01) is Reason.ACCEPTED


def test_a_driver_silent_for_long_is_called_lost(world):
    world.frames = False
    world.run(2.2)
    assert world.shown == (State.HOLDING, Reason.DRIVER_LOST)


def test_effort_in_the_middle_of_a_step_freezes_the_arm_where_it_is(world):
    world.arm.blocked = True
    world.send(0.05)
    world.run(0.06)
    world.efforts = np.array([0, 0, 1500.0, 0, 0, 0])
    world.run(PERIOD)
    assert world.shown == (State.HOLDING, Reason.EFFORT)
    np.testing.assert_allclose(world.arm.commands[-1][0], NEUTRAL)


def test_an_arm_found_elsewhere_after_a_fault_is_not_pulled_back(world):
    world.frames = False
    world.run(0.4)
    moved = NEUTRAL + [0.3, 0, 0, 0, 0, 0]
    world.arm.positions, world.frames = moved.copy(), True
    world.run(0.7)
    assert world.send() is Reason.ACCEPTED
    np.testing.assert_allclose(world.arm.commands[-1][0], moved, atol=1e-3)


def test_a_servo_in_error_is_rebooted_by_reset_and_by_nothing_else(world):
    breakage(world, 'motor')
    world.run(0.1)
    assert world.arm.recovered == 0
    assert world.controller.reset(world.now)[0]
    assert world.arm.recovered == 1
    world.arm.ready, world.arm.message = False, 'rebooting'
    world.run(2.0)
    assert world.arm.commands == []
    world.arm.ready = True
    repair(world)
    world.run(6.0)
    assert world.shown == (State.READY, Reason.ACCEPTED)


@pytest.mark.parametrize(('heard', 'reason'), [
    ((), Reason.STALE_COMMAND), (('policy',), Reason.CRITIC_LOST), (('policy', 'critic'), Reason.POLICY_LOST)])
def test_silence_during_an_episode_is_named_and_the_next_command_resumes(world, heard, reason):
    world.controller.on_episode('a', True, world.now)
    if 'policy' in heard:
        world.run(PERIOD)
        world.controller.watchdog.candidates(world.now)
    if 'critic' in heard:
        world.run(PERIOD)
        world.send(0.0)
    world.run(2.5)
    assert world.shown == (State.HOLDING, reason)
    assert world.send(0.01) is Reason.ACCEPTED
    world.run(0.3)
    assert world.shown == (State.READY, Reason.ACCEPTED)
    world.controller.on_episode('a', False, world.now)
    world.run(5.0)
    assert world.controller.state is State.READY   # nobody misses commands after the episode


def test_an_error_in_our_own_code_stops_the_arm(world):
    world.controller.fail(RuntimeError('bug'))
    assert world.shown == (State.STOPPED, Reason.FAULT)
    world.run(1.0)
    assert world.send(0.01) is Reason.FAULT


def test_a_start_pose_out_of_reach_is_refused_by_name():
    with pytest.raises(ValueError, match='out of reach'):
        ArmController(FakeArm(), replace(CONFIG, start_state=(0.9, 0.0, 0.15, 0.0, 0.0, 0.0)))


def test_ten_thousand_hostile_messages_never_leave_the_limits():
    rng = np.random.default_rng(5)
    world = World(step_config=StepControllerConfig(max_joint_step=0.4))
    before, checked = NEUTRAL, 0
    for i in range(10_000):
        action = rng.normal(0, 10.0 ** rng.integers(-3, 3), 7)
        if i % 4 == 0:
            action[rng.integers(0, 7)] = rng.choice([np.nan, np.inf, -np.inf, 1e300])
        world.override = world.arm.positions + rng.uniform(-4, 4, 6) if i % 97 == 0 else None
        world.send(action=action, step=world.step + int(rng.integers(-1, 3)), age=rng.choice([-1, 0.05, 0.05, 0.05, 9]),
                   frame=rng.choice(['base', 'base', 'base', '']), hold=bool(i % 11 == 0))
        if i % 500 == 499:
            world.controller.stop()
            world.controller.home(world.now)
            world.run(1.0)
        world.run(0.22 if i % 4 == 0 else PERIOD)
        for joints, openness in world.arm.commands[checked:]:
            assert np.isfinite(joints).all()
            assert (joints >= JOINT_LOWER).all()
            assert (joints <= JOINT_UPPER).all()
            assert np.abs(joints - before).max() <= 0.4 + 1e-9
            assert openness in (0.0, 1.0)
            before = joints
        checked = len(world.arm.commands)
    assert world.controller.accepted > 500      # else the test shows nothing


def test_a_single_bad_frame_between_good_ones_is_never_used():
    watchdog = Watchdog(WatchdogConfig())
    assert watchdog.joints(NEUTRAL, None, 1.0)
    assert not watchdog.joints(np.full(6, -np.pi), None, 1.01)
    np.testing.assert_array_equal(watchdog.positions, NEUTRAL)
    assert watchdog.joints(NEUTRAL, None, 1.02)


def test_joints_are_found_by_name_in_any_order():
    names = ['gripper', *reversed(JOINT_NAMES), 'left_finger', 'right_finger']
    reading = reading_from_joint_state(names, [9.0, 6, 5, 4, 3, 2, 1, 0.0225, -0.0225], [])
    np.testing.assert_array_equal(reading.positions, [1, 2, 3, 4, 5, 6])
    assert reading.openness == pytest.approx(0.5)
    assert reading.efforts is None
    assert reading_from_joint_state(names[:-3], [0.0] * 6, []) is None


def test_a_move_begins_and_ends_at_rest_within_its_speed():
    motion = Motion(np.zeros(6), [1.0, -2.0, 0, 0, 0, 0], 0.8)
    times = np.linspace(0, motion.duration, 2000)
    speeds = np.abs(np.gradient([motion.at(t) for t in times], times, axis=0))
    assert speeds.max() <= 0.8 * 1.001
    assert speeds[0].max() < 0.01
    assert speeds[-1].max() < 0.01
    np.testing.assert_allclose(motion.at(99.0), motion.goal)


def test_fingers_are_driven_to_the_goal_and_stop_pushing_hard_on_an_object():
    loop, finger, now = GripperLoop(GripperConfig()), 0.035, 0.0
    loop.set_goal(0.0, now)
    pushes = []
    for _ in range(200):
        now += PERIOD
        pushes.append(loop.pwm(finger, now))
        finger = max(finger + 0.00002 * pushes[-1] / 350 * 50, 0.020)      # an object 4 cm wide
    assert min(pushes) == -350.0
    assert pushes[-1] == -150.0
    loop.set_goal(1.0, now)
    assert loop.pwm(finger, now + PERIOD) == 350.0


def test_fingers_at_their_goal_are_not_pushed_and_no_goal_means_no_push():
    loop = GripperLoop()
    assert loop.pwm(0.02, 0.0) == 0.0
    loop.set_goal(1.0, 0.0)
    assert loop.pwm(FINGER_OPEN, 0.1) == pytest.approx(0.0)
    assert loop.pwm(float('nan'), 0.2) == 0.0
