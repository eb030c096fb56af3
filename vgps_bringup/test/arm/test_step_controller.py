"""The guards of one control step: what is refused, by which name, and that a refusal changes nothing."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from vgps_bringup.arm.kinematics import JOINT_LOWER, JOINT_UPPER, Kinematics
from vgps_bringup.arm.step_controller import WORKSPACES, StepController, StepControllerConfig
from vgps_msgs_py import robot_state
from vgps_msgs_py.vocabulary import ControllerReason as Reason

KINEMATICS = Kinematics()
START = KINEMATICS.inverse(robot_state.pose_from_state([0.3, 0, 0.15, 0, 0, 0]),
                           [-0.13, -0.76, 0.44, -0.02, 1.76, -0.16]).joint_positions


@pytest.fixture
def controller():
    controller = StepController()
    controller.reset(START)
    return controller


def action(dx=0.0, dy=0.0, dz=0.0, droll=0.0, dpitch=0.0, dyaw=0.0, openness=1.0):
    return np.array([dx, dy, dz, droll, dpitch, dyaw, openness])


def assert_unchanged(controller, before, result):
    assert not result.accepted
    for now in (result, controller):
        np.testing.assert_array_equal(now.target_pose, before[0])
        np.testing.assert_array_equal(now.joint_command, before[1])
        assert now.gripper == before[2]


def test_a_small_step_moves_the_gripper_by_exactly_that(controller):
    result = controller.step(action(0.02, -0.01, 0.015, openness=0.0), START)
    assert result.accepted
    assert result.reason is Reason.ACCEPTED
    reached = KINEMATICS.forward(result.joint_command)
    np.testing.assert_allclose(reached[:3, 3], [0.32, -0.01, 0.165], atol=1e-4)
    assert result.gripper == 0.0


def test_deltas_accumulate_on_the_target_while_the_measured_arm_sags(controller):
    sagging = START + [0, 0.02, 0, 0, 0, 0]
    for _ in range(10):
        assert controller.step(action(), sagging).accepted
    np.testing.assert_allclose(controller.target_pose[:3, 3], [0.3, 0, 0.15], atol=1e-5)


def test_roll_with_the_gripper_down_turns_about_the_base_axis(controller):
    for _ in range(3):
        assert controller.step(action(droll=0.2), controller.joint_command).accepted
    np.testing.assert_allclose(robot_state.state_from_pose(controller.target_pose, 1.0)[3:6], [0.6, 0, 0], atol=1e-6)


@pytest.mark.parametrize('index', range(7))
@pytest.mark.parametrize('value', [np.nan, np.inf, -np.inf])
def test_not_finite_is_refused(controller, index, value):
    before = controller.target_pose, controller.joint_command, controller.gripper
    bad = action(0.01, openness=0.0)
    bad[index] = value
    result = controller.step(bad, START)
    assert result.reason is Reason.NOT_FINITE
    assert_unchanged(controller, before, result)


@pytest.mark.parametrize('shape', [(0,), (6,), (8,), (1, 7)])
def test_wrong_shape_is_refused(controller, shape):
    before = controller.target_pose, controller.joint_command, controller.gripper
    assert_unchanged(controller, before, controller.step(np.zeros(shape), START))


def test_measured_joints_that_are_not_numbers_are_refused(controller):
    before = controller.target_pose, controller.joint_command, controller.gripper
    result = controller.step(action(0.01), np.full(6, np.nan))
    assert result.reason is Reason.BAD_JOINT_STATES
    assert_unchanged(controller, before, result)


def test_large_actions_are_clipped_to_the_bounds_and_say_so(controller):
    result = controller.step(action(dy=5.0), START)
    assert result.accepted
    assert result.action_clipped
    np.testing.assert_allclose(result.target_pose[:3, 3], [0.3, 0.05, 0.15], atol=1e-5)


@pytest.mark.parametrize('name', sorted(WORKSPACES))
def test_the_target_never_leaves_the_selected_box(name):
    controller = StepController(StepControllerConfig(workspace=name, min_height=0.05))
    controller.reset(START)
    clipped = False
    for dz, steps in ((0.05, 6), (-0.05, 8)):
        for _ in range(steps):
            result = controller.step(action(dz=dz, dy=-0.05), controller.joint_command)
            clipped |= result.workspace_clipped
            inside = result.target_pose[:3, 3]
            assert (inside >= controller.config.box[0] - 1e-12).all()
            assert (inside <= controller.config.box[1] + 1e-12).all()
    assert clipped
    assert controller.target_pose[2, 3] == pytest.approx(0.05)


def test_an_unreachable_pose_is_refused_and_does_not_wind_up(controller):
    refused = None
    for _ in range(12):       # tilt the hand up at the far end of the box until the wrist cannot follow
        before = controller.target_pose, controller.joint_command, controller.gripper
        result = controller.step(action(dx=0.05, dz=0.05, dpitch=-0.25, openness=0.0), controller.joint_command)
        if not result.accepted:
            refused = result
            assert_unchanged(controller, before, result)
    assert refused is not None
    assert refused.reason in (Reason.UNREACHABLE, Reason.JOINT_LIMIT, Reason.JOINT_STEP)
    assert controller.step(action(dz=-0.02, dpitch=0.2), controller.joint_command).accepted


def test_a_joint_beyond_its_limit_is_named(controller):
    at_limit = START.copy()
    at_limit[5] = JOINT_UPPER[5] - 0.01
    # The hand points down: turning it about the vertical turns wrist_rotate alone.
    results = []
    for sign in (1, -1):
        controller.reset(at_limit)
        results.append(controller.step(action(dyaw=sign * 0.2), at_limit))
    refused = [r for r in results if not r.accepted]
    assert [r.reason for r in refused] == [Reason.JOINT_LIMIT]
    assert 'wrist_rotate' in refused[0].message


def test_a_large_joint_step_is_refused_from_the_last_command_and_from_the_measured_arm(controller):
    tight = StepController(replace(controller.config, max_joint_step=0.05))
    tight.reset(START)
    assert tight.step(action(dy=0.05), START).reason is Reason.JOINT_STEP
    blocked = START + [0.7, 0, 0, 0, 0, 0]
    result = controller.step(action(), blocked)
    assert result.reason is Reason.JOINT_STEP
    assert 'measured' in result.message


def test_the_gripper_is_binary_and_flips_after_the_sticky_count():
    controller = StepController(StepControllerConfig(gripper_sticky_steps=3))
    controller.reset(START)
    opennesses = [0.2, 0.3, 0.9, 0.1, 0.1, 0.1, 0.9, 0.2, 0.9, 0.9, 0.9]
    commanded = [controller.step(action(openness=o), START).gripper for o in opennesses]
    assert commanded == [1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 1]


def test_sticky_count_of_one_follows_every_action(controller):
    assert [controller.step(action(openness=o), START).gripper for o in (0.0, 1.0, 0.49, 0.51)] == [0, 1, 0, 1]


def test_unknown_workspace_is_refused_by_name():
    with pytest.raises(ValueError, match='nowhere'):
        StepControllerConfig(workspace='nowhere')


def assert_safe(controller, before, result):
    command = result.joint_command
    assert np.isfinite(command).all()
    assert (command >= JOINT_LOWER).all()
    assert (command <= JOINT_UPPER).all()
    assert np.abs(command - before).max() <= controller.config.max_joint_step + 1e-12
    assert result.gripper in (0.0, 1.0)


@pytest.mark.parametrize('count', [2_000, pytest.param(10_000, marks=pytest.mark.long)])
def test_thousands_of_hostile_actions_stay_within_limits_and_steps(count):
    rng = np.random.default_rng(4)
    controller = StepController()
    controller.reset(START)
    hostile = np.array([np.nan, np.inf, -np.inf, 1e308, -1e308, 1e-308, 0.0, -0.0, 1e6])
    accepted = 0
    for i in range(count):
        drawn = rng.normal(0, 10.0 ** rng.integers(-3, 3), 7)
        if i % 3 == 0:
            drawn[rng.integers(0, 7, rng.integers(1, 4))] = rng.choice(hostile)
        measured = controller.joint_command + rng.normal(0, 0.02, 6)
        if i % 50 == 0:
            measured = rng.uniform(-10, 10, 6)
        before = controller.joint_command
        result = controller.step(drawn, measured)
        assert_safe(controller, before, result)
        accepted += result.accepted
    assert 0.1 * count < accepted < 0.9 * count    # else the test shows nothing


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(st.lists(st.lists(st.floats(width=64), min_size=7, max_size=7), min_size=1, max_size=10))
def test_no_sequence_of_floats_gets_past_the_guards(actions):
    controller = StepController()
    controller.reset(START)
    for drawn in actions:
        before = controller.joint_command
        assert_safe(controller, before, controller.step(np.array(drawn), before))
