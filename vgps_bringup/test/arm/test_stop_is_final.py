"""A stop is final; a goal's move to its start pose lives no longer than the goal. Time is passed in."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from arm_world import CONFIG, NEUTRAL, PERIOD, FakeArm, World

from vgps_bringup.arm.arms import Reading
from vgps_bringup.arm.controller import ArmController
from vgps_msgs_py.vocabulary import ArmState as State, ControllerReason as Reason

AWAY = NEUTRAL + [1.0, 0, 0, 0, 0, 0]    # homing from here takes two seconds


class Goal:
    """policy_node's side of a goal that wants the start pose: asks every 0.1 s until told otherwise."""

    def __init__(self, world, episode='goal'):
        self.world, self.episode = world, episode

    def ask(self, age=0.0):
        return self.world.controller.reset_for(self.episode, self.world.ros_now - age, self.world.now,
                                               self.world.ros_now)

    def run(self, seconds):
        answers = []
        for _ in range(round(seconds / 0.1)):
            answers.append(self.ask())
            self.world.run(0.1)
        return answers

    def withdraw(self):
        self.world.controller.withdraw(self.episode, self.world.now)


def nothing_moves(world, seconds=3.0, goal=None):
    """Let time pass; tell whether no joint command was sent."""
    sent = len(world.arm.commands)
    goal.run(seconds) if goal else world.run(seconds)
    return len(world.arm.commands) == sent


# ---- only the operator leaves a stop -------------------------------------------------------------------------------

def in_step(world):
    world.send(0.02)


def in_homing(world):
    world.controller.home(world.now)
    world.run(0.5)


def in_a_goals_homing(world):
    Goal(world).run(0.5)


def in_recovery(world):
    world.controller.watchdog.motors(('elbow',), (32,), (40,))
    world.controller.reset(world.now, operator=True)
    world.arm.ready, world.arm.message = False, 'rebooting'
    world.run(0.2)


def in_holding(world):
    world.frames = False
    world.run(0.6)
    world.frames = True


def on_bad_readings(world):
    world.override = np.full(6, np.nan)
    world.run(0.1)


def stopped_before(world):
    world.controller.stop(world.now)
    world.run(0.1)


SITUATIONS = [lambda world: None, in_step, in_homing, in_a_goals_homing, in_recovery, in_holding, on_bad_readings,
              stopped_before]


@pytest.mark.parametrize('situation', SITUATIONS)
@pytest.mark.parametrize('dry_run', [False, True])
def test_after_a_stop_nothing_but_the_operator_moves_the_arm(situation, dry_run):
    world = World(replace(CONFIG, dry_run=dry_run), positions=AWAY)
    situation(world)
    world.controller.stop(world.now)
    assert world.shown == (State.STOPPED, Reason.STOP_REQUESTED)
    world.override = None
    world.arm.ready, world.arm.message = True, ''
    world.controller.watchdog.motors(('elbow',), (0,), (40,))
    for episode in ('goal', 'another goal'):
        assert nothing_moves(world, 2.0, Goal(world, episode))
        assert not Goal(world, episode).ask()[0]
    world.announce()
    world.send(0.02)
    assert not world.controller.reset(world.now)[0], 'whoever is not the operator'
    assert nothing_moves(world)
    assert world.shown == (State.STOPPED, Reason.STOP_REQUESTED)
    assert world.controller.reset(world.now, operator=True)[0]
    world.run(8.0)
    assert world.shown == (State.READY, Reason.ACCEPTED)
    assert bool(world.arm.commands) is not dry_run


def test_stop_before_any_joint_states_stays_and_the_operator_resumes_once_there_are_some():
    arm = FakeArm(AWAY)
    controller = ArmController(arm, CONFIG)
    controller.tick(1.0, 1.0)
    controller.stop(1.0)
    assert controller.home(1.0) == (False, 'no joint states yet')
    for i in range(50):
        controller.on_reading(Reading(AWAY, None, 0.012), 1.0 + i * PERIOD)
        controller.tick(1.0 + i * PERIOD, 1.0)
    assert (controller.state, arm.commands) == (State.STOPPED, [])
    assert controller.home(2.0)[0]
    for i in range(100):
        controller.on_reading(Reading(arm.positions, None, 0.012), 2.0 + i * PERIOD)
        controller.tick(2.0 + i * PERIOD, 1.0)
    assert np.abs(arm.commands[0][0] - AWAY).max() < 0.02, 'the way begins where the arm is'
    assert {openness for _, openness in arm.commands} == {None}, 'what the fingers hold is not dropped'


