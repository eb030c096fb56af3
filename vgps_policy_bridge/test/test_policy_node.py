"""policy_node over real DDS, with small peers in place of camera, critic, controller and simulation."""

import os
import time

import numpy as np
import pytest

rclpy = pytest.importorskip('rclpy', reason='needs ROS 2')
from action_msgs.msg import GoalStatus  # noqa: E402
from builtin_interfaces.msg import Time  # noqa: E402
from rcl_interfaces.srv import SetParameters  # noqa: E402
from rclpy.action import ActionClient  # noqa: E402
from rclpy.executors import SingleThreadedExecutor  # noqa: E402
from rclpy.node import Node  # noqa: E402
from rclpy.parameter import Parameter  # noqa: E402
from sensor_msgs.msg import Image  # noqa: E402
from std_msgs.msg import Header  # noqa: E402
from std_srvs.srv import Trigger  # noqa: E402

from vgps_msgs.action import ExecuteInstruction  # noqa: E402
from vgps_msgs.msg import (  # noqa: E402
    ActionCandidates,
    ControllerState,
    Episode,
    NodeConfiguration,
    SteeringDecision,
    StepStarted,
)
from vgps_msgs.srv import JudgeEpisode, ResetScene  # noqa: E402
from vgps_msgs_py import images, parameters, qos  # noqa: E402
from vgps_policy_bridge import session  # noqa: E402
from vgps_policy_bridge.policies.random_policy import RandomPolicy  # noqa: E402
from vgps_policy_bridge.policy_node import PolicyNode  # noqa: E402
from vgps_policy_bridge.reasons import ControllerReason, SteeringReason  # noqa: E402
from vgps_policy_bridge.wire import nanoseconds  # noqa: E402


class TroublePolicy(RandomPolicy):
    """Random, plus whatever `trouble` does in each request."""

    def __init__(self):
        super().__init__()
        self.temperature = 1.0
        self.seen, self.trouble, self.instructions = [], lambda: None, []

    def reset(self, instruction, seed=0):
        self.instructions.append(instruction)
        super().reset(instruction, seed)

    def propose(self, observation, k):
        self.trouble()
        self.seen.append((observation, self.temperature))
        return super().propose(observation, k)


class Peers(Node):
    """Camera, critic, controller and simulation in one; each can fall silent."""

    def __init__(self):
        super().__init__('peers')
        self.camera_on = self.critic_on = self.controller_on = True
        self.arm = ControllerState(state=ControllerState.READY, accepted=5, episode_id='earlier')
        self.arm.measured_pose = np.array(
            [[0, 0, 1, 0.3], [0, 1, 0, 0.1], [-1, 0, 0, 0.2], [0, 0, 0, 1]], float).reshape(-1)
        self.arm.gripper_position = 0.75
        self.calls, self.candidates, self.started, self.episodes, self.configurations = [], [], [], [], []
        self.ready_stamps = []
        self.image = self.create_publisher(Image, 'image_raw', 10)
        self.state = self.create_publisher(ControllerState, 'controller_state', qos.EVENT)
        self.decision = self.create_publisher(SteeringDecision, 'decision', qos.EVENT)
        self.create_subscription(ActionCandidates, 'candidates', self.on_candidates, qos.EVENT)
        self.create_subscription(StepStarted, 'step_started', self.started.append, qos.EVENT)
        self.create_subscription(Episode, 'episode', self.episodes.append, qos.LATCHED)
        self.create_subscription(NodeConfiguration, 'configuration', self.configurations.append, qos.LATCHED_MANY)
        self.create_service(ResetScene, 'reset_scene', self.on_reset_scene)
        self.create_service(Trigger, 'widowx_node/reset', self.on_reset_arm)
        self.create_timer(0.02, self.publish_image)
        self.create_timer(0.1, self.publish_state)

    def publish_image(self):
        if self.camera_on:
            header = Header(stamp=self.get_clock().now().to_msg(), frame_id='camera')
            self.image.publish(images.to_message(np.full((48, 64, 3), 77, np.uint8), header))

    def publish_state(self):
        if self.controller_on:
            self.arm.header.stamp = self.get_clock().now().to_msg()
            self.state.publish(self.arm)

    def on_candidates(self, message):
        self.candidates.append(message)
        if not self.critic_on:
            return
        self.decision.publish(SteeringDecision(header=message.header, episode_id=message.episode_id, step=message.step,
                                               chosen=3, value=-5.0, reason=SteeringDecision.STEERED))
        if not self.controller_on:
            return
        self.arm.episode_id, self.arm.step, self.arm.accepted = message.episode_id, message.step, self.arm.accepted + 1
        self.publish_state()
        self.ready_stamps.append(nanoseconds(self.arm.header.stamp))

    def on_reset_scene(self, request, response):
        self.calls.append(('scene', request.task, request.seed))
        response.success = request.task != 'unknown'
        response.message = '' if response.success else 'no such task'
        response.instruction = 'put carrot on plate'
        return response

    def on_reset_arm(self, _request, response):
        self.calls.append(('arm',))
        response.success = True
        return response


