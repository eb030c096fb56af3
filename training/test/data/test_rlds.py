"""RLDS folders as downloads leave them, and the sign and unit of every entry of the standardisation table."""
import json

import numpy as np
import pytest
import rlds_factory
from rlds_factory import example, png, record, steps

from vgps_training.data.episode import DataError, Episode, Malformed, Reading
from vgps_training.data.index import read_indexed
from vgps_training.data.rlds import read
from vgps_training.data.sources import read_episodes
from vgps_training.data.standardise import STANDARDS


def pictures(count, first=0):
    return [np.full((8, 8, 3), first + i, np.uint8) for i in range(count)]


def moves(count, seed=0):
    actions = np.random.default_rng(seed).normal(0, 0.01, (count, 7)).astype(np.float32)
    actions[:, 6] = 1
    return actions


def sharded(path, lengths, here, name='vgps'):
    """Write the shards `here` of a split whose dataset_info.json lists `lengths` episodes each."""
    path.mkdir(parents=True)
    (path / 'dataset_info.json').write_text(json.dumps({'name': name, 'splits': [
        {'name': 'val', 'shardLengths': ['9']}, {'name': 'train', 'shardLengths': [str(n) for n in lengths]}]}))
    (path / 'features.json').write_text('{}')
    for shard in here:
        (path / f'{name}-train.tfrecord-{shard:05d}-of-{len(lengths):05d}').write_bytes(b''.join(
            record(example(steps(pictures(3), moves(3, 10 * shard + i)))) for i in range(lengths[shard])))
    return path


def split(episodes):
    episodes = list(episodes)
    return [e for e in episodes if isinstance(e, Episode)], [e.reason for e in episodes if isinstance(e, Malformed)]


def test_missing_shards_are_named_with_their_numbers(tmp_path):
    good, bad = split(read(sharded(tmp_path / 'a', [2, 3, 1, 4], here=[0, 2])))
    assert len(good) == 3
    assert bad == ['shard 1 of 4 is missing (3 episodes)', 'shard 3 of 4 is missing (4 episodes)']


def test_what_a_download_left_behind_is_not_read(tmp_path):
    folder = sharded(tmp_path / 'a', [2, 2], here=[0, 1])
    shard = folder / 'vgps-train.tfrecord-00000-of-00002'
    for stray in (f'{shard.name}.incomplete7f3', 'vgps-train.tfrecord-00000-of-00009', '.tmp.vgps'):
        (folder / stray).write_bytes(shard.read_bytes())
    assert len(split(read(folder))[0]) == 4


def test_a_shard_with_fewer_episodes_than_listed_is_named(tmp_path):
    folder = sharded(tmp_path / 'a', [3, 1], here=[0, 1])
    shard = folder / 'vgps-train.tfrecord-00000-of-00002'
    shard.write_bytes(record(example(steps(pictures(3), moves(3)))))  # ends on a record: nothing is cut
    good, bad = split(read(folder))
    assert len(good) == 2 and bad == ['1 of the 3 episodes that dataset_info.json lists are here']


def test_an_episode_whose_bytes_changed_on_the_way_costs_itself(tmp_path):
    folder = sharded(tmp_path / 'a', [3], here=[0])
    shard = folder / 'vgps-train.tfrecord-00000-of-00001'
    data = bytearray(shard.read_bytes())
    data[data.index(moves(3, 1).tobytes()) + 2] ^= 0x40  # one bit of the second episode's first action: a number still
    shard.write_bytes(data)
    good, bad = split(read(folder))
    np.testing.assert_array_equal([e.actions[0] for e in good], [moves(3, 0)[0], moves(3, 2)[0]])
    assert bad == ['its checksum is wrong: download this shard again']


def test_shards_of_two_downloads_without_a_list_are_refused(tmp_path):
    folder = rlds_factory.folder(tmp_path / 'a', 'vgps', [example(steps(pictures(3), moves(3)))])
    (folder / 'vgps-train.tfrecord-00000-of-00002').write_bytes(b'')
    with pytest.raises(DataError, match='shards of 1, 2'):
        list(read(folder))


def test_another_file_format_is_named(tmp_path):
    folder = sharded(tmp_path / '1.0.0', [1], [])
    information = json.loads((folder / 'dataset_info.json').read_text())
    (folder / 'dataset_info.json').write_text(json.dumps({**information, 'fileFormat': 'array_record'}))
    with pytest.raises(FileNotFoundError, match='fileFormat array_record, only tfrecord'):
        list(read(folder))


def test_a_split_that_is_not_there_names_those_that_are(tmp_path):
    folder = sharded(tmp_path / 'a', [1], here=[0])
    with pytest.raises(FileNotFoundError, match='splits here: train'):
        list(read(folder, 'val'))


