"""Camera frames that stay encoded in their files until a batch asks for them."""
import functools
import io
import logging
import os
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image

from vgps_msgs_py import images

OPEN_FILES = 256  # per process; a data set has a thousand shards
JPEG = b'\xff\xd8\xff'

logger = logging.getLogger(__name__)


class _File:
    """A file that is read at random: the kernel is told not to read ahead, since what follows is another moment."""

    def __init__(self, path: str):
        self.handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        if hasattr(os, 'posix_fadvise'):
            os.posix_fadvise(self.handle, 0, 0, os.POSIX_FADV_RANDOM)

    def __del__(self, close=os.close):  # bound here: when the interpreter ends, `os` may be gone before this
        if hasattr(self, 'handle'):
            close(self.handle)


@functools.lru_cache(maxsize=OPEN_FILES)
def open_file(path: str) -> _File:
    """Return a file that is open for reading at random."""
    return _File(path)


def read(path: str, offset: int, size: int) -> bytes:
    """Return bytes of a file, exactly those and none around them. Raises OSError where they are not there."""
    data = os.pread(open_file(path).handle, size, offset)
    if len(data) != size:
        raise OSError(f'{path}: {size} bytes at {offset} are missing, the file is cut short')
    return data


@functools.lru_cache(maxsize=1)
def _jpeg():
    try:
        import simplejpeg
    except ImportError as error:  # Pillow would do, with other pixels: no stand-in
        raise ImportError('training on JPEG frames needs: pip install simplejpeg') from error
    return simplejpeg


def orientation(data: bytes) -> int:
    """Return how EXIF says that a picture is to be turned, 1: not at all."""
    if data.find(b'Exif\0\0', 0, 256) < 0:  # it stands at the beginning; nearly no camera of a robot writes it
        return 1
    try:
        return int(Image.open(io.BytesIO(data)).getexif().get(0x0112, 1))
    except Exception:  # damaged: whoever decodes the picture says so
        return 1


def decode(data: bytes, out: np.ndarray | None = None) -> np.ndarray:
    """Return (H, W, 3) uint8 RGB of an encoded image, in `out` if it is given.

    JPEG is decoded as the authors' TensorFlow does (fast integer DCT, smooth upsampling): bit by bit the same pixels.
    Pillow's differ by up to 17 levels. One that EXIF turns comes upright, as live. Raises what the decoder has for a
    damaged image.
    """
    if data[:3] == JPEG and orientation(data) == 1:
        return _jpeg().decode_jpeg(data, 'RGB', fastdct=True, buffer=out)
    pixels = images.decode(data)
    if out is None:
        return pixels
    out[...] = pixels
    return out


def shape(data: bytes) -> tuple[int, int]:
    """Return height and width of an encoded image without decoding it."""
    size = _jpeg().decode_jpeg_header(data)[:2] if data[:3] == JPEG else Image.open(io.BytesIO(data)).size[::-1]
    return size[::-1] if orientation(data) >= 5 else size  # turned by a quarter


