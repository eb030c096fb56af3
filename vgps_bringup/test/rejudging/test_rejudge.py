"""Judging recorded steps again: identical where nothing changed, one encoding whatever the number of settings."""

import dataclasses
import json
import os
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest
from evaluation_bags import (
    INSTRUCTION,
    START,
    K,
    Messages,
    count_readings,
    image_message,
    picture,
    topic,
    write_bag,
)

from vgps_bringup.rejudging.foreign import done_actions, value_curve
from vgps_bringup.rejudging.rejudge import Rejudge, ahead, summarize
from vgps_bringup.rejudging.report import judge_bags, write
from vgps_critic.critic import Critic
from vgps_critic.steering import Steerer, SteeringConfig
from vgps_msgs_py.bags.reader import Bag, Frame
from vgps_msgs_py.bags.storage import BagError
from vgps_msgs_py.bags.writer import BagWriter

pytestmark = pytest.mark.slow

STAND_IN = {'num_filters': 8, 'image_size': 64}  # the live node's untrained critic


class CountingCritic:
    """Counts encodings of a real critic."""

    def __init__(self):
        self.critic, self.encodings = Critic.untrained(**STAND_IN), 0
        self.hash, self.action_space = self.critic.hash, self.critic.action_space

    def encode(self, image, instruction):
        self.encodings += 1
        return self.critic.encode(image, instruction)

    def score(self, encoded, actions):
        return self.critic.score(encoded, actions)


@pytest.fixture(scope='module')
def messages():
    return Messages()


@pytest.fixture(scope='module')
def bag(tmp_path_factory, messages):
    return Bag(write_bag(tmp_path_factory.mktemp('bags') / 'episode-1', messages=messages))


@pytest.fixture(scope='module')
def critic():
    return CountingCritic()


def rows_of(bag, rejudge):
    return [row for judged in rejudge.run(bag, bag.episodes[0]) for row in judged.judgements]


def test_each_frame_is_encoded_once_for_all_settings(bag, critic):
    critic.encodings = 0
    rows = rows_of(bag, Rejudge({'a': critic}, (1, 2, 3, 4, 6), (0.0, 0.1, 0.5, 1.0, 2.0)))
    assert critic.encodings == 8 and len(rows) == 8 * 25


def test_a_step_with_fewer_candidates_counts_under_no_larger_k(bag, critic):
    episode = dataclasses.replace(bag.episodes[0], steps=list(bag.episodes[0].steps))
    few, step = K - 2, episode.steps[2]
    fewer = dataclasses.replace(step.candidates, num_candidates=few, actions=step.actions[:few].ravel())
    episode.steps[2] = dataclasses.replace(step, candidates=fewer)

    def counts(*ks):
        rows = [row for judged in Rejudge({'a': critic}, ks).run(bag, episode) for row in judged.judgements]
        return {k: sum(row.k == k for row in rows) for k in (few, K)}

    assert counts(few, K) == {few: 8, K: 7}
    assert counts() == {few: 1, K: 7}  # as recorded


def test_a_step_under_way_at_the_end_is_not_judged(bag):
    episode = dataclasses.replace(bag.episodes[0], ended=bag.episodes[0].ended - 100_000_000)  # while the arm moved
    assert [judged.step.index for judged in Rejudge({}).run(bag, episode)] == list(range(7))


