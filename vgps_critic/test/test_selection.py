"""Equation 2: the right distribution, finite at extremes, and nothing accepted that is not a number."""

import math

import numpy as np
import pytest

from vgps_critic.selection import select, select_each


def rng(seed=0):
    return np.random.default_rng(seed)


def test_beta_zero_takes_the_best_minimum_over_members_and_the_first_of_equals():
    q = np.array([[1, 5, 3, 3], [4, 2, 3, 3]], np.float32)  # minima 1 2 3 3
    selection = select(q, 0.0, rng())
    assert selection.index == 2
    assert list(selection.values) == [1, 2, 3, 3]
    assert list(selection.probabilities) == [0, 0, 1, 0]
    assert select(q, -1.0, rng()).index == 2


def test_probabilities_are_the_softmax_of_the_minimum_over_beta():
    q = np.array([-1.0, -2.0, -1.5], np.float32)
    expected = np.exp(q / 0.7) / np.exp(q / 0.7).sum()
    np.testing.assert_allclose(select(q, 0.7, rng()).probabilities, expected, rtol=1e-6)


def test_draws_match_the_categorical_distribution():
    scipy_stats = pytest.importorskip('scipy.stats')
    q, draws, generator = np.array([0.0, -0.5, -1.0, -0.1, -3.0]), 20_000, rng(1)
    counts = np.bincount([select(q, 0.5, generator).index for _ in range(draws)], minlength=5)
    expected = np.exp(q / 0.5) / np.exp(q / 0.5).sum()
    assert scipy_stats.chisquare(counts, expected * draws).pvalue > 1e-3
    # and the test can tell: the same counts do not fit another temperature
    other = np.exp(q / 0.6) / np.exp(q / 0.6).sum()
    assert scipy_stats.chisquare(counts, other * draws).pvalue < 1e-6


@pytest.mark.parametrize('beta', [0.0, 5e-324, 1e-6, 1.0, 10.0])
@pytest.mark.parametrize('scale', [0.0, 1.0, 1e4, 1e38])
def test_stays_finite_at_extremes(beta, scale):
    q = np.random.default_rng(0).uniform(-scale, scale, (2, 50)).astype(np.float32)
    with np.errstate(all='raise', under='ignore'):
        selection = select(q, beta, rng())
    assert np.isfinite(selection.probabilities).all()
    assert selection.probabilities.sum() == pytest.approx(1.0, abs=1e-9)
    assert selection.probabilities[selection.index] > 0


@pytest.mark.parametrize('bad', [math.nan, math.inf, -math.inf])
def test_values_that_are_not_finite_are_refused_by_place(bad):
    q = np.zeros((2, 4), np.float32)
    q[1, 3] = bad
    with pytest.raises(ValueError, match=r'1 of 8 Q-values are not finite, first .* at index \(1, 3\)'):
        select(q, 1.0, rng())


@pytest.mark.parametrize('bad', [math.nan, math.inf, -math.inf])
def test_beta_that_is_not_finite_is_refused(bad):
    with pytest.raises(ValueError, match='beta must be finite'):
        select(np.zeros(3), bad, rng())


@pytest.mark.parametrize('shape', [(0,), (2, 0), (), (1, 2, 3)])
def test_shapes_without_candidates_are_refused(shape):
    with pytest.raises(ValueError, match='Q-values have shape'):
        select(np.zeros(shape), 1.0, rng())


def test_one_candidate_is_chosen():
    assert select(np.array([[-3.0], [-4.0]]), 0.5, rng()).index == 0


def test_one_draw_is_used_so_that_a_recorded_seed_repeats_the_choice():
    one, two = rng(5), rng(5)
    select(np.zeros(7), 1.0, one)
    two.random()
    assert one.random() == two.random()


def test_several_temperatures_at_once_choose_to_the_bit_what_each_alone_would():
    random = rng(3)
    for case in range(300):
        q = random.normal(0, 5, (2, random.integers(1, 70))).astype(np.float32)
        betas = random.choice([0.0, 0.01, 0.1, 1.0, 3.0, 10.0], random.integers(1, 7))
        for beta, together in zip(betas, select_each(q, betas, rng(case)), strict=True):
            alone = select(q, beta, rng(case))
            assert together.index == alone.index
            assert together.probabilities.tobytes() == alone.probabilities.tobytes()
