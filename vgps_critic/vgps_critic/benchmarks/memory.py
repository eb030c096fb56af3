"""Resident memory of a steering process over many frames.

    python -m vgps_critic.benchmarks.memory --frames 10000

Frames go through the same code as in `critic_node`; the small critic (`--num-filters 8`) makes 10,000 of them quick.
"""

import os
from typing import Literal

import numpy as np

from vgps_critic.critic import Critic
from vgps_critic.runtime import RUNTIMES
from vgps_critic.steering import Steerer, SteeringConfig, step_seed
from vgps_msgs_py import command_line


def resident() -> float:
    """Return this process's resident memory in MB (Linux)."""
    with open('/proc/self/statm') as file:
        return int(file.read().split()[1]) * os.sysconf('SC_PAGE_SIZE') / 1e6


def main(*, frames: int = 10_000, num_filters: int = 64, image_size: int = 256, k: int = 50,
         runtime: Literal[tuple(RUNTIMES)] = 'torch') -> None:
    """Print resident memory ten times over a run.

    Args:
        frames: how many, at least 1
        num_filters: 64 is the published width
        image_size: of the critic's input [pixels]
        k: candidates per frame, 1 .. 1000
        runtime: what computes the encoder

    """
    critic = Critic.untrained(num_filters=num_filters, image_size=image_size, options=dict(runtime=runtime))
    steerer, rng = Steerer(critic, SteeringConfig(beta=0.1)), np.random.default_rng(0)
    for step in range(frames + 1):
        image = rng.integers(0, 256, (480, 640, 3), np.uint8)
        actions = rng.uniform(-0.05, 0.05, (k, 1, 7)).astype(np.float32)
        steerer.decide(steerer.encode(image, f'task {step // 100}'), actions, seed=step_seed(0, step))
        if step % max(frames // 10, 1) == 0:
            print(f'{step:6d} frames: {resident():.0f} MB', flush=True)


if __name__ == '__main__':
    command_line.read(main, 'memory', description=__doc__)