def test_choices_are_those_of_the_steerer_on_that_frame_with_the_recorded_seed(bag, critic):
    rows = {(r.step, r.beta): r for r in rows_of(bag, Rejudge({'a': critic}, (K,), (0.0, 1.0)))}
    for beta in (0.0, 1.0):
        steerer = Steerer(critic.critic, SteeringConfig(beta=beta))
        for step in bag.episodes[0].steps:
            image = picture((step.stamp - START) // 33_333_333)
            decision = steerer.decide(steerer.encode(image, INSTRUCTION), step.actions, seed=int(step.decision.seed))
            assert rows[step.index, beta].chosen == decision.chosen
            # threads sum in another order
            assert rows[step.index, beta].value == pytest.approx(decision.value, abs=1e-5)


def test_regret_is_the_best_value_minus_that_of_the_executed_candidate(bag, critic):
    for judged in Rejudge({'a': critic}, (K,), (0.0,)).run(bag, bag.episodes[0]):
        row, = judged.judgements
        assert row.regret >= 0 and row.value == pytest.approx(row.executed_value + row.regret)
        assert (row.regret == 0) == (row.chosen == row.executed) == (not row.differs)


def test_fewer_candidates_are_the_first_that_were_drawn(bag, critic):
    rows = rows_of(bag, Rejudge({'a': critic}, (1, K), (0.0,)))
    assert all(r.chosen == 0 and r.effective_sample_size == 1 for r in rows if r.k == 1)
    assert summarize(rows)[1]['value'] >= summarize(rows)[0]['value']


def test_more_candidates_than_recorded_need_a_policy(bag, critic):
    with pytest.raises(BagError, match='more than the 6 candidates recorded'):
        list(Rejudge({'a': critic}, (50,)).run(bag, bag.episodes[0]))


def test_a_policy_proposes_anew(bag, critic):
    from vgps_policy_bridge.policies.random_policy import RandomPolicy
    rows = rows_of(bag, Rejudge({'a': critic}, (10, 20), (0.0,), policy=RandomPolicy()))
    assert {r.k for r in rows} == {10, 20} and all(not r.as_recorded and not r.differs for r in rows)
    again = rows_of(bag, Rejudge({'a': critic}, (10, 20), (0.0,), policy=RandomPolicy()))
    assert [r.chosen for r in rows] == [r.chosen for r in again]


def test_proposals_in_the_google_robot_s_units_are_refused(bag, critic):
    from dataclasses import replace

    from vgps_policy_bridge.policies.random_policy import RandomPolicy

    class Google(RandomPolicy):
        def propose(self, observation, k):
            return replace(super().propose(observation, k), statistics='fractal20220817_data')
    with pytest.raises(BagError, match="step 0: policy 'random-policy': its actions are the Google Robot's"):
        rows_of(bag, Rejudge({'a': critic}, (2,), policy=Google()))


def test_a_policy_sees_the_robot_as_it_was_at_the_frame_and_its_refusal_is_named(tmp_path, messages, critic):
    from vgps_policy_bridge.policies.random_policy import RandomPolicy
    from vgps_policy_bridge.policy import ObservationError
    bag, seen = Bag(write_bag(tmp_path / 'bag', messages=messages, steps=3)), []
    for number, (_, state, _) in enumerate(bag.of_type('ControllerState')):  # two a step, after its command
        state.measured_pose = np.eye(4).ravel()
        state.measured_pose[3] = number

    class Looking(RandomPolicy):
        def propose(self, observation, k):
            seen.append(observation.state)
            if len(seen) > 3:
                raise ObservationError('no wrist camera')
            return super().propose(observation, k)

    rows_of(bag, Rejudge({'a': critic}, (2,), policy=Looking()))
    assert [state[0] for state in seen] == [0, 0, 2]  # the first frame is older than the first state
    with pytest.raises(BagError, match='step 0: no wrist camera'):
        rows_of(bag, Rejudge({'a': critic}, (2,), policy=Looking()))


def test_a_step_that_was_not_decided_differs_from_nothing(bag, critic):
    last = dataclasses.replace(bag.episodes[0].steps[-1], decision=None)  # the episode ended while it was
    episode = dataclasses.replace(bag.episodes[0], steps=(*bag.episodes[0].steps[:-1], last))
    rows = [row for judged in Rejudge({'a': critic}).run(bag, episode) for row in judged.judgements]
    assert rows[-1].executed == -1 and not rows[-1].differs


def test_a_step_whose_frame_was_not_recorded_is_named(tmp_path, messages, critic):
    folder = write_bag(tmp_path / 'bag', messages=messages, steps=3)
    bag = Bag(folder)
    missing = bag.episodes[0].steps[1].stamp

    class Gap(Bag):
        def frames(self, topic=None, wanted=None):
            return (f for f in super().frames(topic, wanted) if f.stamp != missing)

    rows = {r.step: r for r in rows_of(Gap(folder), Rejudge({'a': critic}))}
    assert rows[1].reason == 'frame missing' and np.isnan(rows[1].value)
    assert rows[0].reason == rows[2].reason == 'steered'


def test_a_frame_that_is_no_image_counts_as_not_recorded(tmp_path, messages, critic, monkeypatch):
    bag = Bag(write_bag(tmp_path / 'bag', messages=messages, steps=3))
    broken = bag.episodes[0].steps[1].stamp
    whole = Frame.image

    def image(self):
        if self.stamp == broken:
            raise ValueError('not an image')
        return whole(self)

    monkeypatch.setattr(Frame, 'image', image)
    rows = {r.step: r for r in rows_of(bag, Rejudge({'a': critic}))}
    assert rows[1].reason == 'frame missing' and rows[0].reason == rows[2].reason == 'steered'


def test_work_ahead_keeps_its_order_and_reads_only_a_few_items_ahead():
    taken = []

    def items():
        for i in range(50):
            taken.append(i)
            yield i

    for position, result in enumerate(ahead(lambda i: i * i, items())):
        assert result == position**2
        assert len(taken) <= position + 2 * len(os.sched_getaffinity(0)) + 2
    assert position == 49


def test_what_is_not_known_is_null_in_the_summary(tmp_path, messages, critic):
    bag = Bag(write_bag(tmp_path / 'bag', messages=messages, steps=2))
    collected = judge_bags([bag.path], Rejudge({'a': critic}))
    for row in range(len(collected.rows)):
        collected.rows[row] = collected.rows[row]._replace(regret=float('nan'))
    write(collected, tmp_path / 'out')
    assert json.loads((tmp_path / 'out/summary.json').read_text())['settings'][0]['regret'] is None


def test_the_report_holds_table_json_and_page(tmp_path, bag, critic, monkeypatch):
    other = Critic.untrained(seed=5, **STAND_IN)
    passes = count_readings(monkeypatch)
    collected = judge_bags([bag.path], Rejudge({'a': critic, 'b': other}, (2, 6), (0.0, 1.0)))
    summary = write(collected, tmp_path / 'out')
    assert passes == [str(bag.path)] * 2, 'under all settings: its messages are read once, and once its frames'
    table = pq.read_table(tmp_path / 'out/steps.parquet').to_pylist()
    assert len(table) == 8 * 8 and {r['critic'] for r in table} == {'a', 'b'}
    assert len(json.loads((tmp_path / 'out/summary.json').read_text())['settings']) == 8
    html = (tmp_path / 'out/index.html').read_text()
    assert 'Contact sheet' in html and 'Worst decisions' in html and '<script' not in html
    assert summary['times_real_time'] > 0


def test_one_bad_recording_does_not_stop_the_others(tmp_path, bag, critic):
    (tmp_path / 'bad.mcap').write_bytes(b'nothing')
    collected = judge_bags([tmp_path / 'bad.mcap', bag.path], Rejudge({'a': critic}))
    assert len(collected.rows) == 8 and any('bad.mcap' in problem for problem in collected.problems)
    with pytest.raises(BagError, match=r'bad\.mcap'):
        judge_bags([tmp_path / 'bad.mcap'], Rejudge({'a': critic}))


def teleoperation(folder, messages, joints, seconds=2.0):
    """A recording of other software: images and joint states, no message of ours."""
    writer = BagWriter(folder, messages.types)
    names = ['waist', 'shoulder', 'elbow', 'forearm_roll', 'wrist_angle', 'wrist_rotate', 'gripper', 'left_finger',
             'right_finger']
    for number in range(int(seconds * 30)):
        stamp = START + number * 33_333_333
        writer.write(topic('blue/image_raw', 'sensor_msgs/msg/Image'),
                     messages.serialize(image_message(messages, number, stamp)), stamp)
        position = np.array([*joints(number / 30), 0.0, 0.0225, -0.0225])
        writer.write(topic('wx250s/joint_states', 'sensor_msgs/msg/JointState'), messages.serialize(messages.make(
            'sensor_msgs/msg/JointState', header=messages.header(stamp + 1_000_000), name=names, position=position)),
            stamp + 1_000_000)
    writer.close()
    return folder


def test_teleoperation_gets_its_actions_from_reached_states_and_a_value_curve(tmp_path, messages, critic):
    from vgps_bringup.arm.kinematics import Kinematics
    start = np.array([0.0, -0.3, 0.3, 0.0, 1.2, 0.0])
    bag = Bag(teleoperation(tmp_path / 'bag', messages, lambda t: start + [0.1 * t, 0, 0, 0, 0, 0]))
    actions = done_actions(bag)
    assert 8 <= len(actions) <= 10
    # the waist turns 0.02 rad a step: the gripper yaws by that, and moves on its circle by radius x 0.02
    radius = np.hypot(*Kinematics().forward(start)[:2, 3])
    for done in actions:
        assert done.action[5] == pytest.approx(0.02, abs=2e-3) and done.action[6] == pytest.approx(0.5)
        assert np.hypot(*done.action[:2]) == pytest.approx(0.02 * radius, rel=0.1)
    points = value_curve(bag, critic, 'put the carrot on the plate')
    assert len(points) == len(actions) and all(np.isfinite(p.value) for p in points)
    with pytest.raises(BagError, match='--instruction'):
        value_curve(bag, critic, '')
    collected = judge_bags([bag.path], Rejudge({'a': critic}), instruction='put the carrot on the plate')
    assert write(collected, tmp_path / 'out')['curves']


@pytest.mark.parametrize('command', [['bag', __file__, '--critic', 'untrained'], ['overhead']])
def test_a_policy_that_is_not_there_is_named_without_a_traceback(command, monkeypatch):
    from vgps_bringup.commands import evaluate
    monkeypatch.setattr(evaluate, 'load_critics', lambda names: dict.fromkeys(names))
    monkeypatch.setattr(sys, 'argv', ['vgps-evaluate', *command, '--policy', 'nowhere'])
    with pytest.raises(SystemExit, match="no policy is called 'nowhere'; there are"):
        evaluate.main()
