"""Decide what is recorded when: one bag per episode, or one for everything. No ROS, no clock: times are passed in.

Nothing here raises because a bag cannot be written: a robot must not stop for its recorder. The reason is kept in
``trouble``, writing is tried again, and the next bag of the episode says what is missing from it.
"""

import errno
import itertools
import os
import shutil
from collections import OrderedDict, deque
from dataclasses import dataclass, field
from pathlib import Path

from vgps_msgs_py import images
from vgps_msgs_py.bags.message_types import MessageTypes, UnknownTypeError
from vgps_msgs_py.bags.writer import BagWriter, Topic

SECOND = 1_000_000_000
EPISODE_TYPE = 'vgps_msgs/msg/Episode'
DEFAULT_TOPICS = ('image_raw', 'camera_info', 'joint_states', 'joint_command', 'task_state', 'episode', 'step_started',
                  'candidates', 'decision', 'command', 'correction', 'controller_state', 'configuration',
                  '/diagnostics')
RETRY = 1 * SECOND           # between attempts to write again
ROOM_TO_RESUME = 4_000_000   # bytes free, or a full disk would get a new bag of one chunk with every attempt
LONGEST_NAME = 120           # bytes of a folder's name; file systems allow 255, and suffixes are added
FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True)
class RecorderConfig:
    """What the recorder writes, and where."""

    output_directory: str = field(default='runs', metadata={
        'description': 'folder for the bags'})
    per_episode: bool = field(default=True, metadata={
        'description': 'true: one bag per episode, named by its episode_id; false: a single bag from start to stop',
        'read_only': True})
    topics: tuple[str, ...] = field(default=DEFAULT_TOPICS, metadata={
        'description': 'topics to record, of any type whose package is sourced; remapping applies',
        'read_only': True})
    image_transport: str = field(default='auto', metadata=images.TRANSPORT)
    wrist_topic: str = field(default='', metadata={
        'description': "the wrist camera's topic, recorded too; empty: none", 'read_only': True})
    flush_period: float = field(default=0.5, metadata={
        'description': 'time between writes to the disk: what a crash loses at most [s]', 'range': (0.05, 1.0)})
    # discovery and queues may deliver the first frame before the announcement of the episode it belongs to
    pre_roll: float = field(default=0.5, metadata={
        'description': 'how much of the time before an episode is in its bag [s]', 'range': (0.0, 5.0)})
    pre_roll_megabytes: float = field(default=100.0, metadata={
        'description': 'largest memory of the pre-roll [MB]; the oldest messages are dropped first',
        'range': (1.0, 4000.0)})
    post_roll: float = field(default=1.0, metadata={
        'description': "how much of the time after an episode's outcome is in its bag [s]", 'range': (0.0, 10.0)})


