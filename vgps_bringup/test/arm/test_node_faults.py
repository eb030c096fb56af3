"""The fault table over real DDS: widowx_node in a process of its own, its neighbours killed, lied to and flooded.

Throughout, every joint command ever published is checked: within the joint limits, and no further from the one
before it than max_joint_step.
"""
# ruff: noqa: F811

import os
import time

import numpy as np
import pytest

pytest.importorskip('rclpy')
from builtin_interfaces.msg import Time
from fault_bench import BASE, HOLDS_WITHIN, STARTS_WITHIN, Bench, bench, running  # noqa: F401
from rosgraph_msgs.msg import Clock
from std_srvs.srv import Trigger

from vgps_msgs_py.vocabulary import ArmState as State, ControllerReason as Reason

pytestmark = pytest.mark.ros

NEUTRAL = np.array([-0.13192235, -0.76238847, 0.44485444, -0.01994175, 1.7564081, -0.15953401])


def start_loop(bench):
    """Let stand-ins of policy and critic drive the arm; return once it moves."""
    accepted = bench.state.accepted
    for part in ('critic', 'policy'):
        bench.start(part)
    bench.wait_for(lambda s: s.accepted >= accepted + 3, 'three steps', timeout=STARTS_WITHIN)


@pytest.mark.parametrize('part', ['policy', 'critic'])
def test_killing_policy_or_critic_holds_the_arm_and_a_new_one_resumes(bench, part):
    start_loop(bench)
    killed = bench.kill(part)
    # The policy's last candidates may die with it on their way to the critic.
    bench.held(killed, *([Reason.CRITIC_LOST] if part == 'critic' else [Reason.POLICY_LOST, Reason.CRITIC_LOST]))
    bench.assert_no_command_after(killed)
    accepted = bench.state.accepted
    bench.start(part)
    bench.announce()     # as policy_node does for the next goal
    bench.wait_for(lambda s: s.accepted >= accepted + 2, 'steps again', timeout=STARTS_WITHIN)


def test_killing_the_camera_holds_the_arm_and_a_new_one_resumes(bench):
    start_loop(bench)
    killed = bench.kill('camera')
    try:
        assert bench.held(killed, Reason.STALE_IMAGE) - killed < HOLDS_WITHIN
        bench.assert_no_command_after(killed)
        accepted = bench.state.accepted
        bench.announce()
    finally:
        bench.start('camera')
    bench.wait_for(lambda s: s.accepted >= accepted + 2, 'steps again', timeout=STARTS_WITHIN)


def test_killing_the_driver_holds_the_arm_and_a_new_one_resumes(bench):
    start_loop(bench)
    killed = bench.kill('driver')
    try:
        assert bench.held(killed, Reason.STALE_JOINT_STATES) - killed < HOLDS_WITHIN
        bench.held(killed, Reason.DRIVER_LOST)
        bench.assert_no_command_after(killed)
    finally:
        # The new driver starts in the neutral pose, as after a reboot: nothing may pull it back.
        bench.announce(running=False)
        bench.spin(0.2)
        bench.assert_safe()
        bench.forget()
        bench.start('driver')
    bench.wait_for_state(State.READY, timeout=STARTS_WITHIN)
    assert bench.joint_commands == []
    bench.announce()
    accepted = bench.state.accepted
    bench.wait_for(lambda s: s.accepted >= accepted + 2, 'steps again', timeout=STARTS_WITHIN)


@pytest.mark.parametrize('action', [[np.nan] * 7, [0, 0, np.nan, 0, 0, 0, 1], [np.inf, 0, 0, 0, 0, 0, 1],
                                    [0, 0, 0, 0, 0, 0, -np.inf]])
def test_not_finite_actions_move_nothing_and_the_next_good_one_does(bench, action):
    sent = len(bench.joint_commands)
    assert bench.send(action) is Reason.NOT_FINITE
    assert len(bench.joint_commands) == sent
    assert bench.send() is Reason.ACCEPTED


