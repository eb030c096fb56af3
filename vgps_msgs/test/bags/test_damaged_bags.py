"""Recordings of other recorders and damaged ones: what is whole is read, in bounded memory, and the rest is named."""

import resource
import sqlite3
import struct
import zlib

import numpy as np
import pytest
import zstandard
from mcap.writer import CompressionType, Writer as McapWriter
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from vgps_msgs_py.bags.mcap_file import MAGIC
from vgps_msgs_py.bags.reader import Bag, BagError, CameraError

STORE = get_typestore(Stores.ROS2_HUMBLE)
TYPES = STORE.types
KIND = 'sensor_msgs/msg/JointState'


def header(stamp):
    time = TYPES['builtin_interfaces/msg/Time'](stamp // 10**9, stamp % 10**9)
    return TYPES['std_msgs/msg/Header'](time, 'base')


def reading(number):
    position = np.array([number, 0.5])
    message = TYPES[KIND](header(10**9 + number), ['waist', 'left_finger'], position, np.zeros(2), np.zeros(2))
    return bytes(STORE.serialize_cdr(message, KIND))


def write(folder, count=60, plugin=StoragePlugin.MCAP, mode=CompressionMode.NONE):
    writer = Writer(folder, version=8, storage_plugin=plugin)
    if mode is not CompressionMode.NONE:
        writer.set_compression(mode, CompressionFormat.ZSTD)
    with writer:
        connection = writer.add_connection('/joint_states', KIND, typestore=STORE)
        for number in range(count):
            writer.write(connection, 10**9 + number, reading(number))
    return folder


def chunked(path, compression, count=60, chunk_size=1024):
    with path.open('wb') as stream:
        writer = McapWriter(stream, chunk_size=chunk_size, compression=compression)
        writer.start('ros2', 'test')
        schema = writer.register_schema(KIND, 'ros2msg', STORE.generate_msgdef(KIND, ros_version=2)[0].encode())
        channel = writer.register_channel('/joint_states', 'cdr', schema)
        for number in range(count):
            writer.add_message(channel, 10**9 + number, reading(number), 10**9 + number)
        writer.finish()
    return path


def numbers(bag):
    return [int(message.position[0]) for _, message, _ in bag.messages[KIND]]


@pytest.mark.parametrize('plugin', [StoragePlugin.MCAP, StoragePlugin.SQLITE3])
@pytest.mark.parametrize('mode', [CompressionMode.NONE, CompressionMode.MESSAGE, CompressionMode.FILE])
def test_every_storage_and_compression_gives_the_same_messages(tmp_path, plugin, mode):
    folder = write(tmp_path / 'bag', plugin=plugin, mode=mode)
    bag = Bag(folder)
    assert numbers(bag) == list(range(60)) and bag.problems == []
    (folder / 'metadata.yaml').unlink()  # which alone says how the messages are compressed
    assert numbers(Bag(folder)) == list(range(60))


@pytest.mark.parametrize('compression', list(CompressionType))
def test_chunks_of_every_compression(tmp_path, compression):
    if compression is CompressionType.LZ4:
        pytest.importorskip('lz4')
    assert numbers(Bag(chunked(tmp_path / 'a.mcap', compression))) == list(range(60))


def test_a_flipped_byte_costs_its_message_and_is_named(tmp_path):
    path = chunked(tmp_path / 'a.mcap', CompressionType.NONE)
    data = bytearray(path.read_bytes())
    place = data.find(reading(7)) + 30  # the number of names: the message is no JointState any more
    data[place:place + 2] = b'\xff\xff'
    path.write_bytes(data)
    bag = Bag(path)
    assert set(numbers(bag)) == set(range(60)) - {7}
    assert any('checksum is wrong' in p for p in bag.problems) and any('(1 messages)' in p for p in bag.problems)


def test_a_damaged_compressed_chunk_costs_that_chunk(tmp_path):
    path = chunked(tmp_path / 'a.mcap', CompressionType.ZSTD)
    data = bytearray(path.read_bytes())
    second = data.find(b'\x28\xb5\x2f\xfd', data.find(b'\x28\xb5\x2f\xfd') + 4)
    data[second + 8:second + 40] = bytes(32)
    path.write_bytes(data)
    bag = Bag(path)
    assert 40 < len(numbers(bag)) < 60 and numbers(bag)[-1] == 59
    assert any('chunk at byte' in problem for problem in bag.problems)


def test_a_record_with_an_impossible_length_is_jumped_over_by_the_index(tmp_path):
    path = chunked(tmp_path / 'a.mcap', CompressionType.ZSTD)
    data = bytearray(path.read_bytes())
    first = data.find(b'\x28\xb5\x2f\xfd')
    start = first - 53  # of the chunk's record: 9 bytes of it, 32 of sizes and times, 'zstd', 8 of the length
    assert data[start] == 6
    struct.pack_into('<Q', data, start + 1, 2**50)
    path.write_bytes(data)
    bag = Bag(path)
    assert numbers(bag)[-1] == 59 and len(numbers(bag)) > 40
    assert any('cut off or damaged' in problem for problem in bag.problems)


def record(opcode, body):
    return struct.pack('<BQ', opcode, len(body)) + body


def chunk(data, size, compression=b'zstd'):
    body = struct.pack('<QQQI', 0, 0, size, 0) + struct.pack('<I', len(compression)) + compression
    return record(6, body + struct.pack('<Q', len(data)) + data)


def test_chunks_that_claim_or_unpack_to_any_size_stay_within_memory(tmp_path):
    bomb = zstandard.ZstdCompressor().compress(bytes(1 << 30))
    path = chunked(tmp_path / 'a.mcap', CompressionType.ZSTD)
    whole = path.read_bytes()
    hostile = chunk(bomb, 1 << 62) + chunk(bomb, 1 << 16) + chunk(b'', 1 << 40) + record(200, b'x' * 9)
    at = whole.find(b'\x06', len(MAGIC))
    path.write_bytes(whole[:len(MAGIC)] + hostile + whole[len(MAGIC):])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    bag = Bag(path)
    assert at > 0 and numbers(bag) == list(range(60))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000  # [KiB]
    assert sum('was left out' in problem for problem in bag.problems) == 2


def test_a_message_that_does_not_decompress_costs_itself(tmp_path):
    folder = write(tmp_path / 'bag', plugin=StoragePlugin.SQLITE3, mode=CompressionMode.MESSAGE)
    with sqlite3.connect(next(folder.glob('*.db3'))) as connection:
        connection.execute('UPDATE messages SET data = ? WHERE id = 5', (b'\x28\xb5\x2f\xfd' + bytes(9),))
        connection.execute('UPDATE messages SET data = ? WHERE id = 6', ('text',))
    bag = Bag(folder)
    assert len(numbers(bag)) == 58 and any('1 messages do not decompress' in p for p in bag.problems)


def test_a_damaged_page_of_a_database_costs_its_rows(tmp_path):
    folder = write(tmp_path / 'bag', 4000, plugin=StoragePlugin.SQLITE3)
    path = next(folder.glob('*.db3'))
    data = bytearray(path.read_bytes())
    for page in (40, 41):
        data[4096 * page:4096 * page + 64] = b'\xff' * 64
    path.write_bytes(data)
    bag = Bag(folder)
    assert 3000 < len(numbers(bag)) < 4000 and any('damaged' in problem for problem in bag.problems)


@pytest.mark.parametrize('plugin', [StoragePlugin.MCAP, StoragePlugin.SQLITE3])
def test_mutated_recordings_raise_nothing_but_the_named_error(tmp_path, plugin):
    folder = write(tmp_path / 'bag', 40, plugin=plugin)
    path = next(f for f in folder.iterdir() if f.suffix in ('.mcap', '.db3'))
    good, random = path.read_bytes(), np.random.default_rng(zlib.crc32(plugin.name.encode()))
    for _ in range(60):
        data = bytearray(good)
        for place in random.integers(0, len(data), int(random.integers(1, 12))):
            data[place] = random.integers(256)
        path.write_bytes(data[:int(random.integers(len(data)))] if random.random() < 0.3 else data)
        try:
            bag = Bag(folder)
            bag.episodes  # noqa: B018
        except BagError:
            continue
        assert len(numbers(bag)) <= 40 or bag.problems


def test_two_synchronised_cameras_need_a_choice_by_name(tmp_path):
    kind = 'sensor_msgs/msg/Image'
    with Writer(tmp_path / 'bag', version=8, storage_plugin=StoragePlugin.MCAP) as writer:
        for name in ('/top/image_raw', '/wrist/image_raw'):
            connection = writer.add_connection(name, kind, typestore=STORE)
            for number in range(3):
                message = TYPES[kind](header(10**9 + number), 1, 1, 'rgb8', 0, 3, np.zeros(3, np.uint8))
                writer.write(connection, number, STORE.serialize_cdr(message, kind))
    bag = Bag(tmp_path / 'bag')
    with pytest.raises(CameraError, match=r'--camera.*/top/image_raw, /wrist/image_raw'):
        bag.image_topic()
    assert bag.image_topic('wrist') == '/wrist/image_raw' == bag.image_topic('/wrist/image_raw')
    with pytest.raises(BagError, match='no camera front'):
        bag.image_topic('front')


def test_messages_without_a_field_of_theirs_are_refused_by_name(tmp_path):
    path = tmp_path / 'a.mcap'
    definition = b'string episode_ix\nuint8 outcome\n'
    store = get_typestore(Stores.ROS2_HUMBLE)
    kind = 'vgps_msgs/msg/Episode'
    store.register(get_types_from_msg(definition.decode(), kind))
    with path.open('wb') as stream:
        writer = McapWriter(stream)
        writer.start('ros2', 'test')
        channel = writer.register_channel('/episode', 'cdr', writer.register_schema(kind, 'ros2msg', definition))
        writer.add_message(channel, 1, bytes(store.serialize_cdr(store.types[kind]('a', 1), kind)), 1)
        writer.finish()
    with pytest.raises(BagError, match=r'episode_id.*definitions in the recording are damaged'):
        Bag(path).episodes  # noqa: B018


@pytest.mark.parametrize('plugin', [StoragePlugin.MCAP, StoragePlugin.SQLITE3])
def test_whole_files_with_fewer_messages_than_were_recorded_are_named(tmp_path, plugin):
    long, short = write(tmp_path / 'long', 60, plugin), write(tmp_path / 'short', 20, plugin)
    suffix = '.mcap' if plugin is StoragePlugin.MCAP else '.db3'  # an old copy, or one without its -wal
    next(long.glob(f'*{suffix}')).write_bytes(next(short.glob(f'*{suffix}')).read_bytes())
    (problem,) = Bag(long).problems
    assert 'promises 60 messages, the files hold 20' in problem and Bag(short).problems == []
    (long / f'other_1{suffix}').write_bytes(next(short.glob(f'*{suffix}')).read_bytes())
    assert f'does not list were not read: other_1{suffix}' in Bag(long).problems[0]


@pytest.mark.parametrize('encoding, schema', [('json', 'jsonschema'), ('protobuf', 'protobuf'), ('ros1', 'ros1msg'),
                                              ('cdr', None)])
def test_messages_of_no_ros_2_are_named_and_the_others_read(tmp_path, encoding, schema):
    path = tmp_path / 'a.mcap'
    with path.open('wb') as stream:
        writer = McapWriter(stream)
        writer.start('', 'test')
        kind = writer.register_schema('other/Picture', schema, b'{}') if schema else 0
        other = writer.register_channel('/front', encoding, kind)
        ours = writer.register_channel('/joint_states', 'cdr', writer.register_schema(KIND, 'ros2msg', b''))
        for number in range(5):
            writer.add_message(other, number, b'{"data": 1}', number)
            writer.add_message(ours, number, reading(number), number)
        writer.finish()
    bag = Bag(path)
    assert numbers(bag) == [0, 1, 2, 3, 4]
    (problem,) = bag.problems
    assert f'5 messages of /front are {encoding}' in problem and ('other/Picture' in problem) == bool(schema)
    with pytest.raises(BagError, match='holds no camera image'):
        bag.image_topic()


def test_a_database_of_another_serialisation_and_video_topics_are_named(tmp_path):
    folder = write(tmp_path / 'bag', plugin=StoragePlugin.SQLITE3)
    database = sqlite3.connect(next(folder.glob('*.db3')))
    database.execute("INSERT INTO topics VALUES (99, '/x', 'a/msg/B', 'protobuf', '', '')")
    database.execute("INSERT INTO topics VALUES (98, '/front/video', 'a_msgs/msg/CompressedVideo', 'cdr', '', '')")
    database.execute("INSERT INTO messages (topic_id, timestamp, data) VALUES (99, 1, x'00'), (98, 1, x'00')")
    database.commit()
    database.close()
    bag = Bag(folder)
    assert any('/x holds protobuf' in problem for problem in bag.problems) and numbers(bag) == list(range(60))
    with pytest.raises(BagError, match=r'first convert these topics to such images: /front/video'):
        bag.image_topic()
