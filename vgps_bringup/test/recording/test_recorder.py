"""What is recorded when, in which layout, and what a kill -9 leaves."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import evaluation_bags
import pytest
from evaluation_bags import INSTRUCTION, Messages, episode_messages, topic

from vgps_bringup.recording.recording import SECOND, RecorderConfig, Recording
from vgps_msgs_py.bags.reader import Bag, BagError
from vgps_msgs_py.bags.writer import is_complete


@pytest.fixture(scope='module')
def messages():
    return Messages()


def feed(recording, messages, steps=3, **options):
    """Pass an episode to the recording as the node does; return the time of the last message."""
    for where, message, received in episode_messages(messages, steps=steps, **options):
        is_episode = where.type.endswith('/Episode')
        if is_episode and message.outcome == 0:
            recording.episode(message.episode_id, True, received)
        recording.message(where, messages.serialize(message), received)
        if is_episode and message.outcome:
            recording.episode(message.episode_id, False, received)
        recording.tick(received)
    return received


def test_each_episode_gets_its_own_bag_with_the_latched_configuration(tmp_path, messages):
    recording = Recording(RecorderConfig(output_directory=str(tmp_path)), messages.types)
    last = feed(recording, messages, episode_id='first')
    assert recording.writer is not None, 'a little is recorded after the outcome'
    recording.tick(last + 2 * SECOND)
    assert [f.name for f in recording.finished] == ['first'] and recording.writer is None
    # the second episode's nodes said their configuration long ago
    for where, message, received in episode_messages(messages, episode_id='second', start=last + 9 * SECOND, steps=2):
        if where.type.endswith('/Episode'):
            recording.episode(message.episode_id, message.outcome == 0, received)
        if not where.name.endswith('configuration'):
            recording.message(where, messages.serialize(message), received)
    recording.close()
    second = Bag(tmp_path / 'second')
    assert set(second.configurations) == {'policy_node', 'critic_node'}
    assert [e.episode_id for e in second.episodes] == ['second']
    assert second.episodes[0].outcome == 'success' and len(second.episodes[0].steps) == 2


def test_a_frame_that_came_just_before_its_episode_is_in_the_bag(tmp_path, messages):
    recording = Recording(RecorderConfig(output_directory=str(tmp_path)), messages.types)
    parts = list(episode_messages(messages, episode_id='late', steps=1))
    start = parts[0][2]
    frame = next(p for p in parts if p[0].name.endswith('image_raw'))
    recording.message(frame[0], messages.serialize(frame[1]), start - SECOND)       # too old
    recording.message(frame[0], messages.serialize(frame[1]), start - SECOND // 5)
    recording.episode('late', True, start)
    recording.close()
    assert Bag(tmp_path / 'late').counts['/vgps/image_raw'] == 1


def test_a_new_episode_ends_the_bag_of_one_that_never_ended(tmp_path, messages):
    recording = Recording(RecorderConfig(output_directory=str(tmp_path)), messages.types)
    last = feed(recording, messages, episode_id='lost', outcome=0)
    feed(recording, messages, episode_id='next', start=last + SECOND)
    recording.close()
    assert [f.name for f in recording.finished] == ['lost', 'next']
    assert Bag(tmp_path / 'lost').episodes[0].outcome == 'running'


def test_an_episode_that_is_repeated_gets_a_new_folder(tmp_path, messages):
    for _ in range(2):
        recording = Recording(RecorderConfig(output_directory=str(tmp_path)), messages.types)
        feed(recording, messages, episode_id='again')
        recording.close()
    assert sorted(f.name for f in tmp_path.iterdir()) == ['again', 'again_2']


def test_continuous_recording_holds_all_episodes_in_one_bag(tmp_path, messages):
    recording = Recording(RecorderConfig(output_directory=str(tmp_path), per_episode=False), messages.types)
    last = feed(recording, messages, episode_id='a')
    feed(recording, messages, episode_id='b', start=last + SECOND, outcome=2)
    recording.close()
    assert len(recording.finished) == 1
    episodes = Bag(recording.finished[0]).episodes
    assert [(e.episode_id, e.outcome) for e in episodes] == [('a', 'success'), ('b', 'failure')]


def test_a_type_without_definition_is_refused_by_name_and_the_rest_recorded(tmp_path, messages):
    recording = Recording(RecorderConfig(output_directory=str(tmp_path)), messages.types)
    recording.episode('x', True, 1)
    recording.message(topic('odd', 'nobody_msgs/msg/Thing'), b'\0\1\0\0', 2)
    where, message, received = next(iter(episode_messages(messages)))
    recording.message(where, messages.serialize(message), received)
    recording.close()
    assert 'nobody_msgs' in recording.refused['/vgps/odd']
    assert Bag(tmp_path / 'x').counts == {'/vgps/configuration': 1}


PUBLISHER = textwrap.dedent('''
    import sys, time, rclpy
    from rclpy.serialization import deserialize_message
    from evaluation_bags import Messages, episode_messages
    from vgps_msgs_py import qos
    import importlib

    mode = sys.argv[1]
    rclpy.init()
    node = rclpy.create_node('talker', namespace='vgps')
    messages = Messages()
    # 'once': a camera that offers compressed pictures and no others
    parts = list(episode_messages(messages, steps=200 if mode == 'endless' else 6, compressed=mode == 'once'))
    publishers = {}
    for where, _, _ in parts:
        if where.name not in publishers:
            package, _, short = where.type.split('/')
            cls = getattr(importlib.import_module(package + '.msg'), short)
            profile = (qos.LATCHED_MANY if where.latched else qos.EVENT if where.reliable else qos.IMAGE)
            publishers[where.name] = (cls, node.create_publisher(cls, where.name, profile))
    limit = time.monotonic() + 20
    while any(p.get_subscription_count() == 0 for _, p in publishers.values()) and time.monotonic() < limit:
        time.sleep(0.05)
    time.sleep(0.5)
    origin, began = parts[0][2], time.monotonic()
    for where, message, received in parts:
        time.sleep(max(0.0, (received - origin) * 1e-9 - (time.monotonic() - began)))
        cls, publisher = publishers[where.name]
        publisher.publish(deserialize_message(messages.serialize(message), cls))
    time.sleep(1.0)
''')


def start_node(tmp_path, mode):
    pytest.importorskip('rclpy')
    environment = {**os.environ,
                   'PYTHONPATH': os.pathsep.join([str(Path(evaluation_bags.__file__).parent),
                                                  os.environ.get('PYTHONPATH', '')])}
    recorder = subprocess.Popen(
        [sys.executable, '-c', 'from vgps_bringup.recording.recorder_node import main; main()', '--ros-args', '-r',
         '__ns:=/vgps', '-p', f'output_directory:={tmp_path}'], env=environment)
    talker = subprocess.Popen([sys.executable, '-c', PUBLISHER, mode], env=environment)
    return recorder, talker


@pytest.mark.ros
def test_the_node_records_an_episode_over_dds_and_ends_cleanly(tmp_path):
    recorder, talker = start_node(tmp_path, 'once')
    try:
        assert talker.wait(60) == 0
        limit = time.monotonic() + 60
        while time.monotonic() < limit and not is_complete(tmp_path / 'episode-1'):
            time.sleep(0.1)
        recorder.send_signal(signal.SIGINT)
        assert recorder.wait(20) == 0
    finally:
        recorder.kill()
        talker.kill()
    bag = Bag(tmp_path / 'episode-1')
    episode, = bag.episodes
    assert bag.problems == [] and episode.outcome == 'success' and episode.instruction == INSTRUCTION
    assert [s.index for s in episode.steps] == list(range(6))
    assert all(s.candidates and s.decision and s.command and s.states for s in episode.steps)
    stamps = {s.stamp for s in episode.steps}
    assert {f.stamp for f in bag.frames(wanted=stamps)} == stamps
    assert {'policy_node', 'critic_node', 'recorder_node'} == set(bag.configurations)


def decisions(folder):
    """Return the steps whose decision can be read from a bag, also while it is written."""
    try:
        return {step.index for episode in Bag(folder).episodes for step in episode.steps if step.decision is not None}
    except BagError:  # nothing in it yet
        return set()


def test_what_is_not_yet_flushed_is_younger_than_the_flush_period(tmp_path, messages):
    recording, decided = Recording(RecorderConfig(output_directory=str(tmp_path)), messages.types), {}
    for where, message, received in episode_messages(messages, steps=20, outcome=0):
        if where.type.endswith('/Episode'):
            recording.episode(message.episode_id, True, received)
        recording.message(where, messages.serialize(message), received)
        recording.tick(received)
        if where.name.endswith('/decision'):
            decided[message.step] = received
    kept = decisions(tmp_path / 'episode-1')  # neither closed nor flushed for the occasion, as after a kill -9
    period = recording.config.flush_period * SECOND
    assert kept and {step for step, moment in decided.items() if moment < received - period} <= kept
    recording.close()


@pytest.mark.ros
def test_what_was_flushed_survives_a_kill_9(tmp_path):
    recorder, talker = start_node(tmp_path, 'endless')
    try:
        limit = time.monotonic() + 60
        while len(flushed := decisions(tmp_path / 'episode-1')) < 8:
            assert recorder.poll() is None and time.monotonic() < limit
            time.sleep(0.1)
        recorder.kill()
        recorder.wait(10)
    finally:
        recorder.kill()
        talker.kill()
    bag = Bag(tmp_path / 'episode-1')
    assert decisions(tmp_path / 'episode-1') >= flushed
    assert any('cut off' in problem for problem in bag.problems), 'and the reader says so'
    assert bag.episodes[0].outcome == 'running'
