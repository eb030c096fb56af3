"""Frames at the critic's size in shards that a data set of any size is read from: a disk, NFS, an object store.

The shards are MDS, the format of mosaicml-streaming, and every sample tells all of its step; with the numbers beside
them the folder is a saved table too. Here exactly the bytes of a frame are read, into the memory of the batch. A shard
that is not in the folder is fetched from where the rest is kept, once (`remote.py`).
"""
import fcntl
import functools
import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from vgps_training.data.encoded import Buffers, open_file, stack
from vgps_training.data.remote import StoreError, fetch

SHARD_BYTES = 64 << 20  # about; a shard is fetched whole
BEFORE_FRAME = 4 + 28 + 8  # bytes of a sample: size of the instruction, action, episode


class PackedFrames:
    """Frames (N, S, S, 3) uint8 of a packed set, each read from its shard when it is asked for."""

    def __init__(self, folder: Path, told: dict):
        """Take what `table.json` tells: image_size, samples per shard, and the remote folder or ''."""
        self.folder, self.per_shard, self.remote = folder, told['samples'], told['remote']
        self.image_size = told['image_size']
        self.offset = np.load(folder / 'offset.npy', mmap_mode='r')  # (N,) int64, of each frame in its shard
        self.shape = (len(self.offset), self.image_size, self.image_size, 3)

    def __len__(self) -> int:
        return len(self.offset)

    def read(self, step: int, out: np.ndarray) -> None:
        """Read a frame into (S, S, 3) uint8. Raises StoreError where it cannot be had."""
        path = self.folder / shard_name(step // self.per_shard)
        try:
            file = open_file(str(path))
        except FileNotFoundError:
            self._fetch(path)
            file = open_file(str(path))
        if os.preadv(file.handle, [out], int(self.offset[step])) != out.nbytes:
            raise StoreError(f'{path} is cut short: copy it again, or remove it where it can be fetched')

    def _fetch(self, path: Path) -> None:
        if not self.remote:
            raise StoreError(f'{path} is missing, and the set names no place to fetch it from: copy it there, or write '
                             '"remote" into its table.json')
        told = json.loads((self.folder / 'index.json').read_text())['shards']
        sizes = {shard['raw_data']['basename']: shard['raw_data']['bytes'] for shard in told}
        if path.name not in sizes:
            raise StoreError(f'{self.folder / "index.json"} does not list {path.name}: it belongs to another set')
        with path.with_suffix('.lock').open('w') as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # of all processes that need it one fetches it
            try:
                if not path.exists():
                    fetch(f'{self.remote.rstrip("/")}/{path.name}', path, sizes[path.name])
            finally:
                path.with_suffix('.lock').unlink(missing_ok=True)

    def __getitem__(self, steps: int | slice | np.ndarray) -> np.ndarray:
        """Return (S, S, 3) uint8 of a step, or (n, S, S, 3) of several."""
        if isinstance(steps, int | np.integer):
            frame = np.empty(self.shape[1:], np.uint8)
            self.read(int(steps), frame)
            return frame
        chosen = np.arange(len(self))[steps]
        frames = np.empty((len(chosen), *self.shape[1:]), np.uint8)
        for step, frame in zip(chosen.tolist(), frames):
            self.read(step, frame)
        return frames

    def groups(self, steps: np.ndarray, buffers: Buffers) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Return positions (n,) among the steps and their frames (n, S, S, 3) uint8, read where they will lie."""
        result = stack([self.shape[1:]] * len(steps), buffers)
        for step, frame in zip(steps.tolist(), result[0][1].numpy()):
            self.read(step, frame)
        return result


def shard_name(number: int) -> str:
    """Return the file name of a shard."""
    return f'shard.{number:05d}.mds'


def columns(size: int) -> dict[str, tuple[str, int | None]]:
    """Return encoding and bytes (None: written before the sample) of every column, in their order in a sample."""
    return {'action': ('ndarray:float32:7', 28), 'episode': ('int', 8),
            'frame': (f'ndarray:uint8:{size},{size},3', 3 * size * size), 'instruction': ('str', None),
            'step': ('int', 8), 'success': ('int', 8)}


def samples_per_shard(size: int) -> int:
    """Return how many samples with frames of this size a shard holds."""
    return max(1, SHARD_BYTES // (3 * size * size))


@functools.cache
def _configuration(size: int) -> bytes:
    return json.dumps(_described(size), sort_keys=True).encode()


def _described(size: int) -> dict:
    names = columns(size)
    return {'column_encodings': [encoding for encoding, _ in names.values()], 'column_names': list(names),
            'column_sizes': [length for _, length in names.values()], 'compression': None, 'format': 'mds',
            'hashes': [], 'size_limit': None, 'version': 2}


def starts(lengths: np.ndarray, size: int) -> np.ndarray:
    """Return (n + 1,) uint32, where the samples of one shard with these lengths (n,) in bytes begin and end."""
    begin = 4 + 4 * (len(lengths) + 1) + len(_configuration(size))
    return begin + np.concatenate([[0], np.cumsum(lengths)]).astype(np.uint32)


def sample_bytes(instructions: Sequence[str], size: int) -> np.ndarray:
    """Return (I,) int64, the bytes of a sample with each instruction."""
    fixed = 4 + sum(length or 0 for _, length in columns(size).values())
    return np.array([fixed + len(text.encode()) for text in instructions], np.int64)


def write_shard(path: Path, samples: Sequence[tuple[np.ndarray, int, np.ndarray, str, int, int]], size: int) -> None:
    """Write samples (action, episode, frame, instruction, step, success); the file appears when it is complete."""
    texts = [sample[3].encode() for sample in samples]
    offsets = starts(sample_bytes([sample[3] for sample in samples], size), size)
    temporary = path.with_name(f'.{path.name}.{os.getpid()}')
    with temporary.open('wb') as file:
        file.write(np.uint32(len(samples)).tobytes() + offsets.astype('<u4').tobytes() + _configuration(size))
        for (action, episode, frame, _, step, success), text in zip(samples, texts):
            file.write(np.uint32(len(text)).tobytes() + action.astype('<f4').tobytes() + np.int64(episode).tobytes())
            file.write(np.ascontiguousarray(frame))
            file.write(text + np.array([step, success], '<i8').tobytes())
    temporary.replace(path)


def index(shards: Sequence[tuple[str, int, int]], size: int) -> dict:
    """Return what MDS' index.json tells of shards (name, number of samples, bytes)."""
    return {'version': 2, 'shards': [{**_described(size), 'samples': count, 'zip_data': None,
                                      'raw_data': {'basename': name, 'bytes': length, 'hashes': {}}}
                                     for name, count, length in shards]}
