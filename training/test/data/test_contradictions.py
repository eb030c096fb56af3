"""Sets that say two things at once, or judge, name and measure in their own way: right, or refused with the reason."""
import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import rlds_factory
from bag_factory import BagFactory
from lerobot_factory import CAMERA, edit, edit_info, edit_lines, episodes, write_v2, write_v3
from PIL import Image
from rlds_factory import example, steps
from scipy.spatial.transform import Rotation

from vgps_training.data import lerobot, rlds
from vgps_training.data.bags import read as read_bag
from vgps_training.data.checks import check
from vgps_training.data.encoded import decode, shape
from vgps_training.data.episode import DataError, Episode, Malformed
from vgps_training.data.rlds import set_name
from vgps_training.data.sources import read_episodes

MOTION = ['x', 'y', 'z', 'roll', 'pitch', 'yaw']
SCENE = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)


def told(episode):
    return episode.reason if isinstance(episode, Malformed) else episode.success


def with_column(folder, name, values):
    path = next(folder.rglob('episode_*.parquet'))
    pq.write_table(pq.read_table(path).append_column(name, pa.array(values)), path)


@pytest.mark.parametrize('name, values, expected', [
    ('is_success', [False] * 4, False), ('next.is_success', [False, False, True, False], True),
    ('is_episode_successful', [0] * 4, False), ('succeeded', [1] * 4, True),
    ('is_failure', [1] * 4, "'is_failure' tells"),
    ('outcome', ['lost'] * 4, "'outcome' tells"), ('grasp_success', [True] * 4, "'grasp_success' tells"),
    ('label', ['Failure'] * 4, False), ('source_file', ['d/failed/7.h5'] * 4, False),
    ('source_file', ['d/failure_recovery/7.h5'] * 4, True), ('failure_reason', [None] * 4, True),
    ('observation.success_light', [0.0] * 4, True)])
def test_an_outcome_under_another_name_counts_or_is_named(tmp_path, name, values, expected):
    folder = write_v2(tmp_path / 'set', episodes(4), ['x'])
    with_column(folder, name, pa.array(values, pa.string()) if values[0] is None else values)
    (episode,) = lerobot.read(folder)
    assert told(episode) == expected if isinstance(expected, bool) else expected in episode.reason


@pytest.mark.parametrize('lines, expected', [
    ([{'is_success': False}, {'is_success': True}], [False, True]),
    ([{'success': None}, {'success': True}], [None, True]),
    ([{}, {'success': False}], [None, False]), ([{'verdict': None}, {}], [True, True])])
def test_an_outcome_in_the_metadata_counts_and_null_is_unjudged(tmp_path, lines, expected):
    folder = write_v2(tmp_path / 'set', episodes(4, 4), ['x'])
    edit_lines(folder / 'meta/episodes.jsonl', lambda line: line.update(lines[line['episode_index']]))
    assert [told(e) for e in lerobot.read(folder)] == expected


@pytest.mark.parametrize('write', [write_v2, write_v3])
def test_rows_and_metadata_that_name_different_tasks_are_refused(tmp_path, write):
    folder = write(tmp_path / 'set', episodes(4), ['open', 'shut'])
    for tasks, word in ((['open'], None), (['shut', 'open'], None), (['shut'], "rows say 'open', the metadata")):
        if write is write_v2:
            edit_lines(folder / 'meta/episodes.jsonl', lambda line, tasks=tasks: line.update(tasks=tasks))
        else:
            edit(folder / 'meta/episodes/chunk-000/file-000.parquet',
                 lambda rows, tasks=tasks: [{**row, 'tasks': tasks} for row in rows])
        (episode,) = lerobot.read(folder)
        assert episode.instruction == 'open' if word is None else word in episode.reason


