"""A run resumed equals a run uninterrupted; two processes equal one; the result loads into the critic."""
import dataclasses
import json
import os
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from processes import start, together, train
from scipy.stats import spearmanr
from synthetic import INSTRUCTIONS, NETWORK, config, make

from vgps_critic.critic import Critic
from vgps_critic.text import table as text_table
from vgps_training.run import config as configuration
from vgps_training.run.loop import Run
from vgps_training.run.storage import load_state

pytestmark = pytest.mark.slow


def same(a, b):
    """Compare nested states bit by bit."""
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b))
    return a == b


@pytest.mark.parametrize('algorithm', ['iql', 'cal-ql', 'sarsa', 'monte-carlo'])
def test_resumed_run_equals_an_uninterrupted_one_bit_by_bit(tmp_path, algorithm):
    make(tmp_path)
    whole = config(tmp_path, algorithm, 'whole')
    Run(whole, quiet=True).train()
    parts = config(tmp_path, algorithm, 'parts')
    Run(parts, quiet=True).train(stop_after=5)
    Run(parts, quiet=True).train()
    assert same(load_state(whole.out), load_state(parts.out))
    assert load_state(whole.out)['step'] == 8


def test_kill_9_loses_at_most_the_steps_since_the_last_save(tmp_path):
    make(tmp_path)
    killed = config(tmp_path, out='killed', steps=4000, save_every=5)
    process = start(train, killed)
    while not (killed.out / 'critic').exists():
        assert process.is_alive()
        time.sleep(0.02)
    time.sleep(0.3)  # somewhere between two saves
    process.kill()
    process.join()
    state = load_state(killed.out)
    assert state['step'] % 5 == 0 and 0 < state['step'] < 4000
    Critic.load(killed.out / 'critic', instructions=text_table(tmp_path / 'text.npz'))
    stop = state['step'] + 10
    Run(dataclasses.replace(killed, steps=stop), quiet=True).train()
    whole = dataclasses.replace(killed, out=tmp_path / 'whole', steps=stop)
    Run(whole, quiet=True).train()
    assert same(load_state(killed.out), load_state(whole.out))


@pytest.mark.parametrize('algorithm', ['iql', 'cal-ql'])
def test_a_run_on_one_process_then_two_then_one_equals_a_run_on_one(tmp_path, algorithm):
    make(tmp_path)
    one, moved = config(tmp_path, algorithm, 'one', steps=6), config(tmp_path, algorithm, 'moved', steps=6)
    Run(one, quiet=True).train()
    Run(moved, quiet=True).train(stop_after=2)
    two = dataclasses.replace(moved, steps=4)
    if algorithm == 'iql':  # once as a user starts them
        (tmp_path / 'moved.json').write_text(configuration.to_json(two))
        subprocess.run([sys.executable, '-m', 'torch.distributed.run', '--nproc-per-node', '2', '--master-port',
                        str(20000 + os.getpid() % 20000), '-m', 'vgps_training.run.train', algorithm, '--config',
                        str(tmp_path / 'moved.json')], env={**os.environ, 'OMP_NUM_THREADS': '1'}, check=True,
                       capture_output=True, timeout=240)
    else:
        assert together(tmp_path, train, two)[0] == [0, 0]
    assert load_state(moved.out)['step'] == 4
    Run(moved, quiet=True).train()
    losses = [{(line['step'], key): value
               for line in map(json.loads, (c.out / 'metrics.jsonl').read_text().splitlines())
               for key, value in line.items() if key.startswith('loss/')} for c in (one, moved)]
    assert losses[0].keys() == losses[1].keys() and len(losses[0]) >= 12
    for key, value in losses[0].items():
        assert losses[1][key] == pytest.approx(value, rel=1e-6, abs=1e-7), key
    values = [Critic.load(c.out / 'critic', instructions=text_table(tmp_path / 'text.npz')) for c in (one, moved)]
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    actions = np.random.default_rng(1).normal(0, 0.02, (50, 7)).astype(np.float32)
    a, b = (critic.score(critic.encode(image, INSTRUCTIONS[0]), actions) for critic in values)
    np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize('algorithm', ['iql', 'cal-ql'])
