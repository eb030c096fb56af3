"""What the writer leaves: files that other readers read, with definitions and hashes that are ROS's own."""

import json
import os
from pathlib import Path

import pytest
import yaml
from evaluation_bags import Messages, write_bag
from mcap.reader import make_reader
from rosbags.rosbag2 import Reader

from vgps_msgs_py.bags.message_types import MessageTypes, UnknownTypeError
from vgps_msgs_py.bags.writer import BagWriter


@pytest.fixture(scope='module')
def messages():
    return Messages()


def test_type_hashes_equal_those_of_the_compiled_messages():
    folders = [Path(p) / 'share/vgps_msgs/msg' for p in os.environ.get('AMENT_PREFIX_PATH', '').split(os.pathsep)]
    files = [f for folder in folders for f in sorted(folder.glob('*.json'))]
    if not files:
        pytest.skip('vgps_msgs is not built or its ROS writes no type descriptions (Humble)')
    types = MessageTypes()
    for file in files:
        name = f'vgps_msgs/msg/{file.stem}'
        compiled = next(h['hash_string'] for h in json.loads(file.read_text())['type_hashes'] if h['type_name'] == name)
        assert types.definition(name)[1] == compiled, name


def test_definition_of_an_unknown_package_says_what_to_source():
    with pytest.raises(UnknownTypeError, match="source the package 'nobody_msgs'"):
        MessageTypes().definition('nobody_msgs/msg/Thing')


def test_rosbags_reads_what_the_writer_wrote(tmp_path, messages):
    folder = write_bag(tmp_path / 'episode-1', messages=messages)
    with Reader(folder) as reader:
        counts = {c.topic: c.msgcount for c in reader.connections}
        images = [c for c in reader.connections if c.topic == '/vgps/image_raw']
        assert counts['/vgps/image_raw'] == 48 and counts['/vgps/decision'] == 8
        assert images[0].msgtype == 'sensor_msgs/msg/Image'
        assert images[0].ext.offered_qos_profiles[0].reliability.name == 'BEST_EFFORT'
        received = [stamp for _, stamp, _ in reader.messages()]
        assert len(received) == sum(counts.values()) and received == sorted(received)


def test_foxglove_s_reader_finds_definitions_with_constants(tmp_path, messages):
    folder = write_bag(tmp_path / 'episode-1', messages=messages)
    with (folder / 'episode-1_0.mcap').open('rb') as stream:
        reader = make_reader(stream)
        summary = reader.get_summary()
        assert reader.get_header().profile == 'ros2'
    schema = next(s for s in summary.schemas.values() if s.name == 'vgps_msgs/msg/SteeringDecision')
    assert 'uint8 FRAME_MISSING=3' in schema.data.decode() and 'MSG: std_msgs/Header' in schema.data.decode()
    assert summary.statistics.message_count == sum(summary.statistics.channel_message_counts.values()) > 80


def test_metadata_is_version_8_and_counts_messages(tmp_path, messages):
    folder = write_bag(tmp_path / 'episode-1', messages=messages)
    information = yaml.safe_load((folder / 'metadata.yaml').read_text())['rosbag2_bagfile_information']
    assert information['version'] == 8 and information['storage_identifier'] == 'mcap'
    assert information['relative_file_paths'] == ['episode-1_0.mcap']
    assert information['message_count'] == sum(
        t['message_count'] for t in information['topics_with_message_count']) > 80


def test_a_bag_is_never_overwritten(tmp_path):
    (tmp_path / 'there').mkdir()
    with pytest.raises(FileExistsError):
        BagWriter(tmp_path / 'there')
