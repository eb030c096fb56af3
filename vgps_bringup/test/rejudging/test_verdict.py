"""One sentence per critic: how often it would have chosen otherwise, how well its values tell how episodes end."""

import math

from vgps_bringup.rejudging.rejudge import Judgement
from vgps_bringup.rejudging.verdict import sentences


def judged(episode, step, differs=False, value=-10.0, critic='a', k=6, beta=0.0, recorded=False):
    return Judgement('bag', str(episode), step, step, critic, 'hash', k, beta, recorded, 0, 0, differs, value, value,
                     0.0, 1.0, 0.1, 3.0, 'STEERED', 'STEERED', math.nan, math.nan)


def test_all_critics_speak_of_the_setting_of_the_recording():
    rows = [judged(0, step, differs=step == 0, k=k, recorded=k == 4) for step in range(4) for k in (4, 6)]
    rows += [judged(0, step, differs=True, critic='b', k=4) for step in range(4)]
    first, second = sentences(rows, {('bag', '0'): 'success'})
    assert first.startswith('a would have chosen differently in 25 % of 4 steps (K = 4, β = 0); ')
    assert second.startswith('b would have chosen differently in 100 % of 4 steps (K = 4, β = 0); ')
    assert first.endswith('cannot be told from 1 success and 0 failures.')


def test_agreement_is_over_episodes_that_succeeded_or_failed_and_an_aborted_one_says_nothing():
    rows, outcomes = [], {}
    for number in range(8):  # successes are worth more, but for one; the failures below all of them, but for one
        value = -10.0 if number < 4 else -40.0 + 35.0 * (number == 7)
        rows += [judged(number, step, value=value) for step in range(3)]
        outcomes['bag', str(number)] = 'success' if number < 4 else ('failure', 'timeout')[number % 2]
    outcomes['bag', '3'] = 'aborted'
    assert 'AUC 0.75 over 3 successes and 4 failures' in sentences(rows, outcomes)[0]
