"""Kinematics and BridgeData's composition against numbers of the reference robot stack and of modern_robotics."""

import json
import time
from pathlib import Path

import numpy as np
import pytest

from vgps_bringup.arm import previous_target
from vgps_bringup.arm.kinematics import JOINT_LOWER, JOINT_UPPER, Kinematics, rotation_vector
from vgps_msgs_py import robot_state

GOLDEN = json.loads((Path(__file__).parent / 'data' / 'bridge_steps.json').read_text())
NEUTRAL = np.array([-0.13192235, -0.76238847, 0.44485444, -0.01994175, 1.7564081, -0.15953401])
SLEEP = np.array([0.0, -1.80, 1.55, 0.0, 0.8, 0.0])


@pytest.fixture(scope='module')
def kinematics():
    return Kinematics()


@pytest.mark.parametrize(('name', 'joints'), [('home', np.zeros(6)), ('neutral', NEUTRAL), ('sleep', SLEEP)])
def test_forward_reproduces_the_reference_stack(kinematics, name, joints):
    np.testing.assert_allclose(kinematics.forward(joints), GOLDEN['fk'][name], atol=1e-6)


def test_forward_agrees_with_product_of_exponentials_everywhere(kinematics):
    modern_robotics = pytest.importorskip('modern_robotics')
    home = np.eye(4)
    home[:3, 3] = [0.458325, 0, 0.36065]
    screws = np.array([[0, 0, 1, 0, 0, 0], [0, 1, 0, -0.11065, 0, 0], [0, 1, 0, -0.36065, 0, 0.04975],
                       [1, 0, 0, 0, 0.36065, 0], [0, 1, 0, -0.36065, 0, 0.29975], [1, 0, 0, 0, 0.36065, 0]]).T
    rng = np.random.default_rng(0)
    for joints in rng.uniform(JOINT_LOWER, JOINT_UPPER, (500, 6)):
        expected = modern_robotics.FKinSpace(home, screws, joints)
        np.testing.assert_allclose(kinematics.forward(joints), expected, atol=1e-6)


def test_jacobian_is_the_derivative_of_forward(kinematics):
    step = 1e-6
    jacobian = kinematics.jacobian(NEUTRAL)
    for joint in range(6):
        plus, minus = NEUTRAL.copy(), NEUTRAL.copy()
        plus[joint] += step
        minus[joint] -= step
        after, before = kinematics.forward(plus), kinematics.forward(minus)
        column = np.concatenate([after[:3, 3] - before[:3, 3], rotation_vector(after[:3, :3] @ before[:3, :3].T)])
        np.testing.assert_allclose(jacobian[:, joint], column / (2 * step), atol=1e-6)


@pytest.mark.parametrize('count', [2_000, pytest.param(10_000, marks=pytest.mark.long)])
def test_inverse_reaches_thousands_of_poses_from_a_step_away(kinematics, count):
    rng = np.random.default_rng(1)
    milliseconds = []
    for joints in rng.uniform(JOINT_LOWER, JOINT_UPPER, (count, 6)):
        pose = kinematics.forward(joints)
        seed = joints + rng.uniform(-0.3, 0.3, 6)
        started = time.thread_time()      # of this thread: what a busy machine does meanwhile is not counted
        result = kinematics.inverse(pose, seed)
        milliseconds.append((time.thread_time() - started) * 1e3)
        assert result.ok, (joints, seed, result)
        reached = kinematics.forward(result.joint_positions)
        assert np.linalg.norm(reached[:3, 3] - pose[:3, 3]) < 1e-4
        assert np.linalg.norm(rotation_vector(reached[:3, :3] @ pose[:3, :3].T)) < 1e-3
    assert np.percentile(milliseconds, 95) < 2.0


def test_inverse_agrees_with_the_reference_on_its_start_pose(kinematics):
    case = GOLDEN['ik_start_state']
    result = kinematics.inverse(np.array(case['T']), case['guess'])
    # The reference stops at 1e-3, so its own answer is only that good.
    np.testing.assert_allclose(result.joint_positions, case['theta'], atol=3e-3)
    np.testing.assert_allclose(kinematics.forward(result.joint_positions), case['T'], atol=1e-5)


def test_inverse_says_no_to_poses_out_of_reach_and_to_not_a_number(kinematics):
    pose = kinematics.forward(NEUTRAL)
    far = pose.copy()
    far[:3, 3] = [1.0, 0.0, 0.2]
    assert not kinematics.inverse(far, NEUTRAL).ok
    pose[0, 3] = np.nan
    broken = kinematics.inverse(pose, NEUTRAL)
    assert not broken.ok
    np.testing.assert_array_equal(broken.joint_positions, NEUTRAL)
    assert not kinematics.inverse(kinematics.forward(NEUTRAL), np.full(6, np.inf)).ok


@pytest.mark.parametrize('case', GOLDEN['steps'], ids=[str(i) for i in range(len(GOLDEN['steps']))])
def test_composition_reproduces_forty_bridge_data_steps(case):
    target = robot_state.pose_from_state(case['prev_target_state'])
    pose = previous_target.compose(target, np.array(case['measured_xyz']), np.array(case['clipped_action'][:6]))
    unclipped = pose[:3, 3].copy()
    pose[:3, 3] = np.clip(unclipped, *GOLDEN['workspace'])
    np.testing.assert_allclose(pose, case['next_transform'], atol=1e-6)
    state = robot_state.state_from_pose(pose, case['clipped_action'][6])
    np.testing.assert_allclose(state, case['next_target_state'], atol=1e-6)
    assert case['was_clipped'] == (not np.array_equal(unclipped, pose[:3, 3]))


def test_zero_roll_pitch_yaw_is_the_gripper_pointing_down():
    pose = robot_state.pose_from_state([0.3, 0, 0.15, 0, 0, 0])
    np.testing.assert_allclose(pose[:3, 0], [0, 0, -1])   # the fingers' axis is the hand's x
    np.testing.assert_allclose(robot_state.state_from_pose(pose, 1.0), [0.3, 0, 0.15, 0, 0, 0, 1])


def test_euler_angles_survive_the_round_trip_and_gimbal_lock():
    rng = np.random.default_rng(2)
    for angles in np.vstack([rng.uniform(-np.pi, np.pi, (200, 3)), [[0.3, np.pi / 2, 0.4], [0.3, -np.pi / 2, 0.4]]]):
        rotation = robot_state.rotation_from_euler(*angles)
        again = robot_state.rotation_from_euler(*robot_state.euler_from_rotation(rotation))
        np.testing.assert_allclose(again, rotation, atol=1e-9)


def test_a_thousand_compositions_stay_a_rotation():
    pose, rng = robot_state.pose_from_state([0.3, 0, 0.15, 0, 0, 0]), np.random.default_rng(3)
    for _ in range(1000):
        pose = previous_target.compose(pose, pose[:3, 3], rng.uniform(-0.25, 0.25, 6))
    np.testing.assert_allclose(pose[:3, :3] @ pose[:3, :3].T, np.eye(3), atol=1e-12)
