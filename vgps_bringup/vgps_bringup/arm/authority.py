"""Whose goal may move the arm to its start pose, and for how long: as long as it keeps asking. No ROS.

A goal's way to its start pose is the one motion that another program asks for. It is held to a lease: the program
repeats its request, each with the time it was made, and a program that was killed, hangs or has given up falls silent.
"""

import numpy as np

_OLDEST_REQUEST = 1.0   # s between asking and being heard
_FUTURE_TOLERANCE = 0.05  # s: the clocks of two machines may differ by this much
# s of silence after which the move pauses: a goal asks every 0.1 s, and the joints need 0.2 s more to come to rest
_PAUSE_AFTER = 0.25
_GIVE_UP_AFTER = 2.0    # s of silence after which the goal counts as dead and the move ends
_REMEMBERED = 100       # episodes that are over for resets


class Authority:
    """Remembers whose goal moves the arm and which goals are over."""

    def __init__(self) -> None:
        self.goal: str | None = None    # episode_id of the goal whose motion is under way or has just arrived
        self._renewed = 0.0     # monotonic s
        self._woken = -np.inf   # ROS s: when the controller ran again after a stall; what was asked before is old
        self._over: dict[str, None] = {}         # episode ids that may ask for no motion any more, oldest first

    def refusal(self, episode_id: str, stamp: float, ros_now: float) -> str:
        """Return why a request for motion made at `stamp` [ROS s] is not to be served, '' where it is."""
        age = ros_now - stamp
        if not episode_id:
            return 'the request names no episode'
        if episode_id in self._over:
            return f"the move of episode '{episode_id}' is over: it was withdrawn or cut short"
        if not -_FUTURE_TOLERANCE <= age <= _OLDEST_REQUEST:
            return (f'the request was made {age:.2f} s ago, at most {_OLDEST_REQUEST:.2f} is allowed: was the '
                    'controller blocked, or do the clocks of two machines differ?')
        if stamp <= self._woken and episode_id != self.goal:
            return 'the request was made while the controller was suspended'
        return ''

    def grant(self, episode_id: str, stamp: float, now: float) -> None:
        """Note that the goal wanted its motion at `stamp` [ROS s]; a goal before it is over."""
        if self.goal not in (None, episode_id):
            self.end(self.goal)
        self.goal = episode_id
        if stamp > self._woken:
            self._renewed = now

    def wake(self, now: float, ros_now: float) -> None:
        """Let the goal's motion rest until it is asked for again: a withdrawal may still wait in the queue."""
        self._woken, self._renewed = ros_now, now - _PAUSE_AFTER

    def end(self, episode_id: str | None) -> None:
        """Serve no further request of this goal."""
        if self.goal == episode_id:
            self.goal = None
        if episode_id:
            self._over[episode_id] = None
            while len(self._over) > _REMEMBERED:
                self._over.pop(next(iter(self._over)))

    def silent(self, now: float) -> str:
        """Return '', 'pause' or 'over': whether the goal still asks for the motion under way."""
        if self.goal is None or now - self._renewed < _PAUSE_AFTER:
            return ''
        return 'pause' if now - self._renewed <= _GIVE_UP_AFTER else 'over'
