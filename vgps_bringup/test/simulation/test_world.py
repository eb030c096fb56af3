"""The simulated arm is the published WX250s, its scenes are seeded, and its commands are ramps."""

import time

import numpy as np
import pytest
from scipy.linalg import expm

from vgps_bringup.simulation import TASKS, SimulatedWidowX
from vgps_bringup.simulation.appearance import VARIED
from vgps_bringup.simulation.interbotix import STATE_NAMES, servo_angle, state_positions
from vgps_bringup.simulation.model import FINGER_CLOSED, FINGER_OPEN, JOINT_LIMITS, JOINT_NAMES, START_JOINTS

HOME = np.array([0.458325, 0.0, 0.36065])  # of ee_gripper_link at zero joints, R = I
SCREWS = np.array([  # published screw axes (angular, linear) in the base frame
    [0, 0, 1, 0, 0, 0], [0, 1, 0, -0.11065, 0, 0], [0, 1, 0, -0.36065, 0, 0.04975],
    [1, 0, 0, 0, 0.36065, 0], [0, 1, 0, -0.36065, 0, 0.29975], [1, 0, 0, 0, 0.36065, 0]])


def product_of_exponentials(joints):
    pose = np.eye(4)
    for (wx, wy, wz, *v), q in zip(SCREWS, joints):
        twist = np.zeros((4, 4))
        twist[:3] = [[0, -wz, wy, v[0]], [wz, 0, -wx, v[1]], [-wy, wx, 0, v[2]]]
        pose = pose @ expm(twist * q)
    home = np.eye(4)
    home[:3, 3] = HOME
    return pose @ home


@pytest.fixture(scope='module')
def robot():
    return SimulatedWidowX('put_carrot_on_plate')


def place(robot, joints):
    import mujoco
    for name, value in zip(JOINT_NAMES, joints):
        robot.data.joint(name).qpos = value
    mujoco.mj_kinematics(robot.model, robot.data)


def test_forward_kinematics_are_the_published_ones(robot):
    rng = np.random.default_rng(0)
    for joints in [np.zeros(6), [0, -1.80, 1.55, 0, 0.8, 0], *rng.uniform(*np.array(JOINT_LIMITS).T, (50, 6))]:
        place(robot, joints)
        np.testing.assert_allclose(robot.gripper_pose(), product_of_exponentials(joints), atol=1e-6)


def test_bridge_neutral_and_start_pose_are_where_the_real_arm_has_them(robot):
    place(robot, [-0.13192235, -0.76238847, 0.44485444, -0.01994175, 1.7564081, -0.15953401])
    np.testing.assert_allclose(robot.gripper_pose()[:3, 3], [0.1202013, -0.0190849, 0.2466955], atol=1e-6)
    place(robot, START_JOINTS)
    np.testing.assert_allclose(robot.gripper_pose(), [[0, 0, 1, 0.3], [0, 1, 0, 0], [-1, 0, 0, 0.15], [0, 0, 0, 1]],
                               atol=1e-6)


def test_joint_limits_are_the_drivers(robot):
    for name, limits in zip(JOINT_NAMES, JOINT_LIMITS):
        np.testing.assert_allclose(robot.model.joint(name).range, limits)


def test_joint_states_have_the_drivers_nine_names_and_crank():
    assert STATE_NAMES == ('waist', 'shoulder', 'elbow', 'forearm_roll', 'wrist_angle', 'wrist_rotate', 'gripper',
                           'left_finger', 'right_finger')
    positions = state_positions(np.arange(6.0), 0.021)
    assert positions[:6] == list(range(6)) and positions[7:] == [0.021, -0.021]
    for finger in (0.0105, 0.015, 0.024, 0.037):  # the driver's own formula gives the finger back
        q = servo_angle(finger)
        assert 0.014 * np.sin(q) + np.sqrt(0.024 ** 2 - 0.014 ** 2 * np.cos(q) ** 2) == pytest.approx(finger, abs=1e-9)


@pytest.mark.parametrize('task', TASKS)
def test_scenes_are_decided_by_their_seed_and_stay_within_their_ranges(task):
    robot, spec = SimulatedWidowX(task), TASKS[task]
    seen = []
    for seed in [*range(20), 0]:
        assert robot.reset(seed) == spec.instruction
        state = robot.task_state()
        seen.append((*state.object_position, *state.goal_position))
        x, y, z = state.object_position
        assert spec.object_x[0] - 0.005 < x < spec.object_x[1] + 0.005
        assert spec.object_y[0] - 0.005 < y < spec.object_y[1] + 0.005
        assert z == pytest.approx(spec.rest_height, abs=0.002)
        assert not (state.success or state.grasped or state.ever_grasped)
        robot.advance(0.5)  # nothing rolls away, nothing was placed inside anything
        np.testing.assert_allclose(robot.task_state().object_position, state.object_position, atol=0.002)
    assert seen[0] == seen[-1]
    assert len(set(seen)) == 20


