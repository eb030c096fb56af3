"""How much K candidates cost: `vgps-benchmark-policy flow` prints the time for each K and its ratio to K = 1.

`vgps-benchmark-policy llama-random-weights` measures OpenVLA's sampling on a small random model of the same class
(prompt of 286 tokens), against drawing the K sequences one by one.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable

import numpy as np
import yaml

from vgps_policy_bridge.policy import Observation
from vgps_policy_bridge.proposals import build_policy
from vgps_policy_bridge.session import WARM_UP_INSTRUCTION, WARM_UP_STATE

PREFIX = 286  # tokens: BOS, 256 image patches, a typical prompt


def measure(run: Callable[[int], object], ks: list[int], repetitions: int) -> dict[int, float]:
    """Return the median time [ms] of run(k) for each k, after one unmeasured call."""
    medians = {}
    for k in ks:
        run(k)
        times = []
        for _ in range(repetitions):
            start = time.perf_counter()
            run(k)
            times.append(time.perf_counter() - start)
        medians[k] = 1e3 * float(np.median(times))
    return medians


def random_llama(layers: int = 4, width: int = 256, max_rows: int = 64) -> Callable[[int], object]:
    """Return run(k) that draws k sequences of 7 tokens from a random Llama after a prefix of 286."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from vgps_policy_bridge.policies.openvla import ACTION_TOKENS, FIRST_ID, LAST_ID
    from vgps_policy_bridge.policies.shared_prefix import sample_shared_prefix
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(
        vocab_size=32064, hidden_size=width, intermediate_size=width * 11008 // 4096, num_hidden_layers=layers,
        num_attention_heads=8, num_key_value_heads=8)).eval()
    prefix = torch.randn(1, PREFIX, width) * 0.02

    def run(k: int):
        return sample_shared_prefix(model, prefix, k, ACTION_TOKENS, FIRST_ID, LAST_ID, max_rows=max_rows)
    return run


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('policy', help="entry-point name, or 'llama-random-weights'")
    parser.add_argument('--options', default='{}', help='options of the policy, YAML')
    parser.add_argument('--k', type=int, nargs='+', default=[1, 10, 50, 100], help='numbers of candidates')
    parser.add_argument('--repetitions', type=int, default=5, help='measurements per K; the median counts')
    arguments = parser.parse_args()
    if arguments.policy == 'llama-random-weights':
        run = random_llama()
        print(f'one by one, K = 50: {50 * measure(run, [1], arguments.repetitions)[1]:.0f} ms (50 x K = 1)')
    else:
        policy = build_policy(arguments.policy, yaml.safe_load(arguments.options))
        policy.reset(WARM_UP_INSTRUCTION, 0)
        observation = Observation(np.full((480, 640, 3), 128, np.uint8), 0.0, np.array(WARM_UP_STATE))

        def run(k: int):
            return policy.propose(observation, k)
    medians = measure(run, sorted({1, *arguments.k}), arguments.repetitions)
    print(f'{arguments.policy} on {os.cpu_count()} CPU cores, load {os.getloadavg()[0]:.1f}')
    for k, milliseconds in medians.items():
        print(f'K = {k:4d}: {milliseconds:9.1f} ms   {milliseconds / medians[1]:5.2f} x K = 1')


if __name__ == '__main__':
    main()
