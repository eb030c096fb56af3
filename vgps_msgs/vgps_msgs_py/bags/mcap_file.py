"""Messages of an MCAP file, whole or damaged, in bounded memory.

Damage costs what it hits: a record with an impossible length is jumped over by the file's own index of chunks, a chunk
that does not decompress loses its rest, and a chunk with a wrong checksum is read and named.
"""

import io
import struct
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import zstandard
from mcap.data_stream import ReadDataStream
from mcap.exceptions import McapError
from mcap.opcode import Opcode
from mcap.reader import SeekingReader
from mcap.records import Channel, Chunk, Schema

from vgps_msgs_py.safetensors_header import left_behind

MAGIC = b'\x89MCAP0\r\n'
MAX_RECORD = 1 << 29   # [bytes] no recorder writes chunks this large, a few hostile bytes can claim them
MAX_PROBLEMS = 40      # told one by one; more say nothing new
_PIECE = 1 << 20
_KINDS = {Opcode.SCHEMA, Opcode.CHANNEL, Opcode.MESSAGE, Opcode.CHUNK}
_PARSE_ERRORS = (McapError, struct.error, ValueError, KeyError, EOFError, OverflowError, RuntimeError, IndexError)


class McapFile:
    """One file; ``problems`` grows while it is read."""

    def __init__(self, path: Path):
        self.path, self.size = path, path.stat().st_size
        self.problems: list[str] = []
        self.schemas: dict[int, Schema] = {}
        self.channels: dict[int, Channel] = {}
        self.count = 0
        self._foreign: Counter[tuple[str, str]] = Counter()

    def messages(self) -> Iterator[tuple[str, str, int, bytes]]:
        """Yield (topic, type, log time [ns], data); read ``schemas`` between messages for new definitions."""
        if self.size == 0:
            self._problem('it is empty')
            return
        with self.path.open('rb') as stream:
            if stream.read(len(MAGIC)) != MAGIC:
                self._problem(left_behind(self.path) or 'not an MCAP file, or damaged at its beginning')
                return
            position: int | None = len(MAGIC)
            while position is not None:
                stream.seek(position)
                yield from self._section(stream)
                position = self._next_chunk(stream, self._stopped) if self._stopped is not None else None
        for (topic, kind), count in self._foreign.items():
            self._problem(f'{count} messages of {topic} are {kind}, not ROS 2 messages (CDR with a schema), and were '
                          'left out')

    def _problem(self, text: str) -> None:
        if len(self.problems) < MAX_PROBLEMS:
            self.problems.append(f'{self.path.name}: {text}')

    def _section(self, stream: BinaryIO) -> Iterator[tuple[str, str, int, bytes]]:
        """Read records until the data end, or until one that cannot be: then ``_stopped`` is where."""
        self._stopped = None
        while True:
            at = stream.tell()
            head = stream.read(9)
            opcode, length = struct.unpack('<BQ', head) if len(head) == 9 else (0, 0)
            if opcode == Opcode.DATA_END:
                stream.seek(max(0, self.size - len(MAGIC)))
                if stream.read() != MAGIC:
                    self._problem(f'cut off or damaged after its data; all {self.count} '
                                         'messages were read')
                return
            if len(head) < 9 or opcode == 0 or length > self.size - stream.tell():
                self._stopped = at
                self._problem(f'cut off or damaged near byte {at} of {self.size}; the '
                                     f'{self.count} messages before were read')
                return
            if opcode not in _KINDS:
                stream.seek(length, io.SEEK_CUR)
            elif length > MAX_RECORD:
                self._problem(f'a record of {length} bytes at byte {at} was left out')
                stream.seek(length, io.SEEK_CUR)
            else:
                body = stream.read(length)
                try:
                    if opcode == Opcode.CHUNK:
                        yield from self._chunk(Chunk.read(ReadDataStream(io.BytesIO(body))), at)
                    else:
                        yield from self._record(opcode, body)
                except _PARSE_ERRORS as error:
                    self._problem(f'the record at byte {at} is damaged ({error})')

    def _chunk(self, chunk: Chunk, at: int) -> Iterator[tuple[str, str, int, bytes]]:
        data, problem = _decompressed(chunk)
        if not problem and chunk.uncompressed_crc and zlib.crc32(data) != chunk.uncompressed_crc:
            problem = 'its checksum is wrong: a message in it may be damaged'
        if problem:
            self._problem(f'chunk at byte {at}: {problem}')
        offset = damaged = 0
        while offset + 9 <= len(data):
            opcode, length = struct.unpack_from('<BQ', data, offset)
            offset += 9
            if length > len(data) - offset:
                if not problem:
                    self._problem(f'chunk at byte {at}: a record is longer than its chunk')
                return
            if opcode in _KINDS and opcode != Opcode.CHUNK:
                try:
                    yield from self._record(opcode, data[offset:offset + length])
                except _PARSE_ERRORS:
                    damaged += 1
            offset += length
        if damaged:
            self._problem(f'chunk at byte {at}: {damaged} records are damaged, or belong to topics that the file does '
                          'not describe')

    def _record(self, opcode: int, body: bytes) -> Iterator[tuple[str, str, int, bytes]]:
        if opcode == Opcode.SCHEMA:
            schema = Schema.read(ReadDataStream(io.BytesIO(body)))
            self.schemas.setdefault(schema.id, schema)
        elif opcode == Opcode.CHANNEL:
            channel = Channel.read(ReadDataStream(io.BytesIO(body)))
            self.channels[channel.id] = channel
        else:
            number, _, log_time, _ = struct.unpack_from('<HIQQ', body)
            channel = self.channels[number]
            if channel.message_encoding == 'cdr' and channel.schema_id in self.schemas:
                self.count += 1
                yield channel.topic, self.schemas[channel.schema_id].name, log_time, body[22:]
            else:
                schema = self.schemas.get(channel.schema_id)
                self._foreign[channel.topic, f'{channel.message_encoding or "of an encoding that is not named"} '
                              f'({schema.name if schema else "without a schema"})'] += 1

    def _next_chunk(self, stream: BinaryIO, position: int) -> int | None:
        """Return where the next chunk after a damaged place begins, by the file's index, or None."""
        try:
            stream.seek(0)
            summary: Any = SeekingReader(stream, record_size_limit=MAX_RECORD).get_summary()    # None: caught below
            for number, schema in summary.schemas.items():  # they may have been in what was lost
                self.schemas.setdefault(number, schema)
            for number, channel in summary.channels.items():
                self.channels.setdefault(number, channel)
            found = [index.chunk_start_offset for index in summary.chunk_indexes]
        except Exception:  # the index may be as damaged as the rest
            return None
        return min((offset for offset in found if position < offset < self.size), default=None)


