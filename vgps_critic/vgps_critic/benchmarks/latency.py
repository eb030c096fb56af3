"""Time of one steering step against the number of candidates, and against repeating the image K times.

    python -m vgps_critic.benchmarks.latency --runtime onnxruntime

Everything is measured in one run on one machine: the step of this package (encode once, score K, select), the encoder
in plain eager torch, and the reference's way, which runs the encoder on K copies of the frame. What is compared takes
turns, so that other load on the machine falls on all of it alike; the K copies come last, once.
"""

import copy
import os
import platform
import time
from collections import defaultdict
from typing import Literal

import numpy as np
import torch

from vgps_critic.critic import Critic
from vgps_critic.runtime import PRECISIONS, RUNTIMES
from vgps_critic.selection import select
from vgps_msgs_py import command_line

K = (1, 10, 30, 50, 100, 1000)


def measure(critic: Critic, ks: tuple[int, ...], rounds: int) -> dict[tuple[int, str], list[float]]:
    """Return milliseconds per (K, stage) of `rounds` steps; stages encode, score, select, total."""
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (480, 640, 3), np.uint8)
    language = rng.normal(0, 0.04, critic.config.network.language_dim).astype(np.float32)
    times = defaultdict(list)
    for i in range(-2, rounds):  # two rounds of warm-up
        for k in rng.permutation(ks).tolist():
            actions = rng.uniform(-0.05, 0.05, (k, 7)).astype(np.float32)
            start = time.perf_counter()
            encoded = critic.encode(image, language)
            encode = time.perf_counter()
            q_values = critic.score(encoded, actions)
            score = time.perf_counter()
            select(q_values, 0.1, rng)
            end = time.perf_counter()
            if i >= 0:
                for stage, seconds in (('encode', encode - start), ('score', score - encode), ('select', end - score),
                                       ('total', end - start)):
                    times[k, stage].append(1e3 * seconds)
    return times


@torch.inference_mode()
def measure_plain(critic: Critic, rounds: int, repeat: int) -> tuple[list[float], list[float], list[float], float]:
    """Return ms of the critic's encoder, of plain eager float32 torch, of a step at K = `repeat`, all in turns.

    And then of plain eager torch on `repeat` copies, once.
    """
    plain = copy.deepcopy(critic.network.encoder).to(memory_format=torch.contiguous_format)
    size = critic.config.image_size
    image = torch.randint(0, 256, (1, size, size, 3), dtype=torch.uint8)
    language = torch.randn(1, critic.config.network.language_dim) * 0.04
    actions = np.random.default_rng(0).uniform(-0.05, 0.05, (repeat, 7)).astype(np.float32)

    def encode(encoder) -> None:
        encoder(image.to(critic.device), language.to(critic.device)).cpu()

    def step() -> None:
        critic.score(critic.encode(image[0].numpy(), language[0].numpy()), actions)

    ours, eager, steps = [], [], []
    for i in range(-2, rounds):
        for times, run in ((ours, lambda: encode(critic.encoder)), (eager, lambda: encode(plain)), (steps, step)):
            start = time.perf_counter()
            run()
            if i >= 0:
                times.append(1e3 * (time.perf_counter() - start))
    start = time.perf_counter()
    plain(image.repeat(repeat, 1, 1, 1).to(critic.device), language.to(critic.device)).cpu()
    return ours, eager, steps, 1e3 * (time.perf_counter() - start)


def percentiles(times: list[float]) -> str:
    """Return p50 and p95 as table cells."""
    return f'{np.percentile(times, 50):8.1f} | {np.percentile(times, 95):8.1f}'


def main(*, critic: str = 'untrained', runtime: Literal[tuple(RUNTIMES)] = 'torch',
         precision: Literal[tuple(PRECISIONS)] = 'float32', device: str = 'cpu', rounds: int = 20,
         repeat: int = 50) -> None:
    """Print the latency tables.

    Args:
        critic: checkpoint; untrained: random weights at the published width
        runtime: what computes the encoder
        precision: of the encoder
        device: cpu or cuda
        rounds: steps per K, at least 1
        repeat: K of the repeat-the-image baseline, at least 1

    """
    options = dict(runtime=runtime, precision=precision, device=device)
    loaded = Critic.untrained(options=options) if critic == 'untrained' else Critic.load(critic, **options)
    load = f'{os.getloadavg()[0]:.1f}' if hasattr(os, 'getloadavg') else '?'
    print(f'{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads, load {load}, '
          f'torch {torch.__version__}, {device}, runtime {runtime}, {precision}\n')
    times = measure(loaded, K, rounds)
    stages = ('encode', 'score', 'select', 'total')
    print('| K | ' + ' | '.join(f'{stage} p50 [ms] | p95' for stage in stages) + ' | total / K=1 |')
    print('|---' * 10 + '|')
    for k in K:
        ratio = np.median(times[k, 'total']) / np.median(times[1, 'total'])
        print(f'| {k} | ' + ' | '.join(percentiles(times[k, stage]) for stage in stages) + f' | {ratio:.2f} |')
    ours, eager, steps, repeated = measure_plain(loaded, rounds, repeat)
    print(f'\n| encoder | p50 [ms] | p95 |\n|---|---|---|\n| {runtime} | {percentiles(ours)} |'
          f'\n| plain eager float32 torch | {percentiles(eager)} |')
    print(f'\nencoder / eager: {np.median(ours) / np.median(eager):.2f}')
    step = np.median(steps)
    print(f'image repeated {repeat} times: {repeated:.0f} ms, {repeated / step:.0f} x a step of this package at '
          f'K = {repeat} just before ({step:.0f} ms)')


if __name__ == '__main__':
    command_line.read(main, 'latency', description=__doc__)
