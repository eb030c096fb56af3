"""Readers, labels and normalisation: the recorded numbers, every format, and damage that is counted, not fatal."""
import json
from dataclasses import replace

import numpy as np
import pytest
import rlds_factory
from lerobot_factory import write_v2, write_v3
from reference_files import RECORDED, shared
from synthetic import make

from vgps_training.data import normalisation
from vgps_training.data.episode import Malformed
from vgps_training.data.labels import LabelConfig, label
from vgps_training.data.sources import read_episodes
from vgps_training.data.splits import held_out, thin
from vgps_training.data.standardise import absolute_gripper, binarise_gripper
from vgps_training.data.table import is_saved, read_table, save

SIZE = 64


def recorded_trajectories():
    archive = np.load(RECORDED / 'data_pipeline.npz')
    return archive, [{name: archive[f'traj{i}/{name}'] for name in
                      ('action_raw', 'action_norm', 'reward', 'td_mask', 'mc_return')} for i in range(25)]


def test_labels_equal_the_recorded_ones():
    for trajectory in recorded_trajectories()[1]:
        labels = label(len(trajectory['reward']), True, 0.98, LabelConfig())
        for own, name in zip(labels, ('reward', 'td_mask', 'mc_return')):
            np.testing.assert_allclose(own, trajectory[name], atol=1e-6, err_msg=name)


def test_normalised_actions_and_quantiles_equal_the_recorded_ones():
    archive, trajectories = recorded_trajectories()
    # the authors take the statistics over train and val, which in this data set are the same episodes twice
    actions = np.concatenate([t['action_raw'] for t in trajectories] * 2)
    space = normalisation.fit('quantiles', actions, '')
    np.testing.assert_allclose(space.low, archive['stats/p001'], atol=1e-6)
    np.testing.assert_allclose(space.high, archive['stats/p999'], atol=1e-6)
    for trajectory in trajectories:
        np.testing.assert_allclose(space.normalize(trajectory['action_raw']), trajectory['action_norm'], atol=1e-6)


def test_dimension_that_never_moved_gets_a_range():
    actions = moves(500)
    actions[:, 3] = 0
    space = normalisation.fit('quantiles', actions, '')
    nudged = actions[:1] + np.eye(7, dtype=np.float32)[3] * 0.01
    assert abs(space.normalize(nudged)[0, 3]) < 0.1


