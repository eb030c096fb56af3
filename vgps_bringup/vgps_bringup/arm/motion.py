"""Moves between resting poses (neutral, start): straight in joint space, without jerk, point by point."""

import numpy as np

_PEAK = 1.875            # a minimum-jerk move's largest speed over its mean speed
_SHORTEST = 0.5          # s


class Motion:
    """A minimum-jerk move from (6,) `start` to (6,) `goal` that keeps every joint below `max_speed` [rad/s]."""

    def __init__(self, start, goal, max_speed):
        self.start, self.goal = np.asarray(start, float), np.asarray(goal, float)
        self.duration = max(_SHORTEST, _PEAK * np.abs(self.goal - self.start).max() / max_speed)

    def at(self, elapsed):
        """Return the (6,) joint positions `elapsed` seconds after the start."""
        s = float(np.clip(elapsed / self.duration, 0.0, 1.0))
        return self.start + (10 * s**3 - 15 * s**4 + 6 * s**5) * (self.goal - self.start)
