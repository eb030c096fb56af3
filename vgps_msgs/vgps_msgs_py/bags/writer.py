"""Write a rosbag2 folder (MCAP) without rosbag2: what ``ros2 bag``, ``rosbags`` and Foxglove read.

Layout as ``ros2 bag record -s mcap -o FOLDER``: ``FOLDER/FOLDER_0.mcap`` and ``FOLDER/metadata.yaml``. The metadata
is of version 8: Jazzy (9) reads it, Humble (5) cannot read 9's list of qualities of service.
"""

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from mcap.writer import MCAP0_MAGIC, CompressionType, Writer

from vgps_msgs_py.bags.message_types import MessageTypes

METADATA_VERSION = 8
INFINITE = {'sec': 9223372036, 'nsec': 854775807}


@dataclass(frozen=True)
class Topic:
    """A recorded topic."""

    name: str                  # fully resolved, e.g. /vgps/image_raw
    type: str                  # e.g. sensor_msgs/msg/Image
    reliable: bool = True      # as its publishers offer
    latched: bool = False      # transient local
    depth: int = 10            # history kept by the publisher

    def quality_of_service(self) -> str:
        """Return the offered quality of service as rosbag2 writes it (YAML, enumerations as numbers)."""
        return str(yaml.safe_dump([{
            'history': 1, 'depth': self.depth, 'reliability': 1 if self.reliable else 2,
            'durability': 1 if self.latched else 2, 'deadline': INFINITE, 'lifespan': INFINITE, 'liveliness': 1,
            'liveliness_lease_duration': INFINITE, 'avoid_ros_namespace_conventions': False}], sort_keys=False))


def is_complete(folder: Path | str) -> bool:
    """Tell whether the recording in a bag's folder was closed: an MCAP file ends with the bytes it begins with."""
    try:
        with (Path(folder) / f'{Path(folder).name}_0.mcap').open('rb') as stream:
            stream.seek(-len(MCAP0_MAGIC), os.SEEK_END)
            return stream.tell() > 0 and stream.read() == MCAP0_MAGIC
    except OSError:  # not there, or nothing in it yet
        return False


