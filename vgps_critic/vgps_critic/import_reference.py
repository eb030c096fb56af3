"""Convert a checkpoint of the authors' JAX code into one of this project, with numpy alone.

    vgps-import-reference checkpoint_500000 my_critic --action-space bridge

The file is one msgpack map, 1.6 GB for the published critic, of which the target critic is 102 MB (reference
behaviour 1.10). It is walked, not loaded: everything else is skipped by seeking. Nothing in it is ever executed, and
whatever does not look like such a checkpoint is refused with the place where it departs.
"""

import json
import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, BinaryIO

import numpy as np
import tyro

from vgps_critic import checkpoint, flax_names, foreign
from vgps_critic.action_space import ActionSpace
from vgps_critic.config import CheckpointError, CriticConfig
from vgps_msgs_py import command_line

_MAX_OBJECTS = 1_000_000  # a real checkpoint has under 10,000; stops files made to keep a reader busy
_MAX_LEAF_BYTES = 256 << 20  # the published critic's largest is 9.4 MB
_MAX_NAME_BYTES = 1024
_MAX_DEPTH = 32
_EXT_ARRAY, _EXT_SCALAR = 1, 3  # flax.serialization's msgpack extension types

# first byte -> (kind, bytes of the number that follows)
_SIZED = {0xc4: ('bin', 1), 0xc5: ('bin', 2), 0xc6: ('bin', 4), 0xc7: ('ext', 1), 0xc8: ('ext', 2), 0xc9: ('ext', 4),
          0xd9: ('str', 1), 0xda: ('str', 2), 0xdb: ('str', 4), 0xdc: ('array', 2), 0xdd: ('array', 4),
          0xde: ('map', 2), 0xdf: ('map', 4)}
_FIXED_EXT = {0xd4: 1, 0xd5: 2, 0xd6: 4, 0xd7: 8, 0xd8: 16}
_NUMBERS = {0xca: '>f', 0xcb: '>d', 0xcc: '>B', 0xcd: '>H', 0xce: '>I', 0xcf: '>Q',
            0xd0: '>b', 0xd1: '>h', 0xd2: '>i', 0xd3: '>q'}
_CONSTANTS = {0xc0: None, 0xc2: False, 0xc3: True}


