"""What a file claims to be and to hold, read before any of it is loaded. No safetensors, no numpy, no torch.

A checkpoint is somebody else's file: its sizes, types and even its being a file are claims to be checked first.
"""

import json
import math
import os
import stat
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LARGEST_HEADER = 10_000_000     # bytes; the paper's critic has 40,000
LARGEST_TEXT = 1_000_000        # bytes of a JSON file
POINTER = b'version https://git-lfs.github.com/spec/v1'  # how the text begins that stands for a large file
SIZES = {'F32': 4}              # what our checkpoints consist of


class UntrustedFileError(ValueError):
    """The file is not what it ought to be; the text names it and says why."""


@dataclass(frozen=True)
class Header:
    """Shapes by tensor name, and the file's own metadata."""

    shapes: dict[str, tuple[int, ...]]
    metadata: dict[str, str]


def regular_file(path: Path) -> int:
    """Return the size in bytes of a file that can be read without waiting for anybody.

    Raises:
        UntrustedFileError: missing, a folder, a pipe, a device, or links that lead in a circle.

    """
    try:
        status = os.stat(path)
    except (OSError, ValueError) as error:
        raise UntrustedFileError(f'{path}: {getattr(error, "strerror", None) or error}') from error
    if not stat.S_ISREG(status.st_mode):
        raise UntrustedFileError(f'{path}: not a regular file')
    return status.st_size


def left_behind(path: Path | str) -> str:
    """Say that a file is a pointer that a clone without Git LFS left in its place and what fetches it, or nothing."""
    try:
        with open(path, 'rb') as stream:
            if stream.read(len(POINTER)) != POINTER:
                return ''
    except OSError:
        return ''
    return f'{Path(path).name} is a Git LFS pointer, not the file: run `git lfs pull` in its repository'


def read_json(path: Path) -> object:
    """Return a small JSON file's content; NaN and infinity are refused, as JSON has neither.

    Raises:
        UntrustedFileError: not a regular file, too large, or not JSON.

    """
    if regular_file(path) > LARGEST_TEXT:
        raise UntrustedFileError(f'{path}: larger than {LARGEST_TEXT} bytes')
    try:
        return parse_json(path.read_bytes())
    except (OSError, ValueError) as error:
        raise UntrustedFileError(f'{path}: {error}') from error


def parse_json(text: bytes | str) -> object:
    """Return parsed JSON; raises ValueError for anything else, however deep or long."""
    def refuse(word: str) -> object:
        raise ValueError(f'{word} is not a number in JSON')
    try:
        return json.loads(text, parse_constant=refuse)
    except RecursionError:
        raise ValueError('nested too deeply') from None


def read_header(path: Path) -> Header:
    """Return what the file holds, after checking that it can.

    Raises:
        UntrustedFileError: not a regular file, not safetensors, cut off, or not float32 throughout.

    """
    size = regular_file(path)
    try:
        with path.open('rb') as stream:
            start = stream.read(8)
            length = struct.unpack('<Q', start)[0] if len(start) == 8 else 0
            if not 2 <= length <= min(LARGEST_HEADER, size - 8):
                raise UntrustedFileError(f'{path}: ' + (left_behind(path) or 'not a safetensors file, or cut off in '
                                                        'its header'))
            entries = parse_json(stream.read(length))
    except UntrustedFileError:
        raise
    except (OSError, ValueError) as error:
        raise UntrustedFileError(f'{path}: not a safetensors file: {error}') from error
    if not isinstance(entries, dict):
        raise UntrustedFileError(f'{path}: not a safetensors file: its header is not a JSON object')
    metadata = entries.pop('__metadata__', {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise UntrustedFileError(f'{path}: __metadata__ must map names to texts')
    shapes = {name: _shape(path, name, entry, size - 8 - length) for name, entry in entries.items()}
    return Header(shapes, metadata)


def _shape(path: Path, name: str, entry: Any, available: int) -> tuple[int, ...]:
    try:
        dtype, shape, (begin, end) = entry['dtype'], entry['shape'], entry['data_offsets']
        numbers = [begin, end, *shape]
    except (TypeError, KeyError, ValueError):
        raise UntrustedFileError(f'{path}: key {name} lacks dtype, shape or data_offsets') from None
    if not isinstance(dtype, str) or dtype not in SIZES:
        raise UntrustedFileError(f'{path}: key {name} is {str(dtype)[:40]}, expected float32 (F32)')
    if not all(type(number) is int and 0 <= number < 2**63 for number in numbers) or len(shape) > 8:
        raise UntrustedFileError(f'{path}: key {name} has the impossible shape {str(shape)[:80]}')
    if not begin <= end <= available or end - begin != math.prod(shape) * SIZES[dtype]:
        raise UntrustedFileError(f'{path}: key {name} of shape {shape} extends beyond the end of the file: was it cut '
                                 'off?')
    return tuple(shape)
