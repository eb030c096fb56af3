"""The arm's links against the table and each other: in a step, on the way to a pose, and how fast the gripper goes."""

from functools import cache
from itertools import count

import numpy as np
import pytest
from arm_world import CONFIG, NEUTRAL, World

from vgps_bringup.arm.collision import FINGER_REACH, WRIST_REACH, CollisionModel, UnsafePathError
from vgps_bringup.arm.homing import Homing
from vgps_bringup.arm.kinematics import JOINT_LOWER, JOINT_UPPER, Kinematics
from vgps_bringup.arm.motion import Motion
from vgps_bringup.arm.step_controller import StepController, StepControllerConfig
from vgps_msgs_py.vocabulary import ArmState as State, ControllerReason as Reason

START = CONFIG.start_joints()
SLEEP = np.array([0.0, -1.80, 1.55, 0.0, 0.8, 0.0])
TABLE = StepControllerConfig(min_height=FINGER_REACH)      # the table in the base's own plane
MODEL = CollisionModel()


@cache
def hard_starts():
    """Five poses from which the straight way home is not free: beside the arm and low, the wrist turned away."""
    rng, found = np.random.default_rng(3), []
    while len(found) < 5:
        start = rng.uniform(JOINT_LOWER, JOINT_UPPER)
        clearance = MODEL.look(start)
        if clearance.height < 0.01 or clearance.gap < 0.0:
            continue
        if lowest(start + share * (NEUTRAL - start) for share in np.linspace(0, 1, 20)) < -0.01:
            found.append(start)
    return found


def lowest(points):
    return min(MODEL.look(point).height for point in points)


def along(motion, samples=120):
    return [motion.at(t) for t in np.linspace(0.0, motion.duration, samples)]


@pytest.mark.parametrize('pose', [NEUTRAL, START, SLEEP, np.zeros(6)])
def test_the_poses_an_arm_rests_in_are_clear(pose):
    assert MODEL.look(pose).gap >= 0.0
    assert MODEL.look(pose).height > 0.0


def test_fingertips_of_a_gripper_that_points_down_are_its_reach_below_it():
    assert MODEL.look(START).height == pytest.approx(0.15 - FINGER_REACH, abs=1e-3)
    tip = Kinematics().forward(START) @ [FINGER_REACH, 0.0, 0.0, 1.0]
    np.testing.assert_allclose(MODEL.fingertip(START), tip[:3], atol=1e-9)


def test_a_gripper_folded_into_the_base_is_seen_and_named():
    clearance = MODEL.look([0.0, -1.88, 1.6, 0.0, 1.7, 0.0])
    assert clearance.gap < -0.01
    assert 'shoulder block' in clearance.pair


def test_a_tilted_gripper_is_raised_until_no_link_is_below_the_table():
    steps = StepController(TABLE)
    steps.reset(START)
    for _ in range(8):
        steps.step([0, 0, -0.02, 0, 0, 0, 1], steps.joint_command)
    clipped = []
    for _ in range(8):
        result = steps.step([0, 0, -0.05, 0.2, 0, 0, 1], steps.joint_command)
        assert result.reason in (Reason.ACCEPTED, Reason.JOINT_LIMIT, Reason.UNREACHABLE)
        clipped.append(result.workspace_clipped)
        assert MODEL.look(steps.joint_command).height >= -0.001
    assert any(clipped)


def test_no_walk_of_steps_leads_a_link_below_the_table_or_into_another():
    rng, steps, refused = np.random.default_rng(7), StepController(TABLE), set()
    for _ in range(6):
        steps.reset(START)
        drift = rng.uniform(-1, 1, 6) * [0.05, 0.05, 0.05, 0.25, 0.25, 0.25]
        for _ in range(20):
            before = steps.joint_command
            result = steps.step([*(drift + rng.normal(0, 1, 6) * [0.02] * 6), 1.0], before)
            refused.add(result.reason)
            for share in (0.25, 0.5, 0.75, 1.0):
                here = MODEL.look(before + share * (steps.joint_command - before))
                assert here.height >= -0.0015 and here.gap >= -0.0015, result
    assert Reason.ACCEPTED in refused


def test_a_link_that_is_below_the_table_already_may_come_up_and_is_not_leapt_out():
    steps = StepController(StepControllerConfig(min_height=0.2))
    steps.reset(START)       # 5 cm lower than that
    up = steps.step([0, 0, 0.01, 0, 0, 0, 1], START)
    assert up.accepted
    assert MODEL.look(up.joint_command).height > MODEL.look(START).height


@pytest.mark.slow
def test_a_way_home_that_would_sweep_the_table_goes_up_first():
    for start in hard_starts():
        motion = Motion(start, NEUTRAL, 1.0, floor=0.0, collision=MODEL)
        assert len(motion.points) > 2
        assert lowest(along(motion)) >= -0.002
        assert min(MODEL.look(point).gap for point in along(motion)) >= -0.002
        np.testing.assert_allclose(motion.at(motion.duration), NEUTRAL)


def test_without_a_safe_way_it_is_refused_and_says_which_link_would_be_where():
    with pytest.raises(UnsafePathError, match='no safe path.*below the table') as refusal:
        Motion(NEUTRAL, START, 1.0, floor=0.2, collision=MODEL)      # the goal itself is below the table
    assert refusal.value.reason is Reason.TABLE


