"""Position of the fingers by PWM, as BridgeData drives them, with an end to the pushing.

The servo that closes the fingers is in PWM mode: it pushes as long as it is told to. BridgeData's own loop never
stops pushing on a held object (350 PWM), which ends in an overload error. Here fingers that have stopped moving get
a holding PWM after a while.
"""

from dataclasses import dataclass, field

import numpy as np

from vgps_bringup.arm.arms import FINGER_CLOSED, FINGER_OPEN

_MOVING = 0.0003  # m: fingers that travelled more than this have not stalled


@dataclass(frozen=True)
class GripperConfig:
    """The finger loop; gain and largest PWM are BridgeData's."""

    gripper_gain: float = field(default=300.0, metadata={
        'description': 'share of the largest PWM per metre of finger error [1/m]', 'range': (10.0, 1000.0)})
    gripper_max_pwm: float = field(default=350.0, metadata={
        'description': 'PWM while the fingers move', 'range': (100.0, 350.0)})
    gripper_hold_pwm: float = field(default=150.0, metadata={
        'description': 'PWM that keeps a held object after the stall timeout', 'range': (0.0, 250.0)})
    gripper_stall_timeout: float = field(default=1.0, metadata={
        'description': 'fingers that stand still for this long get the holding PWM [s]', 'range': (0.2, 5.0)})


class GripperLoop:
    """Turns a wanted openness and the measured finger into PWM, once per control period."""

    def __init__(self, config=None):
        self.config = config or GripperConfig()
        self._goal = None
        self._moved_at, self._finger = 0.0, None

    def set_goal(self, openness, now):
        """Aim at an openness (0 closed, 1 open)."""
        goal = FINGER_CLOSED + float(np.clip(openness, 0.0, 1.0)) * (FINGER_OPEN - FINGER_CLOSED)
        if goal != self._goal:
            self._goal, self._moved_at = goal, now

    def pwm(self, finger, now):
        """Return the PWM for one measured finger [m]; 0 before there is a goal."""
        if self._goal is None or not np.isfinite(finger):
            return 0.0
        if self._finger is None or abs(finger - self._finger) > _MOVING:
            self._finger, self._moved_at = finger, now
        stalled = now - self._moved_at > self.config.gripper_stall_timeout
        limit = self.config.gripper_hold_pwm if stalled else self.config.gripper_max_pwm
        wanted = self.config.gripper_gain * (self._goal - finger)
        return float(np.clip(np.clip(wanted, -1.0, 1.0) * self.config.gripper_max_pwm, -limit, limit))
