"""Which commands are for now: right frame, right episode, in order, made from a fresh image."""

from dataclasses import dataclass

import numpy as np

from vgps_bringup.arm.reason import Reason

_MAX_CLOCK_JUMP = 0.5     # s between two looks at both clocks
_FUTURE_TOLERANCE = 0.05  # s: clocks of camera and controller may differ by this much
_REMEMBERED_EPISODES = 100


@dataclass(frozen=True)
class Command:
    """One step asked of the arm; mirrors EndEffectorCommand.msg."""

    stamp: float            # s, of the image behind it, ROS clock
    frame_id: str
    episode_id: str
    step: int
    hold: bool              # keep the present target
    action: np.ndarray      # (7,) as in previous_target.py
    message: str = ''       # why hold


class CommandGate:
    """Order of commands. Steps count up within an episode; a new episode begins a new count."""

    def __init__(self):
        self._episode_id, self._step, self._stamp = None, -1, -np.inf
        self._running = None            # episode_id announced as running, or None
        self._past = {}                 # episode ids that are over, oldest first
        self._offset = None             # ROS clock minus monotonic clock

    def watch_clock(self, ros_now, now):
        """Return the jump [s] of the ROS clock since the last look, 0.0 for none.

        After a jump the order of stamps says nothing any more and begins anew; the order of steps stays.
        """
        offset = ros_now - now
        jump = 0.0 if self._offset is None else offset - self._offset
        self._offset = offset
        if abs(jump) < _MAX_CLOCK_JUMP:
            return 0.0
        self._stamp = -np.inf
        return jump

    def episode(self, episode_id, running):
        """Note an announced episode: while it runs, no other one is served; once it is over, it stays over."""
        if running:
            if self._running not in (None, episode_id):
                self._retire(self._running)
            self._running = episode_id
            self._enter(episode_id)
        else:
            self._retire(episode_id)
            if self._running == episode_id:
                self._running = None

    def check(self, command, ros_now, base_frame, max_image_age):
        """Return (Reason, message); the command counts as taken unless it is out of order or of another frame."""
        if command.frame_id != base_frame:
            return Reason.WRONG_FRAME, f"command is in frame '{command.frame_id}', the arm's base is '{base_frame}'"
        if self._running is not None and command.episode_id != self._running:
            return Reason.OUT_OF_ORDER, f"episode '{command.episode_id}' is not the running one, '{self._running}'"
        if command.episode_id in self._past:
            return Reason.OUT_OF_ORDER, f"episode '{command.episode_id}' is over"
        self._enter(command.episode_id)
        if command.step <= self._step:
            return Reason.OUT_OF_ORDER, f'step {command.step} after step {self._step}'
        if not command.hold and command.stamp <= self._stamp:
            return Reason.OUT_OF_ORDER, f'image is {self._stamp - command.stamp:.3f} s older than that of the last step'
        self._step = command.step
        if command.hold:
            return Reason.ACCEPTED, ''
        age = ros_now - command.stamp
        if not -_FUTURE_TOLERANCE <= age <= max_image_age:
            return Reason.STALE_IMAGE, f'image behind the command is {age:.3f} s old, allowed are {max_image_age:.3f}'
        self._stamp = command.stamp
        return Reason.ACCEPTED, ''

    def _enter(self, episode_id):
        if episode_id == self._episode_id:
            return
        if self._episode_id is not None:
            self._retire(self._episode_id)
        self._episode_id, self._step, self._stamp = episode_id, -1, -np.inf

    def _retire(self, episode_id):
        self._past[episode_id] = None
        while len(self._past) > _REMEMBERED_EPISODES:
            self._past.pop(next(iter(self._past)))
