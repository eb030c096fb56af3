"""Reading whole, damaged and foreign recordings, and reporting them."""

import json
import shutil
import sqlite3
from dataclasses import replace

import av
import cv2
import numpy as np
import pytest
from evaluation_bags import FRAME, INSTRUCTION, START, Messages, count_readings, episode_messages, picture, write_bag
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer

from vgps_bringup.episode_pages.latency import added_latency, latency_table, model_milliseconds
from vgps_bringup.episode_pages.overlay import Values, absence
from vgps_bringup.episode_pages.report import comparison_report, episode_report
from vgps_msgs_py.bags.reader import Bag
from vgps_msgs_py.bags.storage import BagError


@pytest.fixture(scope='module')
def messages():
    return Messages()


@pytest.fixture(scope='module')
def bag_folder(tmp_path_factory, messages):
    return write_bag(tmp_path_factory.mktemp('bags') / 'episode-1', messages=messages)


def write_with_rosbags(folder, messages, plugin, compression=CompressionMode.NONE, **options):
    """The same episode through another writer: sqlite3, compressed."""
    with_compression = Writer(folder, version=8, storage_plugin=plugin)
    with_compression.set_compression(compression, CompressionFormat.ZSTD)
    with with_compression as writer:
        connections = {}
        for where, message, received in episode_messages(messages, **options):
            if where.name not in connections:
                messages.types.require(where.type)
                connections[where.name] = writer.add_connection(where.name, where.type, typestore=messages.types.store)
            writer.write(connections[where.name], received, messages.serialize(message))
    return folder


def check_episode(bag, steps=8):
    episode, = bag.episodes
    assert (episode.instruction, episode.outcome, episode.seed) == (INSTRUCTION, 'success', 3)
    assert [s.index for s in episode.steps] == list(range(steps))
    step = episode.steps[2]
    assert step.actions.shape == (6, 4, 7) and step.q_values.shape == (2, 6)
    # same image: the frame of the step is exactly the one that was published with its stamp
    number = (step.stamp - START) // FRAME
    frame, = bag.frames(wanted={step.stamp})
    assert np.array_equal(frame.image(), picture(number))
    assert np.allclose(step.decision.action, step.actions[step.decision.chosen, 0])
    assert [s.state for s in step.states] == [1, 0]


def test_steps_join_frame_candidates_decision_command_and_controller(bag_folder):
    bag = Bag(bag_folder)
    check_episode(bag)
    assert bag.problems == []


@pytest.mark.parametrize('plugin, compression', [
    (StoragePlugin.SQLITE3, CompressionMode.NONE), (StoragePlugin.SQLITE3, CompressionMode.MESSAGE),
    (StoragePlugin.SQLITE3, CompressionMode.FILE), (StoragePlugin.MCAP, CompressionMode.NONE),
    (StoragePlugin.MCAP, CompressionMode.FILE)])
def test_every_storage_and_compression_reads_the_same(tmp_path, messages, plugin, compression):
    bag = Bag(write_with_rosbags(tmp_path / 'bag', messages, plugin, compression))
    check_episode(bag)
    assert bag.problems == []


def test_humble_s_sqlite3_bags_without_definitions_use_the_installed_messages(tmp_path, messages):
    folder = write_with_rosbags(tmp_path / 'bag', messages, StoragePlugin.SQLITE3)
    with sqlite3.connect(next(folder.glob('*.db3'))) as connection:
        connection.execute('DROP TABLE message_definitions')
    check_episode(Bag(folder))


def test_compressed_images_are_found_and_decoded(tmp_path, messages):
    bag = Bag(write_bag(tmp_path / 'bag', compressed=True, messages=messages))
    check_episode(bag)


def test_a_bag_without_metadata_is_read_and_says_so(tmp_path, bag_folder):
    folder = shutil.copytree(bag_folder, tmp_path / 'copy')
    (folder / 'metadata.yaml').unlink()
    bag = Bag(folder)
    check_episode(bag)
    assert 'metadata.yaml is missing' in bag.problems[0]


@pytest.mark.parametrize('fraction', [0.3, 0.7, 0.95])
def test_a_bag_cut_off_anywhere_gives_its_beginning_and_names_the_cut(tmp_path, bag_folder, fraction):
    folder = shutil.copytree(bag_folder, tmp_path / 'copy')
    file = next(folder.glob('*.mcap'))
    data = file.read_bytes()
    file.write_bytes(data[:int(len(data) * fraction)])
    try:
        bag = Bag(folder)
    except BagError as error:  # cut within the first chunk
        assert 'cut off' in str(error)
        return
    assert any('cut off or damaged' in problem for problem in bag.problems)


def test_an_unindexed_file_is_read_whole(tmp_path, messages):
    from vgps_msgs_py.bags.writer import BagWriter, is_complete
    assert not is_complete(tmp_path / 'killed')
    writer = BagWriter(tmp_path / 'killed', messages.types)
    for where, message, received in episode_messages(messages):
        writer.write(where, messages.serialize(message), received)
    writer.flush()  # and then kill -9: neither index nor footer
    bag = Bag(tmp_path / 'killed')
    check_episode(bag)
    assert 'cut off' in bag.problems[0] and not is_complete(tmp_path / 'killed')
    writer.close()
    assert is_complete(tmp_path / 'killed')


