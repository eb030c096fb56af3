"""The 7-D robot state: BridgeData's convention, inverse of itself, defined also where the gripper is level."""
import re
from pathlib import Path

import numpy as np
import pytest

from vgps_msgs_py import robot_state

WORKSPACE = Path(__file__).resolve().parents[2]


def arcsine_formula(pose):
    """Return roll, pitch, yaw as the data of the shipped policies were written: the same but for the level gripper."""
    rotation = pose[:3, :3] @ np.array([[0, 0, 1.0], [0, 1, 0], [-1, 0, 0]]).T
    return np.array([np.arctan2(rotation[2, 1], rotation[2, 2]), np.arcsin(np.clip(-rotation[2, 0], -1, 1)),
                     np.arctan2(rotation[1, 0], rotation[0, 0])])


def test_straight_down_is_zero_roll_pitch_and_yaw():
    down = np.eye(4)
    down[:3, :3], down[:3, 3] = robot_state.DOWN, (0.3, 0.0, 0.15)
    np.testing.assert_allclose(robot_state.state_from_pose(down, 1.0), [0.3, 0, 0.15, 0, 0, 0, 1])


def test_states_and_poses_are_each_other_s_inverse():
    rng = np.random.default_rng(0)
    for _ in range(200):
        state = np.array([*rng.uniform(-0.5, 0.5, 3), *rng.uniform([-3.1, -1.5, -3.1], [3.1, 1.5, 3.1]), 0.5])
        again = robot_state.state_from_pose(robot_state.pose_from_state(state), 0.5)
        np.testing.assert_allclose(again, state, atol=1e-9)


def test_the_shipped_policies_see_the_states_they_were_trained_on():
    rng = np.random.default_rng(1)
    for _ in range(500):
        pose = robot_state.pose_from_state([0.3, 0, 0.1, *rng.uniform([-3.1, -1.55, -3.1], [3.1, 1.55, 3.1])])
        np.testing.assert_allclose(robot_state.measured_state(pose.reshape(16), 0.5)[3:6], arcsine_formula(pose),
                                   atol=1e-6)


@pytest.mark.parametrize('pitch', [np.pi / 2, -np.pi / 2])
def test_a_level_gripper_has_no_roll_and_keeps_its_attitude(pitch):
    pose = robot_state.pose_from_state([0, 0, 0, 0.4, pitch, 0.7])
    state = robot_state.state_from_pose(pose, 0.0)
    assert state[3] == 0 and state[4] == pytest.approx(pitch)
    np.testing.assert_allclose(robot_state.pose_from_state(state), pose, atol=1e-7)


@pytest.mark.parametrize('pose', [np.zeros(16), np.full(16, np.nan), np.diag([1.0, 1, -1, 1])])
def test_what_is_no_pose_gives_no_state(pose):
    assert robot_state.measured_state(pose, 0.5) is None


def test_openness_beyond_its_range_is_kept_within():
    assert robot_state.measured_state(np.eye(4), 1.2)[6] == 1.0


def test_the_formula_stands_in_one_file():
    formula = re.compile(r'arctan2\(\w*[rR]otation\w*\[2, 1\]|arcsin\(.*\[2, 0\]|\[0(?:\.0)?, 0(?:\.0)?, 1(?:\.0)?\], '
                         r'\[0(?:\.0)?, 1(?:\.0)?, 0(?:\.0)?\], \[-1(?:\.0)?, 0(?:\.0)?, 0(?:\.0)?\]')
    found = [path for tests in WORKSPACE.glob('*/test') for path in tests.parent.rglob('*.py')
             if 'test' not in path.relative_to(WORKSPACE).parts and formula.search(path.read_text(encoding='utf-8'))]
    assert found == [WORKSPACE / 'vgps_msgs' / 'vgps_msgs_py' / 'robot_state.py']
