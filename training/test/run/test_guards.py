"""What would spoil a run stops it by name, and what was saved before it stays."""
import dataclasses
import errno
import json
import os
import random
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from processes import start, together, train
from synthetic import config, make

from vgps_critic import checkpoint
from vgps_training.data import pack
from vgps_training.data.table import read_table, save
from vgps_training.run import guards, storage
from vgps_training.run.learner import Learner, fewest_parts
from vgps_training.run.loop import Run
from vgps_training.run.storage import RunError, Storage, checkpoints, load_state

pytestmark = pytest.mark.slow


def steps(folder):
    return [int(path.name) for path in checkpoints(folder)]


def trained(tmp_path, **changes):
    make(tmp_path)
    settings = config(tmp_path, **changes)
    Run(settings, quiet=True).train()
    return settings


@pytest.mark.parametrize('value, words', [(float('nan'), 'q_data is nan'), (1e6, 'largest return')])
def test_divergence_stops_by_name_and_overwrites_nothing(tmp_path, monkeypatch, value, words):
    settings = trained(tmp_path, steps=3)
    before = (settings.out / 'critic/model.safetensors').read_bytes()
    update = Learner.update

    def diverged(learner, *arguments):
        return {**update(learner, *arguments), 'q_data': torch.tensor(value)}

    monkeypatch.setattr(Learner, 'update', diverged)
    with pytest.raises(RunError, match=words):
        Run(dataclasses.replace(settings, steps=6), quiet=True).train()
    assert (settings.out / 'critic/model.safetensors').read_bytes() == before and load_state(settings.out)['step'] == 3


def test_weights_that_are_not_finite_are_not_saved(tmp_path, monkeypatch):
    settings = trained(tmp_path, steps=3)
    update = Learner.update

    def spoiled(learner, *arguments):
        metrics = update(learner, *arguments)
        if learner.step == 6:
            learner.targets['critic'].last.bias.data.fill_(float('nan'))
        return metrics

    monkeypatch.setattr(Learner, 'update', spoiled)
    with pytest.raises(RunError, match='weights of critic are not finite at update 6'):
        Run(dataclasses.replace(settings, steps=6), quiet=True).train()
    assert steps(settings.out) == [3]


def test_the_last_saves_the_milestones_and_the_best_are_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(storage, 'KEEP_EVERY', 10)
    settings = trained(tmp_path, steps=2)
    keeper = Storage(settings.out)
    for step in range(4, 40, 2):
        keeper.save({'step': step}, lambda folder: (folder.mkdir(), (folder / 'weights').write_text('x')), step == 8)
    keeper.close()
    assert steps(settings.out) == [8, 10, 20, 30, 34, 36, 38]
    assert (settings.out / 'best').resolve().parent.name == '0000008'
    assert (settings.out / 'critic').resolve().parent.name == '0000038'


def test_best_by_validation_is_the_critic_with_the_lowest_figure(tmp_path, monkeypatch):
    make(tmp_path)
    figures = iter([0.4, 0.2, float('nan'), 0.3])
    monkeypatch.setattr(Run, 'validate', lambda run: {'data_action_rank_moments': next(figures)})
    Run(config(tmp_path, validate_every=2, save_every=100), quiet=True).train()
    assert checkpoint.read(tmp_path / 'run/best')[1].step == 4
    assert checkpoint.read(tmp_path / 'run/critic')[1].step == 8
    assert load_state(tmp_path / 'run')['history']['best']['step'] == 4


def test_truncated_state_falls_back_to_the_one_before(tmp_path, caplog):
    settings = trained(tmp_path, steps=6)
    path = settings.out / 'checkpoints/0000006/state.pt'
    path.write_bytes(path.read_bytes()[:-1000])
    Run(dataclasses.replace(settings, steps=7), quiet=True).train()
    assert 'state before it is used' in caplog.text and load_state(settings.out)['step'] == 7
    assert (settings.out / 'checkpoints/damaged-0000006').is_dir() and steps(settings.out) == [3, 6, 7]
    for path in settings.out.glob('checkpoints/*/state.pt'):
        path.write_bytes(b'')
    with pytest.raises(RunError, match='no state can be read'):
        Run(settings, quiet=True).train()


@pytest.mark.parametrize('change, words', [
    ({'seed': 7}, 'seed was 0 and is 7'), ({'batch_size': 4}, 'batch_size was 8 and is 4'), ({'bf16': True}, 'bf16')])
