"""LeRobot's numbers by their names: motions of the gripper in any order, unit and type, and nothing else."""
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from lerobot_factory import edit, edit_info, episodes, moves, write_v2

from vgps_training.data.episode import Malformed, Reading
from vgps_training.data.lerobot import read
from vgps_training.data.lerobot.columns import names, slot


@pytest.mark.parametrize('given', [
    ['x', 'y', 'z', 'roll', 'pitch', 'yaw', 'gripper'],
    {'motors': ['x', 'y', 'z', 'roll', 'pitch', 'yaw', 'gripper']},
    {'axes': ['delta_x', 'delta_y', 'delta_z', 'delta_roll', 'delta_pitch', 'delta_yaw', 'gripper']},
    {'delta_x': 0, 'delta_y': 1, 'delta_z': 2, 'rx': 3, 'ry': 4, 'rz': 5, 'gripper.pos': 6},
    [['eef_dx', 'eef_dy', 'eef_dz'], ['eef_droll', 'eef_dpitch', 'eef_dyaw'], ['gripper_openness']],
    None, ['action'], [f'action_{i}' for i in range(7)]])
def test_names_of_end_effector_motions_in_every_shape(tmp_path, given):
    folder = write_v2(tmp_path / 'set', episodes(5), ['x'])
    edit_info(folder, lambda info: info['features']['action'].update(names=given))
    (episode,) = read(folder)
    np.testing.assert_array_equal(episode.actions, moves(5))


@pytest.mark.parametrize('given, word', [
    ([f'joint_{i}' for i in range(7)], 'joints'), ([f'motor_{i}' for i in range(7)], 'joints'),
    ({'motors': ['shoulder_pan', 'shoulder_lift', 'elbow_flex', 'wrist_flex', 'wrist_roll', 'x', 'gripper']}, 'joints'),
    (['target_x', 'target_y', 'target_z', 'roll', 'pitch', 'yaw', 'gripper'], 'absolute pose'),
    (['x', 'y', 'z', 'qx', 'qy', 'qz', 'qw'], 'absolute pose'),
    (['vx', 'vy', 'vz', 'roll', 'pitch', 'yaw', 'gripper'], 'x, y, z is missing'),
    (['x', 'y', 'z', 'roll', 'pitch', 'yaw', 'speed'], 'gripper is missing'),
    ([f'q{i}' for i in range(7)], 'named q0, q1'), ([f'servo_{i}' for i in range(7)], 'does not say x y z'),
    (['joint_action'], 'named joint_action'),
    (['x', 'y', 'z', 'roll', 'pitch', 'yaw', 'gripper_delta'], 'gripper is a change by its name'),
    ([f'next_{n}' for n in ('x', 'y', 'z', 'roll', 'pitch', 'yaw')] + ['gripper'], 'absolute pose'),
    ([f'cam_{n}' for n in ('x', 'y', 'z', 'roll', 'pitch', 'yaw')] + ['gripper'], "a camera's axes"),
    ([f'vel_{n}' for n in ('x', 'y', 'z', 'roll', 'pitch', 'yaw')] + ['gripper'], 'the seconds of a step converts it'),
    (['x_mm', 'y_mm', 'z_mm', 'roll', 'pitch', 'yaw', 'gripper'], 'x_mm, which is not in metres')])
def test_names_of_anything_else_are_refused(tmp_path, given, word):
    folder = write_v2(tmp_path / 'set', episodes(5), ['x'])
    edit_info(folder, lambda info: info['features']['action'].update(names=given))
    (refused,) = read(folder)
    assert isinstance(refused, Malformed) and word in refused.reason


def test_named_numbers_may_stand_in_any_order_and_among_others(tmp_path):
    folder = write_v2(tmp_path / 'set', episodes(5), ['x'])
    edit_info(folder, lambda info: info['features']['action'].update(
        names=['gripper_closedness', 'x', 'y', 'z', 'roll', 'pitch', 'yaw', 'pad']))
    def change(rows):
        for row in rows:
            row['action'] = [1 - row['action'][6], *row['action'][:6], 0.0]
    edit(next(folder.rglob('*.parquet')), change)
    (episode,) = read(folder)
    np.testing.assert_allclose(episode.actions, moves(5), atol=1e-7)


