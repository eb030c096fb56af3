"""Resident memory of a steering process over many frames.

    python -m vgps_critic.benchmarks.memory --frames 10000

Frames go through the same code as in `critic_node`; the small critic (`--num-filters 8`) makes 10,000 of them quick.
"""

import argparse
import os

import numpy as np

from vgps_critic.critic import Critic
from vgps_critic.runtime import RUNTIMES
from vgps_critic.steering import Steerer, SteeringConfig, step_seed


def resident() -> float:
    """Return this process's resident memory in MB (Linux)."""
    with open('/proc/self/statm') as file:
        return int(file.read().split()[1]) * os.sysconf('SC_PAGE_SIZE') / 1e6


def main() -> None:
    """Print resident memory ten times over a run."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument('--frames', type=int, default=10_000)
    parser.add_argument('--num-filters', type=int, default=64, help='64 is the published width')
    parser.add_argument('--image-size', type=int, default=256)
    parser.add_argument('--k', type=int, default=50, help='candidates per frame')
    parser.add_argument('--runtime', default='torch', choices=RUNTIMES)
    args = parser.parse_args()
    critic = Critic.untrained(num_filters=args.num_filters, image_size=args.image_size,
                              options=dict(runtime=args.runtime))
    steerer, rng = Steerer(critic, SteeringConfig(beta=0.1)), np.random.default_rng(0)
    for step in range(args.frames + 1):
        image = rng.integers(0, 256, (480, 640, 3), np.uint8)
        actions = rng.uniform(-0.05, 0.05, (args.k, 1, 7)).astype(np.float32)
        steerer.decide(steerer.encode(image, f'task {step // 100}'), actions, seed=step_seed(0, step))
        if step % max(args.frames // 10, 1) == 0:
            print(f'{step:6d} frames: {resident():.0f} MB', flush=True)


if __name__ == '__main__':
    main()
