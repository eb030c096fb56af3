"""CPU time that feeding one transition (s and s') costs before the training device takes over.

    python -m vgps_training.benchmarks.loader --quick      # a minute
    python -m vgps_training.benchmarks.loader              # more batches, steadier figures

Frames of Bridge's and Fractal's sizes are made and encoded as theirs are. CPU time of all processes is counted, not
elapsed time, so that other load on the machine changes little; ratios are against the first row of the same run, the
way frames were fed before: memory map, Pillow, resize and augmentation on the CPU, one BLAS thread. Files are in the
page cache: what a disk adds is not in these figures. Where TensorFlow is installed, or in the environment that
--authors-python names, the authors' tf.data pipeline is fed the same frames.
"""
import importlib.util
import io
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from vgps_msgs_py import command_line
from vgps_msgs_py.lanczos import resize
from vgps_training.data import pack
from vgps_training.data.augmentation import AugmentationConfig, augment, draw
from vgps_training.data.encoded import EncodedTable
from vgps_training.data.labels import LabelConfig
from vgps_training.data.sampling import Sampler
from vgps_training.data.table import StepTable, read_table, save

KINDS = {'Bridge-like': (256, 256), 'Fractal-like': (256, 320)}  # height, width of the camera
SIZE = 256     # of the critic's input
BATCH = 64     # a GPU's share of the paper's 512, on eight
LENGTH = 40    # steps of an episode
QUALITY = 95   # of the JPEGs, what tensorflow_datasets writes
AUTHORS = Path(__file__).with_name('authors_pipeline.py')


