"""Who may move the arm, over real DDS: the shipped widowx_node, second publishers, killed and hung programs.

Throughout, every joint command ever published is checked: within the joint limits, and no further from the one
before it than max_joint_step.
"""
# ruff: noqa: E402, F811

import signal
import time

import pytest

rclpy = pytest.importorskip('rclpy')
from builtin_interfaces.msg import Time
from fault_bench import HOLDS_WITHIN, STARTS_WITHIN, bench, running  # noqa: F401
from std_srvs.srv import Trigger

from vgps_msgs.msg import ActionCandidates, EndEffectorCommand, Episode
from vgps_msgs.srv import ResetForEpisode
from vgps_msgs_py import qos
from vgps_msgs_py.vocabulary import ArmState as State, ControllerReason as Reason

pytestmark = pytest.mark.ros


def test_a_command_without_an_announced_episode_moves_nothing(bench):
    bench.announce(running=False)
    bench.spin(0.2)
    bench.episode_id, sent = 'nobody announced this', len(bench.joint_commands)
    assert bench.send(step=0) is Reason.NO_EPISODE
    bench.spin(0.3)
    assert len(bench.joint_commands) == sent


def test_a_step_number_far_ahead_does_not_lock_the_critic_out(bench):
    assert bench.send(step=0) is Reason.ACCEPTED
    assert bench.send(step=2**32 - 1) is Reason.OUT_OF_ORDER
    assert bench.send(step=1) is Reason.ACCEPTED


@pytest.mark.parametrize('topic', ['command', 'candidates', 'episode'])
def test_a_second_publisher_is_named_and_the_arm_holds_until_it_is_gone(bench, topic):
    assert bench.send() is Reason.ACCEPTED
    kind = {'command': EndEffectorCommand, 'candidates': ActionCandidates, 'episode': Episode}[topic]
    others = [rclpy.create_node(name, namespace=bench.namespace, context=bench.context) for name in ('rogue', 'copy')]
    try:
        for node in others:
            node.create_publisher(kind, topic, qos.LATCHED if topic == 'episode' else qos.EVENT)
        bench.wait_for_state(State.HOLDING, Reason.TWO_PUBLISHERS, timeout=STARTS_WITHIN)
        bench.wait_for(lambda s: all(name in s.message for name in (topic, 'rogue', 'copy')), 'names in the message')
        sent = len(bench.joint_commands)
        assert bench.send() is Reason.TWO_PUBLISHERS
        bench.spin(0.5)
        assert len(bench.joint_commands) == sent
    finally:
        for node in others:
            node.destroy_node()
    bench.wait_for_state(State.READY, timeout=STARTS_WITHIN)
    assert bench.send() is Reason.ACCEPTED


def ask(bench, episode, age=0.0, withdraw=False):
    """Ask for the start pose as policy_node does; return the future."""
    if not hasattr(bench, 'asking'):
        bench.asking = bench.node.create_client(ResetForEpisode, 'widowx_node/reset_for_episode')
        assert bench.asking.wait_for_service(timeout_sec=10.0)
    at = time.time() - age
    stamp = Time(sec=int(at), nanosec=int(at % 1 * 1e9))
    return bench.asking.call_async(ResetForEpisode.Request(stamp=stamp, episode_id=episode, withdraw=withdraw))


def answer(bench, future):
    bench.wait_for(lambda s: future.done(), 'an answer')
    return future.result()


def begin_a_goals_homing(bench, episode):
    """Leave the start pose, then ask for it until the arm is well on its way."""
    bench.announce(running=False)
    bench.call('home')
    bench.spin(0.3)
    bench.wait_for_state(State.READY, timeout=STARTS_WITHIN)
    sent = len(bench.joint_commands)
    while len(bench.joint_commands) < sent + 20:
        assert answer(bench, ask(bench, episode)).success
        bench.spin(0.1)


def test_a_goal_whose_policy_was_killed_on_the_way_to_the_start_pose_moves_the_arm_no_further(bench):
    begin_a_goals_homing(bench, 'killed')
    silent = time.time()
    bench.wait_for(lambda s: s.reason == Reason.POLICY_LOST, 'the end of the move')
    assert bench.state.state == State.READY
    last = bench.joint_commands[-2][0]    # the very last one says: stay here
    assert last - silent < HOLDS_WITHIN + bench.starved(silent)
    assert not answer(bench, ask(bench, 'killed')).success


def test_a_goal_that_is_withdrawn_on_the_way_leaves_the_arm_where_it_is(bench):
    begin_a_goals_homing(bench, 'withdrawn')
    assert answer(bench, ask(bench, 'withdrawn', withdraw=True)).success
    bench.wait_for_state(State.READY, Reason.HOLD_REQUESTED)
    bench.spin(0.2)
    sent = len(bench.joint_commands)
    assert not answer(bench, ask(bench, 'withdrawn')).success
    bench.spin(1.0)
    assert len(bench.joint_commands) == sent


def test_neither_a_goal_nor_an_old_request_leaves_a_stop_and_the_operator_does(bench):
    begin_a_goals_homing(bench, 'stopped')
    bench.call('stop')
    bench.wait_for_state(State.STOPPED, Reason.STOP_REQUESTED)
    bench.spin(0.2)
    sent = len(bench.joint_commands)
    for episode, age in (('stopped', 0.0), ('another', 0.0), ('old', 3.0)):
        assert not answer(bench, ask(bench, episode, age)).success
    bench.spin(1.0)
    assert len(bench.joint_commands) == sent and bench.state.state == State.STOPPED
    assert bench.call('reset')[1].success
    bench.wait_for(lambda s: len(bench.joint_commands) > sent, 'the move')


def test_a_controller_that_hung_serves_nothing_that_waited_for_it(bench):
    begin_a_goals_homing(bench, 'hung')
    bench.processes['widowx'].send_signal(signal.SIGSTOP)
    bench.spin(0.5)
    for _ in range(10):
        ask(bench, 'hung')
        bench.spin(0.1)
    ask(bench, 'hung', withdraw=True)
    bench.commands.publish(bench.message())
    resets = bench.node.create_client(Trigger, 'widowx_node/reset')
    resets.wait_for_service(timeout_sec=5.0)
    asked = resets.call_async(Trigger.Request())
    bench.spin(0.5)
    woken = time.time()
    bench.processes['widowx'].send_signal(signal.SIGCONT)
    assert not answer(bench, asked).success
    bench.wait_for_state(State.READY, timeout=STARTS_WITHIN)
    bench.spin(1.5)
    # The signal may have come in the middle of a control period, which then ends.
    assert sum(stamp > woken for stamp, _, _ in bench.joint_commands) <= 1
