"""``vgps-benchmark-policy``: how much K candidates cost."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import yaml
from tyro.conf import Positional

from vgps_msgs_py import command_line
from vgps_policy_bridge.benchmarks import random_weights as random_models
from vgps_policy_bridge.errors import PolicyError
from vgps_policy_bridge.loop.session import WARM_UP_INSTRUCTION, WARM_UP_STATE
from vgps_policy_bridge.policies.octo import OctoPolicy
from vgps_policy_bridge.policies.rt1x import RT1XPolicy, import_model_code
from vgps_policy_bridge.policy import MAX_CANDIDATES, Observation, Policy
from vgps_policy_bridge.proposals import build_policy

COMMAND = 'vgps-benchmark-policy'


def measure(run: Callable[[int], object], ks: list[int], repetitions: int) -> dict[int, float]:
    """Return the median time [ms] of run(k) for each k, after one unmeasured call, in turns."""
    times = {k: [] for k in ks}
    for turn in range(-1, repetitions):
        for k in ks:
            start = time.perf_counter()
            run(k)
            if turn >= 0:
                times[k].append(time.perf_counter() - start)
    return {k: 1e3 * float(np.median(seconds)) for k, seconds in times.items()}


def random_weights(name: str, options: dict, folder: Path) -> Policy:
    """Return an adapter on a checkpoint of random weights, written to the folder."""
    if name == 'octo-random-weights':
        random_models.write_octo(folder)
        return OctoPolicy(str(folder))
    model_code = import_model_code(options['source'])
    return RT1XPolicy(options['source'], **random_models.write_rt1x(model_code, folder, WARM_UP_INSTRUCTION))


@dataclass
class Benchmark:
    """Measure how long a policy takes to propose K candidates, for each K and relative to K = 1.

    Example: vgps-benchmark-policy flow --k 10 50

    Three names have random weights and need no download, only the adapter's packages: octo-random-weights (the whole
    adapter, at Octo-small's size), rt-1-x-random-weights (the whole adapter at full size; needs --options '{source:
    open_x_embodiment/models}') and llama-random-weights (OpenVLA's sampling on a small Llama, prompt of 286 tokens).
    """

    policy: Positional[str] = 'flow'
    """entry-point name, or one of the above"""
    options: str = '{}'
    """options of the policy, YAML"""
    k: tuple[int, ...] = (1, 10, 50, 100)
    """numbers of candidates, 1 .. 1000"""
    repetitions: int = 5
    """measurements per K, at least 1; the median counts"""


def proposals(arguments: Benchmark) -> Callable[[int], object]:
    """Return a function that has the policy propose K candidates."""
    options = yaml.safe_load(arguments.options)
    if arguments.policy == 'llama-random-weights':
        return random_models.llama()
    if arguments.policy in ('octo-random-weights', 'rt-1-x-random-weights'):
        with TemporaryDirectory() as folder:
            policy = random_weights(arguments.policy, options, Path(folder))
    else:
        policy = build_policy(arguments.policy, options)
    policy.reset(WARM_UP_INSTRUCTION, 0)
    observation = Observation(np.full((480, 640, 3), 128, np.uint8), 0.0, np.array(WARM_UP_STATE))
    return lambda k: policy.propose(observation, k)


def main(words: list[str] | None = None) -> None:
    """Run the command line."""
    arguments = command_line.read(Benchmark, COMMAND, words)
    if arguments.repetitions < 1:
        command_line.refuse(COMMAND, f'--repetitions must be at least 1, not {arguments.repetitions}')
    if not all(1 <= k <= MAX_CANDIDATES for k in arguments.k):
        command_line.refuse(COMMAND, f'--k must be 1 .. {MAX_CANDIDATES}, not {" ".join(map(str, arguments.k))}')
    with command_line.refusing(COMMAND, PolicyError, ImportError, yaml.YAMLError):
        run = proposals(arguments)
    load = os.getloadavg()[0]  # before the measurement adds its own
    medians = measure(run, sorted({1, *arguments.k}), arguments.repetitions)
    print(f'{arguments.policy} on {os.cpu_count()} CPU cores, load {load:.1f}')
    for k, milliseconds in medians.items():
        print(f'K = {k:4d}: {milliseconds:9.1f} ms   {milliseconds / medians[1]:5.2f} x K = 1')


if __name__ == '__main__':
    main()