def test_micro_batches_give_the_gradient_of_the_whole_batch(tmp_path, algorithm):
    make(tmp_path)
    whole = config(tmp_path, algorithm, 'whole', steps=1)
    parts = config(tmp_path, algorithm, 'parts', steps=1, micro_batches=4)
    runs = [Run(c, quiet=True) for c in (whole, parts)]
    for run in runs:
        run.train()
    for a, b in zip(runs[0].learner.networks.parameters(), runs[1].learner.networks.parameters()):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-4, atol=1e-5)


def test_critic_of_a_run_scores_and_knows_where_it_comes_from(tmp_path):
    make(tmp_path)
    run = Run(config(tmp_path), quiet=True)
    metrics = run.train()
    critic = Critic.load(tmp_path / 'run/critic', instructions=text_table(tmp_path / 'text.npz'))
    assert (critic.config.algorithm, critic.config.step, critic.config.discount) == ('iql', 8, 0.98)
    assert critic.action_space == run.action_space
    image, actions = run.table.frames[3], run.table.actions[:5]
    q = critic.score(critic.encode(image, INSTRUCTIONS[0]), actions)
    target = run.learner.targets['critic']
    with torch.no_grad():
        expected = target(torch.from_numpy(image[None]), torch.from_numpy(run.embeddings[:1]),
                          torch.from_numpy(run.action_space.normalize(actions))[None])
    np.testing.assert_allclose(q, expected[:, 0].numpy(), rtol=1e-5, atol=1e-5)
    assert np.isfinite(metrics['failure_auc']) and list((tmp_path / 'run').glob('values_*.png'))


def test_run_killed_in_its_last_validation_is_validated_when_continued(tmp_path, monkeypatch):
    make(tmp_path)

    def killed(run):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Run, 'validate', killed)
        with pytest.raises(KeyboardInterrupt):
            Run(config(tmp_path), quiet=True).train()
    assert np.isfinite(Run(config(tmp_path), quiet=True).train()['return_error'])
    lines = [json.loads(line) for line in (tmp_path / 'run/metrics.jsonl').read_text().splitlines()]
    assert [line['step'] for line in lines if 'validation/return_error' in line] == [8]


def test_configuration_survives_its_file(tmp_path):
    for algorithm in configuration.ALGORITHMS:
        for name in configuration.PRESETS:
            original = configuration.preset(algorithm, name)
            assert configuration.from_json(configuration.to_json(original)) == original


def test_bfloat16_encoders_leave_a_critic_that_ranks_as_float32_does(tmp_path):
    make(tmp_path)
    run = Run(config(tmp_path, bf16=True, steps=4), quiet=True)
    run.train()
    assert all(p.dtype == torch.float32 and torch.isfinite(p).all() for p in run.learner.networks.parameters())
    images = torch.from_numpy(run.table.frames[:8])
    language = torch.from_numpy(run.embeddings[:1]).expand(8, -1)
    actions = 2 * torch.rand((8, 50, 7), generator=torch.Generator().manual_seed(0)) - 1
    with torch.no_grad():
        trained, exact = (critic(images, language, actions).amin(0)
                          for critic in (run.learner.targets['critic'], run.critic()))
    assert not torch.equal(trained, exact)  # the encoder does compute in bfloat16, and the saved critic does not
    for a, b in zip(trained, exact):
        assert len(a.unique()) >= 49
        assert spearmanr(a, b).statistic >= 0.999


def test_a_network_too_narrow_for_torch_to_train_safely_is_refused_before_anything_is_read(tmp_path):
    narrow = dataclasses.replace(NETWORK, num_filters=4)
    with pytest.raises(ValueError, match='num_filters must be at least 8 to train, got 4: .*AVX-512'):
        Run(config(tmp_path, network=narrow))
    assert not (tmp_path / 'run').exists()
