"""The oracle calls success and each failure by the name that the paper's figures give it."""

import dataclasses

import numpy as np
import pytest

from vgps_bringup.simulation import TASKS, SimulatedWidowX, TaskState
from vgps_bringup.simulation.collect import run_episode
from vgps_bringup.simulation.demonstrator import NO_ERRORS, Demonstrator
from vgps_bringup.simulation.environment import LockstepEnvironment
from vgps_msgs_py.vocabulary import TaskFailure


def test_its_word_has_the_fields_of_the_message():
    pytest.importorskip('rclpy')  # without ROS vgps_msgs.msg is the folder of the sources
    message = pytest.importorskip('vgps_msgs.msg').TaskState
    fields = set(message.get_fields_and_field_types())
    assert fields == {f.name for f in dataclasses.fields(TaskState)} | {'header'}


def play(task='put_eggplant_in_basket', max_steps=40, seed=3, **errors):
    environment = LockstepEnvironment(task, None)
    success, failure, steps = run_episode(environment, Demonstrator(dataclasses.replace(NO_ERRORS, **errors)), seed,
                                          max_steps)
    return environment.robot.task_state(), success, failure, steps


@pytest.mark.parametrize('task', TASKS)
def test_object_rested_at_the_goal_is_a_success(task):
    state, success, failure, steps = play(task)
    assert success and state.success and state.failure is TaskFailure.NONE and failure == ''
    assert state.ever_grasped and not state.grasped
    assert steps <= 30


def test_fingers_closing_above_the_object_are_a_missed_grasp():
    state, *_ = play(height_error_chance=1.0, height_error=3.0, seed=4)
    assert state.failure is TaskFailure.NEVER_GRASPED and not state.ever_grasped


def test_letting_go_half_way_is_an_early_drop():
    state, *_ = play(early_release_chance=1.0, early_release=(0.3, 0.31))
    assert state.failure is TaskFailure.DROPPED_OUTSIDE and state.ever_grasped


def test_never_letting_go_is_a_late_drop():
    state, *_ = play(late_release_chance=1.0, late_release=(39, 40))
    assert state.failure is TaskFailure.STILL_HOLDING and state.grasped


def test_object_beside_the_plate_is_misplaced():
    robot = SimulatedWidowX('put_carrot_on_plate')
    robot.oracle.ever_grasped = True
    put_object(robot, robot.oracle.goal_position + (0.0, 0.062, 0.030))  # on its rim
    robot.advance(1.0)
    assert robot.task_state().failure is TaskFailure.MISPLACED


def put_object(robot, position):
    joint = robot.data.joint('object')
    joint.qpos[:3], joint.qvel[:] = position, 0.0


def test_success_takes_half_a_second_of_rest():
    robot = SimulatedWidowX('put_eggplant_in_basket')
    put_object(robot, robot.oracle.goal_position + (0.0, 0.0, 0.024))
    robot.advance(0.44)
    assert not robot.task_state().success and robot.task_state().failure is TaskFailure.NONE
    robot.advance(0.3)
    assert robot.task_state().success


def test_an_object_held_over_the_goal_is_no_success():
    environment = LockstepEnvironment('put_carrot_on_plate', None)
    demonstrator = Demonstrator(dataclasses.replace(NO_ERRORS, late_release_chance=1.0, late_release=(50, 51)))
    success, failure, _ = run_episode(environment, demonstrator, 1, 60)
    assert not success and failure == 'still holding'


@pytest.mark.parametrize('task', TASKS)
def test_a_grasped_object_does_not_slip(task):
    environment = LockstepEnvironment(task, None)
    robot, demonstrator = environment.robot, Demonstrator(NO_ERRORS)
    environment.reset(1)
    demonstrator.reset(robot, 1)
    while not robot.task_state().ever_grasped or robot.gripper_pose()[2, 3] < 0.07:
        environment.step(demonstrator.act(robot, environment.controller.target_pose))

    def held_at():
        return robot.oracle.object_position - robot.gripper_pose()[:3, 3]
    robot.advance(0.5)
    before = held_at()
    robot.advance(3.0)
    assert robot.task_state().grasped
    np.testing.assert_allclose(held_at(), before, atol=0.003)


def test_a_grasp_far_off_the_middle_loses_the_object_and_a_precise_one_does_not():
    def successes(offset):
        config = dataclasses.replace(NO_ERRORS, grasp_offset=offset)
        environment = LockstepEnvironment('put_eggplant_in_basket', None)
        return sum(run_episode(environment, Demonstrator(config), seed, 40)[0] for seed in range(5))
    assert successes(0.1) == 5
    assert successes(1.5) <= 2
