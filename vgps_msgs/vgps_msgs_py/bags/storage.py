"""Raw messages of a rosbag2 recording, from MCAP or sqlite3 files, whole or damaged. No ROS.

Files are read from front to back, so a bag that was cut off, never indexed, or lost its ``metadata.yaml`` gives
what is left of it; everything that was wrong is named in ``problems``.
"""

import sqlite3
import struct
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml
import zstandard
from mcap.exceptions import EndOfFile, McapError
from mcap.records import Channel, Message, Schema
from mcap.stream_reader import StreamReader

from vgps_msgs_py.bags.message_types import MessageTypes

# libyaml's, ten times as fast, where PyYAML was built with it
_LOADER = getattr(yaml, 'CSafeLoader', yaml.SafeLoader)
SUFFIXES = ('.mcap', '.db3', '.mcap.zstd', '.db3.zstd')


class BagError(ValueError):
    """The recording cannot be used at all; the text says why and what to do."""


@dataclass(frozen=True)
class RawMessage:
    """One recorded message."""

    topic: str
    type: str
    received: int   # when the recorder got it [ns]
    data: bytes     # CDR


class BagStorage:
    """The files of one recording."""

    def __init__(self, path: Path | str):
        self.path = Path(path)
        self.problems: list[str] = []
        self.compression = ''
        self.files = self._locate()

    def _locate(self) -> list[Path]:
        if not self.path.exists():
            raise BagError(f'there is no bag at {self.path}')
        if self.path.is_file() and self.path.name != 'metadata.yaml':
            if not self.path.name.endswith(SUFFIXES):
                raise BagError(f'{self.path} is not a rosbag2 file ({", ".join(SUFFIXES)}); '
                               'convert a ROS 1 bag with rosbags-convert')
            return [self.path]
        folder = self.path if self.path.is_dir() else self.path.parent
        present = sorted((f for f in folder.iterdir() if f.name.endswith(SUFFIXES)), key=_order)
        try:
            text = (folder / 'metadata.yaml').read_text(encoding='utf-8')
            information = yaml.load(text, Loader=_LOADER)['rosbag2_bagfile_information']
            listed = [folder / Path(name).name for name in information['relative_file_paths']]
            self.compression = (information.get('compression_mode') or '').lower()
        except (OSError, yaml.YAMLError, KeyError, TypeError):
            if present:
                self.problems.append('metadata.yaml is missing or unreadable: the files were read by their numbers')
            listed = present
        files = [f if f.exists() else f.with_name(f.name + '.zstd') for f in listed]
        missing = [f.name for f in files if not f.exists()]
        if missing:
            self.problems.append(f'files named in metadata.yaml are missing: {", ".join(missing)}')
        files = [f for f in files if f.exists()] or present
        if not files:
            raise BagError(f'{folder} holds no {" or ".join(SUFFIXES[:2])} file: not a rosbag2 recording')
        return files

    def messages(self, types: MessageTypes) -> Iterator[RawMessage]:
        """Yield every message in the order of the files, teaching ``types`` the definitions found on the way."""
        for file in self.files:
            with tempfile.TemporaryDirectory(prefix='vgps_bag_') as scratch:
                if file.suffix == '.zstd':
                    file = self._decompress(file, Path(scratch))
                reader = _read_mcap if file.suffix == '.mcap' else _read_sqlite3
                for message in reader(file, types, self.problems):
                    if self.compression == 'message' and file.suffix == '.db3':
                        message = RawMessage(message.topic, message.type, message.received,
                                             zstandard.decompress(message.data))
                    yield message

    def _decompress(self, file: Path, scratch: Path) -> Path:
        target = scratch / file.stem
        try:
            with file.open('rb') as source, target.open('wb') as sink:
                zstandard.ZstdDecompressor().copy_stream(source, sink)
        except zstandard.ZstdError as error:
            self.problems.append(f'{file.name}: compressed file is damaged ({error}); what is before it was read')
        return target


def _order(file: Path) -> tuple:
    number = file.name.split('.')[0].rpartition('_')[2]
    return (int(number) if number.isdigit() else 0, file.name)


def _read_mcap(file: Path, types: MessageTypes, problems: list[str]) -> Iterator[RawMessage]:
    if file.stat().st_size == 0:
        problems.append(f'{file.name} is empty')
        return
    schemas: dict[int, Schema] = {}
    channels: dict[int, Channel] = {}
    count = 0
    with file.open('rb') as stream:
        try:
            for record in StreamReader(stream).records:
                if isinstance(record, Message):
                    channel = channels[record.channel_id]
                    if channel.message_encoding == 'cdr' and channel.schema_id in schemas:
                        count += 1
                        yield RawMessage(channel.topic, schemas[channel.schema_id].name, record.log_time, record.data)
                elif isinstance(record, Channel):
                    channels[record.id] = record
                elif isinstance(record, Schema) and record.id not in schemas:
                    schemas[record.id] = record
                    _learn(types, record.name, record.data.decode(errors='replace'), record.encoding, problems)
        except (EndOfFile, McapError, zstandard.ZstdError, struct.error, ValueError, KeyError, RuntimeError) as error:
            problems.append(f'{file.name}: cut off or damaged near byte {stream.tell()} of {file.stat().st_size} '
                            f'({type(error).__name__}); the {count} messages before were read')


def _read_sqlite3(file: Path, types: MessageTypes, problems: list[str]) -> Iterator[RawMessage]:
    count = 0
    connection = sqlite3.connect(f'{file.resolve().as_uri()}?mode=ro', uri=True)
    try:
        tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if not {'topics', 'messages'} <= tables:
            problems.append(f'{file.name} has no topics and messages tables: not a rosbag2 recording, or never written')
            return
        if 'message_definitions' in tables:  # Iron and later
            for name, encoding, text in connection.execute(
                    'SELECT topic_type, encoding, encoded_message_definition FROM message_definitions'):
                _learn(types, name, text, encoding, problems)
        topics = {row[0]: row[1:] for row in connection.execute('SELECT id, name, type FROM topics')}
        for topic, stamp, data in connection.execute(
                'SELECT topic_id, timestamp, data FROM messages ORDER BY timestamp'):
            count += 1
            yield RawMessage(*topics[topic], stamp, data)
    except (sqlite3.Error, KeyError) as error:
        problems.append(f'{file.name}: damaged ({error}); the {count} messages before were read')
    finally:
        connection.close()


def _learn(types: MessageTypes, name: str, text: str, encoding: str, problems: list[str]) -> None:
    if not text.strip():
        return  # the recorder did not find the definition: the installed one is used
    try:
        types.register(name, text, encoding)
    except Exception as error:  # the parser raises many kinds; a foreign type need not concern us
        problems.append(f'definition of {name} in the bag cannot be read ({error}); using the installed one')