def test_a_stop_ends_the_running_episode_for_good():
    world = World()
    world.announce('a')
    assert world.send(0.01, episode='a') is Reason.ACCEPTED
    world.controller.stop(world.now)
    world.controller.home(world.now)
    world.run(3.0)
    assert world.controller.state is State.READY
    assert world.send(0.01, episode='a') is Reason.OUT_OF_ORDER
    world.controller.on_episode('a', True, world.now)
    assert world.send(0.01, episode='a') is Reason.OUT_OF_ORDER
    assert world.send(0.01, episode='b') is Reason.NO_EPISODE


def test_a_second_stop_does_not_let_the_arm_sink():
    world = World()
    world.send(0.03)
    world.controller.stop(world.now)
    sent = len(world.arm.commands)
    world.override = world.arm.positions + [0, 0.05, 0, 0, 0, 0]    # sags
    for _ in range(5):
        world.run(0.2)
        world.controller.stop(world.now)
    assert len(world.arm.commands) == sent


# ---- a goal's move lives as long as the goal -----------------------------------------------------------------------

def test_a_goal_that_goes_on_asking_gets_its_start_pose_and_is_told():
    world = World(positions=AWAY)
    goal = Goal(world)
    answers = goal.run(8.0)
    assert {answer for answer in answers} == {(True, 'on the way'), (True, 'there')}
    assert world.shown == (State.READY, Reason.ACCEPTED)
    np.testing.assert_allclose(world.controller.steps.target_pose[:3, 3], [0.3, 0, 0.15], atol=1e-4)
    assert nothing_moves(world, 2.0, goal), 'asking again begins nothing anew'


def test_a_goal_that_falls_silent_pauses_within_half_a_second_and_is_over_after_two():
    world = World(positions=AWAY)
    goal = Goal(world)
    goal.run(0.5)
    world.run(0.5)
    assert world.controller.state is State.HOMING
    assert nothing_moves(world, 0.8)
    goal.run(0.3)
    assert not nothing_moves(world, 0.2), 'it was only starved'
    world.run(3.0)
    assert world.shown == (State.READY, Reason.POLICY_LOST)
    assert not goal.ask()[0] and nothing_moves(world, 2.0, goal)
    assert Goal(world, 'next').ask()[0]


@pytest.mark.parametrize('age', [1.2, 30.0, -1.0])
def test_a_request_of_another_time_is_refused(age):
    world = World(positions=AWAY)
    assert not Goal(world).ask(age)[0]
    assert nothing_moves(world) and world.controller.state is State.READY


@pytest.mark.parametrize('before', [True, False])
def test_a_goal_that_is_withdrawn_leaves_the_arm_where_it_is_whatever_still_arrives(before):
    world = World(positions=AWAY)
    goal = Goal(world)
    if not before:
        goal.run(0.5)
    goal.withdraw()
    at = world.arm.positions.copy()
    assert not goal.ask()[0]
    assert nothing_moves(world, 2.0, goal)
    np.testing.assert_allclose(world.arm.positions, at)
    assert world.controller.state is State.READY


def test_a_controller_that_wakes_up_serves_no_request_of_a_goal_that_was_given_up_meanwhile():
    world = World(positions=AWAY)
    goal = Goal(world)
    asked_at, world.now = world.ros_now + 4.8, world.now + 5.0      # hung; these waited in its queue
    assert world.controller.reset_for('goal', asked_at, world.now, world.ros_now)[0] is False
    goal.withdraw()
    assert nothing_moves(world, 4.0)


@pytest.mark.parametrize('service', [ArmController.home, partial(ArmController.reset, operator=True)])
def test_an_operators_call_that_waited_for_a_hung_controller_moves_nothing(service):
    world = World(positions=AWAY)
    world.now += 5.0
    started, message = service(world.controller, world.now)
    assert not started and 'call again' in message
    assert nothing_moves(world)


