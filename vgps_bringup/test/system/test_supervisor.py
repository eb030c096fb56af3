"""The runner with real nodes: whatever ends it, nothing is left running and no shared memory is left behind."""

import json
import mmap
import os
import pathlib
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import replace

import pytest

from vgps_bringup.system import supervisor
from vgps_bringup.system.description import SYSTEMS, Process, System
from vgps_msgs_py import run_files

pytestmark = [pytest.mark.ros, pytest.mark.skipif(
    not os.environ.get('AMENT_PREFIX_PATH'), reason='the workspace is not sourced')]

FAST_DDS = pytest.mark.skipif(not os.environ.get('RMW_IMPLEMENTATION', 'rmw_fastrtps_cpp').startswith('rmw_fastrtps'),
                              reason='other middlewares leave no files in shared memory')


def nodes(arguments):
    return [Process('vgps_bringup', 'recorder_node', name, {'output_directory': arguments['output']}, required=True)
            for name in ('first', 'second')]


@pytest.fixture
def pair(monkeypatch, tmp_path):
    # away from the nodes that other tests of this process may have left to the collector: theirs would be mapped, too
    monkeypatch.setenv('ROS_DOMAIN_ID', str(1 + (os.getpid() + 100) % 200))
    # with notes of its own: another test's system would remove what killed nodes leave
    monkeypatch.setenv('TMPDIR', str(tmp_path))
    monkeypatch.setattr(run_files.tempfile, 'gettempdir', lambda: str(tmp_path))
    system = SYSTEMS['simulation']
    monkeypatch.setitem(SYSTEMS, 'pair', System('two recorders', system.arguments, nodes))
    return {'output': str(tmp_path), 'namespace': f'runner_{os.getpid()}'}


@pytest.fixture
def nothing_held(monkeypatch):
    """What this process holds is what the test makes: nodes of earlier tests may wait for the collector."""
    own, before = run_files._own, run_files._own()
    monkeypatch.setattr(run_files, '_own', lambda: own() - before)


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


def noted(running):
    """Return what the children have noted as their own."""
    notes = [run_files.folder() / f'{child.pid}.segments' for child in running.children.values()]
    return {pathlib.Path(path) for note in notes if note.exists() for path in json.loads(note.read_text())['files']}


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
        wait_for(lambda: files <= noted(running))
        victim.kill()
        assert running.wait() == {'first': -signal.SIGKILL}
    assert not alive(survivor.pid)
    assert not [path for path in files if path.exists()]


def test_a_node_that_cannot_start_is_reported_with_its_own_words(pair, monkeypatch):
    def broken(arguments):
        return [Process('vgps_bringup', 'recorder_node', 'broken', {'flush_period': 99.0}, must_start=True)]
    monkeypatch.setitem(SYSTEMS, 'pair', System('broken', SYSTEMS['simulation'].arguments, broken))
    lines = []
    with supervisor.Runner('pair', pair, log=lines.append) as running:
        assert running.wait() == {'broken': 2}
        wait_for(lambda: any('flush_period' in line for line in lines))


def test_a_node_that_is_not_required_dies_alone_and_is_started_again_by_the_line_in_the_log(pair, monkeypatch):
    def others(arguments):
        return [replace(process, required=process.name == 'first') for process in nodes(arguments)]
    monkeypatch.setitem(SYSTEMS, 'pair', System('one required', SYSTEMS['simulation'].arguments, others))
    lines = []
    began = time.time()
    with supervisor.Runner('pair', pair, log=lines.append) as running:
        running.children['second'].kill()
        wait_for(lambda: any('vgps-run pair --only second' in line for line in lines))
        assert not running.ended() and running.children['first'].poll() is None
        assert 'second was killed (signal 9)' in running.why_not_ready()
        assert run_files.ends_since(pair['namespace'], began) == {'second': -signal.SIGKILL}
        with supervisor.Runner('pair', pair, log=lines.append, only='second') as again:
            assert list(again.children) == ['second'] and again.children['second'].poll() is None
            assert running.children['first'].poll() is None
    with pytest.raises(supervisor.RunnerError, match='first, second'):
        supervisor.Runner('pair', pair, only='third')


