"""Decide what is recorded when: one bag per episode, or one for everything. No ROS, no clock: times are passed in."""

from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

from vgps_msgs_py.bags.message_types import MessageTypes, UnknownTypeError
from vgps_msgs_py.bags.writer import BagWriter, Topic

SECOND = 1_000_000_000
EPISODE_TYPE = 'vgps_msgs/msg/Episode'
DEFAULT_TOPICS = ('image_raw', 'camera_info', 'joint_states', 'joint_command', 'task_state', 'episode', 'step_started',
                  'candidates', 'decision', 'command', 'correction', 'controller_state', 'configuration',
                  '/diagnostics')


@dataclass(frozen=True)
class RecorderConfig:
    """What the recorder writes, and where."""

    output_directory: str = field(default='runs', metadata={
        'description': 'folder that receives one bag folder per episode'})
    per_episode: bool = field(default=True, metadata={
        'description': 'true: a bag per episode, named by its episode_id; false: one bag from start to stop',
        'read_only': True})
    topics: tuple[str, ...] = field(default=DEFAULT_TOPICS, metadata={
        'description': 'topics to record, any type whose package is sourced; remapping applies',
        'read_only': True})
    flush_period: float = field(default=0.5, metadata={
        'description': 'kill -9 loses at most this much [s]', 'range': (0.05, 1.0)})
    # discovery and queues may deliver the first frame before the announcement of the episode it belongs to
    pre_roll: float = field(default=0.5, metadata={
        'description': 'what was received this long before an episode is in its bag too [s]', 'range': (0.0, 5.0)})
    post_roll: float = field(default=1.0, metadata={
        'description': "recorded after an episode's outcome [s]", 'range': (0.0, 10.0)})


class Recording:
    """Routes received messages to the bag of the moment.

    All times are nanoseconds of the recorder's clock.
    """

    def __init__(self, config: RecorderConfig, types: MessageTypes | None = None):
        self.config = config
        self.types = types or MessageTypes()
        self.writer: BagWriter | None = None
        self.finished: list[Path] = []            # bags that are closed
        self.refused: dict[str, str] = {}         # topic -> why it cannot be recorded
        self._recent: deque = deque()             # (topic, data, stamp), not older than pre_roll
        self._latched: dict[tuple[Topic, bytes], None] = {}  # in the order of arrival, without repetitions
        self._episode: str | None = None
        self._ends: int | None = None             # when the present bag is to be closed
        self._flushed = 0

    def message(self, topic: Topic, data: bytes, now: int) -> None:
        """Take one serialised message."""
        if topic.latched and topic.type != EPISODE_TYPE:  # an old outcome does not belong into the next bag
            self._latched.pop((topic, data), None)
            self._latched[(topic, data)] = None   # last: the newest counts
        elif self.config.per_episode and topic.type != EPISODE_TYPE:
            self._recent.append((topic, data, now))
            self._forget(now)
        if self.writer is None and not self.config.per_episode:
            self._open('recording', now)          # its latched messages include this one
            if topic.latched and topic.type != EPISODE_TYPE:
                return
        if self.writer is not None:
            self._write(topic, data, now)

    def episode(self, episode_id: str, running: bool, now: int) -> None:
        """Take the announcement of an episode; call before ``message`` for its start, after it for its end."""
        if not self.config.per_episode:
            return
        if running and episode_id != self._episode:
            self.close()
            self._episode = episode_id
            self._open(episode_id, now)
        elif not running and episode_id == self._episode and self._ends is None:
            self._ends = now + int(self.config.post_roll * SECOND)

    def tick(self, now: int) -> None:
        """Flush when it is time, and close the bag of an episode that is over."""
        if self.writer is None:
            return
        if self._ends is not None and now >= self._ends:
            self.close()
        elif abs(now - self._flushed) >= self.config.flush_period * SECOND:  # abs: a simulated clock may restart
            self._flushed = now
            self.writer.flush()

    def close(self) -> None:
        """Finish the present bag, if any."""
        if self.writer is None:
            return
        self.writer.close()
        self.finished.append(self.writer.folder)
        self.writer, self._ends = None, None

    def _open(self, name: str, now: int) -> None:
        name = ''.join(c if c.isalnum() or c in '-_.' else '_' for c in name).lstrip('.') or 'episode'
        folder, number = Path(self.config.output_directory) / name, 1
        while folder.exists():                    # a bag is never overwritten
            number += 1
            folder = Path(self.config.output_directory) / f'{name}_{number}'
        self.writer, self._flushed = BagWriter(folder, self.types), now
        self._forget(now)
        start = min([stamp for _, _, stamp in self._recent], default=now)
        for topic, data in self._latched:
            self._write(topic, data, start)
        for topic, data, stamp in self._recent:
            self._write(topic, data, stamp)

    def _forget(self, now: int) -> None:
        while self._recent and self._recent[0][2] < now - self.config.pre_roll * SECOND:
            self._recent.popleft()

    def _write(self, topic: Topic, data: bytes, stamp: int) -> None:
        if topic.name in self.refused:
            return
        try:
            self.writer.write(topic, data, stamp)
        except UnknownTypeError as error:
            self.refused[topic.name] = str(error)