@pytest.mark.parametrize('done, whole', [([0, 0, 0, 0, 1], True), ([0, 0, 1, 1, 1], True), ([0, 1, 0, 0, 1], False)])
def test_an_episode_that_goes_on_after_its_end_is_two(tmp_path, done, whole):
    folder = write_v2(tmp_path / 'set', episodes(5), ['x'])
    with_column(folder, 'next.done', [bool(d) for d in done])
    (episode,) = lerobot.read(folder)
    assert isinstance(episode, Episode) if whole else 'next.done is set at row 1 of 5' in episode.reason
    path = rlds_factory.folder(tmp_path / '1.0.0', 'vgps', [example({
        **steps([SCENE] * 5, np.tile([0, 0, 0, 0, 0, 0, 1], (5, 1))), 'steps/is_terminal': np.array(done)})])
    (episode,) = rlds.read(path)
    assert isinstance(episode, Episode) if whole else 'is_terminal is set at step 1 of 5' in episode.reason


@pytest.mark.parametrize('name, scale, word', [
    ('gripper_width', 0.08, 'a width of at most 0.08'), ('gripper_width', 1.0, None), ('is_closing', 1.0, None),
    ('gripper_rad', 0.8, 'a length, an angle or a speed'), ('gripper_mm', 1.0, 'a length, an angle'),
    ('gripper_velocity', 1.0, 'or a speed'), ('gripper_not_open', 1.0, 'gripper is missing')])
def test_a_gripper_that_its_name_calls_no_openness_is_refused(tmp_path, name, scale, word):
    folder = write_v2(tmp_path / 'set', episodes(6), ['x'])
    edit_info(folder, lambda info: info['features']['action'].update(names=[*MOTION, name]))
    edit(next(folder.rglob('*.parquet')), lambda rows: [
        {**row, 'action': [*row['action'][:6], scale * row['action'][6]]} for row in rows])
    (episode,) = lerobot.read(folder)
    assert isinstance(episode, Episode) if word is None else word in episode.reason


@pytest.mark.parametrize('prefix, taken', [
    ('left_', True), ('panda_eef_', True), ('tool_', False), ('joystick_', False), ('prev_', False),
    ('ee_frame_', False), ('norm_', False), ('force_', False)])
def test_a_word_that_is_not_known_makes_another_number_of_an_axis(tmp_path, prefix, taken):
    folder = write_v2(tmp_path / 'set', episodes(4), ['x'])
    given = [*(prefix + name for name in MOTION), 'gripper']
    edit_info(folder, lambda info: info['features']['action'].update(names=given))
    (episode,) = lerobot.read(folder)
    assert isinstance(episode, Episode) == taken and (taken or 'which does not say x y z' in episode.reason)


def wandering(count=12):
    """Return states (count, 7) of a hand on its way, and the motions that lead from each to the next."""
    states = np.full((count, 7), 0.5)
    states[:, :3] = [0.1, 0.0, 0.05] + np.cumsum(np.random.default_rng(1).normal(0.004, 0.01, (count, 3)), 0)
    states[:, 3:6] = [3.1, 0.2, -0.1] + np.cumsum(np.random.default_rng(2).normal(0, 0.05, (count, 3)), 0)
    motions = np.zeros((count, 7))
    motions[:-1, :6], motions[:, 6] = np.diff(states[:, :6], axis=0), 1
    states[:, 3] = (states[:, 3] + np.pi) % (2 * np.pi) - np.pi
    return states, motions


@pytest.mark.parametrize('made, word', [
    (lambda states, motions: motions, None),
    (lambda states, motions: np.vstack([states[1:], states[-1:]]), 'the poses that the states hold'),
    (lambda states, motions: states, 'the poses that the states hold'),
    (lambda states, motions: np.roll(motions, 1, 0), 'the actions are one row late'),
    (lambda states, motions: np.roll(motions, 3, 0), 'the actions are three rows late'),
    (lambda states, motions: np.roll(motions, -1, 0), None),  # an arm that follows one step later
    (lambda states, motions: np.hstack([motions[:, :3], states[:, 3:6], motions[:, 6:]]), 'the rotations are those')])
def test_actions_that_are_the_states_or_come_late_are_refused(made, word):
    states, motions = wandering()
    actions = made(states, motions).astype(np.float32)
    checked = check(Episode([SCENE] * 12, actions, 'x', True, 'here', states.astype(np.float32), rate=5.0))
    assert isinstance(checked, Episode) if word is None else word in checked.reason