class Recording:
    """Routes received messages to the bag of the moment.

    ``now`` is in nanoseconds of a clock that should never be set (the node's is monotonic; one that steps all the same
    costs pre-roll and post-roll and nothing else). ``stamp`` is what a message gets in its bag, by default ``now``.
    """

    def __init__(self, config: RecorderConfig, types: MessageTypes | None = None):
        self.config = config
        self.types = types or MessageTypes()
        self.writer: BagWriter | None = None
        self.finished: list[Path] = []            # bags that are closed
        self.abandoned: list[tuple[Path, str, bool]] = []  # bags given up: folder, why, whether a message is left
        self.refused: dict[str, str] = {}         # topic -> why it cannot be recorded
        self.trouble = ''                         # why nothing is written though something should be
        self.missed = 0                           # messages that went unrecorded because of it
        self._recent: deque = deque()             # (topic, data, stamp, now), not older than pre_roll
        self._recent_bytes = 0
        # what a late joiner is told, in the order of arrival without repetitions, and nothing older than memory allows
        self._latched: OrderedDict[tuple[Topic, bytes], None] = OrderedDict()
        self._latched_bytes = 0
        self._episode: str | None = None          # of the present bag, or of the one that cannot be written
        self._announced: list[tuple[Topic, bytes, int]] = []  # its Episode messages, for a bag that begins later
        self._ended: int | None = None            # when its outcome came
        self._failed = 0                          # when writing failed last
        self._full = False                        # because the disk was full
        self._gaps: list[str] = []                # what the present episode's bags lack
        self._flushed = 0

    def message(self, topic: Topic, data: bytes, now: int, stamp: int | None = None) -> None:
        """Take one serialised message."""
        stamp = max(0, now if stamp is None else stamp)  # MCAP's times are unsigned
        is_episode = topic.type == EPISODE_TYPE
        if topic.latched and not is_episode:      # an old outcome does not belong into the next bag
            self._keep_latched(topic, data)
        elif self.config.per_episode and not is_episode:
            self._recent.append((topic, data, stamp, now))
            self._recent_bytes += len(data)
            self._forget(now)
        if is_episode and self._episode is not None:
            self._announced = [*self._announced[-7:], (topic, data, stamp)]
        if self.writer is None and not self.config.per_episode and not self.trouble:
            self._begin('recording', now, stamp)  # its latched messages include this one
            if topic.latched and not is_episode:
                return
        if self.writer is not None:
            self._write(topic, data, stamp, now)
        elif self.trouble:
            self.missed += 1

    def episode(self, episode_id: str, running: bool, now: int, stamp: int | None = None) -> None:
        """Take the announcement of an episode; call before ``message`` for its start, after it for its end."""
        if not self.config.per_episode:
            return
        if running and (episode_id != self._episode or self._ended is not None):  # a name may be used again
            self.close()
            self._begin(episode_id, now, max(0, now if stamp is None else stamp))
        elif not running and episode_id == self._episode and self._ended is None:
            self._ended = now

    def tick(self, now: int, stamp: int | None = None) -> None:
        """Flush when it is time, try again what failed, and close the bag of an episode that is over."""
        if self._ended is not None and not 0 <= now - self._ended < self.config.post_roll * SECOND:
            self.close()
        elif self.writer is not None:
            if not 0 <= now - self._flushed < self.config.flush_period * SECOND:
                self._flushed = now
                self._guard(self.writer.flush, now)
        elif self.trouble and not 0 <= now - self._failed < RETRY:
            self._open(now, max(0, now if stamp is None else stamp))

    def close(self) -> None:
        """Finish the present bag, if any, and forget the episode."""
        if self.writer is not None and self._guard(self.writer.close, 0):
            self.finished.append(self.writer.folder)
        self.writer, self._episode, self._ended, self._announced = None, None, None, []
        self.trouble, self._full = '', False

    def room(self) -> int:
        """Return how many bytes are free where bags go; 0 where that cannot be told."""
        folder = Path(self.config.output_directory).absolute()
        try:
            return shutil.disk_usage(next(p for p in (folder, *folder.parents) if p.exists())).free
        except OSError:
            return 0

    def _begin(self, name: str, now: int, stamp: int) -> None:
        """Start an episode of its own, whether or not it can be written yet."""
        self._episode, self._gaps, self.missed, self._announced = name, [], 0, []
        self._open(now, stamp)

    def _open(self, now: int, stamp: int) -> None:
        """Open a bag, the next one where the episode has some already, with what a late joiner would know."""
        if self._full and self.room() < ROOM_TO_RESUME:
            self._failed = now
            return
        try:
            self.writer = self._new_writer()
        except Exception as error:  # whatever it is, the robot goes on
            self._fail(error, now)
            return
        if self.trouble:
            self._gaps.append(f'{self.missed} messages of this episode are in no bag: {self.trouble}')
        self.writer.missing += self._gaps
        self.trouble, self._full, self.missed, self._flushed = '', False, 0, now
        self._forget(now)
        start = min([s for _, _, s, _ in self._recent], default=stamp)
        earlier = [(topic, data, start) for topic, data in self._latched] + self._announced
        for topic, data, when in earlier + [item[:3] for item in self._recent]:
            if self.writer is not None:
                self._write(topic, data, when, now)

    def _new_writer(self) -> BagWriter:
        name = folder_name(self._episode)
        for number in itertools.count(1):
            folder = Path(self.config.output_directory) / (name if number == 1 else f'{name}_{number}')
            if not os.path.lexists(folder):       # a bag is never overwritten
                try:
                    return BagWriter(folder, self.types)
                except FileExistsError:           # another recorder was faster
                    if not os.path.lexists(folder):
                        raise

    def _keep_latched(self, topic: Topic, data: bytes) -> None:
        if (topic, data) in self._latched:
            self._latched.move_to_end((topic, data))   # last: the newest counts
            return
        self._latched[topic, data] = None
        self._latched_bytes += len(data)
        while self._latched_bytes > self._most_bytes:
            (_, oldest), _ = self._latched.popitem(last=False)
            self._latched_bytes -= len(oldest)

    @property
    def _most_bytes(self) -> int:
        return int(self.config.pre_roll_megabytes * 1e6 / 2)  # half for the pre-roll, half for what is latched

    def _forget(self, now: int) -> None:
        while self._recent and (self._recent_bytes > self._most_bytes
                                or not 0 <= now - self._recent[0][3] <= self.config.pre_roll * SECOND):
            self._recent_bytes -= len(self._recent.popleft()[1])

    def _write(self, topic: Topic, data: bytes, stamp: int, now: int) -> None:
        if topic.name in self.refused:
            return
        try:
            self._guard(lambda: self.writer.write(topic, data, stamp), now)
        except UnknownTypeError as error:
            self.refused[topic.name] = str(error)
            self.writer.missing.append(f'{topic.name}: {error}')

    def _guard(self, action, now: int) -> bool:
        """Run an action of the writer; where it fails, give the bag up and return False."""
        try:
            action()
            return True
        except UnknownTypeError:
            raise
        except Exception as error:  # whatever it is, the robot goes on
            writer, self.writer = self.writer, None
            self.missed += writer.unsafe
            self._fail(error, now)
            kept = writer.abandon(f'nothing could be written any more: {self.trouble}')
            self.abandoned.append((writer.folder, self.trouble, kept))
            return False

    def _fail(self, error: Exception, now: int) -> None:
        self.trouble, self._failed = str(error) or type(error).__name__, now
        self._full = isinstance(error, OSError) and error.errno in FULL


def folder_name(episode_id: str) -> str:
    """Return the name of an episode's folder: no path, not hidden, not empty, not longer than file systems allow."""
    name = ''.join(c if c.isalnum() or c in '-_.' else '_' for c in episode_id).lstrip('.')
    return name.encode(errors='replace')[:LONGEST_NAME].decode(errors='ignore') or 'episode'
