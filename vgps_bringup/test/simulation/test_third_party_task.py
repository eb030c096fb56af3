"""A laboratory's own task is found by name, without a change here."""

import dataclasses
from importlib.metadata import EntryPoint

import pytest

from vgps_bringup.simulation import TASKS, SimulatedWidowX, tasks

CARROT = TASKS['put_carrot_on_plate']
PUT_BRICK_ON_PLATE = dataclasses.replace(
    CARROT, instruction='put brick on plate', half_length=0.02, rest_height=0.0175,
    scene=CARROT.scene.replace(tasks._CARROT, """
<body name="object"><freejoint name="object"/>
  <geom name="object" class="object" type="box" size="0.02 0.0175 0.0175" material="brick" mass="0.06"/>
</body>"""), assets='<material name="brick" rgba="0.7 0.2 0.1 1"/>')
NOT_A_TASK = 'carrot'


def provide(monkeypatch, *entries):
    monkeypatch.setattr(tasks, 'entry_points', lambda group: [
        EntryPoint(name, value, group) for name, value in entries if group == 'vgps.tasks'])


def test_a_task_of_another_package_runs_like_a_shipped_one(monkeypatch):
    provide(monkeypatch, ('put_brick_on_plate', f'{__name__}:PUT_BRICK_ON_PLATE'))
    assert 'put_brick_on_plate' in TASKS and len(TASKS) == 5
    robot = SimulatedWidowX('put_brick_on_plate')
    robot.reset(3)
    robot.advance(0.5)
    assert robot.task.instruction == 'put brick on plate' and not robot.task_state().success
    robot.close()


@pytest.mark.parametrize('value, words', [(f'{__name__}:NOT_A_TASK', 'is a str, not a Task'),
                                          ('no_such_lab:TASK', 'No module named')])
def test_a_package_that_fails_is_named_and_the_others_still_work(monkeypatch, value, words):
    provide(monkeypatch, ('broken', value))
    assert TASKS['put_carrot_on_plate'] is CARROT
    with pytest.raises(tasks.TaskError, match=words):
        TASKS['broken']


def test_a_name_that_is_taken_is_refused(monkeypatch):
    provide(monkeypatch, ('put_carrot_on_plate', f'{__name__}:PUT_BRICK_ON_PLATE'))
    with pytest.raises(tasks.TaskError, match='two packages provide'):
        TASKS['put_carrot_on_plate']


def test_a_task_that_does_not_exist_is_named_with_those_that_do():
    with pytest.raises(ValueError, match=r'no task .*put_spoon_on_cloth'):
        SimulatedWidowX('put_spon_on_cloth')
