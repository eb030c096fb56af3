"""The controller's state machine: the order of commands, stop, home, reset and dry runs."""

from dataclasses import replace

import numpy as np
import pytest
from arm_world import CONFIG, NEUTRAL, PERIOD, FakeArm, World

from vgps_bringup.arm.arms import Reading
from vgps_bringup.arm.controller import ArmController
from vgps_bringup.arm.step_controller import StepControllerConfig
from vgps_msgs_py.vocabulary import ArmState as State, ControllerReason as Reason


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
    world.announce('a')
    for step in (0, 7, 14):
        assert world.send(0.01, step=step, episode='a') is Reason.ACCEPTED
        world.run(0.22)
    world.announce('b')
    assert world.send(0.01, step=0, episode='b') is Reason.ACCEPTED
    world.run(0.22)
    assert world.send(0.01, step=15, episode='a') is Reason.OUT_OF_ORDER


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
    world.announce('a')
    assert world.controller.reset(world.now)[0]
    world.send(0.01, episode='a')
    assert world.shown == (State.HOMING, Reason.ACCEPTED) and world.controller.refused == 1
    world.run(10.0)
    assert world.shown == (State.READY, Reason.ACCEPTED)
    np.testing.assert_allclose(world.controller.steps.target_pose[:3, 3], [0.3, 0, 0.15], atol=1e-4)
    path = np.array([joints for joints, _ in world.arm.commands])
    assert np.abs(np.diff(path, axis=0)).max() <= CONFIG.move_speed * PERIOD * 1.001
    assert {openness for _, openness in world.arm.commands} == {1.0}


@pytest.mark.parametrize(('away', 'by_neutral'), [(0.0, False), (0.09, False), (0.11, True), (-0.5, True)])
def test_an_arm_that_is_at_its_start_pose_already_does_not_go_to_neutral_and_back(away, by_neutral):
    start = CONFIG.start_joints()
    world = World(positions=start + np.array([0.0, away, 0.0, 0.0, 0.0, 0.0]))
    assert world.controller.reset(world.now)[0]
    began = world.now
    while world.controller.state is State.HOMING:
        world.run(PERIOD)
        assert world.now < began + 20.0
    nearest = min(np.abs(joints - NEUTRAL).max() for joints, _ in world.arm.commands)
    assert (nearest < 0.01) == by_neutral
    np.testing.assert_allclose(world.arm.positions, start, atol=1e-6)
    assert world.arm.openness == 1.0


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


def test_leaving_a_dry_run_forgets_the_gripper_it_imagined():
    world = World(replace(CONFIG, dry_run=True))
    world.send(action=[0, 0, 0, 0, 0, 0, 0.0])
    world.run(0.22)
    assert world.controller.steps.gripper == 0.0
    world.controller.configure(CONFIG)
    assert world.controller.home(world.now)[0]
    world.run(0.1)
    assert world.arm.commands and all(openness is None for _, openness in world.arm.commands)
    assert world.controller.steps.gripper == 1.0


def test_a_cautious_step_limit_neither_cuts_the_way_home_short_nor_keeps_stop_from_freezing_there():
    world = World(step_config=StepControllerConfig(max_joint_step=0.05), positions=NEUTRAL + [0.8, 0, 0, 0, 0, 0])
    lag = np.array([0.15, 0, 0, 0, 0, 0])      # as the servos' time profile leaves at 1 rad/s
    assert world.controller.home(world.now)[0]
    for _ in range(30):
        world.override = world.arm.positions + lag
        world.run(PERIOD)
    assert world.controller.state is State.HOMING, world.controller.message
    world.controller.stop()
    np.testing.assert_allclose(world.arm.commands[-1][0], world.override)


def test_a_start_pose_out_of_reach_is_refused_by_name():
    with pytest.raises(ValueError, match='out of reach'):
        ArmController(FakeArm(), replace(CONFIG, start_state=(0.9, 0.0, 0.15, 0.0, 0.0, 0.0)))


@pytest.mark.parametrize('poses, name', [
    ({'neutral_joints': (9.0, -0.76, 0.44, 0.0, 1.76, 0.0)}, 'neutral_joints puts waist'),
    ({'neutral_joints': (0.0, -3.0, 0.44, 0.0, 1.76, 0.0)}, 'shoulder'),
    ({'start_state': (-0.3, 0.0, 0.15, 0.0, 0.0, 0.0)}, 'start_state puts')])
def test_a_pose_beyond_the_joint_limits_is_refused_by_name_and_not_clipped_into_another(poses, name):
    with pytest.raises(ValueError, match=name):
        replace(CONFIG, **poses).start_joints()