class Reader:
    """Walks a msgpack file object by object and never reads more than it needs."""

    def __init__(self, file: BinaryIO, size: int):
        self.file, self.size, self.objects = file, size, 0

    def fail(self, message: str) -> CheckpointError:
        """Return the error to raise, with the place."""
        return CheckpointError(f'{self.file.name}: at byte {self.file.tell()}: {message}')

    def need(self, count: int) -> None:
        """Raise unless `count` more bytes are there."""
        if self.file.tell() + count > self.size:
            left = self.size - self.file.tell()
            raise self.fail(f'{count} more bytes expected, the file ends after {left}: truncated?')

    def read(self, count: int) -> bytes:
        """Read exactly `count` bytes."""
        self.need(count)
        return self.file.read(count)

    def header(self) -> tuple[str, object]:
        """Read up to an object's content: ('map' | 'array', entries), ('str' | 'bin' | 'ext', bytes), ('value', it)."""
        self.objects += 1
        if self.objects > _MAX_OBJECTS:
            raise self.fail(f'more than {_MAX_OBJECTS} objects, a checkpoint has a few thousand')
        byte = self.read(1)[0]
        if byte <= 0x7f:
            return 'value', byte
        if byte <= 0x8f:
            return 'map', byte & 0x0f
        if byte <= 0x9f:
            return 'array', byte & 0x0f
        if byte <= 0xbf:
            return 'str', byte & 0x1f
        if byte >= 0xe0:
            return 'value', byte - 256
        if byte in _SIZED:
            kind, width = _SIZED[byte]
            return kind, int.from_bytes(self.read(width), 'big')
        if byte in _FIXED_EXT:
            return 'ext', _FIXED_EXT[byte]
        if byte in _NUMBERS:
            return 'value', struct.unpack(_NUMBERS[byte], self.read(struct.calcsize(_NUMBERS[byte])))[0]
        if byte in _CONSTANTS:
            return 'value', _CONSTANTS[byte]
        raise self.fail(f'byte {byte:#x} is not msgpack')

    def skip(self) -> None:
        """Pass over one object, whatever is in it."""
        pending = 1
        while pending:
            pending -= 1
            kind, n = self.header()
            if kind in ('map', 'array'):
                pending += n * (2 if kind == 'map' else 1)
            elif kind != 'value':
                n += kind == 'ext'  # the type byte
                self.need(n)
                self.file.seek(n, 1)

    def text(self) -> str:
        """Read one short string."""
        kind, n = self.header()
        if kind != 'str' or n > _MAX_NAME_BYTES:
            raise self.fail(f'expected a name, found {kind} {n}')
        try:
            return self.read(n).decode()
        except UnicodeDecodeError as e:
            raise self.fail(f'name is not UTF-8: {e}') from e

    def leaf(self, name: str) -> np.ndarray:
        """Read a number, or the float32 array in an extension of flax's: [shape, dtype, little-endian bytes]."""
        kind, n = self.header()
        if kind == 'value' and isinstance(n, (int, float)):
            return np.asarray(n)
        if kind != 'ext':
            raise self.fail(f'{name} is a {kind}, expected an array')
        code = self.read(1)[0]
        if code not in (_EXT_ARRAY, _EXT_SCALAR):
            raise self.fail(f'{name} has msgpack extension type {code}, expected {_EXT_ARRAY} (array)')
        if n > _MAX_LEAF_BYTES:
            raise self.fail(f'{name} has {n} bytes, more than any array of a critic')
        end = self.file.tell() + n
        if self.header() != ('array', 3):
            raise self.fail(f'{name} is not [shape, dtype, bytes]')
        kind, dimensions = self.header()
        if kind != 'array' or dimensions > 4:
            raise self.fail(f'{name} has no shape')
        sizes = [self.header() for _ in range(dimensions)]
        if not all(kind == 'value' and isinstance(size, int) and size >= 0 for kind, size in sizes):
            raise self.fail(f'{name} has an impossible shape: {sizes}')
        shape = tuple(size for _, size in sizes)
        dtype = self.text()
        kind, count = self.header()
        if dtype not in ('float32', 'int32', 'int64') or (dtype != 'float32' and shape):
            raise self.fail(f'{name} is {dtype}{list(shape)}, expected float32')
        width = np.dtype(dtype).itemsize
        if kind != 'bin' or count != math.prod(shape) * width or self.file.tell() + count != end:
            raise self.fail(f'{name} of shape {list(shape)} does not fit its {count} bytes')
        self.need(count)
        array = np.empty(shape, np.dtype(dtype).newbyteorder('<'))
        if count:
            self.file.readinto(array.reshape(-1).view(np.uint8))
        return array


def read_leaves(path: Path, network: str = 'target_params') -> tuple[dict[str, np.ndarray], int, set[str]]:
    """Return the critic's arrays by name, the training step, and the names of all networks in the file.

    Args:
        path: the msgpack file.
        network: `target_params` or `params`.

    Raises:
        CheckpointError: truncated, not msgpack, or not such a checkpoint.

    """
    wanted, leaves, found = ('state', network, 'modules_critic'), {}, {'step': 0}
    networks: set[str] = set()

    def walk(reader: Reader, place: tuple[str, ...]) -> None:
        if len(place) > _MAX_DEPTH:
            raise reader.fail(f'{"/".join(place[:5])}/... is nested more than {_MAX_DEPTH} deep')
        kind, entries = reader.header()
        if kind != 'map':
            raise reader.fail(f'{"/".join(place) or "the file"} is a {kind}, expected a map')
        for _ in range(entries):
            child = (*place, reader.text())
            if place == ('state', network):
                networks.add(child[-1])
            if child == ('state', 'step'):
                found['step'] = int(reader.leaf('state/step'))
            elif child == wanted[:len(child)]:
                walk(reader, child)
            elif place[:3] != wanted:
                reader.skip()
            elif _is_map(reader):
                walk(reader, child)
            else:
                name = '/'.join(child[3:])
                if name in leaves:
                    raise reader.fail(f'{name} occurs twice')
                leaves[name] = reader.leaf(name)

    with path.open('rb') as file:
        reader = Reader(file, path.stat().st_size)
        walk(reader, ())
        if file.tell() != reader.size:
            raise reader.fail(f'{reader.size - file.tell()} bytes follow the checkpoint')
    if not leaves:
        raise CheckpointError(f'{path}: there is no {"/".join(wanted)} in it')
    return leaves, found['step'], networks


