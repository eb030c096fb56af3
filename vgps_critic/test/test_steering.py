"""What goes wrong has a name and a fallback; the names are those on the wire."""

import math
import os

import numpy as np
import pytest
import torch

from vgps_critic import Critic, steering
from vgps_critic.steering import MAX_CANDIDATES, Failure, Scores, Steerer, SteeringConfig
from vgps_msgs_py.vocabulary import SteeringReason as Reason, Verdict

torch.set_num_threads(1)


@pytest.fixture(scope='module')
def critic():
    return Critic.untrained(num_filters=8, image_size=64)


def some_actions(k=8, h=3):
    return np.random.default_rng(0).uniform(-0.04, 0.04, (k, h, 7)).astype(np.float32)


def observation():
    return np.random.default_rng(1).integers(0, 256, (48, 64, 3), np.uint8), np.full(512, 0.04, np.float32)


def values(*rows):
    return Scores(np.array(rows, np.float32), {})


def test_a_decision_has_every_field_of_the_message():
    message = pytest.importorskip('vgps_msgs.msg._steering_decision').SteeringDecision
    fields = set(message.get_fields_and_field_types())
    on_the_wire_only = {'header', 'episode_id', 'step', 'instruction', 'critic_hash', 'policy', 'stage_milliseconds'}
    assert set(steering.Decision.__dataclass_fields__) == fields - on_the_wire_only


def test_steering_sends_the_first_action_of_the_best_chunk(critic):
    steerer, actions = Steerer(critic), some_actions()
    decision = steerer.decide(steerer.encode(*observation()), actions, seed=1)
    minimum = decision.q_values.min(axis=0)
    assert decision.reason is Reason.STEERED and decision.verdict is Verdict.CHOSEN
    assert decision.chosen == minimum.argmax() and decision.value == minimum.max()
    np.testing.assert_array_equal(decision.action, actions[decision.chosen, 0])
    assert {'embed', 'resize', 'encode', 'score', 'select'} == set(decision.stages)


def test_health_has_the_closed_form_values(critic):
    steerer = Steerer(critic, SteeringConfig(beta=1.0))
    decision = steerer.choose(values([0, math.log(3)], [1, math.log(3)]), some_actions(2), seed=0)
    assert decision.spread == pytest.approx(math.log(3))
    assert decision.disagreement == pytest.approx(0.5)
    np.testing.assert_allclose(decision.probabilities, [0.25, 0.75], rtol=1e-6)
    assert decision.effective_sample_size == pytest.approx(1 / (0.25**2 + 0.75**2))


def test_the_trend_is_the_slope_of_the_chosen_values_and_forgets_at_reset(critic):
    steerer = Steerer(critic)
    trends = [steerer.choose(values([v - 5, v], [v, v]), some_actions(2), seed=0).value_trend for v in (-9, -7, -5)]
    assert math.isnan(trends[0]) and trends[1:] == pytest.approx([2.0, 2.0])
    steerer.choose(Failure(Reason.FRAME_MISSING, ''), some_actions(2), seed=0)  # a gap keeps its place
    assert steerer.choose(values([-1, -1]), some_actions(2), seed=0).value_trend == pytest.approx(2.0)
    steerer.reset()
    assert math.isnan(steerer.choose(values([-1, -1]), some_actions(2), seed=0).value_trend)


@pytest.mark.parametrize('fallback, chosen, verdict', [('first', 0, Verdict.FIRST_CANDIDATE),
                                                       ('hold', -1, Verdict.HOLD)])
@pytest.mark.parametrize('reason', [Reason.FRAME_MISSING, Reason.DEADLINE_MISSED, Reason.VALUES_NOT_FINITE,
                                    Reason.INSTRUCTION_UNKNOWN, Reason.CRITIC_FAILED])
def test_a_failed_critic_falls_back_as_configured(critic, reason, fallback, chosen, verdict):
    actions = some_actions()
    decision = Steerer(critic, SteeringConfig(fallback=fallback)).choose(Failure(reason, 'why'), actions, seed=0)
    assert (decision.reason, decision.chosen, decision.verdict) == (reason, chosen, verdict)
    np.testing.assert_array_equal(decision.action, actions[0, 0] if chosen == 0 else np.zeros(7))
    assert decision.message.startswith('why; ') and decision.q_values.size == 0


@pytest.mark.parametrize('reason', set(Reason) - {Reason.STEERED, Reason.CONTROL_FIRST, Reason.CONTROL_RANDOM})
def test_by_default_nothing_moves_for_any_reason_but_a_choice(critic, reason):
    decision = Steerer(critic).choose(Failure(reason, 'why'), some_actions(), seed=0)
    assert (decision.chosen, decision.verdict, decision.reason) == (-1, Verdict.HOLD, reason)
    assert not decision.action.any()