def test_a_node_that_moves_nothing_comes_back_by_itself(pair, monkeypatch):
    def others(arguments):
        return [replace(process, required=False, respawn=True) for process in nodes(arguments)]
    monkeypatch.setitem(SYSTEMS, 'pair', System('none required', SYSTEMS['simulation'].arguments, others))
    with supervisor.Runner('pair', pair, log=lambda line: None) as running:
        before = running.children['second']
        before.kill()
        wait_for(lambda: running.children['second'] is not before)
        assert running.children['second'].poll() is None


def test_a_client_learns_who_ended_first_and_not_who_was_ended(pair):
    began = time.time()
    with supervisor.Runner('pair', pair, log=lambda line: None) as running:
        wait_for(lambda: shared_memory_of(running))
        running.children['second'].kill()
        running.wait()
    assert run_files.ends_since(pair['namespace'], began) == {'second': -signal.SIGKILL}


def test_the_next_start_removes_what_killed_nodes_left_in_shared_memory_and_nothing_else(pair):
    foreign = pathlib.Path('/dev/shm', f'fastdds_{os.getpid():016x}')  # of somebody else's node that was killed
    foreign.write_bytes(b'1')
    try:
        with supervisor.Runner('pair', pair, log=lambda line: None) as running:
            pids = {child.pid for child in running.children.values()}
            notes = [run_files.folder() / f'{pid}.segments' for pid in pids]
            wait_for(lambda: (files := shared_memory_of(running)) and files <= noted(running))
            files = shared_memory_of(running)
            for child in running.children.values():
                child.kill()
                child.wait()
            left = {path for path in files if path.exists()}
            assert left, 'kill -9 leaves them'
            removed = set(run_files.remove_leftovers())
            assert left <= removed and foreign not in removed and foreign.exists()
            assert not any(note.exists() for note in notes)
    finally:
        foreign.unlink()


def test_a_note_of_a_process_that_lives_or_was_changed_removes_nothing(tmp_path, monkeypatch, nothing_held):
    monkeypatch.setattr(run_files.tempfile, 'gettempdir', lambda: str(tmp_path))
    place, victim = run_files.folder(), pathlib.Path('/dev/shm', f'vgps_test_{os.getpid()}')
    # what the next node of this domain takes over: without it that node would be deaf
    ports = [pathlib.Path('/dev/shm', name) for name in (
        f'fastdds_port9{os.getpid()}', f'fastrtps_port9{os.getpid()}_el', f'sem.fastdds_port9{os.getpid()}_mutex')]
    for path in (victim, *ports):
        path.write_bytes(b'1')
    try:
        for number, content in enumerate((
                '', '5', '[]', '{"started": "0"}', '{"started": "0", "files": 5}',
                json.dumps({'started': '0', 'files': {str(victim): victim.stat().st_ino}}),          # no segment
                json.dumps({'started': '0', 'files': {str(port): port.stat().st_ino for port in ports}}),
                json.dumps({'started': '0', 'files': {'/dev/shm/../../etc/fastdds_x': 1}}))):
            (place / f'{9_000_000 + number}.segments').write_text(content)
        assert run_files.remove_leftovers() == [] and victim.exists() and all(port.exists() for port in ports)
        run_files.note_shared_memory()
        assert run_files.remove_leftovers() == [] and (place / f'{os.getpid()}.segments').exists()
        run_files.forget_shared_memory()
        assert not (place / f'{os.getpid()}.segments').exists()
    finally:
        for path in (victim, *ports):
            path.unlink()


def test_a_process_that_was_killed_has_ended_although_nobody_asked_how(tmp_path, monkeypatch):
    monkeypatch.setattr(run_files.tempfile, 'gettempdir', lambda: str(tmp_path))
    left = pathlib.Path('/dev/shm', f'fastdds_{os.getpid():016x}')
    left.write_bytes(b'1')
    child = subprocess.Popen(['sleep', '60'])
    try:
        note = run_files.folder() / f'{child.pid}.segments'
        note.write_text(json.dumps({'started': run_files._started(child.pid),
                                    'files': {str(left): left.stat().st_ino}}))
        assert run_files.remove_leftovers() == [] and left.exists()
        child.kill()
        wait_for(lambda: run_files.remove_leftovers() == [left])
        assert not left.exists() and not note.exists()
    finally:
        child.kill()
        child.wait()
        left.unlink(missing_ok=True)