def _is_map(reader: Reader) -> bool:
    byte = reader.read(1)[0]
    reader.file.seek(-1, 1)
    return 0x80 <= byte <= 0x8f or byte in (0xde, 0xdf)


def find_file(path: Path) -> Path:
    """Return the msgpack file of a checkpoint given as a file or as the directory orbax makes around it."""
    if path.is_file():
        return path
    if store := foreign.orbax(path):  # the file 'checkpoint' beside such arrays holds their names alone
        raise CheckpointError(f'{path} {store}')
    if (path / 'checkpoint').is_file():
        return path / 'checkpoint'
    if not path.is_dir():
        raise CheckpointError(f'{path}: no such file or directory')
    if (known := foreign.describe(path)) and 'authors' not in known:
        raise CheckpointError(f'{path} {known}')
    inside = ', '.join(sorted(entry.name for entry in path.iterdir())[:10])
    raise CheckpointError(f"{path}: holds no file 'checkpoint' (but {inside or 'nothing'}): give checkpoint_<step>")


def import_reference(source: Path, target: Path, *, action_space: ActionSpace, network: str = 'target_params',
                     image_size: int = 256, data: str = '') -> CriticConfig:
    """Write `source`'s critic into the folder `target` and return its configuration; see `Import` for the arguments.

    Raises:
        CheckpointError: the source is not a checkpoint of the authors' code, or the target is taken.

    """
    if (target / checkpoint.CONFIG).exists():
        raise CheckpointError(f'{target}: holds a critic already, choose another folder')
    path = find_file(source)
    leaves, step, networks = read_leaves(path, network)
    try:
        config = flax_names.infer_config({name: np.shape(leaf) for name, leaf in leaves.items()}, image_size)
        state = flax_names.convert(leaves, config)
    except (KeyError, IndexError) as e:
        raise CheckpointError(f'{path}: modules_critic: missing or of the wrong shape: {e}') from e
    except ValueError as e:
        raise CheckpointError(f'{path}: modules_critic: {e}') from e
    for name, array in state.items():
        if not np.isfinite(array).all():
            raise CheckpointError(f'{path}: {name} holds NaN or inf')
    algorithm = 'iql' if 'modules_value' in networks else 'cal-ql'
    critic = CriticConfig(action_space, config, algorithm=f'{algorithm}, reference code', data=data, step=step)
    checkpoint.write(target, state, critic)
    return critic


@dataclass
class Import:
    """Turn a checkpoint of the authors' JAX code into a folder that this project steers with; needs numpy alone.

    Example: vgps-import-reference checkpoint_500000 my_critic --action-space bridge

    Next: vgps-run robot critic:=my_critic, or score recordings first: vgps-evaluate bag runs --critic my_critic
    """

    checkpoint: Annotated[Path, tyro.conf.Positional]
    """checkpoint_<step>: the folder or the file in it"""
    out: Annotated[Path, tyro.conf.Positional]
    """folder to write, which must not hold a critic yet"""
    action_space: str = 'bridge'
    """bounds of the actions: bridge or fractal (those of the reference evaluation code, most likely those of the
    published critic), or a .json file with rule, low and high"""
    online: bool = False
    """import the online critic instead of the target critic"""
    image_size: int = 256
    """side of the image it was trained on [pixels], at least 1"""
    data: str = 'bridge + fractal'
    """what it was trained on, for the model card"""


def main() -> None:
    """Run the command line."""
    options = command_line.read(Import, 'vgps-import-reference')
    with command_line.refusing('vgps-import-reference', OSError, TypeError, ValueError):
        if options.image_size < 1:
            raise ValueError(f'--image-size must be at least 1, not {options.image_size}')
        action_space = (ActionSpace(**json.loads(Path(options.action_space).read_text()))
                        if options.action_space.endswith('.json') else ActionSpace.named(options.action_space))
        critic = import_reference(
            options.checkpoint, options.out, action_space=action_space, image_size=options.image_size,
            network='params' if options.online else 'target_params', data=options.data)
    print(f'{options.out}: {critic.network}, step {critic.step}\nNext: vgps-run robot critic:={options.out}')


if __name__ == '__main__':
    main()