@pytest.mark.parametrize('rows, noise, said', [
    (0, 0.3, ''), (1, 0.0, 'one row late'), (1, 0.3, 'one row late'), (-1, 0.3, 'one row later: the arm lags'),
    (-1, 0.0, 'one row later: the arm lags'), (1, 1.5, ''), (2, 0.3, '')])
def test_a_row_is_told_by_the_motion_it_goes_with_even_where_that_is_noisy(rows, noise, said):
    states, motions = wandering(40)
    actions = np.roll(motions, rows, 0)
    actions[:, :6] += np.random.default_rng(7).normal(0, noise, (40, 6)) * ([0.01] * 3 + [0.05] * 3)
    found = check(Episode([SCENE] * 40, actions.astype(np.float32), 'x', True, 'here', states.astype(np.float32),
                          rate=5.0))
    assert isinstance(found, Malformed) == ('late' in said.split()[-1:])
    assert said in (found.reason if isinstance(found, Malformed) else ' '.join(found.notes))
    assert said or not found.notes


def test_a_slow_way_or_a_single_push_whose_rows_all_look_alike_is_not_judged_by_them():
    states, motions = wandering(40)
    states[:, :3] = 0.1 + 0.1 * np.sin(np.arange(40)[:, None] / (8, 9, 10))
    motions[:-1, :3] = np.diff(states[:, :3], axis=0)
    pushed, at_rest = np.zeros((40, 7)), np.random.default_rng(4).normal(0, 8e-4, (40, 7)) + 0.1
    pushed[:2, 0], pushed[:, 6] = (0.05, 0.008), 1  # a push at the beginning fits any row
    at_rest[1:, 0] += np.cumsum(pushed[:-1, 0])
    motions[:, 3:6] = states[:, 3:6] = 0
    for actions, seen in ((motions, states), (np.roll(motions, -1, 0), states), (pushed, at_rest)):
        found = check(Episode([SCENE] * 40, actions.astype(np.float32), 'x', True, 'here', seen.astype(np.float32)))
        assert isinstance(found, Episode) and not found.notes, found


@pytest.mark.parametrize('made, commanded, said', [
    ('angles', True, None), ('vectors', True, 'are rotation vectors by its actions'),
    ('vectors', False, 'cannot be told: states left out'), ('small', False, None), ('long', False, None)])
def test_states_whose_turns_are_called_rx_ry_rz_are_what_the_actions_say(tmp_path, made, commanded, said):
    count, random = 20, np.random.default_rng(5)
    actions = np.hstack([random.normal(0, 0.01, (count, 3)), random.normal(0, 0.1, (count, 3)), np.ones((count, 1))])
    hand, turned = [Rotation.from_euler('xyz', (2.0, 0.4, -0.9))], {'small': 0.01, 'long': 1.0}
    for action in actions[:-1]:
        hand.append(Rotation.from_euler('xyz', action[3:6]) * hand[-1])
    angles = Rotation.concatenate(hand).as_euler('xyz')
    turns = Rotation.concatenate(hand).as_rotvec() if made == 'vectors' else angles * turned.get(made, 1.0)
    turns[:, 0] += 1.5 * (made == 'long')  # longer than half a turn
    actions[:, 3:6] *= commanded
    rows = np.hstack([0.2 + np.cumsum(actions[:, :3], 0) - actions[:, :3], turns, np.ones((count, 1))])
    folder = write_v2(tmp_path / 'set', [(episodes(count)[0][0], actions.astype(np.float32), 0, True)], ['x'])
    with_column(folder, 'observation.state', rows.tolist())
    edit_info(folder, lambda info: info['features'].update({'observation.state': {
        'dtype': 'float32', 'shape': [7], 'names': ['x', 'y', 'z', 'rx', 'ry', 'rz', 'gripper']}}))
    (episode,) = lerobot.read(folder)
    assert said in ' '.join(episode.notes) if said else not any('rx ry rz' in note for note in episode.notes)
    if said is None or commanded:
        np.testing.assert_allclose(episode.states[:, 3:6], angles if commanded else turns, atol=1e-4)
    else:
        assert episode.states is None


