"""Threads and how they wait, on an idle and on a busy machine.

    python -m vgps_critic.benchmarks.threads --loads 0,8

One step at the published width (encode once, score K), in eager torch: with the default of this package (as many
threads as cores, which sleep while they wait), with torch's own default (they spin for some 3 ms before they sleep),
and with one thread. Each lives in a process of its own and they take turns, so that other load falls on all alike.
"""

import os
import subprocess
import sys
import time
from collections import defaultdict

import numpy as np

from vgps_msgs_py import command_line

# what libgomp does where nothing is set; said in numbers, since this package sets the policy
TORCHS_OWN = {'OMP_WAIT_POLICY': 'ACTIVE', 'GOMP_SPINCOUNT': '300000'}
VARIANTS = {'default (passive)': {}, "torch's default (spins)": TORCHS_OWN,
            'one thread': {'OMP_NUM_THREADS': '1'}, 'ONNX Runtime': {'VGPS_BENCHMARK_RUNTIME': 'onnxruntime'}}
K = (1, 10, 50)
BUSY = 'while True: pass'
PAUSE = 0.1  # s before each step: until the threads of the one before have stopped spinning


def serve() -> None:
    """Answer each number of candidates on stdin with the milliseconds of one step."""
    from vgps_critic.critic import Critic
    critic = Critic.untrained(options=dict(runtime=os.environ.get('VGPS_BENCHMARK_RUNTIME', 'torch')))
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (480, 640, 3), np.uint8)
    language = rng.normal(0, 0.04, critic.config.network.language_dim).astype(np.float32)
    for line in sys.stdin:
        actions = rng.uniform(-0.05, 0.05, (int(line), 7)).astype(np.float32)
        start = time.perf_counter()
        critic.score(critic.encode(image, language), actions)
        print(1e3 * (time.perf_counter() - start), flush=True)


def measure(rounds: int) -> dict[tuple[str, int], list[float]]:
    """Return milliseconds by variant and K."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(('OMP_', 'GOMP_', '_ROS_WHEELS'))}
    servers = {name: subprocess.Popen([sys.executable, '-m', __spec__.name, '--serve'], env={**clean, **environment},
                                      stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
               for name, environment in VARIANTS.items()}
    times = defaultdict(list)
    try:
        for i in range(-2, rounds):  # two rounds of warm-up
            for k in K:
                for name, server in servers.items():
                    time.sleep(PAUSE)
                    print(k, file=server.stdin, flush=True)
                    elapsed = float(server.stdout.readline())
                    if i >= 0:
                        times[name, k].append(elapsed)
    finally:
        for server in servers.values():
            server.kill()
    return times


def main(*, loads: str = '0,8', rounds: int = 10) -> None:
    """Print a table per load.

    Args:
        loads: numbers of busy processes beside the measurement
        rounds: how often, at least 1

    """
    for load in map(int, loads.split(',')):
        busy = [subprocess.Popen([sys.executable, '-c', BUSY]) for _ in range(load)]
        before = os.getloadavg()[0]
        try:
            times = measure(rounds)
        finally:
            for process in busy:
                process.kill()
        print(f'\n{os.cpu_count()} cores, {load} busy processes beside it, load before {before:.1f}, '
              f'after {os.getloadavg()[0]:.1f}\n')
        print('| | ' + ' | '.join(f'K = {k} p50 [ms] | p95 | / one thread' for k in K) + ' |')
        print('|---' * (1 + 3 * len(K)) + '|')
        for name in VARIANTS:
            cells = [f'{np.percentile(times[name, k], 50):.0f} | {np.percentile(times[name, k], 95):.0f} | '
                     f'{np.median(times[name, k]) / np.median(times["one thread", k]):.2f}' for k in K]
            print(f'| {name} | ' + ' | '.join(cells) + ' |')


if __name__ == '__main__':
    if '--serve' in sys.argv:
        serve()
    else:
        command_line.read(main, 'threads', description=__doc__)
