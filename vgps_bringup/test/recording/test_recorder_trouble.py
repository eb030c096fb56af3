"""Whatever keeps a bag from being written, the recorder lives, says so, writes again, and the bag names its gap."""

import errno
import os
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from evaluation_bags import Messages, episode_messages, topic

from vgps_bringup.recording import recording as recording_module
from vgps_bringup.recording.recording import SECOND, RecorderConfig, Recording
from vgps_msgs_py.bags.reader import Bag
from vgps_msgs_py.bags.writer import BagWriter, Topic

FRAMES = Topic('/vgps/image_raw', 'sensor_msgs/msg/Image', reliable=False)
FRAME = bytes([0, 1, 0, 0]) + bytes(921_600)  # VGA


@pytest.fixture(scope='module')
def messages():
    return Messages()


@pytest.fixture
def recording(tmp_path, messages):
    return Recording(RecorderConfig(output_directory=str(tmp_path / 'runs')), messages.types)


def parts_of(messages, **options):
    return [(where, messages.serialize(message), received, message)
            for where, message, received in episode_messages(messages, **options)]


def feed(recording, parts):
    for where, data, received, message in parts:
        is_episode = where.type.endswith('/Episode')
        if is_episode and message.outcome == 0:
            recording.episode(message.episode_id, True, received)
        recording.message(where, data, received)
        if is_episode and message.outcome:
            recording.episode(message.episode_id, False, received)
        recording.tick(received)


def what_is_missing(folder):
    information = yaml.safe_load((folder / 'metadata.yaml').read_text())['rosbag2_bagfile_information']
    return (information['custom_data'] or {}).get('missing', '')


class Disk:
    """Makes every write of a bag fail while it is full."""

    def __init__(self, monkeypatch, number=errno.ENOSPC):
        self.full, self.error = False, OSError(number, os.strerror(number))
        for name in ('write', 'flush', 'close', '__init__'):
            monkeypatch.setattr(BagWriter, name, self.guarded(getattr(BagWriter, name)))
        monkeypatch.setattr(recording_module.shutil, 'disk_usage', lambda _: shutil._ntuple_diskusage(
            10**9, 10**9, 0 if self.full else 10**9))

    def guarded(self, function):
        def call(*arguments, **names):
            if self.full:
                raise self.error
            return function(*arguments, **names)
        return call


@pytest.mark.parametrize('number', [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EDQUOT, errno.EIO])
def test_an_episode_goes_on_in_a_second_bag_that_says_what_is_in_neither(
        tmp_path, messages, recording, monkeypatch, number):
    disk, parts = Disk(monkeypatch, number), parts_of(messages, episode_id='e', steps=12)
    third = len(parts) // 3
    feed(recording, parts[:third])
    disk.full = True
    feed(recording, parts[third:2 * third])
    assert os.strerror(number) in recording.trouble and recording.writer is None
    disk.full = False
    recording.tick(parts[2 * third][2] + 2 * SECOND)
    feed(recording, [(w, d, r + 2 * SECOND, m) for w, d, r, m in parts[2 * third:]])
    recording.close()
    first, second = tmp_path / 'runs/e', tmp_path / 'runs/e_2'
    assert os.strerror(number) in what_is_missing(first) and os.strerror(number) in what_is_missing(second)
    assert any(os.strerror(number) in problem for problem in Bag(first).problems), 'and the reader says so'
    episode, = Bag(second).episodes
    assert episode.outcome == 'success' and episode.instruction, 'its announcement is in the second bag too'
    assert set(Bag(second).configurations) == {'policy_node', 'critic_node'}