def test_what_may_be_wrong_is_said():
    states, motions = wandering()
    motions[:, 0] = 0.02
    states[:, 0] = 0.5 - 0.02 * np.arange(12)
    grey = np.repeat(SCENE[..., :1], 3, 2)
    notes = check(Episode([grey] * 12, motions.astype(np.float32), 'x', True, 'here', states)).notes
    assert any('disagree about the direction' in note for note in notes) and any('no colours' in note for note in notes)
    states, motions = wandering(30)
    for axes, told in (([0, 2, 1], "the actions' dy goes with the states' z"), ([0, 1, 2], None)):
        turned = np.hstack([motions[:, axes], motions[:, 3:]]).astype(np.float32)
        notes = check(Episode([SCENE] * 30, turned, 'x', True, 'here', states)).notes
        assert any(told in note for note in notes) if told else not notes
    assert 'the arm never moves in it' in check(Episode([SCENE] * 30, 0 * motions, 'x', True, 'here')).notes


def mask(mode):
    levels = np.zeros((48, 64), np.uint8)
    levels[10:30, 20:50] = 200
    out = io.BytesIO()
    Image.fromarray(levels).convert(mode).save(out, 'PNG')
    return out.getvalue()


@pytest.mark.parametrize('mode, word', [('1', '1 bit per pixel'), ('L', '2 flat colours'), ('P', '2 flat colours')])
def test_a_mask_is_no_camera_in_any_format(tmp_path, mode, word):
    folder = write_v2(tmp_path / 'set', episodes(4), ['x'])
    edit_info(folder, lambda info: info['features'][CAMERA].update(dtype='image'))
    edit(next(folder.rglob('*.parquet')), lambda rows: [{**row, CAMERA: {'bytes': mask(mode)}} for row in rows])
    assert word in next(lerobot.read(folder)).reason
    features = steps([SCENE] * 4, np.tile([0, 0, 0, 0, 0, 0, 1], (4, 1))) | {
        'steps/observation/image': [mask(mode)] * 4}
    assert word in next(rlds.read(rlds_factory.folder(tmp_path / '1.0.0', 'vgps', [example(features)]))).reason


@pytest.mark.parametrize('camera, taken', [('cam_mask', False), ('segmentation', False), ('disparity', False),
                                           ('masked_man', True), ('aligned_rgb_depth_cam', True)])
def test_a_camera_whose_name_says_no_colours_is_none(camera, taken):
    checked = check(Episode([SCENE] * 3, np.tile([0, 0, 0, 0, 0, 0, 1.0], (3, 1)), 'x', True, 'here', camera=camera))
    assert isinstance(checked, Episode) == taken and (taken or 'in its name' in checked.reason)


@pytest.mark.parametrize('key, values, expected', [
    ('episode_metadata/success', [0], False), ('is_success', [1], True), ('steps/success', [0, 0, 0], False),
    ('episode_metadata/failure', [0], "'episode_metadata/failure' tells"), ('aspects/success', [0], True),
    ('episode_metadata/file_path', b'/lab/failure/day 2/ep3.h5', False),
    ('episode_metadata/file_path', b'/lab/success/ep3.h5', True)])
def test_an_outcome_of_an_rlds_episode_under_another_name_counts_or_is_named(tmp_path, key, values, expected):
    features = steps([SCENE] * 3, np.tile([0, 0, 0, 0, 0, 0, 1], (3, 1))) | {
        key: [values] if isinstance(values, bytes) else np.array(values)}
    (episode,) = rlds.read(rlds_factory.folder(tmp_path / '1.0.0', 'vgps', [example(features)]))
    assert told(episode) == expected if isinstance(expected, bool) else expected in episode.reason


@pytest.mark.parametrize('change, word', [
    (lambda state, action: state[3].fill(0), 'the state of step 3 is zero throughout'),
    (lambda state, action: state.__setitem__(slice(None), state[0]), 'states never change while motions were'),
    (lambda state, action: action[:3, 6].fill(-1), 'gripper commands from'), (lambda state, action: None, None)])
