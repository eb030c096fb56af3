"""Jobs are done once each, wherever they run and whatever is killed."""
import contextlib
import json
import os
import random
import secrets
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
os.environ['PYTHONPATH'] = os.pathsep.join([str(Path(__file__).parent), os.environ.get('PYTHONPATH', '')])
import jobs_to_do

from vgps_msgs_py import jobs
from vgps_msgs_py.jobs import Engine, JobError


def journal(path, engine, orders=()):
    """Play 200 trials into a journal, leaving out those that are in it."""
    for number in orders:
        (path.parent / f'kill_{number}').touch()
    written = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    done = {line['name'] for line in written}
    todo = {f'trial {n}': (n, str(path.parent)) for n in range(200)}
    with path.open('a') as file:
        jobs.run(jobs_to_do.trial, {name: job for name, job in todo.items() if name not in done}, engine=engine,
                 record=lambda name, result: print(json.dumps({'name': name, **result}), file=file, flush=True))
    return sorted(path.read_text().splitlines(), key=lambda line: json.loads(line)['trial'])


def test_five_kills_among_two_workers_give_the_journal_of_one_process(tmp_path):
    (tmp_path / 'two').mkdir()
    kills = random.Random(0).sample(range(200), 5)
    one = journal(tmp_path / 'one.jsonl', Engine())
    two = journal(tmp_path / 'two/journal.jsonl', Engine(processes=2), kills)
    assert one == two and len(one) == 200 and not list((tmp_path / 'two').glob('kill_*'))


def test_a_worker_that_dies_between_two_jobs_costs_no_job_and_doubles_none(monkeypatch):
    recorded, pools = [], []
    make = jobs.ProcessPoolExecutor
    monkeypatch.setattr(jobs, 'ProcessPoolExecutor', lambda *arguments: pools.append(make(*arguments)) or pools[-1])

    def record(name, process):
        recorded.append(name)
        if len(recorded) == 3:
            os.kill(process, signal.SIGKILL)
            deadline = time.monotonic() + 60
            while not pools[-1]._broken and time.monotonic() < deadline:  # so that the next job finds it dead
                time.sleep(0.01)
    jobs.run(jobs_to_do.process_of, {str(n): n for n in range(8)}, engine=Engine(processes=2), record=record)
    assert sorted(recorded) == [str(n) for n in range(8)] and len(pools) == 2


def test_a_worker_that_is_asked_to_end_when_its_job_is_done_ends_and_does_not_wait_for_the_next(tmp_path):
    results = {}
    jobs.run(jobs_to_do.asked_to_end_behind_it, {'job': tmp_path / 'asked'}, engine=Engine(processes=2),
             record=results.__setitem__)
    assert results == {'job': 'done'}


def test_a_worker_that_is_asked_again_cleans_up_to_the_end(tmp_path):
    results = {}
    jobs.run(jobs_to_do.cleaning_up_when_asked_twice, {'job': tmp_path}, engine=Engine(processes=2),
             record=results.__setitem__)
    assert results == {'job': 'done'} and (tmp_path / 'clean').exists()


def test_what_is_recorded_is_not_done_again(tmp_path):
    path = tmp_path / 'journal.jsonl'
    one = journal(path, Engine())
    path.write_text('\n'.join(one[50:]) + '\n')
    (tmp_path / 'kill_60').touch()  # would end this very process
    assert journal(path, Engine()) == one


@pytest.mark.parametrize('count', [1, 2, 3, 7])
def test_shards_together_do_every_job_once(count):
    seen = []
    for index in range(count):
        jobs.run(jobs_to_do.square, {str(n): n for n in range(20)}, engine=Engine(shard=f'{index}/{count}'),
                 record=lambda name, result: seen.append((int(name), result)))
    assert sorted(seen) == [(n, n * n) for n in range(20)]


@pytest.mark.parametrize('shard', ['2/2', '1', 'a/b', '-1/2', '0/0'])
def test_shard_that_is_none_is_refused(shard):
    with pytest.raises(ValueError, match='i/n'):
        Engine(shard=shard)


def test_job_that_kills_every_worker_is_named(monkeypatch):
    monkeypatch.setattr(jobs, 'ATTEMPTS', 2)
    with pytest.raises(JobError, match='trial 3: its worker process was killed 2 times'):
        jobs.run(jobs_to_do.deadly, {'trial 3': 3}, engine=Engine(processes=2))


def test_what_a_job_raises_is_raised(tmp_path):
    for engine in (Engine(), Engine(processes=2)):
        with pytest.raises(ValueError, match='trial 1 cannot be played'):
            jobs.run(jobs_to_do.wrong, {'trial 1': 1}, engine=engine)