class System:
    count = 0

    def __init__(self, monkeypatch, arguments):
        self.policy = TroublePolicy()
        monkeypatch.setattr(session, 'build_policy', lambda *_: self.policy)
        # A namespace of its own: the server of the test before may still be known to discovery.
        System.count += 1
        rclpy.init(args=['--ros-args', '-r', f'__ns:=/t{os.getpid()}_{System.count}', '-p',
                         'num_candidates:=20', '-p', 'camera_timeout:=2.0', '-p',
                         'critic_timeout:=2.0', '-p', 'controller_timeout:=2.0', '-p', 'policy_timeout:=2.0',
                         '-p', 'max_steps:=4', *arguments])
        self.peers, self.node = Peers(), PolicyNode()
        self.executor = SingleThreadedExecutor()
        self.executor.add_node(self.peers)
        self.executor.add_node(self.node)
        self.client = ActionClient(self.peers, ExecuteInstruction, 'execute_instruction')
        self.feedback = []

    def close(self):
        self.policy.trouble = lambda: None
        self.node.close()
        self.executor.shutdown()
        self.node.destroy_node()
        self.client.destroy()
        self.peers.destroy_node()
        rclpy.shutdown()

    def until(self, condition, seconds=40.0):  # the machine may be busy
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, f'waited {seconds} s in vain'
            self.executor.spin_once(timeout_sec=0.05)

    def begin(self, **goal):
        self.until(self.client.server_is_ready)
        goal = {'instruction': 'put carrot on plate'} | goal
        future = self.client.send_goal_async(ExecuteInstruction.Goal(**goal),
                                             lambda m: self.feedback.append(m.feedback))
        self.until(future.done)
        return future.result()

    def result(self, handle):
        future = handle.get_result_async()
        self.until(future.done)
        return future.result()

    def run(self, **goal):
        return self.result(self.begin(**goal))


@pytest.fixture
def system(monkeypatch, request):
    system = System(monkeypatch, getattr(request, 'param', []))
    yield system
    system.close()


def test_constants_mirror_the_messages():
    for kind, message in ((ControllerReason, ControllerState), (SteeringReason, SteeringDecision)):
        assert all(getattr(message, constant.name) == constant.value for constant in kind)
    from vgps_policy_bridge.events import ArmState, Outcome
    assert all(getattr(ControllerState, constant.name) == constant.value for constant in ArmState)
    assert all(getattr(Episode, constant.name) == constant.value for constant in Outcome)


def test_episode_runs_to_its_last_step(system):
    wrapped = system.run(task='put_carrot_on_plate', instruction='', seed=11, reset=True)
    peers, result = system.peers, wrapped.result
    assert wrapped.status == GoalStatus.STATUS_SUCCEEDED
    assert (result.outcome, result.steps, result.message) == (Episode.TIMEOUT, 4, '4 steps used up')
    assert peers.calls == [('scene', 'put_carrot_on_plate', 11), ('arm',)]
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
    assert observation.image.shape == (48, 64, 3) and (observation.image == 77).all()
    np.testing.assert_allclose(observation.state, [0.3, 0.1, 0.2, 0, 0, 0, 0.75], atol=1e-6)
    assert observation.stamp > 1.6e9 and system.policy.instructions[-1] == 'put carrot on plate'


def test_same_seed_draws_the_same_candidates(system):
    for seed in (5, 5, 6):
        system.run(seed=seed)
    system.until(lambda: len(system.peers.candidates) == 12)
    draws = [[tuple(c.actions) for c in system.peers.candidates[i:i + 4]] for i in (0, 4, 8)]
    assert draws[0] == draws[1] != draws[2] and len(set(draws[0])) == 4


def test_cancel_ends_the_episode_and_nothing_follows(system):
    handle = system.begin(max_steps=10000)
    system.until(lambda: len(system.peers.candidates) >= 2)
    future = handle.cancel_goal_async()
    system.until(future.done)
    wrapped = system.result(handle)
    assert wrapped.status == GoalStatus.STATUS_CANCELED and wrapped.result.outcome == Episode.CANCELLED
    sent = len(system.peers.candidates)
    end = time.monotonic() + 0.4
    while time.monotonic() < end:
        system.executor.spin_once(timeout_sec=0.05)
    assert len(system.peers.candidates) - sent <= 1  # one may have been on the wire
    assert system.peers.episodes[-1].outcome == Episode.CANCELLED
    assert system.run().result.outcome == Episode.TIMEOUT