@pytest.mark.parametrize('make, words', [
    (lambda p: p / 'nothing', 'there is no bag'),
    (lambda p: p, 'not a rosbag2 recording'),
    (lambda p: (p / 'x.bag').write_bytes(b'#ROSBAG V2.0') and p / 'x.bag', 'rosbags-convert'),
    (lambda p: (p / 'x.mcap').write_bytes(b'') or p / 'x.mcap', 'is empty'),
    (lambda p: (p / 'x.mcap').write_bytes(b'garbage garbage garbage') and p / 'x.mcap', 'cut off or damaged'),
    (lambda p: (p / 'x.db3').write_bytes(b'garbage garbage garbage') and p / 'x.db3', 'damaged')])
def test_what_is_no_bag_is_refused_in_words(tmp_path, make, words):
    with pytest.raises(BagError, match=words):
        Bag(make(tmp_path))


def test_a_bag_without_episode_announcement_still_gives_its_steps(tmp_path, messages):
    from vgps_msgs_py.bags.writer import BagWriter
    writer = BagWriter(tmp_path / 'bag', messages.types)
    for where, message, received in episode_messages(messages):
        if not where.type.endswith('/Episode'):
            writer.write(where, messages.serialize(message), received)
    writer.close()
    episode, = Bag(tmp_path / 'bag').episodes
    assert len(episode.steps) == 8 and episode.outcome == 'running' and episode.instruction == INSTRUCTION


def test_two_cameras_the_one_the_policy_looked_at_is_taken(tmp_path, messages):
    from vgps_msgs_py.bags.writer import BagWriter, Topic
    writer = BagWriter(tmp_path / 'bag', messages.types)
    for where, message, received in episode_messages(messages):
        writer.write(where, messages.serialize(message), received)
        if where.type.endswith('/Image'):
            message.header.stamp.nanosec += 1
            writer.write(Topic('/wrist/image_raw', where.type), messages.serialize(message), received)
    writer.close()
    assert Bag(tmp_path / 'bag').image_topic() == '/vgps/image_raw'


def test_model_time_counts_the_longer_of_policy_and_encoder(bag_folder):
    step = Bag(bag_folder).episodes[0].steps[0]
    assert model_milliseconds(step) == pytest.approx(max(40, 20) + 2.2)
    assert added_latency(step) == pytest.approx(61 - 42.2)
    rows = {row.name: row for row in latency_table(Bag(bag_folder).episodes[0])}
    assert rows['candidates → decision'].p50 == pytest.approx(8.0)
    assert rows['period of a step'].p50 == pytest.approx(200.0, abs=0.1)


def test_the_report_folder_is_complete_and_self_contained(tmp_path, bag_folder):
    summary = episode_report(bag_folder, tmp_path / 'report', label='steered')
    html = (tmp_path / 'report/index.html').read_text()
    assert 'http://' not in html.replace('http://www.w3.org', '') and 'https://' not in html
    assert '<script' not in html and 'data:video/mp4;base64,' in html and 'frame missing' in html
    assert 'Stand-in: critic_node' in html and summary['stand_ins']
    with av.open(str(tmp_path / 'report/video.mp4')) as video:
        frames = [f.to_ndarray(format='rgb24') for f in video.decode(video=0)]
    assert len(frames) > 48 and frames[0].shape[0] % 2 == 0
    assert np.abs(frames[0].astype(int) - frames[-1].astype(int)).mean() > 5
    assert json.loads((tmp_path / 'report/summary.json').read_text())['outcome'] == 'success'


def test_a_truncated_bag_still_gets_its_report_with_the_reason_on_it(tmp_path, bag_folder):
    folder = shutil.copytree(bag_folder, tmp_path / 'copy')
    file = next(folder.glob('*.mcap'))
    file.write_bytes(file.read_bytes()[:-400])  # no index, no end
    episode_report(folder, tmp_path / 'report')
    assert 'Partial recording' in (tmp_path / 'report/index.html').read_text()


def test_the_last_step_of_a_judged_episode_is_not_called_a_gap_in_the_recording(bag_folder):
    episode = Bag(bag_folder).episodes[0]
    shared = Values.of(episode)
    assert shared.last == len(episode.steps) - 1
    assert 'ended before it was decided' in absence(episode.steps[-1], True)
    assert 'no decision recorded' in absence(episode.steps[2], False)
    assert Values.of(replace(episode, outcome='running')).last is None


def test_conditions_are_compared_side_by_side(tmp_path, messages, monkeypatch):
    bags = {'plain policy': write_bag(tmp_path / 'a', messages=messages, steps=4, outcome=2, episode_id='a'),
            'steered': write_bag(tmp_path / 'b', messages=messages, steps=6, episode_id='b')}
    passes = count_readings(monkeypatch)
    text = comparison_report(bags, tmp_path / 'out')
    assert len(passes) == 3 * len(bags), 'the messages of each, and its frames for each of the two videos'
    assert 'plain policy: FAILURE' in text and 'steered: SUCCESS' in text
    html = (tmp_path / 'out/index.html').read_text()
    assert '../a/report/index.html' in html and (tmp_path / 'a/report/index.html').exists()
    with av.open(str(tmp_path / 'out/video.mp4')) as video:
        assert video.streams.video[0].width > video.streams.video[0].height * 0.8
    height, width = cv2.imread(str(tmp_path / 'out/filmstrip.jpg')).shape[:2]
    assert width > 2.8 * height  # both conditions at three moments, each picture half as wide as high
