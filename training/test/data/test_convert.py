"""Teleoperation recordings become episodes that training reads: steps of exactly 0.2 s, cut where they break."""
import numpy as np
import pytest
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from vgps_training.data import convert as module
from vgps_training.data.bags import read
from vgps_training.data.convert import ConvertConfig, convert
from vgps_training.data.episode import DataError, Episode
from vgps_training.data.inspect_data import InspectConfig, inspect

STORE = get_typestore(Stores.ROS2_HUMBLE)
START = 1_700_000_000 * 10**9


class Gantry:
    """An arm whose joints are its hand's coordinates."""

    joint_names = ('x', 'y', 'z')

    def forward(self, positions):
        pose = np.eye(4)
        pose[:3, :3] = [[0, 0, 1], [0, 1, 0], [-1, 0, 0]]  # the hand points down
        pose[:3, 3] = positions
        return pose


@pytest.fixture(autouse=True)
def arm(monkeypatch):
    monkeypatch.setattr(module, 'load_arm', lambda name: Gantry())


def header(stamp):
    return STORE.types['std_msgs/msg/Header'](
        STORE.types['builtin_interfaces/msg/Time'](stamp // 10**9, stamp % 10**9), 'base')


def teleoperation(folder, seconds=4, rate=40, cameras=('cam',), back_at=None, broken=(), plugin=StoragePlugin.MCAP,
                  behind=0, encoding='rgb8', finger=0.0225, start=0.3, drift=0.0, travel=None, names=('left_finger',),
                  still=None, topic='image_raw', joint_topic='/arm/joint_states', order=lambda i: i, late=lambda i: 0):
    """Write an arm that moves at 0.1 m/s; frame n of 10 a second is grey level n.

    `order` says which joint state comes as the i-th, `late` by how much its stamp is off [ns].
    """
    writer = Writer(folder, version=9, storage_plugin=plugin)
    with writer:
        joints = writer.add_connection(joint_topic, 'sensor_msgs/msg/JointState', typestore=STORE)
        images = {name: writer.add_connection(f'/{name}/{topic}', 'sensor_msgs/msg/Image', typestore=STORE)
                  for name in cameras}
        for i in range(seconds * rate):
            real = START + i * 10**9 // rate
            stamp = real if back_at is None or i < back_at * rate else real - 3 * 10**9
            which = order(i)
            x = 0.1 * which / rate if travel is None else travel(i)
            position = np.array([start + x, 0.05, 0.2, finger, *[0.0] * (len(names) - 1)])
            message = STORE.types['sensor_msgs/msg/JointState'](
                header(stamp + (which - i) * 10**9 // rate + late(i)), [*Gantry.joint_names, *names], position,
                np.zeros(0), np.zeros(0))
            writer.write(joints, real, STORE.serialize_cdr(message, message.__msgtype__))
            if i % (rate // 10) == 0:
                number = i // (rate // 10)
                shown = number if still is None else min(number, still)
                pixels = np.full(32 * 32 * 3, shown, np.uint8)[:100 if number in broken else None]
                seen = header(stamp - behind - int(drift * (real - START)))
                message = STORE.types['sensor_msgs/msg/Image'](seen, 32, 32, encoding, 0, 96, pixels)
                for name in cameras:
                    writer.write(images[name], real + 1, STORE.serialize_cdr(message, message.__msgtype__))
    return folder


def config(tmp_path, *bags, **more):
    return ConvertConfig(bags, tmp_path / 'out', **{'instruction': 'push', 'outcome': 'success'} | more)


@pytest.mark.parametrize('plugin', [StoragePlugin.MCAP, StoragePlugin.SQLITE3])
def test_a_teleoperated_recording_becomes_an_episode_that_training_reads(tmp_path, plugin, capsys):
    convert(config(tmp_path, teleoperation(tmp_path / 'a', plugin=plugin)))
    assert 'camera /cam/image_raw, 19 steps of 0.2 s, success' in capsys.readouterr().out
    (episode,) = read(tmp_path / 'out/a')
    assert (episode.success, episode.instruction) == (True, 'push')
    np.testing.assert_allclose(episode.actions, np.tile([0.02, 0, 0, 0, 0, 0, 0.5], (19, 1)), atol=1e-6)
    assert [int(f[0, 0, 0]) for f in episode.frames] == list(range(0, 38, 2))
    np.testing.assert_allclose(episode.states[:, :3], [[0.3 + 0.02 * i, 0.05, 0.2] for i in range(19)], atol=1e-6)
    np.testing.assert_allclose(episode.states[:, 3:], np.tile([0, 0, 0, 0.5], (19, 1)), atol=1e-6)


def test_the_part_before_a_clock_was_set_back_is_unjudged_and_the_last_carries_the_outcome(tmp_path, capsys):
    convert(config(tmp_path, teleoperation(tmp_path / 'a', back_at=1.5), outcome='failure'))
    first, last = read(tmp_path / 'out/a')
    assert (first.success, last.success) == (None, False)
    assert [len(first.actions), len(last.actions)] == [7, 12]
    for episode, begin in ((first, 0), (last, 15)):
        assert [int(f[0, 0, 0]) for f in episode.frames] == [begin + 2 * i for i in range(len(episode.actions))]
        np.testing.assert_allclose(episode.actions[:, 0], 0.02, atol=1e-6)
    assert 'left out, corrected or unusual: times the stamps went back' in capsys.readouterr().out


def test_a_broken_frame_cuts_instead_of_being_shown_as_another(tmp_path, capsys):
    convert(config(tmp_path, teleoperation(tmp_path / 'a', broken=(10,))))
    first, last = read(tmp_path / 'out/a')
    assert [len(first.actions), len(last.actions)] == [5, 13] and int(last.frames[0][0, 0, 0]) == 12
    assert 'frames that cannot be decoded: 1' in capsys.readouterr().out


def test_several_cameras_need_a_choice_and_one_bad_bag_does_not_keep_the_others(tmp_path, capsys):
    two, good = teleoperation(tmp_path / 'two', cameras=('top', 'wrist')), teleoperation(tmp_path / 'good')
    convert(config(tmp_path, two, tmp_path / 'nothing', good))
    text = capsys.readouterr().out
    assert '--camera' in text and '/top/image_raw, /wrist/image_raw' in text and 'there is no bag' in text
    assert [p.name for p in (tmp_path / 'out').iterdir()] == ['good']
    convert(config(tmp_path, two, camera='wrist'))
    assert 'camera /wrist/image_raw' in capsys.readouterr().out


def test_without_an_instruction_or_with_nothing_usable_it_is_an_error(tmp_path):
    with pytest.raises(DataError, match='--instruction'):
        convert(config(tmp_path, tmp_path / 'a', instruction=' '))
    with pytest.raises(DataError, match='no recording could be converted'):
        convert(config(tmp_path, teleoperation(tmp_path / 'a'), actions='commands'))


@pytest.mark.parametrize('answers, expected', [(['yes'], True), (['what?', 'N'], False), (['u'], None)])
def test_the_outcome_is_what_a_person_answers(tmp_path, monkeypatch, answers, expected):
    monkeypatch.setattr('builtins.input', lambda question: answers.pop(0))
    convert(config(tmp_path, teleoperation(tmp_path / 'a'), outcome='ask'))
    (episode,) = read(tmp_path / 'out/a')
    assert isinstance(episode, Episode) and episode.success is expected


def test_inspection_of_several_cameras_draws_what_each_sees(tmp_path):
    import json

    import pyarrow.parquet as pq
    from lerobot_factory import CAMERA, video, write_v2
    frames, actions = np.zeros((4, 32, 32, 3), np.uint8), np.zeros((4, 7), np.float32)
    actions[:, 6] = 1
    folder = write_v2(tmp_path / 'set', [(frames, actions, 0, None)], ['x'])
    wrist = 'observation.images.wrist'
    video(folder / f'videos/chunk-000/{wrist}/episode_000000.mp4', frames + 200)
    info = json.loads((folder / 'meta/info.json').read_text())
    info['features'][wrist] = {'dtype': 'video'}
    (folder / 'meta/info.json').write_text(json.dumps(info))
    assert pq.read_table(next(folder.rglob('*.parquet'))).num_rows == 4
    with pytest.raises(DataError, match=rf'{CAMERA}, {wrist}; what they see: .*cameras\.png'):
        inspect(InspectConfig((folder,), tmp_path / 'report', image_size=64))
    from PIL import Image
    sheet = np.asarray(Image.open(tmp_path / 'report/cameras.png'))
    assert sheet[60, 60].max() < 10 and sheet[60, 188].min() > 190


@pytest.mark.parametrize('behind, words', [(1_700_000_000, '1.7 s behind those of the joints'),
                                           (-900_000_000, '0.9 s ahead of those of the joints')])
def test_a_camera_on_another_clock_is_refused_although_stamps_of_its_frames_fit(tmp_path, behind, words, capsys):
    with pytest.raises(DataError):
        convert(config(tmp_path, teleoperation(tmp_path / 'a', behind=behind)))
    assert words in capsys.readouterr().out


@pytest.mark.parametrize('behind, words', [(350_000_000, '0.35 s later'), (-200_000_000, '0.20 s earlier'),
                                           (60_000_000, None)])
def test_a_camera_that_is_slow_or_on_another_clock_is_asked_about(tmp_path, behind, words, capsys):
    convert(config(tmp_path, teleoperation(tmp_path / 'a', behind=behind)))
    told = capsys.readouterr().out
    assert words in told if words else 'another clock' not in told


@pytest.mark.parametrize('reading, words', [
    ({'finger': 22.5}, 'reads 22.5 to 22.5, which is not finger travel in metres'), ({'start': 30.0}, 'degrees?')])
def test_joints_in_other_units_are_refused(tmp_path, reading, words, capsys):
    with pytest.raises(DataError, match='no recording could be converted'):
        convert(config(tmp_path, teleoperation(tmp_path / 'a', **reading)))
    assert words in capsys.readouterr().out


def test_a_depth_topic_is_refused_with_the_reason(tmp_path, capsys):
    with pytest.raises(DataError):
        convert(config(tmp_path, teleoperation(tmp_path / 'a', encoding='16UC1')))
    assert 'no continuous part' in (text := capsys.readouterr().out) and 'depth image' in text


@pytest.mark.parametrize('reading, words', [
    ({'travel': lambda i: 0.1 * i / 40 + 0.05 * (i % 2)}, 'two arms seem to publish to it'),
    ({'travel': lambda i: 0.1 * i / 40 + 0.1 * (i // 3 % 2)}, 'two arms seem to publish to it'),
    ({'travel': lambda i: 0.0}, 'nothing moves in it'), ({'finger': 0.0}, 'reads 0 throughout'),
    ({'finger': -0.0225}, 'not finger travel in metres'), ({'names': ('left_finger', 'x')}, 'name a joint twice'),
    ({'drift': 0.1}, 'drift by 0.30 s against those of the joints'), ({'still': 12}, 'the camera stood still'),
    ({'topic': 'depth/image_rect'}, "'depth' in its name")])
def test_readings_and_cameras_that_only_look_whole_are_refused(tmp_path, reading, words, capsys):
    with pytest.raises(DataError, match='no recording could be converted'):
        convert(config(tmp_path, teleoperation(tmp_path / 'a', **reading)))
    assert words in capsys.readouterr().out


def test_a_single_reading_off_its_neighbours_is_left_out(tmp_path, capsys):
    convert(config(tmp_path, teleoperation(tmp_path / 'a', travel=lambda i: 0.1 * i / 40 + 0.2 * (i == 64))))
    assert 'far from both of their neighbours: 1' in capsys.readouterr().out
    (episode,) = read(tmp_path / 'out/a')
    np.testing.assert_allclose(episode.actions[:, 0], 0.02, atol=1e-6)


def test_a_recording_that_mostly_waits_says_so(tmp_path, capsys):
    convert(config(tmp_path, teleoperation(tmp_path / 'a', travel=lambda i: 0.1 * max(i - 120, 0) / 40)))
    assert 'nothing moves in 15 of 19 steps' in capsys.readouterr().out


def test_commands_of_two_robots_need_a_choice(tmp_path, capsys):
    from bag_factory import BagFactory
    bag = BagFactory(tmp_path / 'two')
    topics = [bag.writer.add_connection(f'/{name}/command', 'vgps_msgs/msg/EndEffectorCommand', typestore=bag.store)
              for name in 'ab']
    for step in range(6):
        stamp = bag.now + 200_000_000 * (step + 1)
        bag.image(stamp, np.full((32, 32, 3), step + 1, np.uint8))
        for number, topic in enumerate(topics):
            bag.connections['command'] = topic
            bag.command(stamp + number, 'e', step, [0.01 - 0.03 * number, 0, 0, 0, 0, 0, 1])
    bag.close()
    with pytest.raises(DataError):
        convert(config(tmp_path, tmp_path / 'two', actions='commands'))
    assert 'commands of several robots' in capsys.readouterr().out
    convert(config(tmp_path, tmp_path / 'two', actions='commands', joint_topic='b'))
    (episode,) = read(tmp_path / 'out/two')
    np.testing.assert_allclose(episode.actions[:, 0], -0.02, atol=1e-6)


@pytest.mark.parametrize('how, rate', [
    ({'order': lambda i: i ^ 1}, 40), ({'order': lambda i: i + (0, 1, 2, -2, -1)[i % 5]}, 100),
    ({'late': lambda i: (-1) ** i * 1_500_000}, 400)])
def test_joint_states_that_come_a_little_out_of_order_are_put_in_order(tmp_path, how, rate, capsys):
    convert(config(tmp_path, teleoperation(tmp_path / 'a', rate=rate, **how)))
    (episode,) = read(tmp_path / 'out/a')
    assert len(episode.actions) >= 18 and 'before an earlier one, put in order' in capsys.readouterr().out
    np.testing.assert_allclose(episode.actions[:, 0], 0.02, atol=4e-4)


def test_an_arm_whose_topic_names_another_model_is_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(Gantry, 'model', 'wx250s', raising=False)
    with pytest.raises(DataError, match='no recording'):
        convert(config(tmp_path, teleoperation(tmp_path / 'a', joint_topic='/vx300s/joint_states')))
    assert 'names another arm, vx300s, than wx250s' in capsys.readouterr().out
    convert(config(tmp_path, teleoperation(tmp_path / 'b', joint_topic='/wx250s/joint_states')))


def test_every_part_of_a_recording_must_be_what_an_arm_can_do(tmp_path, capsys):
    with pytest.raises(DataError, match='no recording'):
        convert(config(tmp_path, teleoperation(tmp_path / 'a', back_at=2, travel=lambda i: 0.05 * (i % 80))))
    assert 'not metres at 5 steps per second' in capsys.readouterr().out


@pytest.mark.parametrize('times', [1, 2, 3])
def test_commands_that_a_merged_recording_holds_again_move_the_hand_once(tmp_path, times, capsys):
    from bag_factory import BagFactory
    bag = BagFactory(tmp_path / 'merged')
    begin = bag.now + 10**9
    for step in range(40):  # 20 a second, one picture for two of them
        if step % 2 == 0:
            bag.image(begin + 50_000_000 * step, np.full((32, 32, 3), step + 1, np.uint8))
        for _ in range(times):
            bag.command(begin + 50_000_000 * step + 1, 'e', step, [0.003, 0, 0, 0, 0, 0.01, 1])
    bag.close()
    convert(config(tmp_path, tmp_path / 'merged', actions='commands'))
    (episode,) = read(tmp_path / 'out/merged')
    np.testing.assert_allclose(episode.actions, np.tile([0.012, 0, 0, 0, 0, 0.04, 1], (10, 1)), atol=1e-6)
    assert ('commands recorded twice' in capsys.readouterr().out) == (times > 1)