def test_huge_actions_are_clipped_to_one_step(bench):
    before = np.array(bench.state.target_pose).reshape(4, 4)[:3, 3]
    assert bench.send([1e300, -1e300, 1e6, 0, 0, 0, 1e9]) is Reason.ACCEPTED
    assert bench.state.action_clipped
    after = np.array(bench.state.target_pose).reshape(4, 4)[:3, 3]
    np.testing.assert_allclose(after - before, [0.05, -0.05, 0.05], atol=2e-3)


def test_an_unknown_kind_of_command_moves_nothing(bench):
    sent = len(bench.joint_commands)
    assert bench.send(kind=7) is Reason.HOLD_REQUESTED
    assert len(bench.joint_commands) == sent


def test_duplicates_and_commands_out_of_order_move_nothing(bench):
    stamp = time.time()
    assert bench.send(step=10, stamp=stamp) is Reason.ACCEPTED
    sent = len(bench.joint_commands)
    for step in (10, 10, 9, 0):
        assert bench.send(step=step) is Reason.OUT_OF_ORDER
    assert bench.send(step=11, stamp=stamp - 0.01) is Reason.OUT_OF_ORDER
    assert bench.send(step=12, frame='camera') is Reason.WRONG_FRAME
    assert len(bench.joint_commands) == sent
    assert bench.send(step=13) is Reason.ACCEPTED


@pytest.mark.parametrize('offset', [-3600.0, -1.5, 0.5, 3600.0])
def test_images_of_another_time_move_nothing(bench, offset):
    sent = len(bench.joint_commands)
    assert bench.send(stamp=time.time() + offset) is Reason.STALE_IMAGE
    assert len(bench.joint_commands) == sent
    assert bench.send() is Reason.ACCEPTED


def test_a_command_of_an_episode_that_is_over_moves_nothing(bench):
    assert bench.send() is Reason.ACCEPTED
    bench.announce(running=False)
    bench.spin(0.2)
    sent = len(bench.joint_commands)
    assert bench.send() is Reason.OUT_OF_ORDER
    assert len(bench.joint_commands) == sent


def test_an_unreachable_pose_is_refused_again_and_again_and_leaves_no_wind_up(bench):
    away = [0.05, 0, 0.05, 0, -0.25, 0, 1]
    refusals = (Reason.UNREACHABLE, Reason.JOINT_LIMIT, Reason.JOINT_STEP)
    assert any(bench.send(away) in refusals for _ in range(20))
    target, sent = list(bench.state.target_pose), len(bench.joint_commands)
    assert all(bench.send(away) in refusals for _ in range(5))
    assert list(bench.state.target_pose) == target
    assert len(bench.joint_commands) == sent
    assert bench.send([-0.05, 0, -0.05, 0, 0.25, 0, 1]) is Reason.ACCEPTED


def test_a_flood_at_a_kilohertz_moves_at_the_control_rate_and_stop_still_acts_at_once(bench):
    sent, start = len(bench.joint_commands), time.monotonic()
    for i in range(2000):
        bench.commands.publish(bench.message([0.001, 0, 0, 0, 0, 0, 1]))
        bench.executor.spin_once(timeout_sec=0.0)
        time.sleep(max(0.0, start + i * 0.001 - time.monotonic()))
    duration = time.monotonic() - start
    steps = len(bench.joint_commands) - sent
    assert 1 <= steps <= duration / 0.2 + 2
    client = bench.node.create_client(Trigger, 'widowx_node/stop')
    assert client.wait_for_service(timeout_sec=5.0)
    future, asked = client.call_async(Trigger.Request()), time.monotonic()
    while bench.state.state != State.STOPPED and time.monotonic() - asked < 2.0:
        bench.commands.publish(bench.message([0.001, 0, 0, 0, 0, 0, 1]))
        bench.executor.spin_once(timeout_sec=0.0)
        time.sleep(0.001)
    took = time.monotonic() - asked
    assert took < 0.1 + bench.starved(time.time() - took)     # a control period of 0.02 s, and the wire's share
    bench.executor.spin_until_future_complete(future, timeout_sec=2.0)
    bench.spin(0.3)
    sent = len(bench.joint_commands)
    assert bench.send() is Reason.STOP_REQUESTED
    bench.spin(0.3)
    assert len(bench.joint_commands) == sent


