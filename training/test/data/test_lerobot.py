"""LeRobot sets as the field writes them: rows wherever they are, cameras, tasks, outcomes, damaged metadata."""
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from lerobot_factory import CAMERA, edit_info, edit_lines, episodes, moves, write_v2, write_v3

from vgps_training.data.episode import DataError, Episode, Reading
from vgps_training.data.lerobot import read


def test_rows_are_found_where_they_are_although_the_metadata_name_another_file(tmp_path):
    folder = write_v3(tmp_path / 'set', episodes(4, 5, 6), ['x'])
    data = folder / 'data/chunk-000/file-000.parquet'
    table = pq.read_table(data)
    pq.write_table(table.slice(0, 6), data)  # the second episode begins in the first file and ends in the second
    (folder / 'data/chunk-001').mkdir()
    pq.write_table(table.slice(6), folder / 'data/chunk-001/file-000.parquet')
    found = list(read(folder))
    assert [len(e.actions) for e in found] == [4, 5, 6]
    for number, episode in enumerate(found):
        np.testing.assert_array_equal(episode.actions, moves(4 + number, number))
    assert not any('stale' in n for n in found[0].notes) and any('stale' in n for n in found[1].notes)


def test_table_with_other_rows_than_the_metadata_promise_is_refused(tmp_path):
    folder = write_v2(tmp_path / 'set', episodes(5, 5), ['x'])
    first, second = sorted(folder.rglob('*.parquet'))
    second.write_bytes(first.read_bytes())  # an episode was deleted and the files were not renumbered
    edit_lines(folder / 'meta/episodes.jsonl', lambda line: line.update(length=5 + (line['episode_index'] == 0)))
    wrong_length, wrong_episode = read(folder)
    assert '5 rows, the metadata say 6' in wrong_length.reason and 'rows of episode 0' in wrong_episode.reason


def test_several_cameras_need_a_choice_which_may_be_a_short_name(tmp_path):
    folder = write_v2(tmp_path / 'set', episodes(4), ['x'])
    edit_info(folder, lambda info: info['features'].update({'observation.images.wrist': {'dtype': 'video'}}))
    with pytest.raises(DataError, match=r'--camera.*front, observation\.images\.wrist'):
        list(read(folder))
    for name in ('front', CAMERA):
        (episode,) = read(folder, Reading(camera=name))
        assert episode.camera == CAMERA
    with pytest.raises(DataError, match='front'):
        list(read(folder, Reading(camera='top')))


def test_depth_feature_is_no_camera(tmp_path):
    folder = write_v2(tmp_path / 'set', episodes(4), ['x'])
    edit_info(folder, lambda info: info['features'].update(
        {'observation.images.d435': {'dtype': 'video', 'info': {'video.is_depth_map': True}}}))
    (episode,) = read(folder)
    assert episode.camera == CAMERA


def test_metadata_of_other_editors_and_a_task_with_two_texts(tmp_path):
    folder = write_v2(tmp_path / 'set', episodes(4), ['tür öffnen'])
    path = folder / 'meta/tasks.jsonl'
    path.write_bytes(b'\xef\xbb\xbf' + path.read_bytes().replace(b'\n', b'\r\n'))
    assert next(read(folder)).instruction == 'tür öffnen'
    path.write_text('{"task_index": 0, "task": "open"}\n{"task_index": 0, "task": "shut"}\n')
    with pytest.raises(DataError, match="task_index 0 is 'open' and 'shut'"):
        list(read(folder))
    path.write_text('{"task_index": 0, "task": " "}\n')
    assert 'without an instruction' in next(read(folder)).notes


@pytest.mark.parametrize('column, expected', [
    ([False, True, False, False], True), ([False] * 4, False), ([None] * 4, None), ([None, None, True, None], True),
    ([[False], [False], [False], [True]], True), ([0, 0, 1, 1], True)])
def test_any_true_is_a_success_and_null_is_unjudged(tmp_path, column, expected):
    folder = write_v2(tmp_path / 'set', episodes(4), ['x'])
    path = next(folder.rglob('*.parquet'))
    pq.write_table(pq.read_table(path).append_column('next.success', pa.array(column)), path)
    (episode,) = read(folder)
    assert episode.success is expected
    assert any('False throughout' in note for note in episode.notes) == (expected is False)