def test_states_of_bridge_that_were_lost_make_no_motions(tmp_path, change, word):
    state = np.cumsum(np.full((6, 7), 0.01, np.float32), 0)
    action = np.tile([0.02, 0, 0, 0, 0, 0, 1], (6, 1)).astype(np.float32)
    change(state, action)
    features = steps([np.roll(SCENE, i, 1) for i in range(6)], action) | {'steps/observation/state': state}
    features['steps/observation/image_0'] = features.pop('steps/observation/image')
    (episode,) = rlds.read(rlds_factory.folder(tmp_path / '1.0.0', 'bridge_dataset', [example(features)]))
    assert isinstance(episode, Episode) if word is None else word in episode.reason


def test_a_jpeg_that_exif_turns_is_upright_in_training_as_it_is_live():
    turned = Image.Exif()
    turned[0x0112] = 6
    out = io.BytesIO()
    ramp = np.tile(np.arange(60, dtype=np.uint8)[None, :, None] * 4, (40, 1, 3))
    Image.fromarray(ramp).save(out, 'JPEG', exif=turned)
    picture = decode(out.getvalue())
    assert picture.shape == (60, 40, 3) and shape(out.getvalue()) == (60, 40)
    assert picture[0].mean() < 10 and picture[-1].mean() > 225


def test_a_set_is_called_by_its_name_though_its_folder_is_that_of_a_version():
    for path, called in (('data/fractal20220817_data/0.1.0', 'fractal20220817_data/0.1.0'), ('runs/mine', 'mine'),
                         ('runs/v1.0', 'v1.0')):
        assert set_name(Path(path)) == called


def test_one_version_of_a_set_is_read_and_pictures_as_numbers_are_named(tmp_path):
    good = steps([SCENE] * 3, np.tile([0, 0, 0, 0, 0, 0, 1], (3, 1)))
    for version in ('1.0.0', '1.1.0'):
        rlds_factory.folder(tmp_path / 'vgps' / version, 'vgps', [example(good)])
    with pytest.raises(DataError, match=r'several versions .* 1\.0\.0, 1\.1\.0'):
        list(read_episodes(tmp_path))
    numbers = good | {'steps/observation/image': np.zeros(3 * 48, np.int64)}
    (refused,) = rlds.read(rlds_factory.folder(tmp_path / '2.0.0', 'vgps', [example(numbers)]))
    assert 'holds numbers, not encoded images' in refused.reason


def recorded(tmp_path, *runs):
    """Write runs of (namespace, episode, instruction, motion, stamp of a step, pictures)."""
    bag, connections = BagFactory(tmp_path / 'bag'), {}
    for namespace, episode, instruction, motion, stamp, picture in runs:
        bag.namespace, bag.connections = namespace, connections.setdefault(namespace, {})
        bag.episode(episode, instruction, 0)
        for step in range(6):
            at = stamp(bag.now)
            bag.image(at, picture(step))
            bag.command(at, episode, step, [motion, 0, 0, 0, 0, 0, 1])
        bag.episode(episode, instruction, 1)
    bag.close()
    return list(read_bag(tmp_path / 'bag'))


def later(now):
    return now + 10**9


@pytest.mark.parametrize('runs, word', [
    ([('/a', 'e', 'push', 0.01, later), ('/b', 'e', 'push', -0.02, later)], 'two different EndEffectorCommands'),
    ([('/a', 'e', 'push', 0.01, later), ('/a', 'e', 'pull', 0.01, later)], "announced as 'push' and as 'pull'"),
    ([('/a', 'e', 'push', 0.01, lambda now: 0)], 'are stamped 0'),
    ([('/a', 'e', 'push', 0.01, lambda now: 10**9)], '6 of its 6 steps have the same frame')])
def test_an_episode_that_cannot_be_one_run_is_refused(tmp_path, runs, word):
    found = recorded(tmp_path, *[(*run, lambda step: SCENE) for run in runs])
    assert len(found) == 1 and word in found[0].reason


def test_fresh_stamps_on_one_picture_are_a_camera_that_stood_still(tmp_path, monkeypatch):
    from vgps_training.data import bags
    monkeypatch.setattr(bags, '_state_at', lambda stamp, states: np.full(7, stamp * 1e-8, np.float32))
    (refused,) = recorded(tmp_path, ('/a', 'e', 'push', 0.01, lambda now: now * 2, lambda step: SCENE))
    assert 'identical to the bit' in refused.reason
