"""The study in SIMPLER as commands and tables, and scenes for demonstrations that are none of the benchmark's."""

import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from vgps_bringup.reproduction import simpler, tables
from vgps_bringup.reproduction.simpler import SMOKE, Scale
from vgps_bringup.trials.simpler.environments import MANISKILL
from vgps_bringup.trials.simpler.scenes import FIRST_DRAWN, LAYOUTS, NEAR, Scene


@pytest.mark.parametrize('name', MANISKILL)
def test_no_demonstration_stands_as_an_official_configuration_does(name):
    layout = LAYOUTS[name]
    official = [layout.official(number) for number in range(24)]
    assert len({(*scene.positions.ravel(), *scene.quaternions.ravel()) for scene in official}) == 24
    assert all(layout.is_official(scene) for scene in official)
    for seed in range(1_000_000, 1_000_300):
        drawn = layout.draw(seed)
        assert not layout.is_official(drawn)
        for scene in official:  # said once more without the layout's own arithmetic
            moved = np.abs(drawn.positions - scene.positions).max() > NEAR / 2
            turned = abs(drawn.quaternions[0] @ scene.quaternions[0]) < 0.9999
            assert moved or turned


@pytest.mark.parametrize('name', MANISKILL)
def test_demonstrations_are_drawn_continuously_from_the_box_of_the_benchmark(name):
    layout = LAYOUTS[name]
    drawn = np.stack([layout.draw(seed).positions for seed in range(200)])
    moving = drawn if not layout.fixed_target else drawn[:, :1]
    assert all(len(np.unique(moving[:, thing, axis])) == 200 for thing in range(moving.shape[1]) for axis in (0, 1))
    low, high = layout.positions.min(0) - layout.margin, layout.positions.max(0) + layout.margin
    assert (drawn[..., :2] >= low[:, :2] - 1e-9).all() and (drawn[..., :2] <= high[:, :2] + 1e-9).all()
    assert (drawn[..., 2] == layout.positions[0, :, 2]).all(), 'they fall from where the benchmark lets them fall'
    assert (np.linalg.norm(drawn[:, 0, :2] - drawn[:, 1, :2], axis=1) >= layout.apart).all()
    np.testing.assert_array_equal(layout.draw(7).positions, layout.draw(7).positions)


def test_a_trial_s_seed_means_an_official_configuration_or_from_a_million_on_a_drawn_scene():
    layout = LAYOUTS['widowx_stack_cube']
    assert layout.is_official(layout.scene(23)) and layout.is_official(layout.scene(999_999))
    np.testing.assert_array_equal(layout.scene(3_000_000).positions, layout.draw(3_000_000).positions)


def test_a_scene_a_little_off_an_official_one_counts_as_official():
    layout = LAYOUTS['widowx_carrot_on_plate']
    scene = layout.official(5)
    assert layout.is_official(Scene(scene.positions + 0.4 * NEAR, -scene.quaternions)), 'q and -q are one attitude'
    assert not layout.is_official(Scene(scene.positions + [[NEAR, NEAR, 0], [0, 0, 0]], scene.quaternions))


def test_every_comparison_has_a_title(tmp_path):
    assert set(tables.SIMPLER_TITLES) == set(simpler.studies(tmp_path, Scale()))


def test_a_stage_can_be_run_with_what_it_needs_alone(tmp_path, capsys):
    simpler.main(['--output', str(tmp_path), '--list', '--stages', 'trials-headline', '--scale.tasks',
                  'widowx_spoon_on_towel'])
    names = [line.partition(':')[0] for line in capsys.readouterr().out.splitlines()]
    assert names == ['collect-widowx_spoon_on_towel', 'table', 'flow', 'encoder', 'binned', 'monte-carlo',
                     'trials-headline']
    with pytest.raises(SystemExit, match='no stage trials-fold'):
        simpler.main(['--output', str(tmp_path), '--stages', 'trials-fold'])
    with pytest.raises(SystemExit):
        simpler.main(['--scale.tasks', 'fold_towel'])
    assert 'tasks must be among widowx_spoon_on_towel' in capsys.readouterr().err


def test_rows_are_paired_on_the_24_official_configurations(tmp_path):
    studies = simpler.studies(tmp_path, Scale())
    assert studies['development']['first_seed'] >= FIRST_DRAWN, 'what is chosen by is not the benchmark'
    for name, study in studies.items():
        assert name == 'development' or study['first_seed'] == 0
        assert (study['trials'], study['tasks']) == (24, list(MANISKILL))
    headline = studies['headline']['conditions']
    assert [row['name'] for row in headline] == ['flow: base', 'flow: steered', 'binned: base', 'binned: steered']
    assert len({row['critic'] for row in headline if row['critic']}) == 1, 'one critic file for both policies'


def test_the_tables_hold_what_was_played_and_name_what_was_not(tmp_path):
    study = simpler.studies(tmp_path, SMOKE)['headline']
    folder = tmp_path / 'trials-headline'
    folder.mkdir()
    header = {**study, 'tasks': [{'name': 'widowx_spoon_on_towel', 'instruction': '', 'group': ''}], 'order_seed': 0,
              'shards': 1}
    rows = [{'trial': str(i), 'number': i, 'task': 'widowx_spoon_on_towel', 'condition': row['name'], 'seed': 0,
             'instruction': '', 'success': 'steered' in row['name'], 'failure': '' if 'steered' in row['name'] else
             'early drop', 'steps': 40, 'fallbacks': 0, 'bag': ''} for i, row in enumerate(study['conditions'])]
    (folder / 'journal-0.jsonl').write_text('\n'.join(map(json.dumps, [header, *rows])) + '\n')
    (tmp_path / 'scale.json').write_text(json.dumps(simpler.dataclasses.asdict(SMOKE)))
    (tmp_path / 'monte-carlo' / 'critic').mkdir(parents=True)
    for name in ('flow.safetensors', 'monte-carlo/critic/model.safetensors'):
        save_file({'w': np.zeros((1000, 500), np.float32), 'b': np.zeros(10000, np.float32)}, tmp_path / name)
    text = tables.write_simpler(tmp_path)
    assert '| flow | 0.51 |' in text and '| monte-carlo | 0.51 |' in text
    assert text == (tmp_path / 'results.md').read_text()
    assert '| widowx_spoon_on_towel | 0 % [0, 79] | 100 % [21, 100] | 0 % [0, 79] | 100 % [21, 100] |' in text
    assert 'Smaller than the study: tasks widowx_spoon_on_towel of' in text and 'episodes 4 of 150' in text
    missing = text.partition('## Not run')[2]
    for name, title in tables.SIMPLER_TITLES.items():
        assert (f'{title}: `' in missing) == (name != 'headline'), name
    assert 'trials-actors' in missing and 'Google Robot' in missing