def test_a_full_disk_is_not_filled_with_empty_bags(tmp_path, messages, recording, monkeypatch):
    disk, parts = Disk(monkeypatch), parts_of(messages, episode_id='e', steps=12)
    feed(recording, parts[:len(parts) // 2])
    disk.full = True
    feed(recording, parts[len(parts) // 2:])
    for second in range(100):
        recording.tick(parts[-1][2] + second * SECOND // 100)
    assert [f.name for f in (tmp_path / 'runs').iterdir()] == ['e']


def test_the_episode_after_the_trouble_is_recorded_whole(tmp_path, messages, recording, monkeypatch):
    disk = Disk(monkeypatch)
    parts = parts_of(messages, episode_id='unlucky', steps=4)
    disk.full = True
    feed(recording, parts)
    recording.tick(parts[-1][2] + 5 * SECOND)
    assert recording.trouble == '' and recording.writer is None, 'it is over'
    disk.full = False
    feed(recording, parts_of(messages, episode_id='lucky', steps=4, start=parts[-1][2] + 9 * SECOND))
    recording.close()
    assert len(Bag(tmp_path / 'runs/lucky').episodes[0].steps) == 4 and not what_is_missing(tmp_path / 'runs/lucky')
    assert not (tmp_path / 'runs/unlucky').exists()


@pytest.mark.parametrize('remove', ['folder', 'file', 'output', 'output becomes a file'])
def test_a_bag_that_somebody_removes_is_begun_anew(tmp_path, messages, recording, remove):
    parts = parts_of(messages, episode_id='e', steps=12)
    half = len(parts) // 2
    feed(recording, parts[:half])
    runs = tmp_path / 'runs'
    if remove == 'file':
        (runs / 'e/e_0.mcap').unlink()
    else:
        shutil.rmtree(runs / 'e' if remove == 'folder' else runs)
    if remove == 'output becomes a file':
        runs.write_text('')
    recording.tick(parts[half][2] + SECOND)
    assert remove != 'output becomes a file' or recording.trouble
    if runs.is_file():
        runs.unlink()
    feed(recording, [(w, d, r + 3 * SECOND, m) for w, d, r, m in parts[half:]])
    recording.close()
    bag = Bag(max(runs.iterdir(), key=lambda folder: folder.stat().st_mtime_ns))
    assert bag.episodes[0].outcome == 'success' and any('could not write' in p for p in bag.problems)


def test_a_disk_that_fills_up_while_a_bag_closes_leaves_a_readable_bag(tmp_path, messages, recording, monkeypatch):
    disk, parts = Disk(monkeypatch), parts_of(messages, episode_id='e', steps=6)
    feed(recording, parts)
    recording.tick(parts[-1][2] + SECOND // 2)
    disk.full = True
    recording.close()
    assert recording.abandoned[0][2] and len(Bag(tmp_path / 'runs/e').episodes[0].steps) == 6


@pytest.mark.parametrize('name', ['x' * 300, 'ü' * 200, '..', '../../x', '/etc/passwd', '', '\0', '.hidden', 'a/b',
                                  'a\nb', '\udcff', '.' * 300, 'e'])
def test_no_episode_id_leaves_the_output_folder_or_is_too_long_for_it(tmp_path, recording, name):
    for _ in range(2):
        recording.episode(name, True, SECOND)
        recording.message(FRAMES, FRAME, SECOND)
        assert not recording.trouble
        recording.close()
    folders = list((tmp_path / 'runs').iterdir())
    assert len(folders) == 2 and [f.name for f in tmp_path.iterdir()] == ['runs']


def test_two_episodes_of_one_name_are_two_bags(tmp_path, messages, recording):
    parts = parts_of(messages, episode_id='same', steps=2)
    feed(recording, parts)
    feed(recording, [(w, d, r + SECOND // 10, m) for w, d, r, m in parts])  # before the post-roll of the first is over
    recording.close()
    for name in ('same', 'same_2'):
        assert Bag(tmp_path / 'runs' / name).episodes[0].outcome == 'success'


@pytest.mark.parametrize('step', [-3600, 3600])
def test_a_clock_that_is_set_costs_neither_memory_nor_the_end_of_a_bag(tmp_path, recording, step):
    now = 1_800_000_000 * SECOND
    for i in range(60):
        recording.message(FRAMES, FRAME, now + i * SECOND // 30)
    now += step * SECOND
    for i in range(600):
        recording.message(FRAMES, FRAME, now + i * SECOND // 30)
        assert recording._recent_bytes <= 17 * len(FRAME)
    recording.episode('e', True, now)
    recording.message(FRAMES, FRAME, now)
    recording.episode('e', False, now)
    now += step * SECOND
    for i in range(30):
        recording.tick(now + i * SECOND // 10)
    assert [f.name for f in recording.finished] == ['e']


def test_stamps_of_a_clock_that_is_set_back_reach_the_bag(tmp_path, messages, recording):
    parts = parts_of(messages, episode_id='e', steps=6)
    for i, (where, data, received, message) in enumerate(parts):
        stamp = received - (3600 * SECOND if i > len(parts) // 2 else 0)
        if where.type.endswith('/Episode') and message.outcome == 0:
            recording.episode('e', True, received, stamp)
        recording.message(where, data, received, stamp)
        recording.tick(received, stamp)
    recording.close()
    bag = Bag(tmp_path / 'runs/e')
    assert len(bag.episodes[0].steps) == 6 and bag.last - bag.first > 3590 * SECOND


def test_memory_before_an_episode_is_bounded_in_bytes(tmp_path, messages):
    recording = Recording(RecorderConfig(output_directory=str(tmp_path), pre_roll=5.0, pre_roll_megabytes=20.0))
    latched = Topic('/map', 'std_msgs/msg/String', latched=True)
    for i in range(300):
        recording.message(FRAMES, FRAME, SECOND + i * 1000)
        recording.message(latched, i.to_bytes(4, 'little') + bytes(500_000), SECOND + i * 1000)
    assert recording._recent_bytes == sum(len(item[1]) for item in recording._recent) <= 10_000_000
    assert recording._latched_bytes == sum(len(data) for _, data in recording._latched) <= 10_000_000


def test_a_message_nobody_can_read_is_recorded_as_it_came_and_named_by_the_reader(tmp_path, messages, recording):
    parts = parts_of(messages, episode_id='e', steps=2)
    feed(recording, parts[:6])
    for data in (b'', b'\0', b'\0\1\0\0\1', b'\xff' * 400):
        for name in ('image_raw', 'command'):
            kind = 'sensor_msgs/msg/Image' if name == 'image_raw' else 'vgps_msgs/msg/EndEffectorCommand'
            recording.message(topic(name, kind), data, parts[6][2])
    feed(recording, parts[6:])
    recording.close()
    bag = Bag(tmp_path / 'runs/e')
    assert len(bag.episodes[0].steps) == 2 and not recording.trouble


def limited(size):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


FEEDER = Path(__file__).with_name('recorder_feeder.py')


@pytest.mark.ros
@pytest.mark.parametrize('what', ['no file may grow', 'the folder goes', 'the clock is set back', 'malformed'])
def test_the_node_lives_through_it_over_dds(tmp_path, what):
    pytest.importorskip('rclpy')
    log = tmp_path / 'log'
    with log.open('w') as stream:
        recorder = subprocess.Popen(
            [sys.executable, '-c', 'from vgps_bringup.recording.recorder_node import main; main()', '--ros-args',
             '-r', f'__ns:=/trouble_{os.getpid()}', '-p', f'output_directory:={tmp_path / "runs"}',
             '-p', f'use_sim_time:={"clock" in what}'],
            stdout=stream, stderr=subprocess.STDOUT,
            preexec_fn=(lambda: limited(4_000_000)) if what == 'no file may grow' else None)
    try:
        fed = subprocess.run([sys.executable, str(FEEDER), f'/trouble_{os.getpid()}', what, str(tmp_path / 'runs')],
                             capture_output=True, text=True, timeout=120)
        assert fed.returncode == 0, fed.stderr[-800:] + log.read_text()[-800:]
        assert recorder.poll() is None, log.read_text()
        recorder.send_signal(signal.SIGINT)
        assert recorder.wait(20) == 0
    finally:
        recorder.kill()
        recorder.wait()
    text = log.read_text()
    assert 'Traceback' not in text
    bag = Bag(tmp_path / 'runs/next')
    assert [(e.episode_id, e.outcome) for e in bag.episodes] == [('next', 'success')]
    if what in ('no file may grow', 'the folder goes'):
        assert 'NOT RECORDING' in text and 'NOT RECORDING' in fed.stdout, 'in the log and on /diagnostics'
    if what == 'malformed':
        assert 'malformed' in text
    if what == 'the clock is set back':
        assert 'bag written' in text and Bag(tmp_path / 'runs/odd').episodes[0].outcome == 'success'
