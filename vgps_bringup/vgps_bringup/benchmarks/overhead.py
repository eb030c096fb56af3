"""``vgps-evaluate overhead``: what steering costs on this machine, in the layout of the paper's Table 9.

The paper's table has Octo-small alone and V-GPS with K = 10, 30, 50, 100; here both with the image encoder after the
policy, as the reference does it, and beside it, as the live node does (contract 5: encode while the policy samples).
"""

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from vgps_critic.steering import Steerer, SteeringConfig
from vgps_policy_bridge.policy import Observation

PAPER = {1: 1.00, 10: 1.28, 30: 1.46, 50: 1.59, 100: 2.12}  # Table 9: Octo-small on the authors' GPU
UNCOUNTED = 2    # first calls, which warm up
WIDE = 0.5       # quartile range over median of the policy alone from which on the machine is called busy
OWN_LOAD = 1.0   # of this measurement itself, in the load average


@dataclass(frozen=True)
class Times:
    """Inference times of a step [s]."""

    median: float
    quartiles: tuple[float, float]  # a quarter of the steps was faster, a quarter slower

    @classmethod
    def of(cls, seconds: list[float]) -> 'Times':
        """Summarise."""
        low, median, high = np.percentile(seconds, (25, 50, 75)).tolist()
        return cls(median, (low, high))

    def __str__(self) -> str:
        return f'{self.median:.4f} [{self.quartiles[0]:.4f}, {self.quartiles[1]:.4f}]'


@dataclass(frozen=True)
class OverheadRow:
    """One line of the table."""

    method: str
    times: Times              # of a step
    overhead: float           # of the medians, against the policy alone
    overlapped_times: Times   # with the encoder beside the policy
    overlapped: float
    paper: float | None       # overhead the paper reports


def measure(policy, critic, ks: tuple[int, ...], repetitions: int = 20, image_size: int = 256,
            instruction: str = 'put the eggplant in the basket') -> list[OverheadRow]:
    """Time the policy alone (K = 1) and a steered step for each K, in turns: what else runs then slows all alike."""
    image = np.random.default_rng(0).integers(0, 255, (image_size, image_size, 3), np.uint8)
    seen = Observation(image, 0.0, np.array([0.3, 0, 0.15, 0, 0, 0, 1], np.float32))
    steerer = Steerer(critic, SteeringConfig())
    policy.reset(instruction, 0)
    critic.encode(image, instruction)  # the instruction is embedded once per episode

    def after(k: int) -> None:
        candidates = policy.propose(seen, k)
        steerer.decide(steerer.encode(image, instruction), candidates.actions, seed=0)

    with ThreadPoolExecutor(1) as beside:
        def overlapped(k: int) -> None:
            encoding = beside.submit(steerer.encode, image, instruction)
            candidates = policy.propose(seen, k)
            steerer.decide(encoding.result(), candidates.actions, seed=0)

        runs = {('alone', 1): lambda: policy.propose(seen, 1)}
        for k in ks:
            runs |= {('after', k): lambda k=k: after(k), ('beside', k): lambda k=k: overlapped(k)}
        times = _in_turns(runs, repetitions)
    alone = times['alone', 1]
    rows = [OverheadRow('policy alone', alone, 1.0, alone, 1.0, PAPER[1])]
    return rows + [OverheadRow(
        f'steered, K = {k}', times['after', k], times['after', k].median / alone.median, times['beside', k],
        times['beside', k].median / alone.median, PAPER.get(k)) for k in ks]


def _in_turns(runs: dict[tuple[str, int], Callable[[], object]], repetitions: int) -> dict[tuple[str, int], Times]:
    seconds = {name: [] for name in runs}
    for turn in range(repetitions + UNCOUNTED):
        for name, run in runs.items():
            began = time.perf_counter()
            run()
            if turn >= UNCOUNTED:
                seconds[name].append(time.perf_counter() - began)
    return {name: Times.of(values) for name, values in seconds.items()}


def doubts(rows: list[OverheadRow], load: float, cores: int) -> str:
    """Say what speaks against the figures, or nothing.

    Args:
        rows: of `measure`.
        load: average of the last minute when the measurement began.
        cores: that this process may use.

    """
    alone = rows[0].times
    found = []
    if load + OWN_LOAD > cores:
        found.append(f'the load was {load:.1f} on {cores} cores before the measurement began')
    if alone.quartiles[1] - alone.quartiles[0] > WIDE * alone.median:
        found.append('the times of the policy alone lie far apart, half of them between '
                     f'{alone.quartiles[0]:.4f} and {alone.quartiles[1]:.4f} s')
    below = [row.method for row in rows[1:] if min(row.overhead, row.overlapped) < 1]
    if below:
        found.append(f'less time with than without the critic ({", ".join(below)}) cannot be')
    return f'The machine was busy: {"; ".join(found)}. Measure again when nothing else runs.' if found else ''


def busy() -> tuple[float, int]:
    """Return the load average of the last minute and how many cores this process may use."""
    return os.getloadavg()[0], len(os.sched_getaffinity(0))


def _ratio(value: float) -> str:
    return f'{value:.2f}' if value >= 1 else 'not measurable'


def markdown(rows: list[OverheadRow], names: str, doubt: str = '') -> str:
    """Return the table, with what speaks against it above."""
    lines = [names, *(['', f'**{doubt}**'] if doubt else []), '',
             '| Method | Inference time (s): median [quartiles] | Overhead | with overlap (s) | Overhead | paper |',
             '|---|---|---|---|---|---|']
    for row in rows:
        paper = f'{row.paper:.2f}' if row.paper else '–'
        lines.append(f'| {row.method} | {row.times} | {_ratio(row.overhead)} | {row.overlapped_times} | '
                     f'{_ratio(row.overlapped)} | {paper} |')
    return '\n'.join(lines) + '\n'
