"""policy_node in episodes that go well; see node_system.py for its peers."""

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='needs ROS 2')
from action_msgs.msg import GoalStatus
from builtin_interfaces.msg import Time
from rcl_interfaces.srv import SetParameters
from rclpy.parameter import Parameter

from vgps_msgs.msg import ActionCandidates, Episode
from vgps_msgs.srv import JudgeEpisode
from vgps_msgs_py.stamps import nanoseconds
from vgps_policy_bridge.loop.wire import fill_candidates
from vgps_policy_bridge.policy import Candidates

pytestmark = pytest.mark.ros


def test_episode_runs_to_its_last_step(system):
    wrapped = system.run(task='put_carrot_on_plate', instruction='', seed=11, reset=True)
    peers, result = system.peers, wrapped.result
    assert wrapped.status == GoalStatus.STATUS_SUCCEEDED
    assert (result.outcome, result.steps, result.message) == (Episode.TIMEOUT, 4, '4 steps used up')
    assert peers.calls == [('scene', 'put_carrot_on_plate', 11), ('arm', system.node.machine.goal.episode_id)]
    system.until(lambda: len(peers.episodes) == 2)
    assert [e.outcome for e in peers.episodes] == [Episode.RUNNING, Episode.TIMEOUT]
    assert {e.episode_id for e in peers.episodes} == {result.episode_id}
    assert peers.episodes[0].instruction == 'put carrot on plate' == peers.candidates[0].instruction
    assert [c.step for c in peers.candidates] == [0, 1, 2, 3] == [f.step for f in system.feedback]
    assert system.feedback[0].steering == 'STEERED' and system.feedback[0].chosen == 3
    for message, started in zip(peers.candidates, peers.started):
        assert message.header == started.header and (message.num_candidates, message.horizon) == (20, 1)
        assert len(message.actions) == 140 and len(message.log_probabilities) == 20
        assert {'convert', 'sample', 'total'} <= set(message.stages)
    # Every frame was taken after the motion before it.
    stamps = [nanoseconds(c.header.stamp) for c in peers.candidates]
    assert all(frame > ready for frame, ready in zip(stamps[1:], peers.ready_stamps))
    system.until(lambda: peers.configurations)
    assert peers.configurations[-1].model == 'random-policy'


def test_policy_sees_the_frame_and_the_measured_state(system):
    system.run(seed=1)
    observation, _ = system.policy.seen[-1]
    np.testing.assert_array_equal(observation.image, system.peers.picture)
    np.testing.assert_allclose(observation.state, [0.3, 0.1, 0.2, 0, 0, 0, 0.75], atol=1e-6)
    assert observation.stamp > 1.6e9 and system.policy.instructions[-1] == 'put carrot on plate'


def test_pictures_that_come_compressed_and_in_no_other_way_are_looked_at(system):
    system.peers.compress()
    assert system.run(seed=1).result.steps == 4
    np.testing.assert_array_equal(system.policy.seen[-1][0].image, system.peers.picture)


def test_same_seed_draws_the_same_candidates(system):
    for seed in (5, 5, 6):
        system.run(seed=seed)
    system.until(lambda: len(system.peers.candidates) == 12)
    draws = [[tuple(c.actions) for c in system.peers.candidates[i:i + 4]] for i in (0, 4, 8)]
    assert draws[0] == draws[1] != draws[2] and len(set(draws[0])) == 4


def test_judge_ends_the_episode(system):
    client = system.peers.create_client(JudgeEpisode, 'judge_episode')
    handle = system.begin(max_steps=10000)
    system.until(lambda: system.peers.candidates and client.service_is_ready())
    future = client.call_async(JudgeEpisode.Request(success=True))
    system.until(future.done)
    assert future.result().accepted
    wrapped = system.result(handle)
    assert wrapped.status == GoalStatus.STATUS_SUCCEEDED and wrapped.result.outcome == Episode.SUCCESS


def test_candidates_and_temperature_are_live_and_ranged(system):
    client = system.peers.create_client(SetParameters, 'policy_node/set_parameters')
    handle = system.begin(max_steps=10000)
    system.until(client.service_is_ready)

    def change(name, value):
        parameter = Parameter(name, value=value).to_parameter_msg()
        future = client.call_async(SetParameters.Request(parameters=[parameter]))
        system.until(future.done)
        return future.result().results[0].successful
    assert change('num_candidates', 7) and change('temperature', 0.5)
    system.until(lambda: system.peers.candidates and system.peers.candidates[-1].num_candidates == 7)
    system.until(lambda: system.policy.seen[-1][1] == 0.5)
    assert not change('num_candidates', 1001) and not change('num_candidates', 0)
    assert not change('temperature', -1.0) and not change('policy', 'other')
    system.until(handle.cancel_goal_async().done)
    system.result(handle)


def test_stamp_keeps_its_nanoseconds():
    assert nanoseconds(Time(sec=1_800_000_000, nanosec=123_456_789)) == 1_800_000_000_123_456_789


def test_everything_a_policy_may_say_fits_the_message():
    actions = np.random.default_rng(0).uniform(0, 0.5, (3, 2, 7))    # metres: a step is no longer than that
    message = fill_candidates(ActionCandidates(), Candidates(
        actions, 'p', log_probabilities=[-1, -2, -3], counts=[1, 2, 3], seed=np.uint64(2**63)))
    np.testing.assert_allclose(message.actions, actions.reshape(-1), rtol=1e-6)
    assert (list(message.log_probabilities), list(message.counts)) == ([-1, -2, -3], [1, 2, 3])
    assert (message.num_candidates, message.horizon, message.seed) == (3, 2, 2**63)
