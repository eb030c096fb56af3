"""The way through one or more poses, waypoint by waypoint, and how it can fail. Decides nothing about who asked."""

import time
from collections.abc import Iterator, Sequence

import numpy as np

from vgps_bringup.arm.collision import UnsafePathError
from vgps_bringup.arm.controller_config import ControllerConfig
from vgps_bringup.arm.kinematics import JOINT_NAMES
from vgps_bringup.arm.motion import Motion, find_way
from vgps_bringup.arm.step_controller import StepController
from vgps_msgs_py.vocabulary import ControllerReason as Reason

Failure = tuple[Reason, str]

FAR = 0.6        # rad: an arm further behind its command is blocked, or its joint states are wrong
SETTLE = 0.4     # s after a move, the time the arm needs to catch up
_REACHED = 0.1   # rad, BridgeData's check of the neutral pose
_SEARCH = 0.004  # s of one control period that may go into the search for a way


def to_start_pose(positions: np.ndarray | None, neutral: Sequence[float], start: np.ndarray) -> list[np.ndarray]:
    """Return the poses on the way to `start`, by `neutral` unless the arm, at (6,) `positions` [rad], is there already.

    A new scene of the simulation puts the arm there; going to neutral and back would take three seconds an episode.
    """
    there = positions is not None and bool((np.abs(positions - start) < _REACHED).all())
    return [start] if there else [np.array(neutral), start]


class Homing:
    """One way through `waypoints`, (6,) joint positions each [rad], begun at monotonic second `started`.

    `openness` is what the gripper is told on the way; None leaves the fingers alone.
    """

    def __init__(self, waypoints: Sequence[np.ndarray], started: float, openness: float | None = None):
        self.started, self.openness = started, openness
        self._waypoints, self._elapsed = list(waypoints), 0.0
        self._motion: Motion | None = None
        self._search: Iterator[list[np.ndarray] | None] = iter(())
        self._searched: tuple[float, ...] | None = None    # start, floor and finger of the search

    @property
    def moving(self) -> bool:
        """Whether the arm is between two poses, and not waiting to set off."""
        return self._motion is not None

    @property
    def over(self) -> bool:
        """Whether the last pose is reached."""
        return not self._waypoints and not self.moving

    def set_off(self, start: np.ndarray, config: ControllerConfig, steps: StepController) -> Failure | None:
        """Leave (6,) `start` for the next pose, at the speeds of the ControllerConfig `config`.

        Table, fingers and the arm's shapes are those of the StepController `steps`. Call it again in each period
        until `moving`: the search for a safe way is spread over as many as it needs. Returns None, or (Reason, what
        is in the way) where there is none; nothing has changed then.
        """
        floor, finger = steps.config.floor, steps.finger
        searched = (*start, floor, finger)
        if searched != self._searched:
            self._searched = searched
            self._search = find_way(start, self._waypoints[0], steps.collision, floor, finger)
        until = time.perf_counter() + _SEARCH
        try:
            points = next(self._search)    # at least one, however late the period is already
            while points is None and time.perf_counter() < until:
                points = next(self._search)
        except UnsafePathError as error:
            self._searched = None
            return error.reason, str(error)
        if points is not None:
            self._motion = Motion(start, self._waypoints.pop(0), config.move_speed, config.max_gripper_speed,
                                  collision=steps.collision, points=points)
            self._searched, self._elapsed = None, 0.0
        return None

    def pause(self) -> None:
        """Wait where the arm is; the next `set_off` goes on to the same pose."""
        self._searched = None
        if self._motion is not None:
            self._waypoints.insert(0, self._motion.goal)
            self._motion = None

    def advance(self, period: float, measured: np.ndarray) -> np.ndarray | Failure:
        """Let `period` seconds pass; return (6,) joint positions to send, or (Reason, what went wrong).

        At a pose the motion ends and what is returned is the pose itself: the target of whatever comes next is what
        was commanded, for the measured pose sags and would sag further with each step.
        """
        if self._motion is None:
            raise RuntimeError('the arm has not started towards a pose')
        self._elapsed += period
        wanted = self._motion.at(self._elapsed)
        behind = np.abs(wanted - measured)
        worst = int(behind.argmax())
        if behind[worst] > FAR:
            return Reason.JOINT_STEP, (f'{JOINT_NAMES[worst]} is {behind[worst]:.2f} rad behind on the way: is '
                                       'something in the way? ~/reset tries again')
        if self._elapsed >= self._motion.duration + SETTLE:
            if behind[worst] > _REACHED:
                return Reason.NOT_READY, (f'{JOINT_NAMES[worst]} stopped {behind[worst]:.2f} rad short of the pose; '
                                          '~/reset tries again')
            self._motion = None
        return wanted