def test_another_configuration_is_refused_unless_forked(tmp_path, change, words):
    settings = trained(tmp_path, steps=3)
    other = dataclasses.replace(settings, steps=4, **change)
    with pytest.raises(RunError, match=words):
        Run(other, quiet=True).train()
    Run(dataclasses.replace(other, fork=True), quiet=True).train()
    assert words in load_state(settings.out)['history']['forks'][0]['changed']
    Run(dataclasses.replace(other, steps=5), quiet=True).train()  # the fork is the run from now on
    with pytest.raises(RunError, match=words.split()[0]):
        Run(dataclasses.replace(settings, steps=6), quiet=True).train()


@pytest.mark.parametrize('part, words', [('algorithm', 'algorithm.discount'), ('data', 'action_space')])
def test_another_discount_or_action_space_is_refused(tmp_path, part, words):
    settings = trained(tmp_path, steps=3)
    changed = {'algorithm': {'discount': 0.9}, 'data': {'action_space': 'fractal'}}[part]
    other = dataclasses.replace(settings, **{part: dataclasses.replace(getattr(settings, part), **changed)})
    with pytest.raises(RunError, match=words):
        Run(other, quiet=True).train()


def test_other_data_are_refused_and_moved_data_are_not(tmp_path):
    settings = trained(tmp_path, steps=3)
    shutil.move(tmp_path / 'table', tmp_path / 'moved')
    data = dataclasses.replace(settings.data, paths=(tmp_path / 'moved',))
    moved = dataclasses.replace(settings, steps=4, data=data)
    Run(moved, quiet=True).train()
    table, _ = read_table([tmp_path / 'moved'], 64, progress=False)
    table.actions[5, 0] += 0.01
    save(table, tmp_path / 'moved')
    with pytest.raises(RunError, match='data was .* and is'):
        Run(dataclasses.replace(moved, steps=5), quiet=True).train()


def test_state_of_an_older_version_continues(tmp_path):
    settings = trained(tmp_path, steps=3)
    state = {k: v for k, v in load_state(settings.out).items() if k not in ('fingerprint', 'history')}
    critic = (settings.out / 'critic').resolve()
    (settings.out / 'critic').unlink()
    shutil.copytree(critic, settings.out / 'critic')
    shutil.rmtree(settings.out / 'checkpoints')
    storage.save_state(settings.out, state)
    Run(dataclasses.replace(settings, steps=5), quiet=True).train()
    assert load_state(settings.out)['step'] == 5 and checkpoint.read(settings.out / 'critic')[1].step == 5


def test_folder_in_use_is_refused(tmp_path):
    settings = trained(tmp_path, steps=3)
    other = Storage(settings.out)
    with pytest.raises(RunError, match=f'in use by process {os.getpid()}'):
        Run(settings, quiet=True).train()
    other.close()
    Run(settings, quiet=True).train()


def test_reading_processes_of_a_killed_run_do_not_hold_its_folder(tmp_path):
    make(tmp_path)
    settings = config(tmp_path, steps=100_000, save_every=1)
    data = dataclasses.replace(settings.data, paths=(tmp_path / 'packed',), decoders=2)
    pack.pack(pack.PackConfig((tmp_path / 'table',), tmp_path / 'packed', 64))
    process = start(train, dataclasses.replace(settings, data=data))
    deadline = time.monotonic() + 300
    while not steps(settings.out) and process.is_alive() and time.monotonic() < deadline:
        time.sleep(0.05)
    readers = Path(f'/proc/{process.pid}/task/{process.pid}/children').read_text().split()
    for reader in readers:
        os.kill(int(reader), signal.SIGSTOP)  # as if it waited for a store: it does not look whether the run lives
    process.kill()
    process.join()
    assert len(readers) == 2
    while True:  # a moment later, and not never
        try:
            Storage(settings.out).close()
            return
        except RunError:
            assert time.monotonic() < deadline, 'the folder is held'
            time.sleep(0.1)


def test_full_disk_keeps_the_old_state_and_leaves_nothing_half_written(tmp_path, monkeypatch):
    settings = trained(tmp_path, steps=3)

    def full(state, file):
        file.write(b'half of it')
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(storage.torch, 'save', full)
        with pytest.raises(RunError, match='No space left'):
            Run(dataclasses.replace(settings, steps=6), quiet=True).train()
    assert steps(settings.out) == [3] and not [p for p in settings.out.rglob('*') if 'tmp' in p.name]
    Run(dataclasses.replace(settings, steps=6), quiet=True).train()
    assert load_state(settings.out)['step'] == 6