def test_version_2_0_reads_as_2_1_does(tmp_path):
    folder = write_v2(tmp_path / 'set', episodes(4, 5), ['x'])
    newer = list(read(folder))
    edit_info(folder, lambda info: info.update(codebase_version='v2.0'))
    for a, b in zip(read(folder), newer, strict=True):
        np.testing.assert_array_equal(a.actions, b.actions)
        np.testing.assert_array_equal(np.stack(list(a.frames)), np.stack(list(b.frames)))


def test_task_that_is_not_listed_is_named_and_a_single_text_of_the_episode_serves(tmp_path):
    folder = write_v2(tmp_path / 'set', [(*episodes(4)[0][:2], 5, None)], ['x'])
    (refused,) = read(folder)
    assert 'task 5' in refused.reason
    (folder / 'meta/tasks.jsonl').unlink()
    (refused,) = read(folder)
    assert 'no instruction' in refused.reason
    edit_lines(folder / 'meta/episodes.jsonl', lambda line: line.update(tasks=['wipe the table']))
    (episode,) = read(folder)
    assert episode.instruction == 'wipe the table'


def test_paths_lead_nowhere_but_into_the_data_set(tmp_path):
    folder = write_v2(tmp_path / 'set', episodes(4), ['x'])
    for path in ('/etc/passwd', '../{episode_index}.parquet', '{episode_index.__class__}',
                 '{episode_index:>99999999999}'):
        edit_info(folder, lambda info, path=path: info.update(data_path=path))
        (refused,) = read(folder)
        assert 'not one within the data set' in refused.reason


@pytest.mark.parametrize('values, expected', [
    ([None, False, None], False), ([None, True, None], True), ([None] * 3, None), ([0, 0, 1], True),
    ([0.0, 0.0, 0.4], '0.4, neither true nor false'), ([-1, -1, -1], '-1, neither'),
    (['success'] * 3, 'cannot be read as numbers')])
def test_what_success_columns_hold_is_an_outcome_or_refused(tmp_path, values, expected):
    folder = write_v2(tmp_path / 'set', episodes(3), ['x'])
    path = next(folder.rglob('*.parquet'))
    pq.write_table(pq.read_table(path).append_column('next.success', pa.array(values)), path)
    (episode,) = read(folder)
    if isinstance(expected, str):
        assert expected in episode.reason
    else:
        assert episode.success is expected


def test_an_episode_without_rows_is_named_and_does_not_keep_the_others(tmp_path):
    folder = write_v2(tmp_path / 'set', episodes(3, 4), ['x'])
    path = min(folder.rglob('*.parquet'))
    pq.write_table(pq.read_table(path).slice(0, 0), path)
    empty, good = read(folder)
    assert empty.reason == 'it has no rows' or '0 rows, the metadata say 3' in empty.reason
    assert isinstance(good, Episode)


def test_a_list_of_episodes_that_was_written_half_is_named(tmp_path):
    folder = write_v3(tmp_path / 'set', episodes(3), ['x'])
    path = next((folder / 'meta/episodes').rglob('*.parquet'))
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(DataError, match='list of episodes in meta/episodes'):
        list(read(folder))


def test_files_that_the_list_of_episodes_does_not_name_are_told(tmp_path):
    folder = write_v2(tmp_path / 'set', episodes(3, 4, 5), ['x'])
    path = folder / 'meta/episodes.jsonl'
    path.write_text('\n'.join(path.read_text().splitlines()[:2]))
    unlisted, *found = read(folder)
    assert '1 episodes have rows' in unlisted.reason and 'first: episode_000002.parquet' in unlisted.reason
    assert [len(e.actions) for e in found] == [3, 4]