def _decompressed(chunk: Chunk) -> tuple[bytes, str]:
    """Return (data, what is wrong): as much as can be had, never more than the chunk says or MAX_RECORD."""
    if chunk.uncompressed_size > MAX_RECORD:
        return b'', f'claims {chunk.uncompressed_size} bytes and was left out'
    if not chunk.compression:
        return chunk.data, ''
    try:
        if chunk.compression == 'zstd':
            source = zstandard.ZstdDecompressor(max_window_size=1 << 27).stream_reader(io.BytesIO(chunk.data))
        elif chunk.compression == 'lz4':
            import lz4.frame
            source = lz4.frame.LZ4FrameFile(io.BytesIO(chunk.data))
        else:
            return b'', f"compression '{chunk.compression}' is not supported"
        return _read(source, chunk.uncompressed_size)
    except ImportError:
        return b'', 'it is compressed with lz4: pip install lz4'


def _read(source: Any, size: int) -> tuple[bytes, str]:
    data = bytearray()
    try:
        while len(data) < size:
            piece = source.read(min(_PIECE, size - len(data)))
            if not piece:
                break
            data += piece
    except (zstandard.ZstdError, RuntimeError, OSError, EOFError, ValueError) as error:
        return bytes(data), f'does not decompress ({error}); {len(data)} of {size} bytes were read'
    return bytes(data), '' if len(data) == size else f'holds {len(data)} of {size} bytes'


def decompress(data: bytes) -> bytes:
    """Return a message that was compressed by itself (``--compression-mode message``).

    Raises ValueError where it does not decompress, or to more than any message holds.
    """
    size = zstandard.frame_content_size(data)
    content, problem = _read(zstandard.ZstdDecompressor(max_window_size=1 << 27).stream_reader(io.BytesIO(data)),
                             MAX_RECORD if size < 0 else min(size, MAX_RECORD))
    if size >= 0 and (problem or size > MAX_RECORD):
        raise ValueError(f'message does not decompress: {problem or size}')
    if size < 0 and not content:
        raise ValueError(f'message does not decompress: {problem}')
    return content
