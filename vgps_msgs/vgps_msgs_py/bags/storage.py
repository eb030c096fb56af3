"""Raw messages of a rosbag2 recording, from MCAP or sqlite3 files, whole or damaged. No ROS.

Files are read from front to back, so a bag that was cut off, never indexed, or lost its ``metadata.yaml`` gives
what is left of it; everything that was wrong is named in ``problems``.
"""

import sqlite3
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml
import zstandard

from vgps_msgs_py.bags.mcap_file import McapFile, decompress
from vgps_msgs_py.bags.message_types import MessageTypes
from vgps_msgs_py.safetensors_header import left_behind

# libyaml's, ten times as fast, where PyYAML was built with it
_LOADER = getattr(yaml, 'CSafeLoader', yaml.SafeLoader)
COMPRESSED = b'\x28\xb5\x2f\xfd'  # how a zstd frame begins
MAX_RATIO = 1000                   # a black picture compresses this well, nothing recorded better
LOST_ROWS = 10_000                 # so many rows of a damaged table in a row: nothing more will come
_DATABASE_ERRORS = (sqlite3.Error, UnicodeError, OverflowError)  # sqlite3 may not even decode its own complaint
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
        self._promised = 0   # messages, by the metadata
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
            self._promised = int(information.get('message_count') or 0)
            if missing := (information.get('custom_data') or {}).get('missing'):
                self.problems.append(f'the recorder could not write everything: {str(missing)[:500]}')
        except (OSError, ValueError, yaml.YAMLError, KeyError, TypeError, AttributeError, RecursionError):
            if present:
                self.problems.append('metadata.yaml is missing or unreadable: the files were read by their numbers')
            listed = present
        files = [f if f.exists() else f.with_name(f.name + '.zstd') for f in listed]
        missing = [f.name for f, named in zip(listed, files) if not named.exists()]
        if missing:
            self.problems.append(f'files named in metadata.yaml are missing: {", ".join(missing)}')
        files = [f for f in files if f.exists()] or present
        if unlisted := [f.name for f in present if f not in files]:
            self.problems.append(f'files that metadata.yaml does not list were not read: {", ".join(unlisted)}')
        if not files:
            raise BagError(f'{folder} holds no {" or ".join(SUFFIXES[:2])} file: not a rosbag2 recording')
        return files

    def messages(self, types: MessageTypes) -> Iterator[RawMessage]:
        """Yield every message in the order of the files, teaching ``types`` the definitions found on the way."""
        count = 0
        for file in self.files:
            with tempfile.TemporaryDirectory(prefix='vgps_bag_') as scratch:
                if file.suffix == '.zstd':
                    file = self._decompress(file, Path(scratch))
                reader = _read_mcap if file.suffix == '.mcap' else _read_sqlite3
                damaged = 0
                for message in reader(file, types, self.problems):
                    count += 1
                    if message.data[:4] == COMPRESSED:  # each by itself; CDR never begins like this
                        try:
                            message = replace(message, data=decompress(message.data))
                        except (ValueError, zstandard.ZstdError):
                            damaged += 1
                            continue
                    yield message
                if damaged:
                    self.problems.append(f'{file.name}: {damaged} messages do not decompress and were left out')
        if count < self._promised and not self.problems:  # whole files, but not those that were recorded
            self.problems.append(f'metadata.yaml promises {self._promised} messages, the files hold {count}: a file of '
                                 'another recording, or a sqlite3 file that was copied without its -wal')

    def _decompress(self, file: Path, scratch: Path) -> Path:
        target = scratch / file.stem
        try:
            with file.open('rb') as packed, target.open('wb') as sink:
                source, written = zstandard.ZstdDecompressor(max_window_size=1 << 27).stream_reader(packed), 0
                while piece := source.read(1 << 20):
                    written += len(piece)
                    if written > MAX_RATIO * file.stat().st_size + (1 << 26):
                        raise zstandard.ZstdError('it grows without end')
                    sink.write(piece)
        except zstandard.ZstdError as error:
            self.problems.append(f'{file.name}: compressed file is damaged ({error}); what came before the damage was '
                                 'read')
        return target


def _order(file: Path) -> tuple[int, str]:
    number = file.name.split('.')[0].rpartition('_')[2]
    return (int(number) if number.isdigit() else 0, file.name)


def _read_mcap(file: Path, types: MessageTypes, problems: list[str]) -> Iterator[RawMessage]:
    source, learned = McapFile(file), 0
    try:
        for topic, kind, received, data in source.messages():
            if learned < len(source.schemas):
                for schema in list(source.schemas.values())[learned:]:
                    _learn(types, schema.name, schema.data.decode(errors='replace'), schema.encoding, problems)
                learned = len(source.schemas)
            yield RawMessage(topic, kind, received, data)
    finally:
        problems += source.problems


def _read_sqlite3(file: Path, types: MessageTypes, problems: list[str]) -> Iterator[RawMessage]:
    count = 0
    connection = sqlite3.connect(f'{file.resolve().as_uri()}?mode=ro', uri=True)
    connection.text_factory = lambda data: data.decode(errors='replace')
    try:
        tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if not {'topics', 'messages'} <= tables:
            problems.append(f'{file.name} has no topics and messages tables: not a rosbag2 recording, or never written')
            return
        if 'message_definitions' in tables:  # Iron and later
            for name, encoding, text in connection.execute(
                    'SELECT topic_type, encoding, encoded_message_definition FROM message_definitions'):
                _learn(types, str(name), str(text or ''), encoding, problems)
        topics = {}
        for number, name, kind, form in connection.execute('SELECT id, name, type, serialization_format FROM topics'):
            if form in ('cdr', None, ''):
                topics[number] = str(name), str(kind)
            else:
                problems.append(f'{file.name}: {name} holds {form}, not ROS 2 messages (CDR), and was left out')
        for topic, stamp, data in _rows(connection, file, problems):
            if topic in topics and isinstance(data, bytes) and isinstance(stamp, int):
                count += 1
                yield RawMessage(*topics[topic], stamp, data)
    except _DATABASE_ERRORS as error:
        problems.append(f'{file.name}: ' + (left_behind(file) or f'damaged ({error}); {count} messages were read'))
    finally:
        connection.close()


def _rows(connection: sqlite3.Connection, file: Path, problems: list[str]) -> Iterator[tuple[Any, Any, Any]]:
    """Yield (topic id, stamp, data) as they were written; after damage, what single rows still give."""
    columns, seen = 'topic_id, timestamp, data', set()
    try:
        for row in connection.execute(f'SELECT id, {columns} FROM messages ORDER BY id'):
            seen.add(row[0])
            yield row[1:]
        return
    except _DATABASE_ERRORS as error:
        problems.append(f'{file.name}: damaged ({error}); its rows were read one by one')
    lost, number = 0, 0
    while lost < LOST_ROWS:  # rows are numbered without gaps
        number += 1
        if number in seen:
            continue
        try:
            row = connection.execute(f'SELECT {columns} FROM messages WHERE id = ?', (number,)).fetchone()
        except _DATABASE_ERRORS:
            row = None
        if row is None:
            lost += 1
            continue
        lost = 0
        yield row


def _learn(types: MessageTypes, name: str, text: str, encoding: str, problems: list[str]) -> None:
    if not text.strip() or encoding not in ('ros2msg', 'ros2idl'):
        return  # the recorder did not find the definition: the installed one is used; or of no ROS 2 message
    try:
        types.register(name, text, encoding)
    except Exception as error:  # the parser raises many kinds; a foreign type need not concern us
        problems.append(f'definition of {name} in the bag cannot be read ({error}); using the installed one')