def picture(random: np.random.Generator, height: int, width: int) -> bytes:
    """Return a JPEG whose size is that of a camera's: soft shapes with a little noise."""
    shapes = Image.fromarray(random.integers(0, 256, (height // 16, width // 16, 3), dtype=np.uint8))
    pixels = np.asarray(shapes.resize((width, height), Image.Resampling.BICUBIC), np.float32)
    noisy = np.clip(pixels + random.normal(0, 2, pixels.shape), 0, 255).astype(np.uint8)
    out = io.BytesIO()
    Image.fromarray(noisy).save(out, 'JPEG', quality=QUALITY)
    return out.getvalue()


def data_set(folder: Path, height: int, width: int, episodes: int) -> StepTable:
    """Write frames one behind the other into a file, as a record file holds them, and return their table."""
    random, count = np.random.default_rng(0), episodes * LENGTH
    encoded = [picture(random, height, width) for _ in range(count)]
    path = folder / f'{height}x{width}.bin'
    path.write_bytes(b''.join(encoded))
    size = np.array([len(data) for data in encoded], np.int32)
    starts = np.arange(0, count, LENGTH)
    frames = EncodedTable((str(path),), starts, np.zeros(episodes, np.int32), np.cumsum(size) - size, size, SIZE)
    return StepTable(frames, random.uniform(-1, 1, (count, 7)).astype(np.float32), starts,
                     np.zeros(episodes, np.int32), np.ones(episodes, np.int8), np.zeros(episodes, np.int32),
                     ('do it',), tuple(map(str, range(episodes))))


def sampler(table: StepTable, workers: int) -> Sampler:
    """Return a sampler over a whole table."""
    return Sampler(table.select(np.arange(len(table.starts))), 0.98, LabelConfig(), lambda actions: actions,
                   np.zeros((1, 512), np.float32), batch_size=BATCH, seed=0, augmentation=AugmentationConfig(),
                   workers=workers)


def before(table: StepTable, batches: int) -> Iterator[None]:
    """Feed as was done before: whole frames from a memory map to Pillow, resized and augmented on the CPU."""
    source = sampler(table, 0)
    data = np.memmap(table.frames.files[0], mode='r')
    for step in range(batches):
        chosen = np.concatenate(source.indices(step))
        images = []
        for at in chosen:
            offset, size = int(table.frames.offset[at]), int(table.frames.size[at])
            images.append(resize(np.asarray(Image.open(io.BytesIO(data[offset:offset + size])).convert('RGB')), SIZE))
        draws = draw(BATCH, AugmentationConfig(), torch.Generator().manual_seed(step))
        augment(torch.from_numpy(np.stack(images)), draws.repeat(2, 1))
        yield


def fed(table: StepTable, batches: int, workers: int) -> Iterator[None]:
    """Feed as training does, up to the batch that is copied to the device."""
    source = sampler(table, workers)
    source.finish = lambda raw, device: raw
    for _ in source.batches(0, batches):
        yield


def finished(table: StepTable, batches: int) -> Iterator[None]:
    """Do the device's part, resize and augmentation of one batch, on this CPU."""
    source = sampler(table, 0)
    raw = source[0]
    for _ in range(batches):
        source.finish(raw, torch.device('cpu'))
        yield


def authors(table: StepTable, python: str, batches: int, threads: int) -> float:
    """Return ms of CPU per transition of the authors' pipeline. Raises ValueError where `python` cannot run it."""
    with tempfile.TemporaryDirectory() as folder:
        frames = Path(folder) / 'frames.npz'
        np.savez(frames, data=np.fromfile(table.frames.files[0], np.uint8), sizes=table.frames.size)
        try:
            ended = subprocess.run([python, str(AUTHORS), *map(str, (frames, threads, BATCH, batches))],
                                   capture_output=True, text=True, env={
                                       **os.environ, 'CUDA_VISIBLE_DEVICES': '', 'TF_CPP_MIN_LOG_LEVEL': '3',
                                       'PYTHONPATH': ''})
        except OSError as error:
            raise ValueError(f'--authors-python: {error}') from error
    if ended.returncode:
        raise ValueError(f'{python} cannot run {AUTHORS.name}: {"".join(ended.stderr.strip().splitlines()[-1:])}')
    return float(ended.stdout)


def cpu_ms(feed: Callable[[], Iterator[None]], batches: int) -> float:
    """Return the CPU time of this process and its children per transition, ms."""
    def used() -> float:
        return sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    start = used()
    for _ in feed():
        pass
    return 1000 * (used() - start) / (batches * BATCH)


def rows(table: StepTable, saved: StepTable, packed: StepTable, batches: int, python: str
         ) -> Iterator[tuple[str, float]]:
    """Yield what was measured, and ms of CPU per transition."""
    few = max(2, batches // 10)
    yield 'before: memory map, Pillow, resize and augmentation on the CPU', cpu_ms(lambda: before(table, few), few)
    yield 'record files, 2 worker processes', cpu_ms(lambda: fed(table, batches, 2), batches)
    yield 'record files, in the training process', cpu_ms(lambda: fed(table, batches, 0), batches)
    for name, source in {'saved table (vgps-data save)': saved, 'packed (vgps-data pack)': packed}.items():
        yield f'{name}, 2 worker processes', cpu_ms(lambda source=source: fed(source, batches, 2), batches)
        yield f'{name}, in the training process', cpu_ms(lambda source=source: fed(source, batches, 0), batches)
    yield "the device's part, here on this CPU", cpu_ms(lambda: finished(table, few), few)
    if python:
        yield "the authors' tf.data pipeline, whole, 1 thread", authors(table, python, few, 1)
        yield "the authors' tf.data pipeline, whole, 2 threads", authors(table, python, few, 2)


def main(*, quick: bool = False, authors_python: str = '') -> None:
    """Print the tables.

    Args:
        quick: a tenth of the batches: a minute
        authors_python: Python interpreter of an environment with TensorFlow, for the authors' pipeline; by default this
            one, if it has it

    """
    batches = 40 if quick else 400
    python = authors_python or (sys.executable if importlib.util.find_spec('tensorflow') else '')
    torch.set_num_threads(1)
    with command_line.refusing('loader', ValueError), tempfile.TemporaryDirectory() as folder:
        for kind, (height, width) in KINDS.items():
            table = data_set(Path(folder), height, width, episodes=6)
            save(table, Path(folder) / 'saved' / kind)
            pack.write(table, Path(folder) / 'packed' / kind)
            saved, packed = (read_table([Path(folder) / form / kind], SIZE, progress=False)[0]
                             for form in ('saved', 'packed'))
            print(f'{kind}: {height} x {width}, {table.frames.size.mean() / 1024:.0f} KB a frame; '
                  'ms of CPU a transition')
            baseline = None
            for name, ms in rows(table, saved, packed, batches, python):
                baseline = baseline or ms
                print(f'  {name:66s} {ms:7.2f}   {baseline / ms:6.1f} x', flush=True)
    print('on a GPU, resize and augmentation: not measured here')
    if not python:
        print("the authors' tf.data pipeline: not measured, TensorFlow is not installed here; --authors-python names "
              'the Python of an environment that has it')


if __name__ == '__main__':
    command_line.read(main, 'loader', description=__doc__)
