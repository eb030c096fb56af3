"""Which commands are for now: right frame, right episode, in order, made from a fresh image."""

from dataclasses import dataclass

import numpy as np

from vgps_msgs_py.vocabulary import ControllerReason as Reason

_MAX_CLOCK_JUMP = 0.5     # s between two looks at both clocks
_FUTURE_TOLERANCE = 0.05  # s: clocks of camera and controller may differ by this much
_CLOCK_STANDS = 0.5       # s without an advance of the ROS clock: images' ages mean nothing then
# Steps that may be missing at once, and per second since the last one taken: more are not the critic's. A large step
# number that got through would lock out every later one of the episode.
_LARGEST_ADVANCE, _FASTEST = 10, 20.0
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
    """Serves the announced running episode and no other. Steps count up within it; a new one begins a new count."""

    def __init__(self) -> None:
        self.running: str | None = None    # episode_id announced as running, or None
        self._step, self._stamp, self._taken = -1, -np.inf, 0.0     # of the last command taken, and when [s]
        self._past: dict[str, None] = {}    # episode ids that are over, oldest first
        self._offset: float | None = None    # ROS clock minus monotonic clock
        self._ros_now, self._advanced = -np.inf, -np.inf    # the ROS clock and when it last advanced
        self._stands = False

    def watch_clock(self, ros_now: float, now: float) -> float:
        """Return the jump [s] of the ROS clock since the last look, 0.0 for none.

        After a jump the order of stamps says nothing any more and begins anew; the order of steps stays. What was
        seen before the clock stood still is old, whatever its stamp says.
        """
        offset = ros_now - now
        jump = 0.0 if self._offset is None else offset - self._offset
        self._offset = offset
        if abs(ros_now - self._ros_now) > 1e-3:
            if self._stands:
                self._stamp = max(self._stamp, self._ros_now)
            self._ros_now, self._advanced, self._stands = ros_now, now, False
        elif now - self._advanced > _CLOCK_STANDS:
            self._stands = True
        if abs(jump) < _MAX_CLOCK_JUMP:
            return 0.0
        self._stamp = -np.inf
        return jump

    def episode(self, episode_id: str, running: bool, now: float) -> None:
        """Note an announced episode: while it runs, no other one is served; once it is over, it stays over."""
        if not running:
            self.end(episode_id)
        elif episode_id not in self._past and episode_id != self.running:
            self.end(self.running)
            self.running, self._step, self._stamp, self._taken = episode_id, -1, -np.inf, now

    def end(self, episode_id: str | None) -> None:
        """Serve this episode no more."""
        if self.running == episode_id:
            self.running = None
        if episode_id is not None:
            self._past[episode_id] = None
            while len(self._past) > _REMEMBERED_EPISODES:
                self._past.pop(next(iter(self._past)))

    def check(self, command: Command, now: float, ros_now: float, base_frame: str, max_image_age: float
              ) -> tuple[Reason, str]:
        """Return (Reason, message); the command counts as taken unless it is out of order or not to be served."""
        if command.frame_id != base_frame:
            return Reason.WRONG_FRAME, f"command is in frame '{command.frame_id}', the arm's base is '{base_frame}'"
        if command.episode_id in self._past:
            return Reason.OUT_OF_ORDER, f"episode '{command.episode_id}' is over"
        if self.running is None:
            return Reason.NO_EPISODE, f"episode '{command.episode_id}' was not announced, and no other one runs"
        if command.episode_id != self.running:
            return Reason.OUT_OF_ORDER, f"episode '{command.episode_id}' is not the running one, '{self.running}'"
        if command.step <= self._step:
            return Reason.OUT_OF_ORDER, f'step {command.step} after step {self._step}'
        if command.step - self._step > _LARGEST_ADVANCE + _FASTEST * (now - self._taken):
            return Reason.OUT_OF_ORDER, (f'step {command.step} {now - self._taken:.1f} s after step {self._step}: no '
                                         'critic is that fast')
        if not command.hold and command.stamp <= self._stamp:
            return Reason.OUT_OF_ORDER, f'image is {self._stamp - command.stamp:.3f} s older than that of the last step'
        self._step, self._taken = command.step, now
        if command.hold:
            return Reason.ACCEPTED, ''
        if self._stands:
            return Reason.STALE_IMAGE, 'the ROS clock stands still, so the age of the image is unknown'
        age = ros_now - command.stamp
        if not -_FUTURE_TOLERANCE <= age <= max_image_age:
            return Reason.STALE_IMAGE, f'image of the command is {age:.3f} s old, at most {max_image_age:.3f} allowed'
        self._stamp = command.stamp
        return Reason.ACCEPTED, ''