def test_varied_looks_change_pictures_but_not_physics():
    plain = SimulatedWidowX('put_carrot_on_plate', (64, 64), 'rays')
    varied = SimulatedWidowX('put_carrot_on_plate', (64, 64), 'rays', looks=VARIED)
    pictures = []
    for seed in (1, 2, 1):
        plain.reset(seed)
        varied.reset(seed)
        assert plain.task_state() == varied.task_state()
        pictures.append(varied.render().astype(int))
    assert (pictures[0] == pictures[2]).all()
    assert np.abs(pictures[0] - pictures[1]).mean() > 5
    before = plain.render()
    varied.looks = plain.looks  # the compiled looks come back untouched
    varied.reset(1)
    assert (varied.render() == before).all()


def test_joint_targets_are_reached_after_seventy_per_cent_of_the_duration(robot):
    robot.reset(0)
    start, target = np.array(START_JOINTS), np.array(START_JOINTS) + 0.1
    robot.command(target, 1.0, duration=0.2)
    robot.advance(0.072)
    np.testing.assert_allclose(robot.data.ctrl[:6], start + 0.1 * 0.072 / 0.14, atol=0.003)
    robot.advance(0.072)
    np.testing.assert_allclose(robot.data.ctrl[:6], target)
    robot.advance(0.3)
    np.testing.assert_allclose(robot.joint_positions(), target, atol=0.01)


def test_targets_beyond_the_joint_limits_stop_at_them(robot):
    robot.reset(0)
    robot.command(np.full(6, 9.0), 1.0)
    robot.advance(0.2)
    np.testing.assert_allclose(robot.data.ctrl[:6], np.array(JOINT_LIMITS)[:, 1])


def test_gripper_closes_and_opens_in_bridge_calibration(robot):
    robot.reset(0)
    assert robot.gripper_openness() == pytest.approx(1.0, abs=0.02)
    robot.command(START_JOINTS, 0.0)
    robot.advance(0.6)
    assert robot.gripper_openness() == pytest.approx(0.0, abs=0.03)
    assert robot.finger_position() == pytest.approx(FINGER_CLOSED, abs=0.001)
    robot.command(START_JOINTS, 1.0)
    robot.advance(0.6)
    assert robot.finger_position() == pytest.approx(FINGER_OPEN, abs=0.001)


def test_time_below_one_physics_step_is_not_lost(robot):
    robot.reset(0)
    for _ in range(100):
        robot.advance(0.001)
    assert robot.time == pytest.approx(0.1, abs=0.0041)


@pytest.mark.parametrize('joints, openness, duration', [
    ([0] * 5, 1.0, 0.2), ([np.nan] + [0] * 5, 1.0, 0.2), ([0] * 6, np.inf, 0.2), ([0] * 6, 1.0, 0.0)])
def test_commands_that_make_no_sense_are_refused(robot, joints, openness, duration):
    robot.reset(0)
    with pytest.raises(ValueError, match=r'six finite joint angles|duration'):
        robot.command(joints, openness, duration)
    np.testing.assert_allclose(robot.data.ctrl[:6], START_JOINTS)


def test_an_unknown_task_is_refused_by_name_and_changes_nothing(robot):
    with pytest.raises(ValueError, match="no task 'fold_towel'.*put_eggplant_in_basket"):
        robot.reset(0, 'fold_towel')
    assert robot.reset(0) == 'put carrot on plate'


def test_physics_runs_faster_than_real_time(robot):
    robot.reset(0)
    started = time.process_time()
    robot.advance(10.0)
    assert time.process_time() - started < 10.0 / 5


def test_a_task_seen_before_is_neither_built_nor_given_another_renderer_and_starts_the_same():
    robot = SimulatedWidowX('put_carrot_on_plate', (32, 32))
    robot.reset(3)
    first, model, renderer = robot.render(), robot.model, robot._world.renderer
    start = robot.data.qpos.copy()
    robot.command(np.zeros(6), 0.0)
    robot.advance(0.5)
    robot.reset(4, 'put_eggplant_in_basket')
    robot.render()
    robot.reset(3, 'put_carrot_on_plate')
    assert robot.model is model and robot._world.renderer is renderer
    np.testing.assert_array_equal(robot.data.qpos, start)
    np.testing.assert_array_equal(robot.render(), first)
    robot.close()
    assert robot.backend == ''
