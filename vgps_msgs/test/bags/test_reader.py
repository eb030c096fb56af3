"""A recording as episodes of steps, from every storage, whole or cut off."""

import shutil
import sqlite3

import numpy as np
import pytest
from evaluation_bags import FRAME, INSTRUCTION, START, Messages, episode_messages, picture, write_bag
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer

from vgps_msgs_py.bags.reader import Bag
from vgps_msgs_py.bags.storage import BagError
from vgps_msgs_py.bags.writer import BagWriter, Topic, is_complete


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


LFS = b'version https://git-lfs.github.com/spec/v1\noid sha256:665232916d127eb7\nsize 146946961\n'


@pytest.mark.parametrize('make, words', [
    (lambda p: p / 'nothing', 'there is no bag'),
    (lambda p: p, 'not a rosbag2 recording'),
    (lambda p: (p / 'x.bag').write_bytes(b'#ROSBAG V2.0') and p / 'x.bag', 'rosbags-convert'),
    (lambda p: (p / 'x.mcap').write_bytes(b'') or p / 'x.mcap', 'is empty'),
    (lambda p: (p / 'x.mcap').write_bytes(b'garbage garbage garbage') and p / 'x.mcap', 'not an MCAP file'),
    (lambda p: (p / 'x.mcap').write_bytes(LFS) and p / 'x.mcap', 'x.mcap is a Git LFS pointer.* `git lfs pull`'),
    (lambda p: (p / 'x.db3').write_bytes(LFS) and p / 'x.db3', 'x.db3 is a Git LFS pointer.* `git lfs pull`'),
    (lambda p: (p / 'x.db3').write_bytes(b'garbage garbage garbage') and p / 'x.db3', 'damaged')])
def test_what_is_no_bag_is_refused_in_words(tmp_path, make, words):
    with pytest.raises(BagError, match=words):
        Bag(make(tmp_path))


def test_a_bag_without_episode_announcement_still_gives_its_steps(tmp_path, messages):
    writer = BagWriter(tmp_path / 'bag', messages.types)
    for where, message, received in episode_messages(messages):
        if not where.type.endswith('/Episode'):
            writer.write(where, messages.serialize(message), received)
    writer.close()
    episode, = Bag(tmp_path / 'bag').episodes
    assert len(episode.steps) == 8 and episode.outcome == 'running' and episode.instruction == INSTRUCTION


def test_two_cameras_the_one_the_policy_looked_at_is_taken(tmp_path, messages):
    writer = BagWriter(tmp_path / 'bag', messages.types)
    for where, message, received in episode_messages(messages):
        writer.write(where, messages.serialize(message), received)
        if where.type.endswith('/Image'):
            message.header.stamp.nanosec += 1
            writer.write(Topic('/wrist/image_raw', where.type), messages.serialize(message), received)
    writer.close()
    assert Bag(tmp_path / 'bag').image_topic() == '/vgps/image_raw'


@pytest.mark.parametrize('told', ['/wrist/image_raw', 'wrist/image_raw'])
def test_of_synchronised_cameras_the_one_that_the_configuration_calls_the_wrist_s_is_left(tmp_path, messages, told):
    for name, parameters in (('told', f"policy: octo\nwrist_topic: {told}\n"), ('untold', "wrist_topic: ''\n")):
        writer = BagWriter(tmp_path / name, messages.types)
        for where, message, received in episode_messages(messages):
            if where.type.endswith('NodeConfiguration'):
                message.parameters = parameters
            writer.write(where, messages.serialize(message), received)
            if where.type.endswith('/Image'):  # the same stamps
                writer.write(Topic('/wrist/image_raw', where.type), messages.serialize(message), received)
        writer.close()
    bag = Bag(tmp_path / 'told')
    assert bag.image_topic() == '/vgps/image_raw' and bag.image_topic('wrist') == '/wrist/image_raw'
    assert len(bag.image_stamps['/wrist/image_raw']) == len(bag.image_stamps['/vgps/image_raw']) == 48
    with pytest.raises(BagError, match=r'--camera.*/vgps/image_raw, /wrist/image_raw'):
        Bag(tmp_path / 'untold').image_topic()
