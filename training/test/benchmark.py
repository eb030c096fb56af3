"""How many transitions the loader feeds and one training step consumes, a second, and how fast small critics train.

    python test/benchmark.py PATH_TO_DATA [--full]

`--full` adds one Cal-QL step of the paper's network (256 pixels, 25.6 M parameters), a minute on a CPU. Its loader
decodes, resizes (Lanczos) and augments s and s' on demand (`--data.lazy`), the slowest way to feed.
"""
import dataclasses
import time
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import tyro

from vgps_critic.config import NetworkConfig
from vgps_msgs_py import command_line
from vgps_training.data.augmentation import AugmentationConfig
from vgps_training.data.labels import LabelConfig
from vgps_training.data.sampling import Sampler
from vgps_training.data.table import read_table
from vgps_training.run.config import ALGORITHMS, preset
from vgps_training.run.learner import Learner, OptimiserConfig

SMALL = preset('iql', 'small').network


def sampler(path, image_size, batch_size, lazy):
    table, _ = read_table([path], image_size, lazy=lazy, progress=False)
    embeddings = np.random.default_rng(0).normal(0, 0.04, (len(table.instructions), 512)).astype(np.float32)
    return Sampler(table.select(np.arange(len(table.starts))), 0.98, LabelConfig(),
                   lambda actions: np.clip(actions, -1, 1), embeddings, batch_size=batch_size, seed=0,
                   augmentation=AugmentationConfig())


def feed(source, count):
    """Return transitions per second of the loader alone."""
    source.batch(0)
    start = time.perf_counter()
    for step in range(1, count + 1):
        source.batch(step)
    return count * source.batch_size / (time.perf_counter() - start)


def consume(name, network, source, count):
    """Return transitions per second of training steps alone, on batches that are there."""
    kind = ALGORITHMS[name]
    learner = Learner(kind[1](kind[0](), network), OptimiserConfig(), torch.device('cpu'))
    batch, generator = source.batch(0), torch.Generator()
    noise = learner.algorithm.draw(source.batch_size, generator)
    if count > 1:
        learner.update(batch, noise)  # the first one also finds its memory
    start = time.perf_counter()
    for _ in range(count):
        learner.update(batch, noise)
    return count * source.batch_size / (time.perf_counter() - start)


def main(data: Annotated[Path, tyro.conf.Positional], *, full: bool = False) -> None:
    """Print the table.

    Args:
        data: data set
        full: one Cal-QL step of the paper's network too

    """
    for threads in (1, 2):
        torch.set_num_threads(threads)
        for size in (64, 96):
            source = sampler(data, size, 128, lazy=False)
            network = dataclasses.replace(SMALL, image_size=size)
            print(f'{threads} threads, {size} pixels: loader {feed(source, 8):6.0f} transitions/s; training '
                  + ', '.join(f'{name} {consume(name, network, source, 4):5.0f}' for name in ALGORITHMS), flush=True)
    if full:
        source = sampler(data, 256, 8, lazy=True)
        fed, used = feed(source, 6), consume('cal-ql', NetworkConfig(), source, 1)
        print(f'full width, 256 pixels, decoding on demand: loader {fed:.1f} transitions/s, Cal-QL {used:.2f}: '
              f'{fed / used:.0f} times what a step consumes')


if __name__ == '__main__':
    command_line.read(main, 'benchmark', description=__doc__)
