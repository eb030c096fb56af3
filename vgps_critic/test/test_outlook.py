"""What the outlook and an operator change in a decision: when the critic is not followed, when the arm retreats."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from vgps_critic import Critic
from vgps_critic.corrections import FRESH, Corrections
from vgps_critic.outlook import FEATURES, Outlook, Probes
from vgps_critic.steering import Scores, Steerer, SteeringConfig
from vgps_msgs_py.vocabulary import SteeringReason as Reason, Verdict

torch.set_num_threads(1)
WORDS = np.full(512, 0.0442, np.float32)


@pytest.fixture(scope='module')
def critic():
    return Critic.untrained(num_filters=4, image_size=64)


def outlook_of(critic, **changes):
    """Return an outlook whose chance follows the value alone: 0.5 at half of the floor, less below."""
    dim = critic.network.encoder.output_dim
    weights = np.zeros(len(FEATURES) + 1, np.float32)
    weights[0], weights[-1] = 10.0, 5.0
    base = Outlook(critic.hash, ('a',), WORDS[None], np.zeros((1, dim), np.float32), np.eye(dim, dtype=np.float32),
                   weights, -50.0, threshold=0.2)
    return replace(base, **changes)


def candidates(k=4):
    return np.random.default_rng(0).uniform(-0.04, 0.04, (k, 1, 7)).astype(np.float32)


def scores(value, distance=1.0, familiarity=1.0):
    return Scores(np.array([[value, value - 1, value - 2, value - 3]] * 2, np.float32), {}, distance, familiarity)


def follow(steerer, *steps):
    """Return the decisions of an episode of 20 steps, given the scores of each."""
    steerer.reset(20)
    return [send(steerer, s, i) for i, s in enumerate(steps)]


def send(steerer, scored, seed=0):
    """Return the decision of one step, sent to the arm."""
    decision = steerer.choose(scored, candidates(), seed=seed)
    steerer.sent(decision)
    return decision


def test_values_near_success_are_a_good_chance_and_values_near_the_floor_an_alarm(critic):
    steerer = Steerer(critic, outlook=outlook_of(critic))
    good, = follow(steerer, scores(-5.0))
    bad, = follow(steerer, scores(-49.0))
    assert good.success_chance > 0.9 and not good.alarm
    assert bad.success_chance < 0.2 and bad.alarm and bad.chance_threshold == pytest.approx(0.2)
    assert bad.reason is Reason.STEERED  # by default an alarm is told and nothing is done


def test_frames_beyond_the_limit_make_the_plain_policy_act_by_name_and_the_values_are_kept(critic):
    decisions = follow(Steerer(critic, outlook=outlook_of(critic, limit=2.0)), *[scores(-5.0, distance=3.0)] * 2)
    for decision in decisions:
        assert (decision.reason, decision.verdict, decision.chosen) == (Reason.OUT_OF_DATA, Verdict.FIRST_CANDIDATE, 0)
        assert decision.q_values.shape == (2, 4) and decision.feature_distance == pytest.approx(3.0)


def test_one_strange_frame_among_familiar_ones_does_not_switch_steering_off(critic):
    steps = [scores(-5.0)] * 4 + [scores(-5.0, distance=3.0)]
    decisions = follow(Steerer(critic, outlook=outlook_of(critic, limit=2.0)), *steps)
    assert all(decision.reason is Reason.STEERED for decision in decisions)


def test_the_switch_can_be_turned_off_by_configuration(critic):
    steerer = Steerer(critic, SteeringConfig(switch_off='never'), outlook_of(critic, limit=2.0))
    assert follow(steerer, scores(-5.0, distance=9.0))[0].reason is Reason.STEERED


def test_an_instruction_unlike_any_of_the_training_makes_the_plain_policy_act(critic):
    decision, = follow(Steerer(critic, outlook=outlook_of(critic)), scores(-5.0, familiarity=0.4))
    assert decision.reason is Reason.INSTRUCTION_UNFAMILIAR and decision.chosen == 0


def test_encoding_tells_distance_and_familiarity(critic):
    steerer = Steerer(critic, outlook=outlook_of(critic))
    image = np.random.default_rng(1).integers(0, 256, (48, 64, 3), np.uint8)
    encoded = steerer.encode(image, WORDS)
    assert encoded.familiarity == pytest.approx(1.0, abs=1e-5)
    expected = float(encoded.features.norm()) / math.sqrt(encoded.features.shape[1])
    assert encoded.distance == pytest.approx(expected, rel=1e-4)
    assert math.isnan(Steerer(critic).encode(image, WORDS).distance)


class TurnedRound(Critic):
    """A critic whose values have the wrong sign."""

    def score(self, encoded, actions):
        """Return the values of the original, negated."""
        return -super().score(encoded, actions)


def probes_of(critic):
    """Return moments of which the half that this critic values most were successes."""
    rng = np.random.default_rng(2)
    images, actions = rng.integers(0, 256, (12, 64, 64, 3), np.uint8), rng.uniform(-0.04, 0.04, (12, 7))
    actions = actions.astype(np.float32)
    values = np.array([critic.score(critic.encode(image, WORDS), action[None]).min()
                       for image, action in zip(images, actions)])
    return Probes(images, actions, np.zeros(12, np.int32), values > np.median(values), 0.6)


@pytest.fixture
def asked(critic, monkeypatch):
    """Return an outlook with probes; its instruction is given as an embedding, which needs no text encoder."""
    return replace(outlook_of(critic), probes=probes_of(critic), instructions=(WORDS,))


def test_a_critic_that_ranks_judged_moments_rightly_steers(critic, asked):
    steerer = Steerer(critic, outlook=asked)
    assert steerer.examine() is None
    assert follow(steerer, scores(-5.0))[0].reason is Reason.STEERED


@pytest.mark.parametrize('harmful', ['negated', 'of another task'])
def test_a_harmful_critic_never_steers_and_every_decision_is_the_plain_policy_s(critic, asked, harmful):
    other = TurnedRound(critic.network, critic.config) if harmful == 'negated' else critic
    if harmful == 'of another task':  # its values have nothing to do with the outcomes here
        asked = replace(asked, probes=replace(asked.probes, success=np.arange(12) % 2 == 0))
    steerer = Steerer(other, outlook=replace(asked, critic_hash='another'))
    assert steerer.examine().reason is Reason.CRITIC_HARMFUL
    for decision in follow(steerer, *[scores(-5.0)] * 5):
        assert (decision.reason, decision.chosen) == (Reason.CRITIC_HARMFUL, 0)


def test_an_outlook_of_another_critic_tells_no_chance(critic):
    decision, = follow(Steerer(critic, outlook=outlook_of(critic, critic_hash='another', limit=0.1)), scores(-49.0))
    assert decision.reason is Reason.STEERED and math.isnan(decision.success_chance) and not decision.alarm


def test_holding_on_alarm_sends_nothing_until_the_configuration_or_the_outlook_changes(critic):
    steerer = Steerer(critic, SteeringConfig(on_alarm='hold'), outlook_of(critic))
    decisions = follow(steerer, *[scores(-49.0)] * 3)
    assert all((d.verdict, d.reason) == (Verdict.HOLD, Reason.OUTLOOK_ALARM) for d in decisions)
    steerer.config = SteeringConfig(on_alarm='nothing')
    assert steerer.choose(scores(-49.0), candidates(), seed=0).verdict is Verdict.CHOSEN


def test_a_retry_opens_rises_and_returns_to_the_start_once_and_is_counted(critic):
    steerer = Steerer(critic, SteeringConfig(on_alarm='retry', max_retries=1), outlook_of(critic))
    decisions = follow(steerer, *[scores(-5.0)] * 6, *[scores(-49.0)] * 16)
    verdicts = [decision.verdict for decision in decisions]
    first, count = verdicts.index(Verdict.RETREAT), verdicts.count(Verdict.RETREAT)
    assert verdicts[first:first + count] == [Verdict.RETREAT] * count
    actions = np.array([decision.action for decision in decisions[:first + count]])
    assert np.abs(actions[:first, :6].sum(0)).max() > 0.05
    np.testing.assert_allclose(actions[:, :6].sum(0), 0, atol=1e-5)  # where it began
    back = actions[first:]
    assert (back[:, 6] == 1).all() and not back[:2, [0, 1, 3, 4, 5]].any() and back[:2, 2].sum() == pytest.approx(0.08)
    assert np.abs(back[:, :3]).max() <= 0.04 + 1e-6 and np.abs(back[:, 3:6]).max() <= 0.2 + 1e-6
    assert decisions[first - 1].retries == 0 and decisions[-1].retries == 1
    assert decisions[-1].alarm and decisions[-1].verdict is Verdict.CHOSEN  # the second alarm is only reported


def test_what_was_held_moves_nothing_and_the_operators_corrections_count_on_the_way_back(critic):
    steerer = Steerer(critic, SteeringConfig(on_alarm='retry'), outlook_of(critic))
    steerer.reset(20)
    decision = steerer.choose(scores(-5.0), candidates(), seed=0)
    steerer.sent(replace(decision, verdict=Verdict.HOLD))
    steerer.sent(replace(decision, verdict=Verdict.OPERATOR, action=np.array([0, 0.03, 0, 0, 0, 0.1, 0], np.float32)))
    sent = [send(steerer, scores(-49.0)) for _ in range(12)]
    last = max(i for i, d in enumerate(sent) if d.verdict is Verdict.RETREAT)
    np.testing.assert_allclose(sum(d.action[:6] for d in sent[:last + 1]), [0, -0.03, 0, 0, 0, -0.1], atol=1e-6)


def test_a_way_that_no_arm_can_have_gone_is_not_gone_back(critic):
    steerer = Steerer(critic, SteeringConfig(on_alarm='retry'), outlook_of(critic))
    steerer.reset(60)
    decision = steerer.choose(scores(-5.0), candidates(), seed=0)
    for _ in range(30):  # pushed against something that it never passes
        steerer.sent(replace(decision, action=np.array([0.03, 0, 0, 0, 0, 0, 1], np.float32)))
    back = [d.action for d in (send(steerer, scores(-49.0)) for _ in range(12)) if d.verdict is Verdict.RETREAT]
    np.testing.assert_allclose(np.sum(back, 0)[:6], [0, 0, 0.08, 0, 0, 0], atol=1e-6)


def test_the_plain_policy_is_told_the_chance_and_retries_where_that_is_configured(critic):
    told, = follow(Steerer(critic, SteeringConfig(selection='first'), outlook_of(critic)), scores(-49.0))
    assert told.alarm and told.reason is Reason.CONTROL_FIRST and told.chosen == 0
    retried, = follow(Steerer(critic, SteeringConfig(selection='first', on_alarm='retry'), outlook_of(critic)),
                      scores(-49.0))
    assert retried.verdict is Verdict.RETREAT and retried.retries == 1


def test_a_fresh_correction_goes_to_the_arm_once_in_place_of_the_candidate(critic):
    decision, = follow(Steerer(critic), scores(-5.0))
    corrections = Corrections()
    assert corrections.apply(decision, 0.0, 'continue') is decision
    assert corrections.take([0.01, 0, 0, 0, 0, 0, 0.0], 10.0) == ''
    sent = corrections.apply(decision, 10.1, 'continue')
    assert (sent.verdict, sent.reason) == (Verdict.OPERATOR, Reason.OPERATOR_CORRECTED)
    assert sent.action[0] == pytest.approx(0.01) and sent.chosen == -1
    assert sent.q_values is decision.q_values  # what the critic thought is kept
    assert corrections.apply(decision, 10.2, 'continue') is decision


def test_an_old_correction_is_not_sent_and_afterwards_the_arm_holds_where_that_is_the_rule(critic):
    decision, = follow(Steerer(critic), scores(-5.0))
    corrections = Corrections()
    corrections.take([0.01, 0, 0, 0, 0, 0, 0.0], 10.0)
    held = corrections.apply(decision, 10.0 + 2 * FRESH, 'hold')
    assert held.verdict is Verdict.HOLD and not held.action.any()
    corrections.reset()
    assert corrections.apply(decision, 20.0, 'hold') is decision


@pytest.mark.parametrize('action', [[math.nan, 0, 0, 0, 0, 0, 0], [0] * 6, [0, 0, 0, 0, 0, 0, 1.5]])
def test_a_correction_that_is_no_action_is_refused_in_words(action):
    assert 'finite numbers' in Corrections().take(action, 0.0)
