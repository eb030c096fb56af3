"""The runner with real nodes: whatever ends it, nothing is left running and no shared memory is left behind."""

import os
import pathlib
import signal
import subprocess
import sys
import textwrap
import time

import pytest

from vgps_bringup.system import supervisor
from vgps_bringup.system.description import SYSTEMS, Process, System

pytestmark = [pytest.mark.ros, pytest.mark.skipif(
    not os.environ.get('AMENT_PREFIX_PATH'), reason='the workspace is not sourced')]

FAST_DDS = pytest.mark.skipif(not os.environ.get('RMW_IMPLEMENTATION', 'rmw_fastrtps_cpp').startswith('rmw_fastrtps'),
                              reason='other middlewares leave no files in shared memory')


def nodes(arguments):
    return [Process('vgps_bringup', 'recorder_node', name, {'output_directory': arguments['output']})
            for name in ('first', 'second')]


@pytest.fixture
def pair(monkeypatch, tmp_path):
    monkeypatch.setenv('ROS_DOMAIN_ID', str(1 + os.getpid() % 200))
    system = SYSTEMS['simulation']
    monkeypatch.setitem(SYSTEMS, 'pair', System('two recorders', system.arguments, nodes))
    return {'output': str(tmp_path), 'namespace': f'runner_{os.getpid()}'}


def wait_for(condition, seconds=20.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, 'it did not happen in time'
        time.sleep(0.05)


def shared_memory_of(running):
    """Return the DDS segments that every child has mapped, once every child has some; ports belong to all of a host."""
    files = []
    for child in running.children.values():
        lines = pathlib.Path(f'/proc/{child.pid}/maps').read_text().splitlines()
        files.append({pathlib.Path(line.split()[-1]) for line in lines
                      if '/dev/shm/fast' in line and '_port' not in line})
    return set.union(*files) if all(files) else set()


def alive(pid):
    try:
        return pathlib.Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[0] != 'Z'
    except FileNotFoundError:
        return False


def test_a_node_gets_its_environment_and_the_user_s_comes_first(pair, monkeypatch):
    monkeypatch.setenv('VGPS_SET', 'by the user')
    process = Process('vgps_bringup', 'recorder_node', 'only', environment={'VGPS_SET': 'here', 'VGPS_UNSET': 'here'})
    monkeypatch.setitem(SYSTEMS, 'pair', System('one', SYSTEMS['simulation'].arguments, lambda arguments: [process]))
    with supervisor.Runner('pair', pair, log=lambda line: None) as running:
        words = pathlib.Path(f'/proc/{running.children["only"].pid}/environ').read_text().split('\0')
    assert 'VGPS_SET=by the user' in words and 'VGPS_UNSET=here' in words


@FAST_DDS
def test_leaving_stops_every_node_and_frees_shared_memory(pair):
    with supervisor.Runner('pair', pair, log=lambda line: None) as running:
        pids = [child.pid for child in running.children.values()]
        wait_for(lambda: shared_memory_of(running))
        files = shared_memory_of(running)
        assert len(pids) == 2 and not running.ended()
    assert not any(alive(pid) for pid in pids)
    assert not [path for path in files if path.exists()]


@FAST_DDS
def test_a_killed_node_ends_the_system_and_its_shared_memory_is_removed(pair):
    with supervisor.Runner('pair', pair, log=lambda line: None) as running:
        wait_for(lambda: shared_memory_of(running))
        files = shared_memory_of(running)
        victim, survivor = running.children.values()
        victim.kill()
        assert running.wait() == {'first': -signal.SIGKILL}
    assert not alive(survivor.pid)
    assert not [path for path in files if path.exists()]


def test_a_node_that_cannot_start_is_reported_with_its_own_words(pair, monkeypatch):
    def broken(arguments):
        return [Process('vgps_bringup', 'recorder_node', 'broken', {'flush_period': 99.0})]
    monkeypatch.setitem(SYSTEMS, 'pair', System('broken', SYSTEMS['simulation'].arguments, broken))
    lines = []
    with supervisor.Runner('pair', pair, log=lines.append) as running:
        assert running.wait() == {'broken': 2}
        wait_for(lambda: any('flush_period' in line for line in lines))


def test_children_do_not_outlive_a_runner_killed_with_minus_nine(pair, tmp_path):
    script = tmp_path / 'run.py'
    script.write_text(textwrap.dedent(f'''
        import time
        from vgps_bringup.system import supervisor
        from vgps_bringup.system.description import SYSTEMS, Process, System
        SYSTEMS['pair'] = System('', SYSTEMS['simulation'].arguments, lambda a: [
            Process('vgps_bringup', 'recorder_node', name, {{'output_directory': a['output']}})
            for name in ('first', 'second')])
        with supervisor.Runner('pair', {pair!r}, log=lambda line: None) as running:
            print(*[child.pid for child in running.children.values()], flush=True)
            time.sleep(60)
    '''))
    process = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True)
    pids = [int(word) for word in process.stdout.readline().split()]
    time.sleep(2.0)
    process.kill()
    process.wait()
    assert len(pids) == 2
    wait_for(lambda: not any(alive(pid) for pid in pids))


def test_shared_memory_of_others_counts_as_in_use(tmp_path):
    path = pathlib.Path('/dev/shm', f'vgps_test_{os.getpid()}')
    try:
        with path.open('wb') as file:
            file.write(b'1')
            file.flush()
            assert path in supervisor.in_use()
        assert path not in supervisor.in_use()
    finally:
        path.unlink()
