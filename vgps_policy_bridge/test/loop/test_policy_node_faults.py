"""policy_node when something goes wrong: the episode ends by name, and the next one runs."""

import subprocess
import sys
import threading
import time

import numpy as np
import pytest

rclpy = pytest.importorskip('rclpy', reason='needs ROS 2')
import node_system  # noqa: E402
from action_msgs.msg import GoalStatus  # noqa: E402
from rclpy.action import ActionClient  # noqa: E402
from sensor_msgs.msg import Image  # noqa: E402
from std_msgs.msg import Header  # noqa: E402

from vgps_msgs.action import ExecuteInstruction  # noqa: E402
from vgps_msgs.msg import ControllerState, Episode  # noqa: E402
from vgps_msgs.srv import JudgeEpisode  # noqa: E402
from vgps_msgs_py import images  # noqa: E402
from vgps_policy_bridge.loop import goals  # noqa: E402
from vgps_policy_bridge.loop.episode import Phase  # noqa: E402

pytestmark = pytest.mark.ros


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


@pytest.mark.parametrize('picture, words', [
    (Image(encoding='16UC1', height=48, width=64, step=128, data=bytes(48 * 128)), "'16UC1' is a depth image"),
    (np.full((48, 64, 3), 3, np.uint8), 'a single value (3)')])
def test_what_is_no_colour_camera_ends_the_episode_before_its_first_step(system, picture, words):
    good, system.peers.picture = system.peers.picture, picture
    ended = system.run().result
    assert ended.outcome == Episode.ABORTED and words in ended.message and ended.steps == 0
    assert not system.peers.candidates
    system.peers.picture = good
    assert system.run().result.outcome == Episode.TIMEOUT


def test_a_wrist_camera_is_looked_at_and_its_silence_ends_the_episode(monkeypatch):
    monkeypatch.setattr(node_system.TroublePolicy, 'used', ('wrist_image',))
    system = node_system.System(monkeypatch, wrist_topic='wrist/image_raw')
    try:
        silent = system.run().result
        assert silent.outcome == Episode.ABORTED and 'no image has come from the wrist camera' in silent.message
        wrist = system.peers.create_publisher(Image, 'wrist/image_raw', 10)
        picture = images.to_message(np.full((8, 8, 3), 77, np.uint8), Header())

        def send():
            picture.header.stamp = system.peers.get_clock().now().to_msg()
            wrist.publish(picture)
        system.peers.create_timer(0.02, send)
        system.until(lambda: system.node.wrist)
        assert system.run().result.outcome == Episode.TIMEOUT
        seen = system.policy.seen[-1][0]
        assert seen.wrist_image.max() == 77 and np.array_equal(seen.image, system.peers.picture)
    finally:
        system.close()


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
    release = threading.Event()
    system.policy.trouble = lambda: release.wait(10.0)
    judge = system.peers.create_client(JudgeEpisode, 'judge_episode')
    system.until(judge.service_is_ready)
    handle = system.begin()
    system.until(lambda: system.node.session.busy)
    answer = judge.call_async(JudgeEpisode.Request(success=True))
    system.until(answer.done)
    assert system.result(handle).result.outcome == Episode.SUCCESS
    assert system.node.session.busy
    system.policy.trouble = lambda: None
    threading.Timer(0.3, release.set).start()
    assert system.run().result.outcome == Episode.TIMEOUT


def test_goal_cancelled_while_it_waits_does_not_begin(system, monkeypatch):
    monkeypatch.setattr(goals, 'BUSY_PATIENCE', 30.0)
    release = threading.Event()
    system.policy.trouble = lambda: release.wait(10.0)
    first = system.begin()
    system.until(lambda: system.node.session.busy)
    system.until(first.cancel_goal_async().done)
    second = system.begin(reset=True)
    assert system.node.waiting, 'the policy still computes what the first goal asked for'
    system.until(second.cancel_goal_async().done)
    wrapped = system.result(second)
    assert wrapped.status == GoalStatus.STATUS_CANCELED and wrapped.result.outcome == Episode.CANCELLED
    release.set()
    system.until(lambda: not system.node.session.busy)
    assert not system.peers.calls and not system.node.machine.running


def test_cancel_on_the_way_to_the_start_pose_withdraws_it(system):
    system.peers.arm.state = ControllerState.HOMING
    handle = system.begin(reset=True)
    system.until(lambda: system.node.machine.phase is Phase.HOMING)
    system.until(handle.cancel_goal_async().done)
    assert system.result(handle).result.outcome == Episode.CANCELLED
    episode = system.node.machine.goal.episode_id
    system.until(lambda: system.peers.calls == [('arm', episode), ('withdraw', episode)])


def test_refused_start_pose_ends_the_goal_at_once_and_nothing_is_asked_again(system):
    system.peers.refuses_reset = 'MOTOR_ERROR: servo elbow reports overload'
    wrapped = system.run(reset=True)
    assert wrapped.result.outcome == Episode.ABORTED and 'servo elbow' in wrapped.result.message
    episode = system.node.machine.goal.episode_id
    system.until(lambda: ('withdraw', episode) in system.peers.calls)
    system.peers.refuses_reset, system.peers.calls = '', []
    end = time.monotonic() + 1.5
    while time.monotonic() < end:
        system.executor.spin_once(timeout_sec=0.05)
    assert system.peers.calls == []


def test_stop_while_the_start_pose_is_asked_for_ends_the_goal(system):
    system.peers.arm.state = ControllerState.HOMING
    handle = system.begin(reset=True)
    system.until(lambda: system.node.machine.phase is Phase.HOMING)
    system.peers.arm.state, system.peers.arm.reason = ControllerState.STOPPED, ControllerState.STOP_REQUESTED
    assert system.result(handle).result.outcome == Episode.CANCELLED
    episode = system.node.machine.goal.episode_id
    system.until(lambda: ('withdraw', episode) in system.peers.calls)


def test_goal_of_a_client_that_is_gone_is_cancelled(system, monkeypatch):
    monkeypatch.setattr(goals, 'CLIENT_GONE', 2)
    system.begin(max_steps=10000)
    system.until(lambda: system.peers.candidates)
    system.client.destroy()
    system.client = ActionClient(system.peers, ExecuteInstruction, 'of_somebody_else')
    system.until(lambda: system.peers.episodes[-1].outcome == Episode.CANCELLED)
    assert 'client is gone' in system.peers.episodes[-1].message


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


def test_unknown_task_is_answered_without_an_episode(system):
    result = system.run(task='unknown').result
    assert result.message == 'reset_scene failed: no such task' and not system.peers.episodes


def test_stopping_the_node_ends_the_episode(system):
    system.begin(max_steps=10000)
    system.until(lambda: system.peers.candidates)
    system.node.close()
    system.until(lambda: system.peers.episodes[-1].outcome == Episode.CANCELLED)
    assert 'stopped' in system.peers.episodes[-1].message


def test_policy_that_cannot_load_ends_the_process_with_the_reason():
    node = subprocess.run([sys.executable, '-c', 'from vgps_policy_bridge.policy_node import main; main()',
                           '--ros-args', '-p', 'policy:=no-such-policy'], capture_output=True, text=True, timeout=120)
    assert node.returncode == 2
    assert 'error: ' in node.stderr and 'random-policy' in node.stderr, node.stderr
