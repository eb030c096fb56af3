"""Moves between resting poses (neutral, start): without jerk, slow at the gripper, clear of the table and of itself.

The way is straight in joint space where that is safe. Otherwise the arm goes up first: links are folded up and back
until a way down to the goal is free. Every way is looked at in full before the first command; the look is taken in
pieces, for where many ways are to be tried it takes longer than a control period.
"""

from collections.abc import Iterator
from itertools import pairwise, product

import numpy as np

from vgps_bringup.arm.collision import CollisionModel, UnsafePathError
from vgps_bringup.arm.kinematics import JOINT_LOWER, JOINT_UPPER

MAX_GRIPPER_SPEED = 0.25  # m/s, the reduced speed of ISO 10218 for an arm that people stand beside
_PEAK = 1.875             # a minimum-jerk move's largest speed over its mean speed
_SHORTEST = 0.5           # s
# How far [rad] shoulder, elbow and wrist are turned up (negative for the first two is back and up), nearest first.
_LIFTS = sorted(product((0.0, -0.4, -0.8, -1.2), (0.0, -0.4, -0.8, 0.4), (0.0, -0.6, 0.6)),
                key=lambda q: np.abs(q).sum())


class Motion:
    """A minimum-jerk move from (6,) `start` to (6,) `goal` [rad], by way of lifted poses where it must.

    No joint is faster than `max_speed` [rad/s] and the fingertips not faster than `max_gripper_speed` [m/s]; no link
    goes below `floor` [m above the base plane] or into another, with each finger `finger` metres from the centre.
    `points` is a way that `find_way` has found already.

    Raises:
        UnsafePathError: no safe way was found; says what is in the straight one.

    """

    def __init__(self, start: np.ndarray, goal: np.ndarray, max_speed: float,
                 max_gripper_speed: float = MAX_GRIPPER_SPEED, floor: float = 0.0, finger: float = 0.037,
                 collision: CollisionModel | None = None, points: list[np.ndarray] | None = None):
        collision = collision or CollisionModel()
        self.start, self.goal = np.asarray(start, float), np.asarray(goal, float)
        if points is None:
            points = next(filter(None, find_way(self.start, self.goal, collision, floor, finger)))
        self.points = points
        times = [_duration(a, b, max_speed, max_gripper_speed, collision) for a, b in pairwise(self.points)]
        self._ends = np.cumsum(times)
        self.duration = float(self._ends[-1])

    def at(self, elapsed: float) -> np.ndarray:
        """Return the (6,) joint positions `elapsed` seconds after the start."""
        leg = min(int(np.searchsorted(self._ends, elapsed)), len(self._ends) - 1)
        begins = self._ends[leg - 1] if leg else 0.0
        share = _ease(np.clip((elapsed - begins) / (self._ends[leg] - begins), 0.0, 1.0))
        return np.asarray(self.points[leg] + share * (self.points[leg + 1] - self.points[leg]))


def find_way(start: np.ndarray, goal: np.ndarray, collision: CollisionModel, floor: float, finger: float
             ) -> Iterator[list[np.ndarray] | None]:
    """Look for a safe way from (6,) `start` to `goal` [rad], one candidate at each turn of this iterator.

    It yields None after each candidate that is not safe, and at last the (N, 6) points of the one that is.

    Raises:
        UnsafePathError: none of them is safe; says what is in the straight one.

    """
    try:
        collision.check_path([start, goal], floor, finger)
        yield [start, goal]
        return
    except UnsafePathError as error:
        refusal = error
    yield None
    for shoulder, elbow, wrist in _LIFTS:
        lifted = np.clip(start + [0.0, shoulder, elbow, 0.0, wrist, 0.0], JOINT_LOWER, JOINT_UPPER)
        turned = np.r_[start[0], goal[1:]]                                       # the goal's fold, the waist not yet
        upright = np.r_[start[0], 0.0, 0.0, start[3], 0.0, start[5]]
        for points in ([start, lifted, goal], [start, lifted, turned, goal], [start, lifted, upright, goal]):
            try:
                collision.check_path(points, floor, finger)
                yield points
                return
            except UnsafePathError:
                yield None
    raise UnsafePathError(refusal.reason, f'no safe path was found (on the straight one, {refusal}); guide the arm '
                                          'clear by hand (torque off, hold it) and try again')


def _duration(start: np.ndarray, goal: np.ndarray, max_speed: float, max_gripper_speed: float,
              collision: CollisionModel) -> float:
    """Return the seconds one straight line needs."""
    turn = np.max(np.abs(goal - start))
    steps = max(2, int(np.ceil(turn / 0.05)))
    times = np.linspace(0.0, 1.0, steps + 1)
    tips = np.array([collision.fingertip(start + _ease(t) * (goal - start)) for t in times])
    gripper = np.max(np.linalg.norm(np.diff(tips, axis=0), axis=1)) * steps
    return float(max(_SHORTEST, _PEAK * turn / max_speed, 1.03 * gripper / max_gripper_speed))


def _ease(s: float) -> float:
    return 10 * s**3 - 15 * s**4 + 6 * s**5