@pytest.mark.slow
@pytest.mark.parametrize('speed', [0.1, 0.25])
def test_the_gripper_is_never_faster_than_its_bound_nor_a_joint(speed):
    rng = np.random.default_rng(5)
    for start in rng.uniform(0.6 * JOINT_LOWER, 0.6 * JOINT_UPPER, (40, 6)):
        try:
            motion = Motion(start, NEUTRAL, 1.5, speed, floor=-0.5, collision=MODEL)
        except UnsafePathError:
            continue
        times = np.linspace(0.0, motion.duration, 600)
        points = np.array([motion.at(t) for t in times])
        tips = np.array([MODEL.fingertip(point) for point in points])
        assert (np.linalg.norm(np.diff(tips, axis=0), axis=1) / np.diff(times)).max() <= speed * 1.001
        assert (np.abs(np.diff(points, axis=0)) / np.diff(times)[:, None]).max() <= 1.5 * 1.001


def test_a_pose_below_the_table_is_refused_by_name_on_the_way_there():
    high = StepControllerConfig(min_height=0.2)
    world = World(step_config=high)
    assert world.controller.reset(world.now)[0]
    world.run(20.0)
    assert world.shown == (State.STOPPED, Reason.TABLE)
    assert 'below the table' in world.controller.message
    assert min(MODEL.look(joints).height for joints, _ in world.arm.commands) >= high.floor


@pytest.mark.parametrize('paused', [0.5, 1.5])
def test_a_move_after_the_controllers_own_pause_begins_where_the_arm_is(paused):
    world = World(positions=START)
    world.controller.home(world.now)
    world.run(0.6)
    world.arm.positions = world.arm.positions + 0.05       # somebody else has held the arm meanwhile
    world.now += paused
    world.run(1.0)
    sent = len(world.arm.commands)
    assert world.controller.home(world.now)[0]
    world.run(12.0)
    assert world.shown == (State.READY, Reason.ACCEPTED)
    assert all(np.abs(joints - before).max() < 0.06 for (before, _), (joints, _)
               in zip(world.arm.commands[sent:], world.arm.commands[sent + 1:]))


def test_the_search_for_a_way_is_spread_over_periods_and_leads_the_same_way(monkeypatch):
    start, clock = hard_starts()[0], count()
    monkeypatch.setattr('vgps_bringup.arm.homing.time.perf_counter', lambda: next(clock))
    homing, steps, periods = Homing([NEUTRAL], 0.0), StepController(TABLE), 0
    while not homing.moving:     # a clock that advances by a second at each look leaves time for one candidate
        assert homing.set_off(start, CONFIG, steps) is None
        periods += 1
    assert periods > 1
    assert np.abs(homing.advance(0.02, start) - start).max() < 0.01


def test_a_search_begins_anew_where_the_table_was_raised_meanwhile():
    steps, homing = StepController(TABLE), Homing([START], 0.0)
    homing.set_off(NEUTRAL, CONFIG, steps)
    homing.pause()
    steps.config = StepControllerConfig(min_height=0.2)
    while (failure := homing.set_off(NEUTRAL, CONFIG, steps)) is None:
        assert not homing.moving
    assert failure[0] is Reason.TABLE


# ---- the box, which bounds fingertips and wrist too ----------------------------------------------------------------

def bounded_points(joints):
    pose = Kinematics().forward(joints)
    return [pose[:3, 3] + ahead * pose[:3, 0] for ahead in (0.0, FINGER_REACH, -WRIST_REACH)]


def test_the_wrist_is_its_reach_behind_the_gripper():
    data = MODEL._data
    MODEL._place(START, 0.0)
    np.testing.assert_allclose(bounded_points(START)[2], data.body('wrist').xpos, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize('seed', range(6))
def test_no_walk_of_steps_takes_gripper_fingertips_or_wrist_out_of_the_box(seed):
    rng, steps, config = np.random.default_rng(seed), StepController(TABLE), TABLE
    low, high = config.box
    steps.reset(START)
    drift, clipped = rng.uniform(-1, 1, 6) * [0.05, 0.05, 0.05, 0.25, 0.25, 0.25], 0
    for _ in range(25):
        result = steps.step([*(drift + rng.normal(0, 1, 6) * [0.01, 0.01, 0.01, 0.1, 0.1, 0.1]), 1.0],
                            steps.joint_command)
        clipped += result.workspace_clipped
        gripper, tip, wrist = bounded_points(steps.joint_command)
        for point in (gripper, tip):
            assert (point[:2] >= low[:2] - 1e-3).all() and (point <= high + 1e-3).all(), result
        assert low[1] - 1e-3 <= wrist[1] <= high[1] + 1e-3 and wrist[0] <= high[0] + 1e-3, result
    assert clipped or not result.accepted


def test_a_wrist_that_is_found_outside_the_box_comes_back_slowly():
    outside = START + [-0.55, 0, 0, 0, 0, 0]
    steps = StepController(TABLE)
    steps.reset(outside)
    before = bounded_points(outside)[0]
    result = steps.step([0, 0, 0, 0, 0, 0, 1], outside)
    assert result.accepted and result.workspace_clipped
    assert np.linalg.norm(bounded_points(result.joint_command)[0] - before) <= 0.011
