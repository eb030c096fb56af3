"""Physical actions reach the network as the reference normalises them; foreign ones are refused."""

import numpy as np
import pytest
from golden import golden

from vgps_critic.action_space import ActionSpace, ActionSpaceError

BRIDGE = ActionSpace.named('bridge')


def test_bounds_rule_is_the_evaluation_codes():
    normalized = BRIDGE.normalize([[0.05, -0.05, 0.0, 0.125, 1.0, -1.0, 0.75]])[0]
    np.testing.assert_allclose(normalized, [1 - 1e-5, -1 + 1e-5, 0, 0.5, 1 - 1e-5, -1 + 1e-5, 0.5], atol=1e-7)


def test_quantiles_rule_is_the_training_loaders():
    data = golden('data_pipeline.npz')
    space = ActionSpace(low=data['stats/p001'], high=data['stats/p999'], rule='quantiles')
    raw = np.concatenate([data[f'traj{i}/action_raw'] for i in range(8)])
    expected = np.concatenate([data[f'traj{i}/action_norm'] for i in range(8)])
    np.testing.assert_allclose(space.normalize(raw), expected, atol=2e-6)
    assert np.abs(BRIDGE.normalize(raw) - expected).max() > 0.1  # the two rules are not interchangeable


@pytest.mark.parametrize('factor, words', [
    (np.array([1000, 1000, 1000, 1, 1, 1, 1]), 'dimension 0'),  # millimetres
    (np.array([1, 1, 1, 57.3, 57.3, 57.3, 1]), 'dimension 3'),  # degrees
    (np.array([20, 20, 20, 4, 4, 4, 1]), 'dimension 0')])  # still normalised to [-1, 1]
def test_other_units_are_noticed(factor, words):
    actions = np.random.default_rng(0).uniform(0.6, 1, (20, 7)) * BRIDGE.high
    BRIDGE.check(actions)
    with pytest.raises(ActionSpaceError, match=words):
        BRIDGE.check(actions * factor)


def test_a_few_wild_candidates_are_not_a_mismatch():
    actions = np.zeros((10, 7))
    actions[:3, 0] = 1.0
    BRIDGE.check(actions)


def test_a_dimension_that_never_moved_in_the_data_tolerates_noise():
    space = ActionSpace(low=(-0.05,) * 6 + (0,), high=(0.05,) * 3 + (-0.0499,) * 3 + (1,), rule='quantiles')
    space.check(np.tile([0, 0, 0, 0.02, 0, 0, 1], (5, 1)))


def test_it_travels_through_json():
    assert ActionSpace(**BRIDGE.to_dict()) == BRIDGE


@pytest.mark.parametrize('change, words', [
    (dict(rule='other'), "rule 'other' is unknown"), (dict(low=(0,) * 6), 'low has 6 entries'),
    (dict(units=('mm',) * 7), 'units are'), (dict(high=BRIDGE.low), r'high\[0\]'),
    (dict(low=(np.nan,) * 7), 'finite')])
def test_a_foreign_space_is_refused_by_name(change, words):
    with pytest.raises(ValueError, match=words):
        ActionSpace(**{**BRIDGE.to_dict(), **change})


def test_names_that_are_not_shipped_are_refused():
    with pytest.raises(ValueError, match='not shipped'):
        ActionSpace.named('../bridge/x')
