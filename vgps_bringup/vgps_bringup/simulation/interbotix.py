"""Joint states of the simulated arm as Interbotix's driver reports them: nine names, servo angle and fingers."""

import numpy as np

from vgps_bringup.simulation.model import JOINT_NAMES

STATE_NAMES = (*JOINT_NAMES, 'gripper', 'left_finger', 'right_finger')
_HORN, _ARM = 0.014, 0.024  # m, the crank between servo and fingers


def servo_angle(finger: float) -> float:
    """Return the gripper servo's angle [rad] for the distance of one finger from the centre [m], 0.010 to 0.038.

    Inverse of the driver's ``finger = horn * sin(q) + sqrt(arm**2 - horn**2 * cos(q)**2)``.
    """
    sine = (finger ** 2 - _ARM ** 2 + _HORN ** 2) / (2 * finger * _HORN)
    return float(np.arcsin(np.clip(sine, -1.0, 1.0)))


def state_positions(joints: np.ndarray, finger: float) -> list[float]:
    """Return the nine positions of `STATE_NAMES`: rad, and metres for the fingers (right = -left)."""
    return [*map(float, joints), servo_angle(finger), finger, -finger]
