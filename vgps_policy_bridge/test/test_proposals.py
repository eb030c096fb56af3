"""Tools around a policy, against values computed by hand."""

import numpy as np
import pytest

from vgps_policy_bridge.errors import PolicyError
from vgps_policy_bridge.policy import Candidates, Observation, Policy
from vgps_policy_bridge.proposals import build_policy, compose, merge_duplicates

OBSERVATION = Observation(np.zeros((4, 4, 3), np.uint8), 0.0)


class Scripted:
    """Returns what it was given, one answer after the other."""

    def __init__(self, *answers, counts=None):
        self.answers, self.counts = [np.asarray(a, np.float32) for a in answers], counts
        self.asked, self.resets = [], []

    def reset(self, instruction, seed=0):
        self.resets.append((instruction, seed))

    def propose(self, observation, k):
        self.asked.append(k)
        answer = self.answers.pop(0)
        return Candidates(answer, policy='scripted', counts=self.counts, seed=len(self.asked),
                          log_probabilities=np.arange(len(answer)))


def action(x=0.0, openness=1.0):
    return [x, 0, 0, 0, 0, 0, openness]


def test_gaussian_expansion_fits_mean_and_spread_and_votes_on_the_gripper():
    base = [[action(-0.02, 1.0)], [action(0.00, 1.0)], [action(0.04, 0.0)], [action(0.02, 0.4)], [action(0.01, 0.9)]]
    tool = compose(Scripted(base), [{'gaussian_expansion': {'samples': 5}}])
    drawn = tool.propose(OBSERVATION, 1000)
    x = np.array([-0.02, 0.0, 0.04, 0.02, 0.01])
    assert drawn.actions.shape == (1000, 1, 7)
    assert drawn.actions[:, 0, 0].mean() == pytest.approx(x.mean(), abs=4 * x.std() / np.sqrt(1000))
    assert drawn.actions[:, 0, 0].std() == pytest.approx(x.std(), rel=0.1)
    assert (drawn.actions[:, 0, 1:6] == 0).all()
    assert (drawn.actions[1:, 0, 6] == 1.0).all()  # three of five are open
    np.testing.assert_array_equal(drawn.actions[0], np.float32(base[0]))  # what the policy alone would do
    assert drawn.log_probabilities is None and 'expand' in drawn.stages


def test_gaussian_expansion_weighs_merged_duplicates():
    policy = Scripted([[action(0.0, 0.0)], [action(0.04, 1.0)]], counts=[4, 1])
    drawn = compose(policy, [{'gaussian_expansion': {'samples': 5}}]).propose(OBSERVATION, 1000)
    assert drawn.actions[:, 0, 0].mean() == pytest.approx(0.008, abs=0.002)
    assert drawn.actions[:, 0, 0].std() == pytest.approx(0.016, rel=0.1)
    assert (drawn.actions[1:, 0, 6] == 0.0).all()


def test_gaussian_expansion_asks_the_policy_for_few_and_leaves_small_requests_alone():
    policy = Scripted(np.zeros((3, 1, 7)), np.zeros((2, 1, 7)))
    tool = compose(policy, [{'gaussian_expansion': {'samples': 3}}])
    tool.propose(OBSERVATION, 50)
    tool.propose(OBSERVATION, 2)
    assert policy.asked == [3, 2]


def test_duplicates_are_merged_in_order_of_first_appearance():
    chunks = np.array([[action(x)] for x in (0.03, 0.01, 0.03, 0.02, 0.01, 0.03)], np.float32)
    merged = merge_duplicates(Candidates(chunks, policy='p', log_probabilities=np.arange(6)))
    np.testing.assert_allclose(merged.actions[:, 0, 0], [0.03, 0.01, 0.02])
    assert merged.counts.tolist() == [3, 2, 1] and merged.log_probabilities.tolist() == [0, 1, 3]
    again = merge_duplicates(merged)
    assert again.counts.tolist() == [3, 2, 1]
    told = merge_duplicates(Candidates(chunks[[0, 0, 0]], policy='p', closing=[0.2, 0.3, 0.2]))
    assert told.closing.tolist() == pytest.approx([0.2, 0.3]) and told.counts.tolist() == [2, 1]
    counted = merge_duplicates(Candidates(chunks[[0, 0]], policy='p', counts=[5, 7]))
    assert counted.counts.tolist() == [12]


def test_coarse_tolerance_merges_what_lies_in_one_cell():
    chunks = np.array([[action(x)] for x in (0.0101, 0.0104, 0.0140)], np.float32)
    tool = compose(Scripted(chunks), [{'merge_duplicates': {'tolerance': 0.001}}])
    assert tool.propose(OBSERVATION, 3).counts.tolist() == [2, 1]


