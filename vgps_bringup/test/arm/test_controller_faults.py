"""What the controller does when something is wrong with the arm, its neighbours or the messages."""

import numpy as np
import pytest
from arm_world import NEUTRAL, PERIOD, World

from vgps_bringup.arm.arms import Reading
from vgps_bringup.arm.kinematics import JOINT_LOWER, JOINT_NAMES, JOINT_UPPER
from vgps_bringup.arm.simulated_arm import SimulatedArm
from vgps_bringup.arm.step_controller import StepControllerConfig
from vgps_bringup.arm.watchdog import Watchdog, WatchdogConfig
from vgps_msgs_py.vocabulary import ArmState as State, ControllerReason as Reason


@pytest.fixture
def world():
    return World()


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
    world.run(1.0 if what == 'jump' else 0.6)
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


ELSEWHERE = NEUTRAL + [0, 0, 0, 0, 0, 0.9]


def relocate(world, positions):
    world.arm.positions = np.array(positions)
    world.controller.on_reading(Reading(world.arm.positions, None, 0.02, relocated=True), world.now)


def test_an_arm_that_its_simulation_put_elsewhere_is_no_fault_and_steps_start_there(world):
    world.send(0.01)
    world.run(0.1)
    relocate(world, ELSEWHERE)
    for _ in range(15):
        world.run(PERIOD)
        assert world.controller.state in (State.READY, State.MOVING)
    assert world.send() is Reason.ACCEPTED
    np.testing.assert_allclose(world.arm.commands[-1][0], ELSEWHERE, atol=1e-3)


def test_a_jump_holds_although_the_simulation_put_the_arm_elsewhere_before(world):
    relocate(world, ELSEWHERE)
    world.run(0.2)
    world.arm.positions = NEUTRAL.copy()    # the same way back, and nobody said so
    world.run(PERIOD)
    assert world.shown == (State.HOLDING, Reason.JOINT_JUMP)
    assert world.send(0.01) is Reason.JOINT_JUMP
    assert world.arm.commands == []


def test_homing_goes_on_from_where_the_simulation_put_the_arm(world):
    world.controller.reset(world.now)
    world.run(1.0)
    relocate(world, ELSEWHERE)
    world.run(PERIOD)
    sent = len(world.arm.commands)
    world.run(10.0)
    assert world.shown == (State.READY, Reason.ACCEPTED)
    np.testing.assert_allclose(world.controller.steps.target_pose[:3, 3], [0.3, 0, 0.15], atol=1e-4)
    path = np.array([ELSEWHERE, *(joints for joints, _ in world.arm.commands[sent:])])
    assert np.abs(np.diff(path, axis=0)).max() <= 0.021     # 1 rad/s


def test_only_joint_states_of_another_scene_are_said_to_be_elsewhere_on_purpose():
    pytest.importorskip('sensor_msgs')
    from sensor_msgs.msg import JointState

    class Node:
        def create_publisher(self, *_):
            pass

        def create_subscription(self, _kind, _topic, callback, _depth):
            self.hear = callback

    node, seen = Node(), []
    SimulatedArm(node, lambda reading: seen.append(reading.relocated))
    for scene in ('scene 0', 'scene 0', 'scene 1', 'scene 1'):
        message = JointState(name=[*JOINT_NAMES, 'left_finger'], position=[0.0] * 7)
        message.header.frame_id = scene
        node.hear(message)
    assert seen == [False, False, True, False]


def test_a_servo_in_error_is_rebooted_by_reset_and_by_nothing_else(world):
    breakage(world, 'motor')
    world.run(0.1)
    assert world.arm.recovered == 0
    assert 'MOTOR_ERROR' in world.controller.reset(world.now)[1]
    assert world.arm.recovered == 0
    assert world.controller.reset(world.now, operator=True)[0]
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


@pytest.mark.parametrize('count', [2_000, pytest.param(10_000, marks=pytest.mark.long)])
def test_thousands_of_hostile_messages_never_leave_the_limits(count):
    rng = np.random.default_rng(5)
    world = World(step_config=StepControllerConfig(max_joint_step=0.4))
    before, checked = NEUTRAL, 0
    for i in range(count):
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
            world.announce()
        world.run(0.22 if i % 4 == 0 else PERIOD)
        for joints, openness in world.arm.commands[checked:]:
            assert np.isfinite(joints).all()
            assert (joints >= JOINT_LOWER).all()
            assert (joints <= JOINT_UPPER).all()
            assert np.abs(joints - before).max() <= 0.4 + 1e-9
            assert openness in (0.0, 1.0, None)
            before = joints
        checked = len(world.arm.commands)
    assert world.controller.accepted > 0.05 * count      # else the test shows nothing


def test_a_single_bad_frame_between_good_ones_is_never_used():
    watchdog = Watchdog(WatchdogConfig())
    assert watchdog.joints(NEUTRAL, None, 1.0)
    assert not watchdog.joints(np.full(6, -np.pi), None, 1.01)
    np.testing.assert_array_equal(watchdog.positions, NEUTRAL)
    assert watchdog.joints(NEUTRAL, None, 1.02)