class EncodedTable:
    """Frames of N steps: where each lies, and how it is read. 16 bytes a step, or none where the arrays are mapped."""

    def __init__(self, files: Sequence[str], starts: np.ndarray, file: np.ndarray, offset: np.ndarray,
                 size: np.ndarray, image_size: int):
        """Prepare.

        Args:
            files: paths.
            starts: (M,) first step of each episode.
            file: (M,) int, index into `files` of each episode.
            offset: (N,) int64, first byte of each frame.
            size: (N,) int32, bytes of each frame.
            image_size: side of the critic's input, pixels.

        """
        self.files, self.starts, self.file, self.offset, self.size = files, starts, file, offset, size
        self.image_size = image_size

    def encoded(self, step: int) -> bytes:
        """Return a frame as it is in its file. Raises OSError where it is not there."""
        file = self.files[self.file[int(np.searchsorted(self.starts, step, 'right')) - 1]]
        return read(file, int(self.offset[step]), int(self.size[step]))

    def __getitem__(self, step: int) -> np.ndarray:
        """Return (H, W, 3) uint8 of a step in the camera's size; of a damaged frame, the one before it in its episode.

        Found while training, hours of work are worth more than one picture. Raises where the episode has none.
        """
        first = int(self.starts[int(np.searchsorted(self.starts, step, 'right')) - 1])
        for at in range(int(step), first - 1, -1):
            try:
                return decode(self.encoded(at))
            except Exception as error:  # a decoder raises whatever its library has
                if at == first or isinstance(error, ImportError):
                    raise
                logger.warning('step %d cannot be decoded (%s); the frame before it is used', at, type(error).__name__)
        raise IndexError(step)

    def groups(self, steps: np.ndarray, buffers: 'Buffers') -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Return frames of steps (n,) by camera size: positions (m,) among the steps, frames (m, H, W, 3) uint8.

        Frames are decoded where they will lie.
        """
        found: list[bytes | np.ndarray] = []
        shapes = []
        for step in steps:
            try:
                found.append(self.encoded(int(step)))
                shapes.append((*shape(found[-1]), 3))
            except Exception:  # see __getitem__, which goes back to a frame that is whole, or raises
                found[len(shapes):] = [self[step]]
                shapes.append(found[-1].shape)
        result = stack(shapes, buffers)
        for rows, frames in result:
            for pixels, i in zip(frames.numpy(), rows.tolist()):
                try:
                    decode(found[i], pixels)
                except Exception:  # its header is whole, its pixels are not; or it was decoded above
                    pixels[...] = self[steps[i]]
        return result


class LazyFrames:
    """Frames of episodes of any reader, each decoded when it is asked for."""

    def __init__(self, episodes: list[Sequence], starts: np.ndarray, image_size: int):
        self.episodes, self.starts, self.image_size = episodes, starts, image_size

    def __getitem__(self, index: int) -> np.ndarray:
        """Return (H, W, 3) uint8 in the camera's size; of a damaged frame, the one before it in its episode."""
        episode = int(np.searchsorted(self.starts, index, 'right')) - 1
        step = index - int(self.starts[episode])
        try:
            return np.asarray(self.episodes[episode][step])
        except Exception as error:  # found while training: hours of work are worth more than one picture
            logger.warning('step %d of episode %d cannot be decoded (%s); the frame before it is used', step, episode,
                           type(error).__name__)
            if step == 0:
                raise
            return self[index - 1]

    def groups(self, steps: np.ndarray, buffers: 'Buffers') -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Return frames of steps (n,) by camera size: positions (m,) among the steps, frames (m, H, W, 3) uint8."""
        found = [self[int(step)] for step in steps]
        result = stack([frame.shape for frame in found], buffers)
        for rows, frames in result:
            np.stack([found[i] for i in rows.tolist()], out=frames.numpy())
        return result


class Buffers:
    """Memory for the frames of one batch after the other, in turn: pages are made once, not for every batch.

    In a worker process it is shared memory, from which the training process reads without a copy. DataLoader gives a
    worker the task after `ahead` others when the first of them has been taken, so `ahead` + 2 turns never meet.
    """

    def __init__(self, ahead: int):
        self._turns, self._turn = [torch.empty(0, dtype=torch.uint8)] * (ahead + 2), -1

    def next(self, count: int) -> torch.Tensor:
        """Return (count,) uint8, uninitialised."""
        if torch.utils.data.get_worker_info() is None:
            return torch.empty(count, dtype=torch.uint8)
        self._turn = (self._turn + 1) % len(self._turns)
        if len(self._turns[self._turn]) < count:
            storage = torch.UntypedStorage._new_shared(count + count // 4)  # sizes differ from batch to batch
            self._turns[self._turn] = torch.empty(0, dtype=torch.uint8).set_(storage)
        return self._turns[self._turn][:count]


def stack(shapes: Sequence[tuple[int, ...]], buffers: Buffers) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Return for every shape that occurs: positions (m,) of it, and memory (m, *shape) uint8."""
    kinds = sorted(set(shapes))
    memory = buffers.next(sum(int(np.prod(shape)) for shape in shapes))
    result, at = [], 0
    for kind in kinds:
        rows = [i for i, shape in enumerate(shapes) if shape == kind]
        count = len(rows) * int(np.prod(kind))
        result.append((torch.tensor(rows), memory[at:at + count].view(len(rows), *kind)))
        at += count
    return result
