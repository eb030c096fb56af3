"""Who may command the arm, and what was old or out of place when it was asked. Time is passed in."""

import numpy as np
import pytest
from arm_world import NEUTRAL, PERIOD, World

from vgps_bringup.arm.controller_config import ControllerConfig
from vgps_bringup.arm.step_controller import StepController, StepControllerConfig
from vgps_msgs_py.vocabulary import ArmState as State, ControllerReason as Reason


@pytest.fixture
def world():
    return World()


# ---- the announced running episode and no other --------------------------------------------------------------------

def test_no_command_moves_the_arm_before_an_episode_is_announced_or_after_it_is_over(world):
    assert world.send(0.01, episode='a') is Reason.NO_EPISODE
    world.announce('a')
    assert world.send(0.01, episode='b') is Reason.OUT_OF_ORDER
    assert world.send(0.01, episode='a') is Reason.ACCEPTED
    world.run(0.22)
    world.controller.on_episode('a', False, world.now)
    assert world.send(0.01, episode='a') is Reason.OUT_OF_ORDER
    assert world.send(0.01, episode='') is Reason.NO_EPISODE
    assert len(world.arm.commands) == 1


def test_an_episode_that_is_over_stays_over_however_many_followed(world):
    for i in range(150):
        world.announce(f'e{i}')
        world.controller.on_episode(f'e{i}', False, world.now)
    for episode in ('e0', 'e149'):
        assert world.send(0.01, episode=episode) in (Reason.NO_EPISODE, Reason.OUT_OF_ORDER)
    assert world.arm.commands == []


@pytest.mark.parametrize('step', [2**32 - 1, 10_000, 200])
def test_a_step_number_far_ahead_does_not_lock_out_the_true_critic(world, step):
    world.announce()
    for number in range(3):
        assert world.send(0.01, step=number) is Reason.ACCEPTED
        world.run(0.22)
        assert world.send(0.01, step=step) is Reason.OUT_OF_ORDER
    assert world.send(0.01, step=3) is Reason.ACCEPTED


def test_steps_that_were_lost_or_taken_before_a_restart_do_not_lock_out_the_critic_either(world):
    world.announce()
    assert world.send(0.01, step=9) is Reason.ACCEPTED
    world.run(4.0)
    assert world.send(0.01, step=80) is Reason.ACCEPTED


def test_two_publishers_are_named_and_the_arm_holds_until_there_is_one(world):
    world.announce()
    assert world.send(0.01) is Reason.ACCEPTED
    world.run(0.1)
    world.controller.watchdog.publishers({'/vgps/command': ['/vgps/critic_node', '/vgps/rogue']})
    world.run(PERIOD)
    assert world.shown == (State.HOLDING, Reason.TWO_PUBLISHERS)
    assert '/vgps/critic_node and /vgps/rogue' in world.controller.message
    sent = len(world.arm.commands)
    assert world.send(0.01) is Reason.TWO_PUBLISHERS
    world.run(3.0)
    assert world.shown == (State.HOLDING, Reason.TWO_PUBLISHERS), 'no silence of the critic covers it up'
    assert len(world.arm.commands) == sent
    world.controller.watchdog.publishers({})
    world.run(PERIOD)
    assert world.send(0.01) is Reason.ACCEPTED


def test_of_two_drivers_nobody_knows_which_arm_they_speak_of_and_nothing_moves(world):
    world.announce()
    assert world.send(0.01) is Reason.ACCEPTED
    world.controller.watchdog.drivers('/wx250s/joint_states', ['/wx250s/xs_sdk', '/rosbag2_player'])
    world.run(0.3)
    assert world.shown == (State.HOLDING, Reason.BAD_JOINT_STATES)
    assert '/rosbag2_player and /wx250s/xs_sdk' in world.controller.message
    sent = len(world.arm.commands)
    for call in (lambda: world.controller.home(world.now), lambda: world.controller.reset(world.now, operator=True)):
        assert not call()[0], "the operator's own move goes by the joint states, too"
    world.controller.stop(world.now)
    assert len(world.arm.commands) == sent, 'the last command stands'
    world.controller.watchdog.drivers('/wx250s/joint_states', ['/wx250s/xs_sdk'])
    world.run(1.0)
    assert world.controller.home(world.now)[0]


def test_two_publishers_stop_a_goals_move_but_not_the_operators(world):
    world.controller.reset_for('goal', world.ros_now, world.now, world.ros_now)
    world.run(0.2)
    world.controller.watchdog.publishers({'/vgps/episode': ['/vgps/policy_node'] * 2})
    world.run(PERIOD)
    assert world.shown == (State.HOLDING, Reason.TWO_PUBLISHERS)
    assert not world.controller.reset_for('goal', world.ros_now, world.now, world.ros_now)[0]
    assert world.controller.home(world.now)[0]
    world.run(0.5)
    assert world.controller.state is State.HOMING
    world.run(8.0)
    np.testing.assert_allclose(world.arm.positions, NEUTRAL, atol=1e-6)
    assert world.shown == (State.HOLDING, Reason.TWO_PUBLISHERS), 'steps are still refused'