def test_training_goes_on_while_a_save_is_written(tmp_path, monkeypatch):
    make(tmp_path)
    updates, write, seen = [], storage.save_state, []

    def slow(folder, state):
        deadline = time.monotonic() + 60
        while state['step'] == 3 and len(updates) < 5 and time.monotonic() < deadline:
            time.sleep(0.01)
        seen.append((state['step'], len(updates)))
        write(folder, state)

    update = Learner.update
    monkeypatch.setattr(Learner, 'update', lambda *a: updates.append(1) or update(*a))
    monkeypatch.setattr(storage, 'save_state', slow)
    Run(config(tmp_path, steps=6), quiet=True).train()
    assert seen[0][0] == 3 and seen[0][1] >= 5
    assert load_state(tmp_path / 'run')['step'] == 6


def test_processes_that_do_not_know_of_each_other_are_refused(monkeypatch):
    monkeypatch.setenv('SLURM_NTASKS', '4')
    with pytest.raises(RunError, match='srun --ntasks-per-node 1 torchrun'):
        guards.place()
    monkeypatch.setenv('RANK', '1')
    monkeypatch.setenv('WORLD_SIZE', '4')
    assert (guards.place().rank, guards.place().world) == (1, 4)


def train_on_data_of_its_own(settings, paths):
    data = dataclasses.replace(settings.data, paths=(paths[int(os.environ['RANK'])],))
    try:
        train(dataclasses.replace(settings, data=data))
    except RunError as error:
        print(f'STOPPED {error}')


def test_processes_with_other_data_are_stopped_by_name(tmp_path):
    make(tmp_path)
    (tmp_path / 'other').mkdir()
    make(tmp_path / 'other', seed=1)
    settings = config(tmp_path, steps=4)
    _, said = together(tmp_path, train_on_data_of_its_own, settings, [tmp_path / 'table', tmp_path / 'other/table'])
    assert all('STOPPED the data or the configuration of process 1 differ' in text for text in said), said


def hang_in_the_fourth_update(settings):
    update = Learner.update

    def hanging(learner, *arguments):
        if os.environ['RANK'] == '1' and learner.step == 3:
            os.kill(os.getpid(), signal.SIGSTOP)
        return update(learner, *arguments)

    Learner.update = hanging
    train(settings)


def test_process_that_hangs_ends_the_job_by_name(tmp_path):
    make(tmp_path)
    codes, (said, _) = together(
        tmp_path, hang_in_the_fourth_update, config(tmp_path, steps=1000, save_every=1000, hang_after=8.0))
    assert codes == [1, None]
    assert 'process 1 on' in said and 'does not answer, its last report was "update 4"' in said, said


def kill_at_random_instants(tmp_path, times, seed=0):
    make(tmp_path)
    settings = config(tmp_path, out='killed', steps=100_000, save_every=1, validate_every=7)
    instants, last = random.Random(seed), 0
    for _ in range(times):
        process = start(train, settings)
        deadline = time.monotonic() + 300
        # the first critic follows the first state: before it there is nothing to leave
        while (max(steps(settings.out), default=0) <= last or not (settings.out / 'critic').exists()) \
                and process.is_alive() and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(instants.uniform(0, 0.3))  # any instant of a loop that does little but save
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL
        critic = checkpoint.read(settings.out / 'critic')[1]  # verified by its hash
        state = load_state(settings.out)
        assert state['step'] > last and abs(critic.step - state['step']) <= 1
        last = state['step']
    whole = dataclasses.replace(settings, out=tmp_path / 'whole', steps=last + 2)
    Run(dataclasses.replace(settings, steps=last + 2), quiet=True).train()
    Run(whole, quiet=True).train()
    for a, b in zip(load_state(settings.out)['networks'].values(), load_state(whole.out)['networks'].values()):
        assert torch.equal(a, b)


def test_kill_9_at_random_instants_leaves_a_critic_and_a_run_that_continues(tmp_path):
    kill_at_random_instants(tmp_path, 2)


@pytest.mark.long
@pytest.mark.timeout(1800)  # s; a start takes half a minute where others want the cores too
def test_kill_9_at_twenty_random_instants(tmp_path):
    kill_at_random_instants(tmp_path, 20, seed=1)


def test_micro_batches_are_the_fewest_that_fit():
    assert fewest_parts(512, 140e6, 72e9) == 1 and fewest_parts(512, 140e6, 70e9) == 2
    assert fewest_parts(96, 1.0, 33.0) == 3 and fewest_parts(7, 1.0, 3.0) == 7
    with pytest.raises(ValueError, match='one transition needs'):
        fewest_parts(8, 1e9, 1e8)


def test_nothing_of_a_fork_is_written_to_the_configuration(tmp_path):
    settings = trained(tmp_path, steps=2, fork=True)
    assert json.loads((settings.out / 'config.json').read_text())['fork'] is False
    assert np.isfinite(load_state(settings.out)['step'])