@pytest.mark.parametrize('texts, listed, cells, expected', [
    (['', ''], None, ['lift the lid'] * 4, 'lift the lid'), ([' '], [''], [['lift'] for _ in range(4)], 'lift'),
    ([''], ['put it back'], None, 'put it back'), ([''], [''], None, ''), (['a', 'b'], None, ['c'] * 4, 'a'),
    ([''], None, [['lift', 'raise']] * 4, 'its language_instruction is not a text'),
    ([''], None, ['up', 'up', 'down', 'up'], '2 tasks within one episode (language_instruction)')])
def test_a_blank_task_is_looked_for_where_else_it_may_stand(tmp_path, texts, listed, cells, expected):
    folder = write_v2(tmp_path / 'set', episodes(4), texts)
    if listed is not None:
        edit_lines(folder / 'meta/episodes.jsonl', lambda line: line.update(tasks=listed))
    if cells is not None:
        path = next(folder.rglob('*.parquet'))
        pq.write_table(pq.read_table(path).append_column('language_instruction', pa.array(cells)), path)
    (episode,) = read(folder)
    assert (episode.instruction if isinstance(episode, Episode) else episode.reason) == expected


@pytest.mark.parametrize('place', ['data/chunk-000/episode_000000.parquet',
                                   f'videos/chunk-000/{CAMERA}/episode_000000.mp4'])
def test_a_clone_without_large_files_is_named(tmp_path, place):
    folder = write_v2(tmp_path / 'set', episodes(4), ['x'])
    (folder / place).write_text('version https://git-lfs.github.com/spec/v1\noid sha256:0a1b\nsize 12345678\n')
    (refused,) = read(folder)
    assert '`git lfs pull`' in refused.reason and 'episode_000000' in refused.reason


@pytest.mark.parametrize('rewards, told', [([0.0] * 4, True), ([-1.0] * 4, True), ([0.0, 0.0, 0.0, 1.0], False),
                                           ([-1.0, -1.0, -1.0, 0.0], False), ([1.0] * 4, False)])
def test_rewards_that_never_rise_are_told(tmp_path, rewards, told):
    folder = write_v2(tmp_path / 'set', episodes(4), ['x'])
    path = next(folder.rglob('*.parquet'))
    pq.write_table(pq.read_table(path).append_column('next.reward', pa.array(rewards)), path)
    (episode,) = read(folder)
    assert episode.success and any('throughout, which may mean' in note for note in episode.notes) == told


@pytest.mark.parametrize('change, words', [
    (lambda p: p, None), (lambda p: p.transpose(2, 0, 1), r'int64 of the shape (3, 8, 10)'),
    (lambda p: p / 255, 'float64 of the shape (8, 10, 3)'), (lambda p: p + 300, 'whole and 0 to 255')])
def test_pictures_as_numbers_are_pictures_or_named_for_what_they_are(tmp_path, change, words):
    folder = write_v2(tmp_path / 'set', episodes(4), ['x'])
    edit_info(folder, lambda info: info['features'].update({CAMERA: {'dtype': 'image'}}))
    pixels = np.random.default_rng(4).integers(0, 256, (8, 10, 3))
    path = next(folder.rglob('*.parquet'))
    pq.write_table(pq.read_table(path).append_column(CAMERA, pa.array([change(pixels).tolist()] * 4)), path)
    (episode,) = read(folder)
    if words is None:
        np.testing.assert_array_equal(episode.frames[2], pixels)
    else:
        assert words in episode.reason


@pytest.mark.parametrize('name, values, words', [
    ('timestamp', ['soon'] * 4, "the column 'timestamp' cannot be read as numbers"),
    ('next.done', [[1, 2]] * 4, "the column 'next.done' cannot be read"),
    ('next.success', ['true'] * 4, "'next.success': cannot be read as numbers")])
def test_a_column_that_is_no_numbers_is_named(tmp_path, name, values, words):
    folder = write_v2(tmp_path / 'set', episodes(4), ['x'])
    path = next(folder.rglob('*.parquet'))
    pq.write_table(pq.read_table(path).append_column(name, pa.array(values)), path)
    assert words in next(read(folder)).reason
    edit_info(folder, lambda info: info.pop('features'))
    with pytest.raises(DataError, match="info.json lacks 'features'"):
        list(read(folder))
