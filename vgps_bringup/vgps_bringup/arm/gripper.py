"""Control the position of the fingers by PWM, as BridgeData does, but stop pushing in the end.

The servo that closes the fingers is in PWM mode: it pushes for as long as it is told to. BridgeData's own loop never
stops pushing on a held object (350 PWM), which ends in an overload error. Here, fingers that have stopped moving get
a holding PWM after a while. When the arm holds or is stopped the last command is sent at once: moving fingers, or
fingers at rest with nothing between them, get 0; fingers that hold something keep one constant PWM, and get 0 when the
object is gone.
"""

from dataclasses import dataclass, field

import numpy as np

from vgps_bringup.arm.arms import FINGER_CLOSED, FINGER_OPEN

_MOVING = 0.0003  # m: fingers that travelled more than this have not stalled; closer than this they are at their goal
_AT_REST = 0.2    # s without such travel: fingers that hold something, rather than fingers on their way
_SLIPPED = 0.001  # m that held fingers may move before they count as holding nothing
STALE = 0.25      # s: an older finger position is no ground to push


@dataclass(frozen=True)
class GripperConfig:
    """The finger loop; gain and largest PWM are BridgeData's."""

    gripper_gain: float = field(default=300.0, metadata={
        'description': 'proportional gain: fraction of the largest PWM per metre of finger error [1/m]',
        'range': (10.0, 1000.0)})
    gripper_max_pwm: float = field(default=350.0, metadata={
        'description': 'largest PWM while the fingers move', 'range': (100.0, 350.0)})
    gripper_hold_pwm: float = field(default=150.0, metadata={
        'description': 'PWM that holds an object after the stall timeout', 'range': (0.0, 250.0)})
    gripper_stall_timeout: float = field(default=1.0, metadata={
        'description': 'time without motion after which the fingers get the holding PWM [s]', 'range': (0.2, 5.0)})
    bus_watchdog: bool = field(default=True, metadata={
        'description': 'make the servos stop by themselves 0.5 s after the last instruction on the bus; false for a '
                       'driver without that register (its simulation)', 'read_only': True})


class GripperLoop:
    """Turns a wanted openness and the measured finger into PWM, once per control period."""

    def __init__(self, config: GripperConfig | None = None):
        self.config = config or GripperConfig()
        self._goal: float | None = None         # m, of one finger from the centre
        self._finger: float | None = None       # m, where it was last seen to move
        self._moved_at = 0.0
        self._held_at: float | None = None      # m, where the fingers were when they were told to hold
        self._held_pwm = 0.0                    # what they push with since then

    def set_goal(self, openness: float, now: float) -> None:
        """Aim at an openness (0 closed, 1 open)."""
        goal = FINGER_CLOSED + float(np.clip(openness, 0.0, 1.0)) * (FINGER_OPEN - FINGER_CLOSED)
        if goal != self._goal or self._held_at is not None:
            self._goal, self._moved_at, self._held_at = goal, now, None

    def hold(self, finger: float, now: float) -> None:
        """Push as little as holds what is held, at the measured finger [m], until the next goal; safe to repeat."""
        if self._held_at is not None or self._goal is None:
            return
        if not np.isfinite(finger):    # nobody knows what they hold, and they must not push on once somebody does
            self._goal = None
            return
        self._held_at = finger
        rests = self.moving(now) or abs(self._goal - finger) < _MOVING
        self._held_pwm = 0.0 if rests else self._push(self._goal, finger, self.config.gripper_hold_pwm)

    def watch(self, finger: float, now: float) -> None:
        """Note a measured finger [m]."""
        if np.isfinite(finger) and (self._finger is None or abs(finger - self._finger) > _MOVING):
            self._finger, self._moved_at = finger, now

    def moving(self, now: float) -> bool:
        """Whether the fingers are on their way, or have only just been told to go."""
        return now - self._moved_at <= _AT_REST

    def pwm(self, finger: float, now: float, age: float = 0.0) -> float:
        """Return the PWM for a finger [m] measured `age` seconds ago; 0 before there is a goal, or when it is stale."""
        if self._goal is None or not np.isfinite(finger) or age > STALE:
            return 0.0
        if self._held_at is not None:
            if abs(finger - self._held_at) > _SLIPPED:
                self._held_pwm = 0.0
            return self._held_pwm
        self.watch(finger, now)
        stalled = now - self._moved_at > self.config.gripper_stall_timeout
        limit = self.config.gripper_hold_pwm if stalled else self.config.gripper_max_pwm
        return self._push(self._goal, finger, limit)

    def _push(self, goal: float, finger: float, limit: float) -> float:
        wanted = self.config.gripper_gain * (goal - finger)
        return float(np.clip(np.clip(wanted, -1.0, 1.0) * self.config.gripper_max_pwm, -limit, limit))
