"""The way back before another try: fingers open, up, and then to where the episode began, which every policy knows.

Commands are relative, so the way back is minus the sum of what was sent. Where the arm did not follow (a refused or
clipped command) it ends as far from the start as it lagged behind; every step passes the same guards as any command.
A sum that no arm of this size can have moved says that commands were not followed: then the gripper only rises.
"""

import math
from collections import deque

import numpy as np

LIFT = np.array([0, 0, 0.08, 0, 0, 0])  # m, rad: first away from whatever lies below
FARTHEST = 0.5  # m along an axis between two places on a WidowX's table
LONGEST = np.array([0.04] * 3 + [0.2] * 3)  # of one step, each within the arm's default limits


class Retreat:
    """Keeps account of what was sent, and plans the way back."""

    def __init__(self):
        self.reset()

    def reset(self) -> None:
        """Begin an episode: here is where it started."""
        self._sent, self._way = np.zeros(6), deque()

    def __bool__(self) -> bool:
        return bool(self._way)

    def sent(self, action: np.ndarray) -> None:
        """Count an action (7,) that went to the arm [m, rad, openness], whoever chose it."""
        self._sent += action[:6]

    def plan(self) -> None:
        """Plan the way from here: up by `LIFT`, then straight to the start, unless that is too far to be true."""
        back = -(self._sent + LIFT)
        self._way = deque([*_steps(LIFT), *(_steps(back) if np.abs(back[:3]).max() <= FARTHEST else [])])

    def pop(self) -> np.ndarray:
        """Return the next action (7,) float32 of the way; fingers open."""
        return np.append(self._way.popleft(), 1.0).astype(np.float32)


def _steps(way: np.ndarray) -> list[np.ndarray]:
    """Divide a way (6,) into equal steps, none longer than `LONGEST`."""
    count = max(1, math.ceil(np.max(np.abs(way) / LONGEST) - 1e-9))
    return [way / count] * count
