"""TFRecord files and tf.train.Example messages, without TensorFlow.

A record is: length uint64, masked CRC-32C of the length, payload, masked CRC-32C of the payload. The payload is a
protocol buffer with a fixed schema, walked here by its wire format so that images stay undecoded slices of the file.
"""
import mmap
import struct
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import google_crc32c
import numpy as np

from vgps_msgs_py.safetensors_header import left_behind
from vgps_training.data.episode import DataError


class TFRecordError(DataError):
    """The file is not a TFRecord, or it is cut short."""


def masked_crc32c(data: bytes) -> int:
    """Return the checksum TFRecord stores (Castagnoli polynomial, rotated and offset)."""
    crc = google_crc32c.value(data)
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


@lru_cache(maxsize=256)
def map_file(path: str) -> mmap.mmap:
    """Return the file as read-only memory, mapped once per process."""
    with open(path, 'rb') as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def records(path: str | Path) -> Iterator[tuple[int, int, bool]]:
    """Yield (offset, length, whether the bytes are those that were written) of every payload.

    A payload whose checksum is wrong costs itself; a wrong length costs what follows, which nothing finds any more.

    Raises TFRecordError with the file and the offset.
    """
    if Path(path).stat().st_size == 0:
        return
    data = map_file(str(path))
    offset = 0
    while offset < len(data):
        header = data[offset:offset + 12]
        if len(header) < 12 or struct.unpack('<I', header[8:])[0] != masked_crc32c(header[:8]):
            packed = '; it is compressed: gunzip it first' if data[:2] == b'\x1f\x8b' else ''
            raise TFRecordError(left_behind(path) or f'{path}: no valid record at byte {offset}{packed}')
        length = struct.unpack('<Q', header[:8])[0]
        start, stop = offset + 12, offset + 12 + length
        if stop + 4 > len(data):
            raise TFRecordError(f'{path}: the record at byte {offset} is cut short')
        (checksum,) = struct.unpack('<I', data[stop:stop + 4])
        yield start, length, checksum == masked_crc32c(data[start:stop])
        offset = stop + 4


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise TFRecordError(f'a number at byte {at} has no end')


def _fields(data: memoryview, start: int, stop: int) -> Iterator[tuple[int, int, int]]:
    """Yield (field number, start, stop) of the length-delimited fields of a message; a varint is given whole."""
    at = start
    while at < stop:
        tag, at = _varint(data, at)
        kind = tag & 7
        if kind == 2:
            length, at = _varint(data, at)
        elif kind == 0:
            begin = at
            _, at = _varint(data, at)
            yield tag >> 3, begin, at
            continue
        elif kind in (1, 5):
            length = 8 if kind == 1 else 4
        else:
            raise TFRecordError(f'wire type {kind} at byte {at}: not a tf.train.Example')
        if at + length > stop:
            raise TFRecordError(f'a field at byte {at} is longer than its message')
        yield tag >> 3, at, at + length
        at += length


def parse_example(data: memoryview | bytes | mmap.mmap, offset: int,
                  length: int) -> dict[str, np.ndarray | list[tuple[int, int]]]:
    """Return an Example's features: numbers as arrays, byte strings as (offset, length) slices of `data`.

    Raises TFRecordError where the bytes are no Example.
    """
    view = memoryview(data)
    features = {}
    try:
        for _, start, stop in _fields(view, offset, offset + length):             # Example.features
            for _, entry, entry_stop in _fields(view, start, stop):               # Features.feature, a map
                key, value = '', None
                for number, a, b in _fields(view, entry, entry_stop):
                    if number == 1:
                        key = bytes(view[a:b]).decode()
                    else:
                        value = _feature(view, a, b)
                if value is not None:
                    features[key] = value
    except (IndexError, ValueError, OverflowError) as error:  # ValueError: not UTF-8, or no whole number of floats
        raise TFRecordError(f'the record at byte {offset} is not a tf.train.Example: {error}') from error
    return features


def _feature(view: memoryview, start: int, stop: int):
    for kind, a, b in _fields(view, start, stop):
        values = list(_fields(view, a, b))
        if kind == 1:
            return [(c, d - c) for _, c, d in values]
        if kind == 2:  # packed, or one 4-byte field per number
            return np.frombuffer(b''.join(bytes(view[c:d]) for _, c, d in values), '<f4')
        numbers = []
        for _, c, d in values:
            while c < d:
                number, c = _varint(view, c)
                numbers.append(number - (1 << 64) if number >> 63 else number)
        return np.array(numbers, np.int64)
    return None