def test_what_a_node_has_made_is_noted_while_it_still_starts_and_what_others_have_made_is_not(tmp_path, monkeypatch,
                                                                                              nothing_held):
    monkeypatch.setattr(run_files.tempfile, 'gettempdir', lambda: str(tmp_path))
    made, foreign = (pathlib.Path('/dev/shm', f'fastdds_{os.getpid() + more:016x}') for more in (0, 2**40))
    lock, note = made.with_name(made.name + '_el'), run_files.folder() / f'{os.getpid()}.segments'
    for path in (made, foreign, lock):
        path.write_bytes(bytes(4096))
    try:
        # to hear another node, its segment is mapped; another container's processes are not seen to use it
        with run_files.noting_shared_memory(period=0.02), lock.open(), foreign.open('r+b') as stream, \
                mmap.mmap(stream.fileno(), 4096):
            wait_for(lambda: note.exists() and str(made) in json.loads(note.read_text())['files'])
            found = set(json.loads(note.read_text())['files'])
            run_files.forget_shared_memory()
            assert note.exists(), 'it holds them still'
        assert {str(made), str(lock)} <= found and str(foreign) not in found
        run_files.forget_shared_memory()
        assert not note.exists()
    finally:
        for path in (made, foreign, lock):
            path.unlink()


def test_notes_are_not_written_where_somebody_else_could_have_put_a_link(tmp_path, monkeypatch):
    monkeypatch.setattr(run_files.tempfile, 'gettempdir', lambda: str(tmp_path))
    (tmp_path / 'elsewhere').mkdir()
    (tmp_path / f'vgps-{os.getuid()}').symlink_to(tmp_path / 'elsewhere')
    assert run_files.folder() is None
    run_files.note_shared_memory()
    run_files.note_end('vgps', 'critic_node', 1)
    assert run_files.ends_since('vgps', 0.0) == {} and not list((tmp_path / 'elsewhere').iterdir())


@pytest.mark.parametrize('given, variables', [
    ({}, {'ROS_AUTOMATIC_DISCOVERY_RANGE': 'LOCALHOST'}),
    ({'machines': 'all'}, {'ROS_AUTOMATIC_DISCOVERY_RANGE': 'SUBNET'}),
    ({'machines': '10.0.0.7, camera'}, {'ROS_AUTOMATIC_DISCOVERY_RANGE': 'LOCALHOST',
                                        'ROS_STATIC_PEERS': '10.0.0.7;camera'})])
def test_nodes_are_seen_by_this_machine_only_unless_one_argument_says_otherwise(pair, monkeypatch, given, variables):
    for name in ('ROS_AUTOMATIC_DISCOVERY_RANGE', 'ROS_STATIC_PEERS', 'ROS_LOCALHOST_ONLY', 'VGPS_MACHINES',
                 'ROS_DISTRO'):
        monkeypatch.delenv(name, raising=False)
    with supervisor.Runner('pair', {**pair, **given}, log=lambda line: None) as running:
        for child in running.children.values():
            words = dict(word.partition('=')[::2] for word in
                         pathlib.Path(f'/proc/{child.pid}/environ').read_text().split('\0'))
            assert variables.items() <= words.items()


def test_a_node_without_its_enclave_says_so_in_one_line(pair, tmp_path):
    lines = []
    (tmp_path / 'keystore').mkdir()
    with supervisor.Runner('pair', {**pair, 'keystore': str(tmp_path / 'keystore')}, log=lines.append) as running:
        assert set(running.wait().values()) == {2}
        wait_for(lambda: sum('no enclave' in line for line in lines) >= 1)
    said = [line for line in lines if line.startswith(('[first]', '[second]')) and 'error:' in line]
    assert all(f'/{pair["namespace"]}/' in line and str(tmp_path) in line for line in said), lines
    assert not any('Traceback' in line for line in lines)


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
            assert path in run_files.in_use()
        assert path not in run_files.in_use()
    finally:
        path.unlink()
