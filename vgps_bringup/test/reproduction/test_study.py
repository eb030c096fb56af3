"""The study as a sequence of commands: what is done stays done, what fails is named, nothing outlives it."""

import json
import os

import pytest

from vgps_bringup.reproduction import schedule, simpler, stages
from vgps_bringup.reproduction.schedule import Stage
from vgps_bringup.reproduction.stages import Scale


@pytest.fixture
def run(tmp_path):
    def call(*these):
        schedule.run(list(these), tmp_path, Scale(), {})
    return call


def costs(folder):
    return [json.loads(line)['stage'] for line in (folder / 'logs' / 'costs.jsonl').read_text().splitlines()]


def test_the_same_call_goes_on_after_a_failed_stage(tmp_path, run):
    first = Stage('first', ('sh', '-c', f'echo once >> {tmp_path}/first'))
    second = Stage('second', ('test', '-f', f'{tmp_path}/mended'), needs=('first',))
    with pytest.raises(SystemExit, match=r'stage second failed \(1\): see .*second.log'):
        run(first, second)
    (tmp_path / 'mended').touch()
    run(first, second)
    assert (tmp_path / 'first').read_text() == 'once\n'
    assert costs(tmp_path) == ['first', 'second', 'second']


def test_a_stage_that_fails_ends_those_that_run_beside_it_and_their_cost_is_kept(tmp_path, run):
    with pytest.raises(SystemExit, match='stage fails failed'):
        run(Stage('fails', ('sh', '-c', f'until [ -s {tmp_path}/began ]; do sleep 0.05; done; exit 1')),
            Stage('long', ('sh', '-c', f'echo $$ > {tmp_path}/began; exec sleep 600')))
    assert sorted(costs(tmp_path)) == ['fails', 'long']
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / 'began').read_text()), 0)


def test_a_study_is_not_continued_at_another_scale(tmp_path, run):
    run()
    with pytest.raises(SystemExit, match='begun at another scale'):
        schedule.run([], tmp_path, stages.SMOKE, {})


@pytest.mark.parametrize('study', [stages, simpler])
def test_every_stage_needs_only_stages_that_come_before_it(study, tmp_path):
    seen = set()
    for stage in study.stages(tmp_path, study.Scale()):
        assert seen.issuperset(stage.needs), stage.name
        seen.add(stage.name)
    assert {f'trials-{name}' for name in study.studies(tmp_path, study.Scale())} <= seen


@pytest.mark.parametrize('study', [stages, simpler])
@pytest.mark.parametrize('small', [False, True])
def test_every_critic_that_steers_is_made_before_by_a_stage_that_its_trials_need(study, small, tmp_path):
    scale = study.SMOKE if small else study.Scale()
    plan = {stage.name: stage for stage in study.stages(tmp_path, scale)}
    for name, comparison in study.studies(tmp_path, scale).items():
        needed = plan[f'trials-{name}'].needs
        commands = [plan[need].command for need in needed if '--out' in plan[need].command]
        made = {command[command.index('--out') + 1] + ('' if 'calibrate' in command else '/critic')
                for command in commands}
        assert {condition['critic'] for condition in comparison['conditions']} - {''} <= made, name


@pytest.mark.parametrize('study', [stages, simpler])
def test_table_11_plays_the_actors_that_the_trainings_it_needs_leave_beside_their_critics(study, tmp_path):
    plan = {stage.name: stage for stage in study.stages(tmp_path, study.Scale())}
    rows = study.studies(tmp_path, study.Scale())['actors']['conditions']
    assert [row['name'] for row in rows] == [
        'base', 'steered, iql', 'actor of iql', 'actor of iql, steered by iql',
        'steered, cal-ql', 'actor of cal-ql', 'actor of cal-ql, steered by cal-ql']
    for name in ('iql', 'cal-ql'):
        assert name in plan['trials-actors'].needs
        alone, steered = (row for row in rows if row['name'].startswith(f'actor of {name}'))
        assert alone['policy'] == steered['policy'] == 'actor'
        assert alone['policy_options'] == {'checkpoint': str(tmp_path / name / 'critic' / 'actor.safetensors')}
        assert (alone['k'], alone['selection'], alone['critic']) == (1, 'first', '')
        assert (steered['k'], steered['critic']) == (10, str(tmp_path / name / 'critic'))
    assert '--algorithm.train-actor' in plan['iql'].command
