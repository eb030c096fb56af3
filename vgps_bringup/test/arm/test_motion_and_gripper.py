"""The controller's parts: readings by name, moves between poses, the loop that drives the fingers."""

import numpy as np
import pytest

from vgps_bringup.arm.arms import FINGER_OPEN, reading_from_joint_state
from vgps_bringup.arm.gripper import GripperConfig, GripperLoop
from vgps_bringup.arm.kinematics import JOINT_NAMES
from vgps_bringup.arm.motion import Motion

PERIOD = 0.02  # s


def test_joints_are_found_by_name_in_any_order():
    names = ['gripper', *reversed(JOINT_NAMES), 'left_finger', 'right_finger']
    reading = reading_from_joint_state(names, [9.0, 6, 5, 4, 3, 2, 1, 0.0225, -0.0225], [])
    np.testing.assert_array_equal(reading.positions, [1, 2, 3, 4, 5, 6])
    assert reading.openness == pytest.approx(0.5)
    assert reading.efforts is None
    assert reading_from_joint_state(names[:-3], [0.0] * 6, []) is None
    many = [*names, *(f'joint {i}' for i in range(50_000)), 'joint 0']    # must not keep the controller for minutes
    np.testing.assert_array_equal(reading_from_joint_state(many, [1.0] * len(many), []).positions, 1.0)


@pytest.mark.parametrize('twice', [*JOINT_NAMES, 'left_finger'])
def test_a_joint_that_is_reported_twice_has_no_position(twice):
    names = [twice, *JOINT_NAMES, 'left_finger']
    reading = reading_from_joint_state(names, [0.1] * len(names), [])
    unknown = [*(name for name, value in zip(JOINT_NAMES, reading.positions) if np.isnan(value)),
               *(['left_finger'] if np.isnan(reading.finger) else [])]
    assert unknown == [twice]


def test_a_move_begins_and_ends_at_rest_within_its_speed():
    motion = Motion(np.zeros(6), [1.0, -2.0, 0, 0, 0, 0], 0.8)
    times = np.linspace(0, motion.duration, 2000)
    speeds = np.abs(np.gradient([motion.at(t) for t in times], times, axis=0))
    assert speeds.max() <= 0.8 * 1.001
    assert speeds[0].max() < 0.01
    assert speeds[-1].max() < 0.01
    np.testing.assert_allclose(motion.at(99.0), motion.goal)


def test_fingers_are_driven_to_the_goal_and_stop_pushing_hard_on_an_object():
    loop, finger, now = GripperLoop(GripperConfig()), 0.035, 0.0
    loop.set_goal(0.0, now)
    pushes = []
    for _ in range(200):
        now += PERIOD
        pushes.append(loop.pwm(finger, now))
        finger = max(finger + 0.00002 * pushes[-1] / 350 * 50, 0.020)      # an object 4 cm wide
    assert min(pushes) == -350.0
    assert pushes[-1] == -150.0
    loop.set_goal(1.0, now)
    assert loop.pwm(finger, now + PERIOD) == 350.0


def test_fingers_at_their_goal_are_not_pushed_and_no_goal_means_no_push():
    loop = GripperLoop()
    assert loop.pwm(0.02, 0.0) == 0.0
    loop.set_goal(1.0, 0.0)
    assert loop.pwm(FINGER_OPEN, 0.1) == pytest.approx(0.0)
    assert loop.pwm(float('nan'), 0.2) == 0.0


def closing(loop, now, size=0.010, finger=FINGER_OPEN, seconds=0.3):
    """Let the fingers close on something of `size` at 20 mm/s; return (finger, now)."""
    loop.set_goal(0.0, now)
    for _ in range(round(seconds / PERIOD)):
        now += PERIOD
        finger = max(finger + 0.0004 * np.sign(loop.pwm(finger, now)), size)
    return finger, now


def said_after(loop, finger, now):
    """Return every PWM of the next second, with the noise of the servo's encoder on the finger."""
    noise = np.random.default_rng(0).normal(0.0, 4e-5, 50)
    return {loop.pwm(finger + error, now + i * PERIOD) for i, error in enumerate(noise)}


def test_fingers_on_their_way_stay_where_they_are_when_the_arm_holds():
    loop = GripperLoop()
    finger, now = closing(loop, 0.0)
    loop.hold(finger, now)
    assert said_after(loop, finger, now) == {0.0}
    loop.set_goal(0.0, now + 1.0)
    assert loop.pwm(finger, now + 1.02) == -350.0                      # the next command closes them


def test_fingers_that_hold_something_keep_it_with_the_holding_pwm_at_once():
    loop = GripperLoop()
    finger, now = closing(loop, 0.0, size=0.02, seconds=1.2)
    assert loop.pwm(finger, now) == -350.0
    loop.hold(finger, now)
    assert loop.pwm(finger, now + PERIOD) == -150.0
    assert said_after(loop, finger, now) == {-150.0}, 'one and the same push'
    gone = finger - 0.002
    assert said_after(loop, gone, now + 2 * PERIOD) == {0.0}, 'what they held is gone: they close no further'
    assert said_after(loop, finger, now + 4 * PERIOD) == {0.0}


@pytest.mark.parametrize('openness', [0.0, 1.0])
def test_fingers_that_rest_at_their_goal_get_no_word_after_a_hold(openness):
    loop, finger = GripperLoop(), 0.010 + 0.025 * openness
    loop.set_goal(openness, 0.0)
    for i in range(100):
        loop.pwm(finger, i * PERIOD)
    loop.hold(finger, 2.0)
    assert said_after(loop, finger, 2.0) == {0.0}


def test_a_hold_while_the_finger_reads_no_number_holds_when_it_reads_one_again():
    loop = GripperLoop()
    finger, now = closing(loop, 0.0)
    loop.hold(float('nan'), now)
    assert said_after(loop, finger, now) == {0.0}


def test_a_finger_that_was_not_measured_lately_is_not_pushed():
    loop = GripperLoop()
    finger, now = closing(loop, 0.0)
    assert loop.pwm(finger, now, age=0.24) == -350.0
    assert loop.pwm(finger, now, age=0.26) == 0.0
    assert loop.pwm(float('nan'), now) == 0.0