def test_chunk_is_reduced_to_its_first_or_mean_action():
    chunk = [[action(0.01, 1.0), action(0.03, 0.0), action(0.02, 0.0)]]
    first = compose(Scripted(chunk), ['chunk_reduction']).propose(OBSERVATION, 1)
    mean = compose(Scripted(chunk), [{'chunk_reduction': {'how': 'mean'}}]).propose(OBSERVATION, 1)
    np.testing.assert_allclose(first.actions, [[action(0.01, 1.0)]])
    np.testing.assert_allclose(mean.actions, [[action(0.02, 0.0)]])


def test_ensemble_averages_with_what_selected_chunks_predicted_for_now():
    steps = [[[action(0.01), action(0.02), action(0.03)], [action(0.05), action(0.06), action(0.07)]],
             [[action(0.00), action(0.10), action(0.20)], [action(0.04), action(0.0), action(0.0)]],
             [[action(0.03), action(0.0), action(0.0)], [action(0.06), action(0.0), action(0.0)]]]
    tool = compose(Scripted(*steps), [{'temporal_ensemble': {'window': 4}}])
    tool.reset('x')
    np.testing.assert_allclose(tool.propose(OBSERVATION, 2).actions[:, 0, 0], [0.01, 0.05], atol=1e-7)
    tool.committed(1)
    # the selected chunk said 0.06 for now
    np.testing.assert_allclose(tool.propose(OBSERVATION, 2).actions[:, 0, 0], [0.03, 0.05], atol=1e-7)
    tool.committed(0)
    # the older chunk says 0.07 for now, the newer one 0.10
    np.testing.assert_allclose(tool.propose(OBSERVATION, 2).actions[:, 0, 0],
                               [(0.03 + 0.07 + 0.10) / 3, (0.06 + 0.07 + 0.10) / 3], atol=1e-7)


def test_ensemble_forgets_after_a_hold_and_at_reset_and_favours_the_recent_with_decay():
    chunk = [[action(0.01), action(0.05)]]
    tool = compose(Scripted(*[chunk] * 6), [{'temporal_ensemble': {'window': 2, 'decay': np.log(3.0).item()}}])

    def step():
        return tool.propose(OBSERVATION, 1).actions[0, 0, 0]
    step()
    tool.committed(0)
    assert step() == pytest.approx((0.01 + 0.05 / 3) / (1 + 1 / 3))
    tool.committed(-1)
    assert step() == pytest.approx(0.01)
    tool.committed(0)
    tool.reset('again')
    assert step() == pytest.approx(0.01)


def test_tools_pass_on_temperature_reset_and_close_only_where_the_policy_has_them():
    plain = compose(Scripted(np.zeros((1, 1, 7))), ['merge_duplicates', 'temporal_ensemble'])
    assert isinstance(plain, Policy) and not hasattr(plain, 'temperature') and not hasattr(plain, 'close')
    inner = Scripted()
    inner.temperature, inner.close = 1.0, lambda: 'closed'
    wrapped = compose(inner, ['merge_duplicates', 'temporal_ensemble'])
    wrapped.temperature = 0.3
    wrapped.reset('x', 5)
    assert inner.temperature == 0.3 == wrapped.temperature and inner.resets == [('x', 5)]
    assert wrapped.close() == 'closed'


@pytest.mark.parametrize('tools, complaint', [
    (['no_such'], 'gaussian_expansion'), ([{'gaussian_expansion': {'sampels': 3}}], 'samples'),
    ([{'gaussian_expansion': {'samples': 1}}], '2 .. 1000'), ([{'chunk_reduction': {'how': 'last'}}], 'first'),
    (['temporal_ensemble', 'merge_duplicates'], 'must be the last'), ({'merge_duplicates': {}}, 'must be a list'),
    ([{'a': {}, 'b': {}}], 'name'), ([{'merge_duplicates': 3}], 'name'),
    ([{'temporal_ensemble': {'window': 0}}], '>= 1')])
def test_wrong_tools_are_explained(tools, complaint):
    with pytest.raises(PolicyError, match=complaint):
        compose(Scripted(), tools)


def test_policy_options_and_tools_come_as_they_stand_in_a_launch_file():
    policy = build_policy('random-policy', {'horizon': 3}, ['chunk_reduction'])
    policy.reset('x', 1)
    assert policy.propose(OBSERVATION, 5).actions.shape == (5, 1, 7)
    with pytest.raises(PolicyError, match='mapping'):
        build_policy('random-policy', [1])