def test_homing_that_was_interrupted_by_a_hang_waits_for_the_queues_and_goes_on_only_if_still_wanted():
    world = World(positions=AWAY)
    goal = Goal(world)
    goal.run(0.5)
    world.now += 3.0
    assert nothing_moves(world, 0.3)
    goal.withdraw()
    assert nothing_moves(world)


@pytest.mark.parametrize('hung', [0.3, 3.0])
@pytest.mark.parametrize('service', [ArmController.home, partial(ArmController.reset, operator=True)])
def test_the_operators_move_ends_with_a_hang_and_goes_on_when_asked_for_again(service, hung):
    world = World(positions=AWAY)
    service(world.controller, world.now)
    world.run(0.5)
    world.now += hung
    assert nothing_moves(world, 4.0)
    assert world.controller.state is State.STOPPED
    assert 'was suspended' in world.controller.message and 'call again' in world.controller.message
    assert service(world.controller, world.now)[0]
    world.run(9.0)
    assert world.shown == (State.READY, Reason.ACCEPTED)


def test_requests_that_waited_for_a_hung_controller_do_not_keep_its_move_going():
    world = World(positions=AWAY)
    goal = Goal(world)
    goal.run(0.5)
    asked_at, sent = world.ros_now + 2.5, len(world.arm.commands)
    world.now += 3.0
    for _ in range(50):    # a queue that takes long to be worked off
        world.controller.reset_for('goal', asked_at, world.now, world.ros_now)
        world.run(PERIOD)
    assert len(world.arm.commands) == sent and world.controller.state is State.HOMING
    assert not world.controller.reset_for('another', asked_at, world.now, world.ros_now)[0]
    goal.run(0.3)
    assert len(world.arm.commands) > sent, 'this one was asked for after the hang'


@pytest.mark.parametrize('breakage', [
    lambda w: w.controller.watchdog.motors(('gripper',), (32,), (40,)),
    lambda w: w.controller.watchdog.motors(('elbow',), (0,), (70,)),
    lambda w: setattr(w, 'efforts', np.full(6, 1800.0)), lambda w: setattr(w, 'override', np.full(6, np.nan)),
    lambda w: setattr(w, 'frames', False), lambda w: setattr(w.arm, 'ready', False)])
@pytest.mark.parametrize('on_the_way', [True, False])
def test_a_fault_ends_a_goals_move_and_nothing_is_tried_again_or_rebooted_when_it_is_gone(breakage, on_the_way):
    world = World(positions=AWAY)
    goal = Goal(world)
    if on_the_way:
        goal.run(0.3)
    breakage(world)
    world.run(0.4)
    assert not goal.ask()[0]
    world.efforts, world.override, world.frames, world.arm.ready = np.zeros(6), None, True, True
    world.controller.watchdog.motors(('elbow',), (0,), (40,))
    assert nothing_moves(world, 3.0, goal)
    assert world.arm.recovered == 0


def test_the_operators_move_is_not_a_goals_to_take_over_or_to_end():
    world = World(positions=AWAY)
    world.controller.home(world.now)
    world.run(0.2)
    goal = Goal(world)
    assert not goal.ask()[0]
    goal.withdraw()
    world.run(4.0)
    assert world.shown == (State.READY, Reason.ACCEPTED)
    np.testing.assert_allclose(world.arm.positions, NEUTRAL, atol=1e-6)


def test_an_operator_who_homes_takes_the_arm_from_a_goal():
    world = World(positions=AWAY)
    goal = Goal(world)
    goal.run(0.3)
    world.controller.home(world.now)
    assert not goal.ask()[0]
    world.run(4.0)
    np.testing.assert_allclose(world.arm.positions, NEUTRAL, atol=1e-6)


def test_dry_run_switched_on_on_the_way_is_not_taken_for_an_arrival():
    world = World(positions=AWAY)
    Goal(world).run(0.5)
    world.controller.configure(replace(CONFIG, dry_run=True))
    world.run(PERIOD)
    assert world.controller.state is State.STOPPED