def test_a_named_closedness_is_turned_once_whether_or_not_it_is_said_again(tmp_path):
    folder = write_v2(tmp_path / 'set', episodes(5), ['x'])
    given = ['x', 'y', 'z', 'roll', 'pitch', 'yaw', 'gripper_closed']
    edit_info(folder, lambda info: info['features']['action'].update(names=given))
    for reading in (Reading(), Reading(gripper='closedness')):
        (episode,) = read(folder, reading)
        assert episode.actions[:, 6].tolist() == [1, 0, 1, 0, 1]


@pytest.mark.parametrize('given, reading, factor', [
    (['x_mm', 'y_mm', 'z_mm', 'roll_rad', 'pitch_rad', 'yaw_rad', 'gripper'], Reading(translation_unit=0.001), 0.001),
    (['x_m', 'y_m', 'z_m', 'roll_deg', 'pitch_deg', 'yaw_deg', 'gripper'], Reading(rotation_unit=0.0174533), 1),
    (['linear_velocity_x', 'linear_velocity_y', 'linear_velocity_z', 'angular_velocity_x', 'angular_velocity_y',
      'angular_velocity_z', 'gripper'], Reading(translation_unit=0.2, rotation_unit=0.2), 0.2),
    (['x_m', 'y_m', 'z_m', 'roll_rad', 'pitch_rad', 'yaw_rad', 'gripper'], Reading(), 1)])
def test_names_with_units_are_read_where_the_user_names_them_too(tmp_path, given, reading, factor):
    folder = write_v2(tmp_path / 'set', episodes(5), ['x'])
    edit_info(folder, lambda info: info['features']['action'].update(names=given))
    (episode,) = read(folder, reading)
    np.testing.assert_allclose(episode.actions[:, :3], factor * moves(5)[:, :3], rtol=1e-6)


def test_a_word_among_fillers_is_told_from_a_joint():
    assert [slot(n) for n in ('eef_pos_x', 'delta.yaw', 'gripper_position', 'wrist_roll', 'rotX', 'elbow')] == [
        'x', 'yaw', 'gripper', None, 'roll', None]
    assert names({'names': {'b': 1, 'a': 0}}) == ['a', 'b'] and names({'names': 5}) == []


def test_state_of_eight_numbers_loses_its_padding(tmp_path):
    folder = write_v2(tmp_path / 'set', episodes(5), ['x'])
    state = np.arange(40, dtype=np.float32).reshape(5, 8) / 100
    edit_info(folder, lambda info: info['features'].update({'observation.state': {
        'dtype': 'float32', 'names': {'motors': ['x', 'y', 'z', 'roll', 'pitch', 'yaw', 'pad', 'gripper']}}}))
    edit(next(folder.rglob('*.parquet')), lambda rows: [{**row, 'observation.state': s.tolist()}
                                                        for row, s in zip(rows, state)])
    (episode,) = read(folder)
    np.testing.assert_array_equal(episode.states, np.delete(state, 6, 1))


def test_states_that_are_not_numbers_cost_the_states_alone(tmp_path):
    folder = write_v2(tmp_path / 'set', episodes(4), ['x'])
    edit_info(folder, lambda info: info['features'].update({'observation.state': {
        'dtype': 'float32', 'names': ['x', 'y', 'z', 'roll', 'pitch', 'yaw', 'gripper']}}))
    edit(next(folder.rglob('*.parquet')), lambda rows: [{**row, 'observation.state': [float('nan')] * 7}
                                                        for row in rows])
    (episode,) = read(folder)
    assert episode.states is None and 'states hold NaN' in episode.notes[-1]


@pytest.mark.parametrize('kind', [pa.float16(), pa.float64(), pa.int8()])
def test_actions_of_any_number_type(tmp_path, kind):
    folder = write_v2(tmp_path / 'set', episodes(5), ['x'])
    path = next(folder.rglob('*.parquet'))
    numbers = np.zeros((5, 7))
    numbers[:, 6] = [1, 1, 0, 0, 1]
    column = pa.FixedSizeListArray.from_arrays(pa.array(numbers.astype(kind.to_pandas_dtype()).ravel(), kind), 7)
    table = pq.read_table(path)
    pq.write_table(table.set_column(table.column_names.index('action'), 'action', column), path)
    (episode,) = read(folder)
    assert episode.actions.dtype == np.float32
    np.testing.assert_array_equal(episode.actions, numbers)
