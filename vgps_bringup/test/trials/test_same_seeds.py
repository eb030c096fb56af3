"""Two runs of the same conditions, compared on the seeds both have finished."""

import json
from dataclasses import replace

import numpy as np
import pytest
from evaluation_coin import BASELINE, STEERED, STUDY, CoinRunner

from vgps_bringup.trials import same_seeds
from vgps_bringup.trials.plan import StudyError
from vgps_bringup.trials.trials import TrialResult, collect, run_study


class LiveRunner(CoinRunner):
    """The same coin, but the steered condition loses seed 10000; times as a live system reports them."""

    def run(self, trial, bag):
        result = super().run(trial, None)
        lost = trial.seed == 10000 and trial.condition.name.endswith('steered')
        return TrialResult(result.success and not lost, 'late drop' if lost else result.failure, steps=3, details={
            'steps_per_second': 4.0 + trial.number, 'image_to_command_ms': [10.0, 20.0, 30.0]})


@pytest.fixture
def runs(tmp_path):
    # the coin favours a condition by its name: 'chosen' does what 'steered' does and succeeds less often
    other = replace(STUDY, trials=20, conditions=(
        replace(BASELINE, name='plain'), replace(STEERED, name='chosen', critic='/elsewhere/critic')))
    run_study(STUDY, LiveRunner(), tmp_path / 'live', record=False, say=lambda text: None)
    run_study(other, CoinRunner(), tmp_path / 'offline', record=False, say=lambda text: None)
    return tmp_path / 'live', tmp_path / 'offline'


def test_conditions_are_matched_by_what_they_do_and_trials_by_task_and_seed(runs):
    comparison = same_seeds.compare(*runs)
    lines = {(line['task'], line['condition']): line for line in comparison['table']}
    assert len(lines) == 3 * 2 and all(line['trials'] == 10 for key, line in lines.items() if key[0] != 'all tasks')
    here = {(r['task'], r['condition'], r['seed']): r['success'] for r in collect(runs[0])[1]}
    there = {(r['task'], r['condition'], r['seed']): r['success'] for r in collect(runs[1])[1]}
    for name, other in (('baseline', 'plain'), ('steered', 'chosen')):
        pairs = np.array([(success, there[task, other, seed]) for (task, condition, seed), success in here.items()
                          if condition == name])
        line = lines['all tasks', name]
        assert (line['successes'], line['other_successes']) == tuple(pairs.sum(axis=0))
        assert line['alike'] == (pairs[:, 0] == pairs[:, 1]).sum() and line['trials'] == 20
    assert lines['all tasks', 'baseline']['alike'] == 20 and lines['all tasks', 'baseline']['p_value'] == 1.0
    assert lines['all tasks', 'steered']['alike'] < 20


def test_the_pace_is_over_all_steps_of_the_live_trials(runs):
    pace = same_seeds.compare(*runs)['pace']
    assert (pace['trials'], pace['steps'], pace['steps_per_second_lowest']) == (40, 120, 4.0)
    assert (pace['image_to_command_ms_p50'], pace['image_to_command_ms_p99']) == (20.0, 30.0)
    assert same_seeds.pace(collect(runs[1])[1]) is None, 'the lockstep simulation has no pace'


def test_the_written_file_and_the_table_say_the_same(runs):
    said = []
    same_seeds.write(*runs, said.append)
    written = json.loads((runs[0] / 'same_seeds.json').read_text())
    assert written == json.loads(json.dumps(same_seeds.compare(*runs)))
    assert len(written['rows']) == 40 and written['rows'][0]['image_to_command_ms'] == [20.0, 29.8]
    assert '20 of 20' in said[0] and '20 ms (p50)' in said[0]


def test_a_condition_without_counterpart_is_named(runs, tmp_path):
    other = replace(STUDY, conditions=(BASELINE, replace(STEERED, k=50)))
    run_study(other, CoinRunner(), tmp_path / 'other', record=False, say=lambda text: None)
    with pytest.raises(StudyError, match="'steered' has 0 counterparts"):
        same_seeds.compare(runs[0], tmp_path / 'other')