@pytest.mark.parametrize('part, word', [('camera', 'camera lost'), ('critic', 'critic lost'),
                                        ('controller', 'controller lost')])
def test_lost_part_aborts_by_name_and_the_next_episode_runs(system, part, word):
    handle = system.begin(max_steps=10000)
    system.until(lambda: len(system.peers.candidates) >= 2)
    setattr(system.peers, f'{part}_on', False)
    wrapped = system.result(handle)
    assert wrapped.status == GoalStatus.STATUS_ABORTED and wrapped.result.outcome == Episode.ABORTED
    assert wrapped.result.message.startswith(word)
    system.until(lambda: system.peers.episodes[-1].message == wrapped.result.message)
    setattr(system.peers, f'{part}_on', True)
    assert system.run().result.outcome == Episode.TIMEOUT


def test_stop_of_the_controller_cancels(system):
    handle = system.begin(max_steps=10000)
    system.until(lambda: system.peers.candidates)
    system.peers.critic_on = False
    system.peers.arm.state, system.peers.arm.message = ControllerState.STOPPED, 'operator'
    assert 'operator' in system.result(handle).result.message


def test_policy_that_raises_aborts_and_recovers(system):
    system.until(system.client.server_is_ready)

    def trouble():
        raise RuntimeError('out of memory')
    system.policy.trouble = trouble
    assert system.run().result.message == 'policy failed: RuntimeError: out of memory'
    system.policy.trouble = lambda: None
    assert system.run().result.outcome == Episode.TIMEOUT


def test_goal_that_follows_a_judgement_at_once_waits_for_the_unwanted_sample(system):
    sampling = []

    def slow():
        sampling.append(True)
        time.sleep(0.5)
    system.policy.trouble = slow
    handle = system.begin()
    system.until(lambda: sampling)
    judge = system.peers.create_client(JudgeEpisode, 'judge_episode')
    system.until(judge.service_is_ready)
    answer = judge.call_async(JudgeEpisode.Request(success=True))
    system.until(answer.done)
    assert system.result(handle).result.outcome == Episode.SUCCESS
    assert system.node.session.busy
    system.policy.trouble = lambda: None
    assert system.run().result.outcome == Episode.TIMEOUT


def test_policy_that_hangs_blocks_neither_the_node_nor_cancelling(system):
    system.until(system.client.server_is_ready)
    hanging = [True]

    def trouble():
        while hanging[0]:
            time.sleep(0.01)
    system.policy.trouble = trouble
    assert system.run().result.message.startswith('policy lost')
    assert 'still busy' in system.run().result.message
    hanging[0] = False
    system.until(lambda: not system.node.session.busy)
    system.policy.trouble = lambda: None
    assert system.run().result.outcome == Episode.TIMEOUT


def test_second_goal_is_answered_with_the_reason(system):
    first = system.begin(max_steps=10000)
    second = system.run()
    assert second.status == GoalStatus.STATUS_ABORTED and 'is running: cancel it first' in second.result.message
    system.until(first.cancel_goal_async().done)
    assert system.result(first).result.outcome == Episode.CANCELLED


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


def test_unknown_task_is_answered_without_an_episode(system):
    result = system.run(task='unknown').result
    assert result.message == 'reset_scene failed: no such task' and not system.peers.episodes


def test_stopping_the_node_ends_the_episode(system):
    system.begin(max_steps=10000)
    system.until(lambda: system.peers.candidates)
    system.node.close()
    system.until(lambda: system.peers.episodes[-1].outcome == Episode.CANCELLED)
    assert 'stopped' in system.peers.episodes[-1].message


def test_policy_that_cannot_load_ends_the_process_with_the_reason(monkeypatch):
    rclpy.init(args=['--ros-args', '-p', 'policy:=no-such-policy'])
    node, executor = PolicyNode(), SingleThreadedExecutor()
    executor.add_node(node)
    try:
        with pytest.raises(parameters.ParameterError, match='random-policy'):
            for _ in range(100):
                executor.spin_once(timeout_sec=0.1)
    finally:
        node.close()
        executor.shutdown()
        node.destroy_node()
        rclpy.shutdown()


def test_stamp_keeps_its_nanoseconds():
    assert nanoseconds(Time(sec=1_800_000_000, nanosec=123_456_789)) == 1_800_000_000_123_456_789
