"""Stopping and failing end in STOPPED, wherever the joints rest and whatever raises. Time is passed in."""

import dataclasses

import numpy as np
import pytest
from arm_world import NEUTRAL, PERIOD, FakeArm, World

from vgps_bringup.arm.kinematics import JOINT_LOWER, JOINT_UPPER
from vgps_msgs_py.vocabulary import ArmState as State, ControllerReason as Reason


class StrictArm(FakeArm):
    """Refuses what the real arm's driver would be harmed by, as InterbotixArm does."""

    def command(self, joint_positions, openness):
        if not ((joint_positions >= JOINT_LOWER) & (joint_positions <= JOINT_UPPER)).all():
            raise ValueError('outside the limits')
        super().command(joint_positions, openness)


@pytest.mark.parametrize('joint', range(6))
@pytest.mark.parametrize('side', [-1, 1])
@pytest.mark.parametrize('what', ['stop', 'fail', 'effort', 'home', 'reset'])
def test_a_joint_that_rests_beyond_its_limit_is_brought_back_slowly_and_stops_nothing_from_stopping(joint, side, what):
    world, limit = World(), (JOINT_LOWER if side < 0 else JOINT_UPPER)[joint]
    world.arm = world.controller.arm = world.controller._outlet.arm = StrictArm(NEUTRAL)
    world.arm.positions[joint] = limit + side * 0.04
    world.controller.watchdog.relocated()
    world.run(0.1)
    if what in ('stop', 'fail', 'effort'):
        world.controller.home(world.now)
        while not world.arm.commands:    # it looks for a safe way first
            assert world.controller.state is State.HOMING
            world.run(PERIOD)
        world.override = np.where(np.arange(6) == joint, limit + side * 0.04, world.arm.positions)
        world.run(PERIOD)
        if what == 'effort':
            world.efforts = np.full(6, 1800.0)
            world.run(0.1)
        else:
            world.controller.stop(world.now) if what == 'stop' else world.controller.fail(RuntimeError('bug'))
        assert world.controller.state is State.STOPPED
        sent = len(world.arm.commands)
        world.run(3.0)
        assert len(world.arm.commands) == sent
    else:
        getattr(world.controller, what)(world.now)
        world.run(30.0)
        assert world.shown == (State.READY, Reason.ACCEPTED)
    path = np.array([joints for joints, _ in world.arm.commands])
    assert ((path >= JOINT_LOWER) & (path <= JOINT_UPPER)).all()
    assert np.abs(np.diff(path, axis=0)).max(initial=0.0) < 0.1


def test_an_arm_that_rests_beyond_a_limit_takes_steps_and_the_first_brings_it_back():
    positions = NEUTRAL.copy()
    positions[4] = JOINT_UPPER[4] + 0.03
    world = World(positions=positions)
    assert world.send() is Reason.ACCEPTED
    assert world.arm.commands[-1][0][4] <= JOINT_UPPER[4]
    assert np.abs(world.arm.commands[-1][0] - positions).max() < 0.06


def test_stop_and_fail_are_stopped_although_everything_they_compute_raises(monkeypatch):
    for act in (lambda c: c.stop(), lambda c: c.fail(ValueError('bug')), lambda c: c.fail(Exception())):
        world = World()
        world.send(0.02)

        def broken(*_arguments, **_names):
            raise RuntimeError('the bus is gone')
        for part, name in ((world.arm, 'command'), (world.controller.steps, 'reset'),
                           (world.controller.authority, 'end'), (world.controller.watchdog, 'fresh')):
            monkeypatch.setattr(part, name, broken)
            act(world.controller)
            assert world.controller.state is State.STOPPED
        assert 'the bus is gone' in world.controller.message


def test_fingers_are_held_although_the_joints_cannot_be_frozen(monkeypatch):
    world = World()
    world.send(0.02)

    def broken(*_arguments):
        raise RuntimeError('the arm takes no commands: rebooting servos')
    monkeypatch.setattr(world.arm, 'command', broken)
    holds = world.arm.holds
    world.controller.stop(world.now)
    assert world.arm.holds > holds
    assert 'rebooting servos' in world.controller.message


@pytest.mark.parametrize('what', ['stop', 'home', 'dry_run'])
def test_what_holds_the_arm_or_takes_it_home_tells_the_fingers_nothing_new(what):
    world = World()
    assert world.send(0.02, action=[0.02, 0, 0, 0, 0, 0, 0.0]) is Reason.ACCEPTED
    assert world.arm.commands[-1][1] == 0.0
    sent, holds = len(world.arm.commands), world.arm.holds
    if what == 'stop':
        world.controller.stop(world.now)
    elif what == 'home':
        world.controller.stop(world.now)
        world.controller.home(world.now)
        world.run(8.0)
        assert len(world.arm.commands) > sent + 10
    else:
        world.controller.configure(dataclasses.replace(world.controller.config, dry_run=True))
    assert world.arm.holds > holds
    assert {openness for _, openness in world.arm.commands[sent:]} <= {None}