class BagWriter:
    """Writes serialised messages; ``flush`` makes everything written so far survive a kill -9.

    After an exception of ``write``, ``flush`` or ``close`` only ``abandon`` may follow.

    Raises:
        FileExistsError: the folder is there already; a bag is never overwritten.
        OSError: it cannot be written there. Nothing is left behind.

    """

    def __init__(self, folder: Path | str, types: MessageTypes | None = None):
        self.folder = Path(folder)
        self.missing: list[str] = []          # what this bag ought to hold and does not, in words
        self.types = types or MessageTypes()
        self.file = self.folder / f'{self.folder.name}_0.mcap'
        self._schemas: dict[str, int] = {}
        self._channels: dict[Topic, int] = {}
        self._counts: dict[Topic, int] = {}
        self._first: int | None = None        # stamps [ns]
        self._last: int | None = None
        self._kept: tuple[int, dict[Topic, int]] = (0, {})    # bytes and counts that the last flush made safe
        self.closed = False
        self.folder.mkdir(parents=True)
        try:
            self._stream = self.file.open('wb')
            self._writer: Any = Writer(self._stream, compression=CompressionType.ZSTD)
            self._writer.start(profile='ros2', library='vgps_bringup')
            self.flush()
        except OSError:
            self._discard()
            raise

    def write(self, topic: Topic, data: bytes, stamp: int) -> None:
        """Append one message: CDR bytes and the time it was received, in nanoseconds.

        Raises:
            UnknownTypeError: the definition of the topic's type is not installed.

        """
        if topic not in self._channels:
            self._add(topic)
        self._writer.add_message(self._channels[topic], log_time=stamp, data=data, publish_time=stamp,
                                 sequence=self._counts[topic])
        self._counts[topic] += 1
        self._first = stamp if self._first is None else min(self._first, stamp)
        self._last = stamp if self._last is None else max(self._last, stamp)

    def _add(self, topic: Topic) -> None:
        text, type_hash = self.types.definition(topic.type)
        if topic.type not in self._schemas:
            self._schemas[topic.type] = self._writer.register_schema(topic.type, 'ros2msg', text.encode())
        self._channels[topic] = self._writer.register_channel(
            topic.name, 'cdr', self._schemas[topic.type],
            {'offered_qos_profiles': topic.quality_of_service(), 'topic_type_hash': type_hash})
        self._counts[topic] = 0

    def flush(self) -> None:
        """Hand everything to the operating system, and bring metadata.yaml up to date.

        Raises:
            OSError: the disk is full, or the folder is gone or not writable.

        """
        self._writer.flush()
        self._stream.flush()
        self._kept = (self._stream.tell(), dict(self._counts))
        if os.fstat(self._stream.fileno()).st_nlink == 0:  # writing into it goes well, and nobody will ever read it
            raise FileNotFoundError(f'{self.file} was removed')
        self._write_metadata()

    def close(self) -> None:
        """Write the index and the final metadata; a second call does nothing.

        Raises:
            OSError: as ``flush``.

        """
        if self.closed:
            return
        # rosbag2's MCAP storage keeps a copy of the metadata inside, for files that left their folder
        self._writer.add_metadata('rosbag2', {'serialized_metadata': yaml.safe_dump(self._information())})
        self._writer.finish()
        self._stream.close()
        self._write_metadata()
        self.closed = True

    @property
    def unsafe(self) -> int:
        """Return how many messages no flush has made safe."""
        return sum(self._counts.values()) - sum(self._kept[1].values())

    def abandon(self, reason: str) -> bool:
        """Give up a bag that cannot be written any more; never raises.

        What the last flush made safe stays and ends between two records; metadata.yaml says what is missing, where it
        can still be written. Returns whether a message is left; an empty bag is removed.
        """
        self.closed = True
        self.missing.append(reason)
        with suppress(Exception):
            self._stream.close()              # tries once more to write what it buffers
        size, self._counts = self._kept
        if not any(self._counts.values()):
            self._discard()
            return False
        with suppress(Exception):
            os.truncate(self.file, size)      # half a record goes, and makes room for the metadata
        with suppress(Exception):
            self._write_metadata()
        return self.file.exists()

    def _discard(self) -> None:
        with suppress(Exception):
            self._stream.close()
        for path in (self.file, self._temporary, self.folder / 'metadata.yaml'):
            with suppress(OSError):
                path.unlink()
        with suppress(OSError):
            self.folder.rmdir()

    def _information(self) -> dict[str, object]:
        first = 0 if self._first is None else self._first
        duration = {'nanoseconds': 0 if self._last is None else self._last - first}
        start, count = {'nanoseconds_since_epoch': first}, sum(self._counts.values())
        return {
            'version': METADATA_VERSION, 'storage_identifier': 'mcap', 'duration': duration, 'starting_time': start,
            'message_count': count,
            'topics_with_message_count': [
                {'topic_metadata': {'name': topic.name, 'type': topic.type, 'serialization_format': 'cdr',
                                    'offered_qos_profiles': topic.quality_of_service(),
                                    'type_description_hash': self.types.definition(topic.type)[1]},
                 'message_count': self._counts.get(topic, 0)} for topic in self._channels],
            'compression_format': '', 'compression_mode': '', 'relative_file_paths': [self.file.name],
            'files': [{'path': self.file.name, 'starting_time': start, 'duration': duration, 'message_count': count}],
            'custom_data': {'missing': '; '.join(self.missing)} if self.missing else None,
            'ros_distro': os.environ.get('ROS_DISTRO', '')}

    @property
    def _temporary(self) -> Path:
        return self.folder / '.metadata.yaml.tmp'

    def _write_metadata(self) -> None:
        try:
            self._temporary.write_text(
                yaml.safe_dump({'rosbag2_bagfile_information': self._information()}, sort_keys=False))
            self._temporary.replace(self.folder / 'metadata.yaml')  # never half a file
        except OSError:
            with suppress(OSError):
                self._temporary.unlink()
            raise
