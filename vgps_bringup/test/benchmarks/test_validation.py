"""The benchmark of offline figures: critics are broken as their names say, and a figure's rank correlation is right."""

from dataclasses import replace

import numpy as np
import pytest

from vgps_bringup.benchmarks import validation
from vgps_bringup.improvement.episodes import Recorded


@pytest.fixture(scope='module')
def episodes():
    random = np.random.default_rng(0)
    return [Recorded(f'bag/{n}', '', 'go', n % 2 == 0, 9, np.zeros((4, 2, 2, 3), np.uint8),
                     random.normal(size=(4, 7)).astype(np.float32), None, np.zeros((4, 1, 7), np.float32),
                     np.ones((4, 1), np.float32), np.zeros(4, int), np.zeros(4, bool)) for n in range(20)]


def broken(name, episodes):
    return validation.VARIANTS[name].data(episodes, np.random.default_rng(0))


def test_no_episode_is_trained_on_and_held_out_and_more_recordings_do_not_change_which(episodes):
    training, held = validation.split(episodes, 5)
    assert len(held) == 5 and not {e.name for e in training} & {e.name for e in held}
    more = [replace(episodes[0], name=f'other/{n}') for n in range(3)]
    assert {e.name for e in validation.split(episodes + more, 8)[1]} >= {
        e.name for e in held} - {e.name for e in more}


def test_data_are_broken_as_the_name_of_a_critic_says(episodes):
    wrong = broken('30 % wrong outcomes', episodes)
    assert sum(a.success != b.success for a, b in zip(wrong, episodes)) == 6
    assert all(e.success for e in broken('all called successes', episodes))
    shuffled = broken('actions shuffled in time', episodes)
    for a, b in zip(shuffled, episodes):
        assert not np.array_equal(a.actions, b.actions)
        assert np.array_equal(np.sort(a.actions, axis=0), np.sort(b.actions, axis=0))
    others = np.concatenate([e.actions for e in broken('actions of other episodes', episodes)])
    assert np.array_equal(np.sort(others, axis=0), np.sort(np.concatenate([e.actions for e in episodes]), axis=0))
    assert [e.name for e in validation.fewer(episodes, None, 3)] == ['bag/0', 'bag/1', 'bag/2']


def test_a_figure_that_orders_critics_like_their_trials_has_correlation_one():
    success = {'a': 0.9, 'b': 0.5, 'c': 0.3, 'd': 0.1}
    figures = {name: {'right': 10 * rate, 'wrong': -rate, 'half': {'a': 3, 'b': 4, 'c': 2, 'd': 1}[name],
                      'unknown': float('nan'), 'same': 1.0} for name, rate in success.items()}
    found = validation.correlations(figures, success)
    assert set(found) == {'right', 'wrong', 'half'}
    assert found['right'][0] == pytest.approx(1) and found['wrong'][0] == pytest.approx(-1)
    assert found['half'][0] == pytest.approx(0.8)  # 1 - 6 * (1 + 1) / (4 * (16 - 1))
    low, high = found['half'][1:]
    assert low < 0.8 < high
