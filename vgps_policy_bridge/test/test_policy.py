"""The seam: validation, seeds, discovery."""

import numpy as np
import pytest

from vgps_policy_bridge.errors import CandidatesError, ObservationError, PolicyError
from vgps_policy_bridge.policies.random_policy import RandomPolicy
from vgps_policy_bridge.policy import (
    Candidates,
    Observation,
    Policy,
    StepSeeds,
    available_policies,
    check_candidates,
    check_widowx,
    load_policy,
)

OBSERVATION = Observation(np.zeros((8, 8, 3), np.uint8), 0.0)


@pytest.mark.parametrize('statistics, allowed', [
    ('', True), ('bridge_dataset', True), ('bridge_orig', True),
    ('bridge_dataset/1.0.0, fractal20220817_data/0.1.0', True),
    ('fractal20220817_data', False), ('fractal20220817_data/0.1.0', False),
])
def test_a_widowx_executes_no_actions_that_were_learnt_on_the_google_robot_alone(statistics, allowed):
    candidates = Candidates(np.zeros((2, 1, 7)), policy='p', statistics=statistics)
    if allowed:
        assert check_widowx(candidates) is candidates
    else:
        with pytest.raises(CandidatesError, match="Google Robot's .*, and this is a WidowX"):
            check_widowx(candidates)


@pytest.mark.parametrize('actions, complaint', [
    (np.zeros((5, 7)), r'\(K, H, 7\)'),
    (np.zeros((5, 1, 6)), r'\(K, H, 7\)'),
    (np.zeros((0, 1, 7)), r'\(K, H, 7\)'),
    (np.full((2, 1, 7), np.nan), '2 of 2 candidates hold NaN'),
    (np.full((2, 1, 7), np.inf), 'infinity'),
    (np.full((2, 1, 7), 1.5), 'openness'),
    (np.full((2, 1, 7), -0.5), 'openness'),
    ([[['a'] * 7]], 'not numbers'),
])
def test_candidates_that_break_the_contract_are_refused_by_name(actions, complaint):
    with pytest.raises(CandidatesError, match=complaint):
        Candidates(actions, policy='bad')


def test_candidates_become_contiguous_float32():
    candidates = Candidates(np.zeros((3, 2, 14), np.float64)[:, :, ::2], policy='p', counts=[1, 2, 3])
    assert candidates.actions.dtype == np.float32 and candidates.actions.flags.c_contiguous
    assert candidates.counts.dtype == np.uint32 and len(candidates) == 3


@pytest.mark.parametrize('extra', [
    {'counts': [1, 0]}, {'counts': [1]}, {'log_probabilities': [0.0, np.nan]}, {'closing': [1.5, 0]},
    {'closing': [1.0]}, {'closing': [np.nan, 0]}, {'closing': [np.inf, 0]}])
def test_side_information_must_fit_the_candidates(extra):
    with pytest.raises(CandidatesError, match=next(iter(extra))):
        Candidates(np.zeros((2, 1, 7)), policy='p', **extra)


def test_fewer_candidates_than_asked_need_counts():
    with pytest.raises(CandidatesError, match='asked for 3 candidates, got 2'):
        check_candidates(Candidates(np.zeros((2, 1, 7)), policy='p'), 3)
    assert len(check_candidates(Candidates(np.zeros((2, 1, 7)), policy='p', counts=[2, 1]), 3)) == 2
    with pytest.raises(CandidatesError, match='must return'):
        check_candidates(np.zeros((3, 1, 7)), 3)


@pytest.mark.parametrize('fields', [
    {'image': np.zeros((4, 4, 3), np.float32)}, {'image': np.zeros((4, 4), np.uint8)}, {'image': None},
    {'state': np.zeros(8)}, {'state': np.full(7, np.nan)}, {'wrist_image': np.zeros((4, 4, 1), np.uint8)}])
def test_observation_refuses_wrong_arrays(fields):
    with pytest.raises(ObservationError):
        Observation(**({'image': np.zeros((4, 4, 3), np.uint8), 'stamp': 0.0} | fields))


def test_step_seeds_repeat_for_an_episode_and_differ_between_steps_and_episodes():
    def draw(seed, steps=50):
        seeds = StepSeeds(seed)
        return [seeds.next() for _ in range(steps)]
    assert draw(7) == draw(7)
    assert len(set(draw(7) + draw(8) + draw(2**64 - 1))) == 150
    assert all(0 <= seed < 2**63 for seed in draw(7))


def test_random_policy_is_reproducible_and_fills_its_bounds():
    policy = load_policy('random-policy')
    assert isinstance(policy, Policy)
    policy.reset('put eggplant in basket', seed=3)
    first = policy.propose(OBSERVATION, 1000)
    second = policy.propose(OBSERVATION, 1000)
    policy.reset('anything else', seed=3)
    np.testing.assert_array_equal(policy.propose(OBSERVATION, 1000).actions, first.actions)
    assert not np.array_equal(first.actions, second.actions) and first.seed != second.seed
    high = np.array([0.05] * 3 + [0.25] * 3 + [1.0])
    low = -high * [1, 1, 1, 1, 1, 1, 0]
    assert (first.actions >= low).all() and (first.actions <= high).all()
    assert (first.actions.min((0, 1)) < low + 0.02 * (high - low)).all()
    assert (first.actions.max((0, 1)) > high - 0.02 * (high - low)).all()
    # Uniform density: 1 / volume.
    np.testing.assert_allclose(first.log_probabilities, -np.log(0.1**3 * 0.5**3), rtol=1e-5)


def test_unknown_policy_lists_what_is_installed():
    assert 'random-policy' in available_policies()
    with pytest.raises(PolicyError, match='random-policy'):
        load_policy('no-such-policy')


def test_wrong_option_names_the_right_ones():
    with pytest.raises(PolicyError, match='translation'):
        load_policy('random-policy', sped=3)
    with pytest.raises(PolicyError, match='horizon >= 1'):
        load_policy('random-policy', horizon=0)


def test_random_policy_without_rotation_still_has_a_density():
    RandomPolicy(rotation=0.0).propose(OBSERVATION, 2)