# ---- what is old ---------------------------------------------------------------------------------------------------

def test_a_clock_that_stands_still_makes_no_image_fresh(world):
    frozen = world.ros_now
    world.announce()
    assert world.send(0.01, step=0) is Reason.ACCEPTED
    for _ in range(1000):
        world.ros_jump -= PERIOD    # the ROS clock stands
        world.run(PERIOD)
    assert abs(world.ros_now - frozen) < 0.1
    assert world.send(0.01, age=0.0) is Reason.STALE_IMAGE
    world.run(0.3)                  # it goes on: what was seen before is old, what comes now is not
    assert world.send(0.01, age=0.31) is Reason.OUT_OF_ORDER
    assert world.send(0.01, age=0.05) is Reason.ACCEPTED


@pytest.mark.parametrize('frozen', [0.3, 0.9, 30.0])
@pytest.mark.parametrize('ticks_first', [True, False])
def test_a_command_that_waited_for_a_controller_that_did_not_run_moves_nothing(world, frozen, ticks_first):
    world.announce()
    assert world.send(0.01) is Reason.ACCEPTED
    world.run(0.3)
    sent, world.now = len(world.arm.commands), world.now + frozen
    if ticks_first:
        world.controller.tick(world.now, world.ros_now)
    assert world.send(0.01, age=frozen) in (Reason.STALE_JOINT_STATES, Reason.STALE_IMAGE)
    assert world.controller.state is State.HOLDING and 'was suspended' in world.controller.message
    assert len(world.arm.commands) == sent
    world.run(0.6)
    assert world.send(0.01) is Reason.ACCEPTED


# ---- leaps ---------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize('joint', range(6))
@pytest.mark.parametrize('push', [-0.5, -0.2, 0.2, 0.5])
def test_a_resting_arm_that_was_pushed_slowly_goes_on_from_where_it_is_and_says_so(world, joint, push):
    world.announce()
    assert world.send(0.01) is Reason.ACCEPTED
    world.run(0.3)
    for i in range(100):
        world.arm.positions = world.arm.commands[0][0].copy()
        world.arm.positions[joint] += push * (i + 1) / 100
        world.run(PERIOD)
    pushed = world.arm.positions.copy()
    if world.send(action=[0, 0, 0, 0, 0, 0, 1]) is Reason.ACCEPTED:
        assert 'was moved by' in world.controller.message
        assert np.abs(world.arm.commands[-1][0] - pushed).max() < 0.1
    else:
        assert len(world.arm.commands) == 1 and world.controller.message


def test_an_arm_that_sags_within_reason_is_not_anchored_and_does_not_sink(world):
    world.announce()
    for _ in range(50):
        world.send(action=[0, 0, 0, 0, 0, 0, 1])
        world.override = world.arm.commands[-1][0] + [0, 0.09, 0, 0, 0, 0]
        world.run(0.7)
    np.testing.assert_allclose(world.arm.commands[-1][0], world.arm.commands[0][0], atol=1e-6)


def low_arm():
    """Return a StepController whose target is a centimetre above the base plane."""
    steps = StepController(StepControllerConfig(min_height=-0.1))
    steps.reset(ControllerConfig().start_joints())
    while steps.target_pose[2, 3] > 0.011:
        down = max(-0.04, 0.01 - steps.target_pose[2, 3])
        assert steps.step([0, 0, down, 0, 0, 0, 1.0], steps.joint_command).accepted
    return steps


@pytest.mark.parametrize('floor', [0.03, 0.06, 0.12])
def test_a_floor_that_is_raised_under_the_arm_lifts_it_slowly(floor):
    steps = low_arm()
    steps.config, heights = StepControllerConfig(min_height=floor), [steps.target_pose[2, 3]]
    for _ in range(20):
        result = steps.step([0, 0, 0, 0, 0, 0, 1.0], steps.joint_command)
        assert result.accepted, result.message
        heights.append(result.target_pose[2, 3])
    assert np.diff(heights).max() <= 0.01 + 1e-6 and np.diff(heights).min() >= -1e-6
    assert heights[-1] == pytest.approx(floor, abs=1e-6)


def test_an_arm_below_a_raised_floor_is_not_let_further_down_and_may_rise_at_the_policys_pace():
    steps = low_arm()
    start, steps.config = steps.target_pose[2, 3], StepControllerConfig(min_height=0.15)
    result = steps.step([0, 0, -0.05, 0, 0, 0, 1.0], steps.joint_command)
    assert result.workspace_clipped and result.target_pose[2, 3] == pytest.approx(start + 0.01)
    assert steps.step([0, 0, 0.04, 0, 0, 0, 1.0], steps.joint_command).target_pose[2, 3] == pytest.approx(start + 0.05)