def test_the_placeholder_of_bridge_is_told_by_what_was_recorded_and_its_padded_state_is_read(tmp_path):
    count = 6
    state = np.random.default_rng(0).normal(0, 0.01, (count, 8)).astype(np.float32)
    state[:, 6], state[:, 7] = 0, 1
    actions = moves(count)
    actions[0] = 0
    features = steps(pictures(count), actions) | {'steps/observation/state': state}
    features['steps/observation/image_0'] = features.pop('steps/observation/image')
    folder = rlds_factory.folder(tmp_path / 'a', 'bridge_dataset', [example(features)])
    (episode,) = read(folder)
    assert episode.actions[:, 6].tolist() == [1] * 4 and episode.frames[0][0, 0, 0] == 1
    np.testing.assert_array_equal(episode.states, np.delete(state, 6, 1)[1:5])
    (kept,) = read(folder, reading=Reading(first_zero_step='keep'))
    assert kept.actions[0, 6] == 0 and len(kept.actions) == 5


def test_an_angle_that_wraps_around_is_a_small_turn(tmp_path):
    state = np.zeros((5, 7), np.float32)
    state[:, 5] = [3.1, 3.13, -3.13, -3.1, -3.05]
    features = steps(pictures(5), moves(5)) | {'steps/observation/state': state}
    features['steps/observation/image_0'] = features.pop('steps/observation/image')
    (episode,) = read(rlds_factory.folder(tmp_path / 'a', 'bridge_orig', [example(features)]))
    np.testing.assert_allclose(episode.actions[:, 5], [0.03, 2 * np.pi - 6.26, 0.03, 0.05], atol=1e-6)


def test_another_camera_is_chosen_by_name_and_a_wrong_name_lists_them(tmp_path):
    features = steps(pictures(4), moves(4)) | {'steps/observation/wrist_image': [png(p) for p in pictures(4, 100)]}
    folder = rlds_factory.folder(tmp_path / 'a', 'vgps', [example(features)])
    assert next(read(folder)).camera == 'observation/image'
    episode = next(read(folder, reading=Reading(camera='wrist_image')))
    assert episode.frames[1][0, 0, 0] == 101 and episode.camera == 'observation/wrist_image'
    (refused,) = read(folder, reading=Reading(camera='top'))
    assert 'cameras: observation/image, observation/wrist_image' in refused.reason


TURN, MOVE = [0.02, -0.03, 0.04], [0.011, -0.012, 0.013]
RELATIVE = {'gripper_closedness_action': [0, 1, 0, -1, 0]}       # open until told to close, then opened
ENTRIES = {
    'bridge': ({'open_gripper': [1, 1, 0, 0, 1]}, [1, 1, 0, 0, 1]), 'toto': ({'open_gripper': [1, 1, 0, 0, 1]},
                                                                             [1, 1, 0, 0, 1]),
    'fractal20220817_data': (RELATIVE, [1, 0, 0, 1, 1]), 'kuka': (RELATIVE, [1, 0, 0, 1, 1]),
    'jaco_play': (RELATIVE, [1, 0, 0, 1, 1]), 'berkeley_autolab_ur5': (RELATIVE, [1, 0, 0, 1, 1]),
    'roboturk': ({'gripper_closedness_action': [0, 1, 1, 0.25, 0]}, [1, 0, 0, 0.75, 1]),
    'bc_z': ({'future/target_close': [0, 0, 1, 1, 0]}, [1, 1, 0, 0, 1])}


@pytest.mark.parametrize('name', [name for name in STANDARDS if name not in ('bridge_dataset', 'bridge_orig', 'vgps')])
def test_sign_and_units_of_an_entry_on_a_small_sample(tmp_path, name):
    rule, (gripper, openness) = STANDARDS[name], ENTRIES[name]
    parts = {key: np.array(values, np.float32)[:, None] for key, values in gripper.items()}
    if name == 'bc_z':  # ten steps ahead in a row: the first is this step's
        ahead = np.random.default_rng(0).normal(0, 9, (5, 27))
        parts |= {'future/xyz_residual': np.hstack([np.tile(MOVE, (5, 1)), ahead]),
                  'future/axis_angle_residual': np.hstack([np.tile(TURN, (5, 1)), ahead]),
                  'future/target_close': np.hstack([parts['future/target_close'].astype(np.int64)] * 10)}
    else:
        parts |= {'world_vector': np.tile(MOVE, (5, 1)),
                  'terminate_episode': np.eye(3, dtype=np.int64)[[1, 1, 1, 1, 0]]}
        if name != 'jaco_play':  # it does not turn
            parts['rotation_delta'] = np.tile(TURN, (5, 1))
    features = {f'steps/action/{key}': values for key, values in parts.items()} | {
        f'steps/{rule.image}': [png(p) for p in pictures(5)], f'steps/{rule.instruction}': [b'push'] * 5}
    if rule.success:
        features[f'steps/{rule.success}'] = np.zeros(5, np.float32)
    (episode,) = read(rlds_factory.folder(tmp_path / 'a', name, [example(features)]))
    assert episode.success is not bool(rule.success)
    np.testing.assert_allclose(episode.actions[:, :3], np.tile(MOVE, (5, 1)), atol=1e-7)
    np.testing.assert_allclose(episode.actions[:, 3:6], np.zeros((5, 3)) if name == 'jaco_play' else [TURN] * 5,
                               atol=1e-7)
    np.testing.assert_allclose(episode.actions[:, 6], openness)
    assert episode.rate == rule.rate


