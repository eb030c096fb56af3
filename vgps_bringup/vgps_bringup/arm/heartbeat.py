"""Whether the controller still lives, judged by somebody else. No ROS; time is passed in.

The beat is the controller's own report, ten times a second. A controller that is killed or hangs in mid-motion leaves
joints that go to their last goal (a servo's or simulation's own business, 0.2 s) and fingers that push for ever.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vgps_bringup.arm.arms import Reading
from vgps_bringup.arm.gripper import STALE, GripperLoop
from vgps_bringup.arm.kinematics import JOINT_LOWER, JOINT_UPPER

_LONGEST_PERIOD = 0.1   # s between two looks; what is more was our own pause, not the controller's
_NEAR = 0.1             # rad: an arm this close to its command is where it was told to be


@dataclass(frozen=True)
class Hold:
    """What to send to an arm whose controller is lost; None leaves the joints where their servos keep them."""

    positions: np.ndarray | None   # (6,) rad
    openness: float                # 0 closed to 1 open, for an arm whose gripper takes positions


class Heartbeat:
    """Remembers the last beat and the last reading. Every method takes `now`, monotonic seconds."""

    def __init__(self, timeout: float):
        self.timeout = timeout      # s
        self.lost = False
        self._reading: Reading | None = None
        self._beat_at = self._read_at = self._ticked = -np.inf
        self._moving, self._gripper = False, 1.0
        self.command: np.ndarray | None = None    # (6,) rad, what the arm was told last, here too
        self._fingers = GripperLoop()

    @property
    def heard(self) -> bool:
        """Whether there was ever a beat."""
        return self._beat_at > -np.inf

    def silence(self, now: float) -> float:
        """Return the seconds since the last beat."""
        return now - self._beat_at

    def beat(self, moving: bool, joint_command: Sequence[float], gripper: float, now: float) -> None:
        """Take a report: whether the arm was moving, (6,) joints [rad] and openness it was told last."""
        self._beat_at, self.lost = now, False
        command = np.asarray(joint_command, float)
        # anybody may publish a report: what cannot be one must not keep the arm from being held later
        self._moving, self.command = moving, command if command.shape == (6,) and np.isfinite(command).all() else None
        if np.isfinite(gripper) and gripper != self._gripper:
            self._gripper = gripper
            self._fingers.set_goal(gripper, now)

    def reading(self, reading: Reading, now: float) -> None:
        """Take a Reading of the joints."""
        self._reading, self._read_at = reading, now
        self._fingers.watch(reading.finger, now)

    def tick(self, now: float) -> bool:
        """Return whether the controller has just been found lost."""
        paused = max(0.0, now - self._ticked - _LONGEST_PERIOD) if np.isfinite(self._ticked) else 0.0
        self._ticked = now
        self._beat_at += paused
        if self.lost or not self.heard or self.silence(now) <= self.timeout:
            return False
        self.lost = True
        return True

    def hold(self, now: float) -> Hold | None:
        """Return the Hold for this moment, or None where the arm was not measured lately."""
        r = self._reading
        if r is None or now - self._read_at > STALE or not np.isfinite(r.positions).all():
            return None
        near = self.command is not None and np.abs(r.positions - self.command).max() <= _NEAR
        positions = None
        # An arm at rest keeps its goal: the measured pose sags, and as a goal would sink.
        if self._moving or not near:
            self._moving, positions = False, np.clip(r.positions, JOINT_LOWER, JOINT_UPPER)
            self.command = positions
        stay = np.isfinite(r.finger) and self._fingers.moving(now)
        return Hold(positions, r.openness if stay else self._gripper)
