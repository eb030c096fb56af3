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
