"""Jobs are done once each, wherever they run and whatever is killed."""
import json
import os
import random
import sys
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


def test_cluster_with_killed_workers_gives_the_journal_of_one_process(tmp_path):
    ray = pytest.importorskip('ray', reason='NOT CHECKED: Ray is not installed')
    (tmp_path / 'ray').mkdir()
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        kills = random.Random(1).sample(range(200), 5)
        assert journal(tmp_path / 'ray/journal.jsonl', Engine(cluster='local'), kills) == journal(
            tmp_path / 'one.jsonl', Engine())
    finally:
        ray.shutdown()
