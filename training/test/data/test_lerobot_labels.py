"""Tables of progress and returns beside a LeRobot set say how its episodes ended, where they are named."""
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from lerobot_factory import write_v3

from vgps_training.data.episode import DataError, Reading
from vgps_training.data.lerobot import read


def episodes(*lengths):
    rows = []
    for number, length in enumerate(lengths):
        actions = np.random.default_rng(number).normal(0, 0.01, (length, 7)).astype(np.float32)
        actions[:, 6] = 1
        rows.append((np.full((length, 48, 64, 3), 90, np.uint8), actions, 0, None))
    return rows


def judge(folder, name, **columns):
    path = folder / name
    rows = {'episode_index': [0] * 4 + [1] * 3 + [2] * 3, 'frame_index': [3, 2, 1, 0, 0, 1, 2, 0, 1, 2], **columns}
    pq.write_table(pa.table(rows), path)


def test_tables_of_progress_and_of_returns_say_how_episodes_ended_where_they_are_named(tmp_path):
    write_v3(tmp_path / 's', [(*e[:3], False) for e in episodes(4, 3, 3)], ['do it'])
    nan = float('nan')
    judge(tmp_path / 's', 'sarm_progress.parquet', progress_sparse=[0.95, 0.5, 0.2, 0, 0, 0.99, 0.4, 0.1, 0.9, nan])
    judge(tmp_path / 's', 'meta/returns_fail300.parquet', reward=[-300.0, -1, -1, -1, -1, -1, 0, -1, -1, -1])
    assert [e.success for e in read(tmp_path / 's', Reading(outcomes='sarm_progress'))] == [True, False, None]
    assert [e.success for e in read(tmp_path / 's', Reading(outcomes='returns_fail300'))] == [False, True, False]
    assert [e.success for e in read(tmp_path / 's')] == [False] * 3
    with pytest.raises(DataError, match='it has returns_fail300, sarm_progress'):
        list(read(tmp_path / 's', Reading(outcomes='topreward')))


@pytest.mark.parametrize('columns, words', [
    ({'progress_sparse': [50.0] * 10}, 'not a progress 0..1'), ({'value': [0.5] * 10}, 'needed are episode_index'),
    ({'reward': [0.0] * 10, 'frame_index': [0] * 10}, 'two labels for a frame')])
def test_tables_that_judge_nothing_are_refused(tmp_path, columns, words):
    write_v3(tmp_path / 's', episodes(4, 3, 3), ['do it'])
    judge(tmp_path / 's', 'sarm_progress.parquet', **columns)
    with pytest.raises(DataError, match=words):
        list(read(tmp_path / 's', Reading(outcomes='sarm_progress')))


def test_an_episode_of_which_steps_are_not_judged_is_left_out(tmp_path):
    write_v3(tmp_path / 's', episodes(4, 3, 5), ['do it'])
    judge(tmp_path / 's', 'sarm_progress.parquet', progress_dense=[1.0] * 10)
    assert [getattr(e, 'reason', 'used') for e in read(tmp_path / 's', Reading(outcomes='sarm_progress'))] == [
        'used', 'used', "'sarm_progress' judges 3 of its 5 steps"]