def test_bridge_episodes_are_read_without_tensorflow_as_the_authors_standardise_them():
    episodes = list(read_episodes(shared('data/bridge_debug')))
    expected = recorded_trajectories()[1]
    assert len(episodes) == 25 and all(e.frames[8].shape == (64, 64, 3) for e in episodes)
    own = sorted((e.actions for e in episodes), key=lambda a: a.tobytes())
    for a, b in zip(own, sorted((t['action_raw'] for t in expected), key=lambda a: a.tobytes()), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
    assert {e.instruction for e in episodes} >= {'put carrot on plate', 'turn lever vertical to front'}


def test_failure_is_worth_the_absorbing_value_everywhere():
    labels = label(5, False, 0.98, LabelConfig())
    np.testing.assert_allclose(labels.returns, -50, rtol=1e-6)
    # the recursion G = r + gamma m G' holds to the end, where the reward is the absorbing value
    following = np.append(labels.returns[1:], 0)
    np.testing.assert_allclose(labels.rewards + 0.98 * labels.masks * following, labels.returns, rtol=1e-6)


@pytest.mark.parametrize('failures, last', [('failures', -50.0), ('successes', 0.0)])
def test_label_options(failures, last):
    assert label(6, False, 0.98, LabelConfig(failures=failures)).returns[-1] == pytest.approx(last)
    assert label(6, True, 0.98, LabelConfig(failures=failures)).returns[-1] == 0


def test_episode_shorter_than_the_success_window_is_all_goal():
    assert label(2, True, 0.98, LabelConfig()).returns.tolist() == [0, 0]


def test_bridge_gripper_takes_the_state_reached_after():
    assert binarise_gripper(np.array([1, .6, .4, 0, .5, .97, .5])).tolist() == pytest.approx([1, 0, 0, 0, 1, 1, .5])


def test_relative_gripper_becomes_absolute():
    assert absolute_gripper(np.array([0, 0, 1, 0, -1, 0.05])).tolist() == [1, 1, 0, 0, 1, 1]
    assert absolute_gripper(np.array([0, -1, 0])).tolist() == [0, 1, 1]
    assert absolute_gripper(np.zeros(3)).tolist() == [1, 1, 1]


def pictures(count, seed=0):
    smooth = np.random.default_rng(seed).integers(0, 256, (count, 4, 4, 3), dtype=np.uint8)
    return smooth.repeat(8, 1).repeat(8, 2)  # 32 x 32, blocks survive video compression


def moves(count, seed=0):
    return np.random.default_rng(seed).normal(0, 0.01, (count, 7)).astype(np.float32)


def test_malformed_episodes_are_skipped_counted_and_named(tmp_path):
    good, nan = moves(4), moves(4)
    nan[2, 3] = np.nan
    failed = rlds_factory.steps(pictures(4), good) | {'success': np.zeros(1, np.int64)}
    broken_image = rlds_factory.steps(pictures(4), good)
    broken_image['steps/observation/image'][0] = broken_image['steps/observation/image'][0][:40]
    later_image = rlds_factory.steps(pictures(4), good)
    later_image['steps/observation/image'][3] = b'not an image'
    no_image = rlds_factory.steps(pictures(4), good)
    del no_image['steps/observation/image']
    payloads = [rlds_factory.example(e) for e in (
        rlds_factory.steps(pictures(4), good), failed, rlds_factory.steps(pictures(4), nan),
        rlds_factory.steps(pictures(1), moves(1)), rlds_factory.steps(pictures(4), good[:, :6]), broken_image,
        later_image, no_image)] + [b'\xff\xff\xff']
    folder = rlds_factory.folder(tmp_path / 'vgps/1.0.0', 'vgps', payloads)
    table, report = read_table([tmp_path], SIZE, progress=False)
    assert (report.episodes, table.success.tolist()) == (2, [1, 0])
    np.testing.assert_array_equal(table.actions[:4], good)
    text = report.text()
    for reason in ('NaN', 'fewer than 2 steps', 'not (T, 7)', 'cannot be decoded', 'is missing', 'not a tf.train',
                   'step 3 has no image'):
        assert reason in text, f'{reason} not in\n{text}'
    assert sum(report.skipped.values()) == 7
    shard = next(folder.glob('*.tfrecord*'))
    shard.write_bytes(shard.read_bytes()[:-40])  # a download that was cut: what is whole stays
    assert read_table([tmp_path], SIZE, progress=False)[1].episodes == 2


@pytest.mark.parametrize('write', [write_v2, write_v3])
def test_lerobot_frames_actions_tasks_and_outcomes(tmp_path, write):
    episodes = [(pictures(5, 1), moves(5, 1), 1, True), (pictures(7, 2), moves(7, 2), 0, False)]
    write(tmp_path / 'set', episodes, ['open the drawer', 'close the drawer'])
    read = list(read_episodes(tmp_path))
    assert [e.instruction for e in read] == ['close the drawer', 'open the drawer']
    assert [e.success for e in read] == [True, False]
    for episode, (frames, actions, _, _) in zip(read, episodes):
        np.testing.assert_allclose(episode.actions, actions)
        difference = np.abs(np.stack(list(episode.frames)).astype(int) - frames)
        assert np.median(difference) <= 6 and difference.mean() < 12  # the right frames, through lossy video


def test_lerobot_episode_without_its_video_is_reported(tmp_path):
    folder = write_v2(tmp_path / 'set', [(pictures(5), moves(5), 0, None)] * 2, ['x'])
    next(folder.rglob('*000001.mp4')).unlink()
    first, second = read_episodes(folder)
    assert first.success is True and isinstance(second, Malformed) and 'missing' in second.reason


def test_unknown_lerobot_version_is_refused(tmp_path):
    folder = write_v2(tmp_path / 'set', [(pictures(5), moves(5), 0, None)], ['x'])
    info = json.loads((folder / 'meta/info.json').read_text())
    (folder / 'meta/info.json').write_text(json.dumps({**info, 'codebase_version': 'v1.6'}))
    with pytest.raises(ValueError, match=r'v1\.6'):
        list(read_episodes(folder))


def test_data_that_are_there_twice_are_said_to_be(tmp_path):
    write_v2(tmp_path / 'a', [(pictures(4), moves(4, seed), 0, True) for seed in (1, 2)], ['x'])
    write_v2(tmp_path / 'b/copy', [(pictures(4), moves(4, seed), 0, True) for seed in (2, 3)], ['x'])
    _, report = read_table([tmp_path], 32)
    assert report.notes['the same actions as another episode: were the data given twice?'] == 1
    _, report = read_table([tmp_path / 'a'], 32)
    assert not any('twice' in note for note in report.notes)


def test_folder_without_data_says_what_was_looked_for(tmp_path):
    with pytest.raises(FileNotFoundError, match='metadata.yaml'):
        list(read_episodes(tmp_path))


def test_lazy_frames_equal_those_in_memory_and_a_saved_table_equals_both(tmp_path):
    payloads = [rlds_factory.example(rlds_factory.steps(pictures(n, n), moves(n, n))) for n in (3, 5)]
    rlds_factory.folder(tmp_path / 'vgps/1.0.0', 'vgps', payloads)
    memory, _ = read_table([tmp_path / 'vgps'], SIZE, progress=False)
    lazy, _ = read_table([tmp_path / 'vgps'], SIZE, lazy=True, progress=False)
    for i in (0, 2, 3, 7):
        np.testing.assert_array_equal(memory.frames[i], lazy.images([i])[0])
    save(memory, tmp_path / 'saved')
    assert is_saved(tmp_path / 'saved')
    again, _ = read_table([tmp_path / 'saved'], SIZE, progress=False)
    np.testing.assert_array_equal(again.frames, memory.frames)
    assert isinstance(again.frames, np.memmap)  # read when asked for, shared by all processes


def test_table_written_over_another_holds_nothing_of_it(tmp_path, monkeypatch):
    table, _ = read_table([make(tmp_path, episodes=3)], 64, progress=False)
    save(replace(table, states=table.actions), tmp_path / 'saved')
    save(table, tmp_path / 'saved')
    assert read_table([tmp_path / 'saved'], 64, progress=False)[0].states is None

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr('vgps_training.data.table.np.save', killed)
    with pytest.raises(KeyboardInterrupt):
        save(table, tmp_path / 'saved')
    assert not is_saved(tmp_path / 'saved')


def test_held_out_episodes_stay_held_out_when_data_are_added(tmp_path):
    payload = rlds_factory.example(rlds_factory.steps(pictures(3), moves(3)))
    rlds_factory.folder(tmp_path / 'a/vgps', 'vgps', [payload] * 30)
    rlds_factory.folder(tmp_path / 'b/vgps', 'vgps', [payload] * 60)
    few, many = (read_table([tmp_path / name], SIZE, progress=False)[0] for name in 'ab')
    training, validation = held_out(few, 0.2)
    assert set(held_out(many, 0.2)[1]) & set(range(30)) == set(validation)
    assert not set(training) & set(validation) and 1 <= len(validation) <= 15


def test_smaller_share_is_part_of_a_larger_one_and_keeps_episodes_whole(tmp_path):
    lengths = [3 + i % 4 for i in range(40)]
    payloads = [rlds_factory.example(rlds_factory.steps(pictures(n, i), moves(n, i))) for i, n in enumerate(lengths)]
    rlds_factory.folder(tmp_path / 'vgps', 'vgps', payloads)
    whole = read_table([tmp_path / 'vgps'], SIZE, progress=False)[0]
    tenth, half = thin(whole, 0.1), thin(whole, 0.5)
    assert len(tenth.sources) == 4 and len(half.sources) == 20 and set(tenth.sources) < set(half.sources)
    for i, source in enumerate(half.sources):
        n, start = half.lengths[i], half.starts[i]
        origin = whole.starts[whole.sources.index(source)]
        assert n == lengths[whole.sources.index(source)]
        np.testing.assert_array_equal(half.frames[start:start + n], whole.frames[origin:origin + n])
        np.testing.assert_array_equal(half.actions[start:start + n], whole.actions[origin:origin + n])
    assert thin(whole, 1.0) is whole
    with pytest.raises(ValueError, match='share is 0'):
        thin(whole, 0)


def test_instructions_that_differ_in_spaces_alone_are_told(tmp_path):
    texts = ['put it down', 'put it down\n', 'put  it down', 'lift it']
    payloads = [rlds_factory.example(rlds_factory.steps(pictures(4), moves(4, i), text))
                for i, text in enumerate(texts)]
    rlds_factory.folder(tmp_path / 'vgps/1.0.0', 'vgps', payloads)
    table, report = read_table([tmp_path], SIZE, progress=False)
    assert table.instructions == tuple(texts) and report.notes[
        'instructions that differ from another one in spaces or line ends alone'] == 2


def test_a_folder_without_data_says_what_else_is_there(tmp_path):
    with pytest.raises(FileNotFoundError, match='here or below$'):
        read_table([tmp_path], SIZE, progress=False)
    (tmp_path / 'a').mkdir()
    for name in ('1.hdf5', 'a/2.hdf5', 'a/x.zarr', 'a/notes.txt'):
        (tmp_path / name).touch()
    with pytest.raises(FileNotFoundError, match=r'converted first: 2 \.hdf5, 1 \.zarr|1 \.zarr, 2 \.hdf5'):
        read_table([tmp_path], SIZE, progress=False)


def test_reasons_that_differ_in_numbers_alone_are_told_once(tmp_path):
    payloads = [rlds_factory.example(rlds_factory.steps(pictures(4), [1000 * (i + 1), 1, 1, 1, 1, 1, 1] * moves(4, i)))
                for i in range(5)] + [rlds_factory.example(rlds_factory.steps(pictures(4), moves(4, 9)))]
    rlds_factory.folder(tmp_path / 'vgps/1.0.0', 'vgps', payloads)
    _, report = read_table([tmp_path], SIZE, progress=False)
    assert sum(report.skipped.values()) == 5 and len(report.skipped) > 1
    text = report.text()
    assert '5 x translations of up to' in text and text.count('are not metres') == 1