@pytest.mark.parametrize('change, reason', [
    ({'steps/language_instruction': [b'push', b'push', b'pull']}, '2 instructions within one episode'),
    ({'steps/observation/image': []}, 'it has no steps'),
    ({'steps/is_first': np.array([1, 0, 1])}, 'is_first is set at step 2 of 3: two episodes in one record'),
    ({'steps/is_last': np.array([0, 1, 0])}, 'is_last is set at step 1 of 3: two episodes in one record'),
    ({'success': np.array([-1])}, 'its success is -1, neither true nor false'),
    ({'success': np.array([np.nan], np.float32)}, 'its success is nan, neither true nor false'),
    ({'steps/action': moves(2)}, "feature 'action' does not have a value for each of its 3 steps")])
def test_episodes_that_contradict_themselves_are_refused_by_name(tmp_path, change, reason):
    good = steps(pictures(3), moves(3))
    folder = rlds_factory.folder(tmp_path / '1.0.0', 'vgps', [example({**good, **change}), example(good)])
    found, bad = split(read(folder))
    assert len(found) == 1 and bad == [reason]


def one(tmp_path, features, name='vgps'):
    """Return the one episode of a set that holds these features."""
    (episode,) = read(rlds_factory.folder(tmp_path / '1.0.0', name, [example(features)]))
    return episode


@pytest.mark.parametrize('cell', [b'', b'not a picture'])
def test_a_step_without_a_picture_costs_its_episode(tmp_path, cell):
    features = steps(pictures(5), moves(5))
    features['steps/observation/image'][2] = cell
    assert f'step 2 has no image of .* (1 of 5 steps): {len(cell)} bytes'.replace('.*', "'observation/image'") in one(
        tmp_path, features).reason


@pytest.mark.parametrize('change, words', [
    ({'steps/language_instruction': [b'\xff\xfe'] * 4}, 'is not UTF-8 text'),
    ({'steps/language_instruction': None, 'steps/language_embedding': np.zeros(2048, np.float32)}, 'embeddings alone'),
    ({'steps/language_instruction': np.zeros(4, np.int64)}, 'is not a text')])
def test_an_instruction_that_is_no_text_is_named(tmp_path, change, words):
    features = {k: v for k, v in (steps(pictures(4), moves(4)) | change).items() if v is not None}
    assert words in one(tmp_path, features).reason


@pytest.mark.parametrize('rewards, told', [([0, 0, 0, 0], True), ([-1, -1, -1, -1], True), ([0, 0, 0, 1], False)])
def test_rewards_that_never_rise_are_told(tmp_path, rewards, told):
    episode = one(tmp_path, steps(pictures(4), moves(4)) | {'steps/reward': np.array(rewards, np.float32)})
    assert episode.success and any('throughout, which may mean' in note for note in episode.notes) == told


@pytest.mark.parametrize('alike, step, refused', [(7, 0.02, True), (7, 0.003, False), (4, 0.02, False)])
def test_a_camera_that_stood_still_while_the_hand_moved_is_refused(tmp_path, alike, step, refused):
    frames = [np.arange(192, dtype=np.uint8).reshape(8, 8, 3) + i for i in range(9)]
    frames[2:2 + alike] = [frames[2]] * alike
    actions = np.tile(np.array([step, 0, 0, 0, 0, 0, 1], np.float32), (9, 1))
    episode = one(tmp_path, steps(frames, actions))
    assert isinstance(episode, Malformed) == refused
    assert not refused or '7 frames from step 2 on are identical' in episode.reason
    (tmp_path / 'flat').mkdir()  # one level shows nothing, moved or not
    assert isinstance(one(tmp_path / 'flat', steps([np.full((8, 8, 3), 50, np.uint8)] * 9, actions)), Episode)


def test_a_linked_folder_is_read_and_one_that_leads_back_is_not(tmp_path):
    set_ = rlds_factory.folder(tmp_path / 'elsewhere/vgps/1.0.0', 'vgps', [example(steps(pictures(4), moves(4)))])
    mine = tmp_path / 'mine'
    (mine / 'deep').mkdir(parents=True)
    (mine / 'vgps').symlink_to(set_.parent)
    (mine / 'deep/back').symlink_to(mine)
    assert len(list(read_episodes(mine))) == 1
    assert read_indexed([mine], 16, progress=False)[1].episodes == 1
