"""What a start costs on a set of the paper's size that is already indexed: time, bytes read, memory of four processes.

    python -m vgps_training.benchmarks.start

The index is written as the first start writes it, for 150,000 episodes of 40 steps, and so are the embeddings of
20,000 instructions; the images it points to do not exist, since a start reads none. Memory is what the processes hold
beyond the program itself (proportional set size: what they share counts once).
"""
import multiprocessing
import os
import tempfile
import time
from pathlib import Path

import numpy as np

from vgps_critic.text import InstructionEncoder
from vgps_msgs_py import command_line
from vgps_training.data import index, normalisation
from vgps_training.data.augmentation import AugmentationConfig
from vgps_training.data.encoded import EncodedTable
from vgps_training.data.labels import LabelConfig
from vgps_training.data.sampling import Sampler
from vgps_training.data.splits import held_out
from vgps_training.data.table import Report, StepTable, data_digest
from vgps_training.run.validation import Validation

EPISODES, LENGTH, PROCESSES = 150_000, 40, 4
FRAME = 20_000  # bytes of an encoded frame
INSTRUCTIONS = 20_000


def write(folder: Path) -> None:
    """Write the index of a made-up set."""
    random, steps = np.random.default_rng(0), EPISODES * LENGTH
    starts = np.arange(0, steps, LENGTH)
    file = (np.arange(EPISODES) // 150).astype(np.int32)
    files = tuple(f'/data/bridge_dataset-train.tfrecord-{i:05d}-of-01000' for i in range(1000))
    frames = EncodedTable(files, starts, file, np.arange(steps, dtype=np.int64) * FRAME,
                          np.full(steps, FRAME, np.int32), 256)
    table = StepTable(frames, random.normal(0, 0.02, (steps, 7)).astype(np.float32), starts,
                      random.integers(0, INSTRUCTIONS, EPISODES, dtype=np.int32), np.ones(EPISODES, np.int8),
                      np.zeros(EPISODES, np.int32), tuple(f'put object {i} in the pot' for i in range(INSTRUCTIONS)),
                      tuple(f'{files[i // 150]}#{i % 150}' for i in range(EPISODES)))
    index._write(folder, table, Report(EPISODES, steps))


def encode(text: str) -> np.ndarray:
    """Return what stands for an embedding: a start computes none, so that its values do not matter."""
    return np.full(512, hash(text) % 97, np.float32)


def start(folder: Path, ready: multiprocessing.Barrier, told: multiprocessing.Queue) -> None:
    """Do what a process of a run does with its data before the first batch, and tell what it took."""
    before, began, cpu = proportional(), time.perf_counter(), time.process_time()
    table, _ = index._load(folder, 256)
    embeddings = InstructionEncoder('made up', encode, 'made up').encode_all(table.instructions)
    training, validation = held_out(table, 0.05)
    selection = table.select(training)
    space = normalisation.fit('quantiles', table.actions, 'this', selection.steps())
    data_digest(table)
    sampler = Sampler(selection, 0.98, LabelConfig(), space.normalize, embeddings, batch_size=512, seed=0,
                      augmentation=AugmentationConfig())
    kept = Validation(table, validation, 0.98, LabelConfig(), embeddings, space)
    sampler.indices(0)
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    ready.wait()
    told.put((seconds, cpu, proportional() - before))
    ready.wait()
    del kept


def proportional() -> float:
    """Return this process's proportional set size, bytes."""
    for line in Path(f'/proc/{os.getpid()}/smaps_rollup').read_text().splitlines():
        if line.startswith('Pss:'):
            return 1024 * float(line.split()[1])
    return float('nan')


def main() -> None:
    """Print the figures; a minute."""
    with tempfile.TemporaryDirectory() as temporary:
        os.environ['XDG_CACHE_HOME'] = temporary
        folder = Path(temporary) / 'index'
        write(folder)
        InstructionEncoder('made up', encode, 'made up').encode_all(index._load(folder, 256)[0].instructions)
        size = sum(path.stat().st_size for path in folder.iterdir())
        context = multiprocessing.get_context('spawn')
        ready, told = context.Barrier(PROCESSES), context.Queue()
        processes = [context.Process(target=start, args=(folder, ready, told)) for _ in range(PROCESSES)]
        for process in processes:
            process.start()
        rows = [told.get() for _ in processes]
        for process in processes:
            process.join()
    print(f'{EPISODES} episodes, {EPISODES * LENGTH} steps; index: {size / 1e6:.0f} MB, '
          f'{size / (EPISODES * LENGTH * FRAME):.2%} of the images')
    print(f'{PROCESSES} processes at once: {max(row[0] for row in rows):.1f} s elapsed, '
          f'{np.mean([row[1] for row in rows]):.1f} s of CPU each, {sum(row[2] for row in rows) / 1e6:.0f} MB together')


if __name__ == '__main__':
    command_line.read(main, 'start', description=__doc__)
