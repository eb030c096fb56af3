"""The statistics against closed forms, scipy and statsmodels."""

import numpy as np
import pytest
from scipy import stats

from vgps_bringup.trials.statistics import compare_paired, mcnemar_exact, paired_interval, wilson


def test_wilson_interval_of_half_the_trials_has_its_closed_form():
    z = 1.959963984540054
    interval = wilson(10, 20)
    assert interval.high - interval.low == pytest.approx(z / np.sqrt(20 + z**2), abs=1e-12)
    assert interval.high + interval.low == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize('trials', [1, 2, 7, 20, 200, 1000])
@pytest.mark.parametrize('confidence', [0.8, 0.95, 0.99])
def test_wilson_equals_scipy_and_statsmodels(trials, confidence):
    proportion = pytest.importorskip('statsmodels.stats.proportion')
    for successes in sorted({0, 1, trials // 3, trials // 2, trials - 1, trials}):
        ours = wilson(successes, trials, confidence)
        theirs = stats.binomtest(successes, trials).proportion_ci(confidence, method='wilson')
        assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=1e-9)
        theirs = proportion.proportion_confint(successes, trials, 1 - confidence, method='wilson')
        assert (ours.low, ours.high) == pytest.approx(theirs, abs=1e-9)


def test_mcnemar_equals_statsmodels_and_the_binomial_test():
    contingency = pytest.importorskip('statsmodels.stats.contingency_tables')
    for wins in range(0, 40, 3):
        for losses in range(0, 12):
            ours = mcnemar_exact(wins, losses)
            assert ours == pytest.approx(contingency.mcnemar([[5, wins], [losses, 9]], exact=True).pvalue, abs=1e-9)
            if wins + losses:
                assert ours == pytest.approx(stats.binomtest(wins, wins + losses).pvalue, abs=1e-9)


def test_five_wins_without_loss_have_p_one_sixteenth():
    assert mcnemar_exact(5, 0) == pytest.approx(1 / 16, abs=1e-12)


def test_paired_interval_covers_the_truth_as_often_as_it_says():
    rng, covered, repeats = np.random.default_rng(0), 0, 4000
    cells = np.array([0.4, 0.3, 0.05, 0.25])  # both, only second, only first, neither
    for _, wins, losses, _ in rng.multinomial(20, cells, repeats):
        low, high = paired_interval(20, wins, losses)
        covered += low <= cells[1] - cells[2] <= high
    assert 0.935 < covered / repeats < 0.985


def test_pairs_are_counted_trial_by_trial():
    result = compare_paired([True, False, False, True, False], [True, True, True, False, True])
    assert (result.pairs, result.wins, result.losses) == (5, 3, 1)
    assert result.difference == pytest.approx(0.4)
    assert result.low < 0.4 < result.high and result.p_value == pytest.approx(0.625)


def test_unequal_numbers_and_impossible_counts_are_refused():
    with pytest.raises(ValueError, match='cannot be paired'):
        compare_paired([True], [True, False])
    with pytest.raises(ValueError, match='5 successes of 4'):
        wilson(5, 4)