def ordered(engine, needs):
    done = []
    jobs.run(jobs_to_do.square, {str(n): n for n in range(6)}, engine=engine, needs=needs,
             record=lambda name, result: done.append(name))
    return done


@pytest.mark.parametrize('processes', [1, 2])
def test_a_job_begins_when_those_that_it_needs_are_recorded(processes):
    needs = {'0': ['5'], '1': ['0', '3'], '4': ['recorded earlier']}
    done = ordered(Engine(processes), needs)
    assert sorted(done) == list('012345')
    assert done.index('5') < done.index('0') < done.index('1') > done.index('3')


def test_jobs_that_wait_for_each_other_are_named_and_not_divided():
    with pytest.raises(JobError, match='0, 1: each needs'):
        ordered(Engine(), {'0': ['1'], '1': ['0']})
    with pytest.raises(ValueError, match='shards'):
        ordered(Engine(shard='0/2'), {'0': ['1']})


def alive(process):
    try:
        return Path(f'/proc/{process}/stat').read_text().rpartition(')')[2].split()[0] != 'Z'
    except OSError:
        return False


@pytest.mark.parametrize('how', [signal.SIGKILL, signal.SIGTERM, None])
def test_neither_workers_nor_their_commands_outlive_the_caller(tmp_path, how):
    began = tmp_path / 'began'
    code = ('import jobs_to_do, sys; from vgps_msgs_py import jobs; '
            'jobs.run(jobs_to_do.waiting, {"a": sys.argv[1]}, engine=jobs.Engine(2))')
    caller = subprocess.Popen([sys.executable, '-c', code, str(tmp_path)], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not (began.exists() and began.read_text().strip()) and time.monotonic() < deadline:
        time.sleep(0.02)
    command = int(began.read_text())
    worker = int(Path(f'/proc/{command}/stat').read_text().rpartition(')')[2].split()[1])
    if how is None:  # a worker that is killed is replaced, and what it had started ends
        began.unlink()
        os.kill(worker, signal.SIGKILL)
        while not (began.exists() and began.read_text().strip()) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert int(began.read_text()) != command
    else:
        caller.send_signal(how)
        caller.wait(60)
    while (alive(command) or alive(worker)) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not alive(command) and not alive(worker)
    caller.kill()
    caller.wait()


def test_what_goes_wrong_in_recording_ends_what_runs(tmp_path):
    def full(name, result):
        raise OSError('no space left')

    with pytest.raises(OSError, match='no space left'):
        jobs.run(jobs_to_do.waiting_or_not, {'short': '', 'long': str(tmp_path)}, engine=Engine(2), record=full)
    began = tmp_path / 'began'
    if began.exists() and began.read_text().strip():  # or it was ended before it could say who it is
        command, deadline = int(began.read_text()), time.monotonic() + 30
        while alive(command) and time.monotonic() < deadline:  # a signal, and then its end
            time.sleep(0.02)
        assert not alive(command)


def wait_for_port(port):
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(('127.0.0.1', port), 1):
            return
        time.sleep(0.2)
    raise TimeoutError(f'nothing listens on port {port}')


def test_a_cluster_with_killed_workers_gives_the_journal_of_one_process(tmp_path, monkeypatch):
    for name, value in {'RAY_AUTH_MODE': 'token', 'RAY_AUTH_TOKEN': secrets.token_hex(32)}.items():
        monkeypatch.setenv(name, value)  # it reads them when it is imported
    pytest.importorskip('ray', reason='NOT CHECKED: Ray is not installed')
    (tmp_path / 'ray').mkdir()
    port = str(30000 + os.getpid() % 20000)
    head = subprocess.Popen([sys.executable, '-m', 'ray.scripts.scripts', 'start', '--head', '--block', '--port', port,
                             '--num-cpus', '2', '--include-dashboard', 'false'], stdout=subprocess.DEVNULL,
                            stderr=subprocess.DEVNULL)
    try:
        wait_for_port(int(port))
        kills = random.Random(1).sample(range(200), 5)
        assert journal(tmp_path / 'ray/journal.jsonl', Engine(cluster=f'127.0.0.1:{port}'), kills) == journal(
            tmp_path / 'one.jsonl', Engine())
        assert not list((tmp_path / 'ray').glob('kill_*'))
        with pytest.raises(ValueError, match='trial 1 cannot be played'):
            jobs.run(jobs_to_do.wrong, {'trial 1': 1}, engine=Engine(cluster=f'127.0.0.1:{port}'))
    finally:
        head.terminate()
        head.wait(60)
