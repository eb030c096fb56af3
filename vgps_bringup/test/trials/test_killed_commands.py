"""The whole command under kill -9: two shards, or a Ray cluster, leave what one undisturbed process leaves."""
import contextlib
import hashlib
import os
import random
import secrets
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from vgps_bringup.trials.trials import collect
from vgps_msgs_py.bags.reader import Bag

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]  # s; three minutes on idle cores

KILLS, TRIALS = 5, 200
STUDY = ('--tasks', 'put_eggplant_in_basket,put_carrot_on_plate', '--conditions', 'baseline,random-select', '--policy',
         'random-policy', '--k', '4', '--trials', str(TRIALS // 4), '--max-steps', '4', '--image-size', '32')


def start(folder, *options):
    return subprocess.Popen([sys.executable, '-m', 'vgps_bringup.commands.evaluate', 'trials', *STUDY, '--output',
                             str(folder), *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def finished(folder):
    return sum(max(0, path.read_bytes().count(b'\n') - 1) for path in folder.glob('journal-*.jsonl'))


def rows(folder):
    """Return every trial's line but for the seconds that it took."""
    return [{name: value for name, value in row.items() if name != 'seconds'} for row in collect(folder)[1]]


def played(folder, row):
    """Return what a trial's recording holds of it, step by step."""
    bag = Bag(folder / row['bag'])
    episode, = bag.episodes
    seen = [hashlib.sha256(frame.image().tobytes()).hexdigest() for frame in bag.frames()]
    done = [(np.asarray(s.command.action).tolist(), s.actions.tolist(), s.decision.chosen) for s in episode.steps]
    return seen, episode.outcome, episode.seed, done


def same(folder, undisturbed):
    lines = rows(folder)
    assert [line['number'] for line in lines] == list(range(TRIALS))
    assert lines == rows(undisturbed)
    assert {path.name for path in (folder / 'bags').iterdir()} == {line['trial'] for line in lines}
    for line in lines:
        assert played(folder, line) == played(undisturbed, line), line['trial']


@pytest.fixture(scope='module')
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp('undisturbed')
    assert start(folder).wait(600) == 0
    return folder


def wait_for(count, folder, processes, deadline):
    """Wait until so many trials are finished; every process has to be alive until then."""
    while finished(folder) < count and time.monotonic() < deadline:
        assert any(process.poll() is None for process in processes)
        time.sleep(0.005)


def test_two_shards_killed_at_five_random_instants_leave_what_one_process_leaves(tmp_path, undisturbed):
    rng, deadline = random.Random(0), time.monotonic() + 600
    commands = {index: start(tmp_path, '--shard', f'{index}/2') for index in range(2)}
    for count in sorted(rng.sample(range(10, TRIALS - 20), KILLS)):
        wait_for(count, tmp_path, commands.values(), deadline)
        time.sleep(rng.uniform(0, 0.1))
        index = rng.choice([index for index, process in commands.items() if process.poll() is None])
        commands[index].kill()
        assert commands[index].wait(60) == -signal.SIGKILL
        commands[index] = start(tmp_path, '--shard', f'{index}/2')
    assert [process.wait(600) for process in commands.values()] == [0, 0]
    same(tmp_path, undisturbed)


def below(process):
    """Return the ids of the processes that a process started, and they."""
    children, result = {}, []
    for stat in Path('/proc').glob('[0-9]*/stat'):
        with contextlib.suppress(OSError):
            children.setdefault(int(stat.read_text().rpartition(')')[2].split()[1]), []).append(int(stat.parent.name))
    left = [process]
    while left:
        left += (found := children.get(left.pop(), []))
        result += found
    return result


def playing(head):
    """Return the ids of the cluster's workers that play a trial now."""
    result = []
    for process in below(head):
        with contextlib.suppress(OSError):
            if Path(f'/proc/{process}/cmdline').read_bytes().startswith(b'ray::_play'):
                result.append(process)
    return result


def test_a_ray_cluster_whose_workers_are_killed_leaves_what_one_process_leaves(tmp_path, undisturbed, monkeypatch):
    for name, value in {'RAY_AUTH_MODE': 'token', 'RAY_AUTH_TOKEN': secrets.token_hex(32)}.items():
        monkeypatch.setenv(name, value)
    pytest.importorskip('ray', reason='NOT CHECKED: Ray is not installed')
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = str(free.getsockname()[1])
    head = subprocess.Popen([sys.executable, '-m', 'ray.scripts.scripts', 'start', '--head', '--block', '--port', port,
                             '--num-cpus', '2', '--include-dashboard', 'false'], stdout=subprocess.DEVNULL,
                            stderr=subprocess.DEVNULL)
    rng, deadline = random.Random(1), time.monotonic() + 600
    try:
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError), socket.create_connection(('127.0.0.1', int(port)), 1):
                break
            time.sleep(0.2)
        command = start(tmp_path, '--cluster', f'127.0.0.1:{port}')
        for count in sorted(rng.sample(range(10, TRIALS - 20), KILLS)):
            wait_for(count, tmp_path, [command], deadline)
            while not (workers := playing(head.pid)) and time.monotonic() < deadline:
                time.sleep(0.001)
            os.kill(rng.choice(workers), signal.SIGKILL)
        assert command.wait(600) == 0
    finally:
        head.terminate()
        head.wait(60)
    same(tmp_path, undisturbed)
