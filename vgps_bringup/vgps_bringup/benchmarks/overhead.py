"""``vgps-evaluate overhead``: what steering costs on this machine, in the layout of the paper's Table 9.

The paper's table has Octo-small alone and V-GPS with K = 10, 30, 50, 100; here both with the image encoder after the
policy, as the reference does it, and beside it, as the live node does (contract 5: encode while the policy samples).
"""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from vgps_critic.steering import Steerer, SteeringConfig
from vgps_policy_bridge.policy import Observation

PAPER = {1: 1.00, 10: 1.28, 30: 1.46, 50: 1.59, 100: 2.12}  # Table 9: Octo-small on the authors' GPU


@dataclass(frozen=True)
class OverheadRow:
    """One line of the table."""

    method: str
    seconds: float            # median inference time of a step
    overhead: float           # against the policy alone
    overlapped_seconds: float  # with the encoder beside the policy
    overlapped: float
    paper: float | None       # overhead the paper reports


def median_seconds(run: Callable[[], object], repetitions: int) -> float:
    """Return the median time of a call, after two that are not counted."""
    times = []
    for i in range(repetitions + 2):
        began = time.perf_counter()
        run()
        if i >= 2:
            times.append(time.perf_counter() - began)
    return float(np.median(times))


def measure(policy, critic, ks: tuple[int, ...], repetitions: int = 20, image_size: int = 256,
            instruction: str = 'put the eggplant in the basket') -> list[OverheadRow]:
    """Time the policy alone (K = 1), then a steered step for each K."""
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

        alone = median_seconds(lambda: policy.propose(seen, 1), repetitions)
        rows = [OverheadRow('policy alone', alone, 1.0, alone, 1.0, PAPER[1])]
        for k in ks:
            plain = median_seconds(lambda k=k: after(k), repetitions)
            quick = median_seconds(lambda k=k: overlapped(k), repetitions)
            rows.append(OverheadRow(f'steered, K = {k}', plain, plain / alone, quick, quick / alone, PAPER.get(k)))
    return rows


def markdown(rows: list[OverheadRow], names: str) -> str:
    """Return the table."""
    lines = [f'{names}', '', '| Method | Inference time (s) | Overhead | with overlap (s) | Overhead | paper (GPU) |',
             '|---|---|---|---|---|---|']
    for row in rows:
        paper = f'{row.paper:.2f}' if row.paper else '–'
        lines.append(f'| {row.method} | {row.seconds:.4f} | {row.overhead:.2f} | {row.overlapped_seconds:.4f} | '
                     f'{row.overlapped:.2f} | {paper} |')
    return '\n'.join(lines) + '\n'