def test_stop_in_the_middle_of_a_move_freezes_the_arm(bench):
    sent = len(bench.joint_commands)
    bench.call('home')
    bench.wait_for(lambda s: len(bench.joint_commands) > sent + 5, 'the move')
    bench.call('stop')
    bench.wait_for_state(State.STOPPED, Reason.STOP_REQUESTED)
    bench.spin(0.5)
    sent = len(bench.joint_commands)
    assert np.abs(bench.joint_commands[-1][1] - NEUTRAL).max() > 0.05       # not where the move was going
    np.testing.assert_allclose(bench.state.joint_positions, bench.joint_commands[-1][1], atol=0.05)
    bench.spin(0.5)
    assert len(bench.joint_commands) == sent


@pytest.mark.parametrize('count', [2_000, pytest.param(10_000, marks=pytest.mark.long)])
def test_thousands_of_hostile_messages_move_the_arm_only_within_its_limits(bench, count):
    rng, accepted = np.random.default_rng(6), bench.state.accepted
    seen = bench.state.accepted + bench.state.refused
    hostile = [np.nan, np.inf, -np.inf, 1e308, -1e308]
    deadline, i = time.monotonic() + 120.0, 0
    # A flood overruns queues: send until the controller has judged so many.
    while bench.state.accepted + bench.state.refused - seen < count and time.monotonic() < deadline:
        i += 1
        last = bench.state.step if bench.state.episode_id == bench.episode_id else -1
        action = rng.normal(0, 10.0 ** rng.integers(-3, 3), 7)
        if i % 4 == 0:
            action[rng.integers(0, 7)] = rng.choice(hostile)
        bench.commands.publish(bench.message(
            action, step=max(0, last + int(rng.integers(-1, 4))), kind=int(rng.choice([0, 0, 0, 1, 255])),
            stamp=max(0.0, time.time() + rng.choice([0, 0, 0, -0.02, -5, 5, -1.7e9])),
            frame=str(rng.choice([BASE, BASE, BASE, '', 'map']))))
        bench.executor.spin_once(timeout_sec=0.001)
    assert bench.state.accepted + bench.state.refused - seen >= count
    assert bench.state.accepted - accepted > 5          # some were good
    judged = 0
    while bench.state.accepted + bench.state.refused != judged:    # what is left in the queues comes first
        judged = bench.state.accepted + bench.state.refused
        bench.spin(1.0)
    bench.announce()
    bench.spin(0.2)
    assert bench.send([0.0, 0, 0, 0, 0, 0, 1]) in (Reason.ACCEPTED, Reason.UNREACHABLE, Reason.JOINT_LIMIT)


def test_a_jump_of_the_clock_refuses_only_what_was_stamped_before_it():
    bench = Bench(f'/clock_{os.getpid()}', use_sim_time='true')
    try:
        now = 1000.0

        def advance(seconds, speed=1.0):
            nonlocal now
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                now += 0.01 * speed
                bench.clock.publish(Clock(clock=Time(sec=int(now), nanosec=int(now % 1 * 1e9))))
                bench.spin(0.01)

        def until_ready():
            for _ in range(150):
                advance(0.2)
                if bench.state is not None and bench.state.state == State.READY:
                    return

        until_ready()
        bench.announce()
        advance(0.5)
        for jump in (0.0, 500.0, -800.0):
            stale, sent = now, len(bench.joint_commands)
            now += jump
            advance(0.3)
            if jump:
                assert bench.send(stamp=stale) in (Reason.STALE_IMAGE, Reason.OUT_OF_ORDER)
                assert len(bench.joint_commands) == sent
                until_ready()  # a busy machine delays the camera too
            assert bench.send(stamp=now) is Reason.ACCEPTED
            assert len(bench.joint_commands) == sent + 1
            advance(0.3)
        bench.assert_safe()
    finally:
        bench.close()
