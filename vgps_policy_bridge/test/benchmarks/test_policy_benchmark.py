"""``vgps-benchmark-policy``: every K is measured as often, in turns, and what cannot be measured is refused."""

import pytest

from vgps_policy_bridge.benchmarks import policies


def test_every_k_is_run_in_turns_once_unmeasured():
    seen = []
    medians = policies.measure(seen.append, [1, 10], 2)
    assert seen == [1, 10] * 3
    assert set(medians) == {1, 10} and min(medians.values()) > 0


@pytest.mark.parametrize('words, said', [
    ('random-policy --repetitions 0', '--repetitions must be at least 1, not 0'),
    ('random-policy --k 10 0', '--k must be 1 .. 1000, not 10 0'),
    ('random-policy --k 1001', '--k must be 1 .. 1000, not 1001'),
    ('nosuch', "no policy 'nosuch' is installed"),
    ('random-policy --options {x:1', 'while parsing')])
def test_what_cannot_be_measured_is_refused_in_words(words, said, capsys):
    with pytest.raises(SystemExit) as end:
        policies.main(words.split())
    assert end.value.code == 2
    assert capsys.readouterr().err.startswith(f'vgps-benchmark-policy: {said}')


def test_a_row_for_every_k_relative_to_one_candidate(capsys):
    policies.main('random-policy --k 5 --repetitions 2'.split())
    rows = capsys.readouterr().out.splitlines()[1:]
    assert [row.split(':')[0] for row in rows] == ['K =    1', 'K =    5']
    assert rows[0].endswith('1.00 x K = 1')