@pytest.mark.parametrize('limits', [dict(min_spread=50.0), dict(max_disagreement=1e-9)])
def test_by_default_a_critic_without_an_opinion_holds(critic, limits):
    steerer = Steerer(critic, SteeringConfig(**limits))
    decision = steerer.decide(steerer.encode(*observation()), some_actions(), seed=0)
    assert decision.reason in (Reason.FLAT_VALUES, Reason.MEMBERS_DISAGREE) and decision.verdict is Verdict.HOLD


def test_more_candidates_than_a_policy_node_may_propose_hold_and_are_not_scored(critic, monkeypatch):
    monkeypatch.setattr(critic, 'score', lambda *_: pytest.fail('scored'))
    steerer = Steerer(critic, SteeringConfig(fallback='first'))
    decision = steerer.decide(steerer.encode(*observation()), some_actions(MAX_CANDIDATES + 1), seed=0)
    assert decision.reason is Reason.CANDIDATES_INVALID and decision.verdict is Verdict.HOLD
    assert str(MAX_CANDIDATES) in decision.message


@pytest.mark.parametrize('selection', ['value', 'first', 'random'])
@pytest.mark.parametrize('actions', [np.zeros((3, 7)), np.zeros((0, 1, 7)), np.zeros((2, 0, 7)), np.zeros((2, 1, 6)),
                                     np.zeros(0), np.full((2, 1, 7), np.nan), np.full((2, 1, 7), np.inf)])
def test_invalid_candidates_hold_in_every_mode(critic, actions, selection):
    steerer = Steerer(critic, SteeringConfig(selection=selection))
    decision = steerer.decide(steerer.encode(*observation()), actions, seed=0)
    assert decision.reason is Reason.CANDIDATES_INVALID and decision.verdict is Verdict.HOLD
    assert not decision.action.any()


@pytest.mark.parametrize('fallback', ['first', 'hold'])
def test_candidates_in_other_units_hold_whatever_the_fallback(critic, fallback):
    steerer = Steerer(critic, SteeringConfig(fallback=fallback))
    decision = steerer.decide(steerer.encode(*observation()), some_actions() * 1000, seed=0)
    assert decision.reason is Reason.ACTION_SPACE_MISMATCH and decision.verdict is Verdict.HOLD


def test_the_plain_policy_is_not_held_back_by_a_critic_of_another_action_space(critic):
    steerer = Steerer(critic, SteeringConfig(selection='first'))
    decision = steerer.decide(steerer.encode(*observation()), some_actions() * 1000, seed=0)
    assert decision.reason is Reason.CONTROL_FIRST and 'half-ranges' in decision.message


def test_flat_and_disagreeing_values_are_named_only_when_asked_for(critic):
    flat, split = values([1, 1], [1, 1]), values([0, 1], [5, 6])
    assert Steerer(critic).choose(flat, some_actions(2), seed=0).reason is Reason.STEERED
    strict = Steerer(critic, SteeringConfig(min_spread=0.1, max_disagreement=1.0))
    assert strict.choose(flat, some_actions(2), seed=0).reason is Reason.FLAT_VALUES
    assert strict.choose(split, some_actions(2), seed=0).reason is Reason.MEMBERS_DISAGREE
    assert strict.choose(values([1], [1]), some_actions(1), seed=0).reason is Reason.STEERED  # nothing to choose


def test_the_random_control_is_uniform_and_seeded(critic):
    steerer = Steerer(critic, SteeringConfig(selection='random'))
    scores = values([0, 9, 0, 0], [0, 9, 0, 0])
    chosen = [steerer.choose(scores, some_actions(4), seed=s).chosen for s in range(2000)]
    assert np.bincount(chosen, minlength=4).min() > 400
    assert chosen[:50] == [steerer.choose(scores, some_actions(4), seed=s).chosen for s in range(50)]


def test_the_first_control_keeps_the_values_for_the_record(critic):
    decision = Steerer(critic, SteeringConfig(selection='first')).choose(
        values([0, 9], [1, 9]), some_actions(2), seed=0)
    assert decision.reason is Reason.CONTROL_FIRST and decision.chosen == 0 and decision.value == 0
    assert decision.q_values.shape == (2, 2)


def test_step_seeds_are_fixed_and_apart():
    assert steering.step_seed(7, 3) == 13178685564118765954  # recorded bags depend on it
    seeds = {steering.step_seed(episode, step) for episode in (0, 1, 2**64 - 1) for step in range(100)}
    assert len(seeds) == 300 and all(0 <= seed < 2**64 for seed in seeds)


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists('/proc/self/statm'), reason='resident memory is read from /proc')
def test_memory_stays_flat_over_many_frames(critic):
    steerer, actions = Steerer(critic, SteeringConfig(beta=0.1)), some_actions(10, 1)
    image, language = observation()

    def resident():
        with open('/proc/self/statm') as file:
            return int(file.read().split()[1]) * os.sysconf('SC_PAGE_SIZE') / 2**20

    for step in range(600):
        if step == 200:
            settled = resident()
        steerer.decide(steerer.encode(image, language), actions, seed=step)
    assert resident() - settled < 8  # MB; one leaked input frame per step would be 19
