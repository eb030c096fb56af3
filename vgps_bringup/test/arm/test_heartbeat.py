"""Who holds the arm when widowx_node hangs or dies: the rules, then kill -9 and SIGSTOP over real DDS."""

import os
import signal
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest

from vgps_bringup.arm.arms import FINGER_OPEN, Reading
from vgps_bringup.arm.heartbeat import Heartbeat
from vgps_msgs_py.vocabulary import ArmState as State, ControllerReason as Reason

POSE = np.array([-0.13, -0.76, 0.44, -0.02, 1.75, -0.16])
IN_TIME = 50     # of the arm's own periods of 10 ms: half a second by its clock


def beating(heart, now, moving=False, gripper=1.0, positions=POSE, finger=FINGER_OPEN):
    for _ in range(20):
        now += 0.05
        heart.beat(moving, POSE, gripper, now)
        heart.reading(Reading(positions, None, finger), now)
        assert not heart.tick(now)
    return now


def silent(heart, now, seconds, finger=FINGER_OPEN):
    """Let time pass without beats; return (now, whether the loss was found)."""
    found = False
    for _ in range(round(seconds / 0.02)):
        now += 0.02
        heart.reading(Reading(POSE, None, finger), now)
        found |= heart.tick(now)
    return now, found


def test_a_silent_controller_is_found_once_and_taken_back_when_it_beats_again():
    heart = Heartbeat(0.35)
    now = beating(heart, 0.0)
    now, found = silent(heart, now, 0.32)
    assert not found
    now, found = silent(heart, now, 0.08)
    assert found and heart.lost
    assert not silent(heart, now, 1.0)[1]
    heart.beat(False, POSE, 1.0, now + 1.0)
    assert not heart.lost


def test_nobody_is_missed_who_was_never_heard_and_an_own_pause_is_not_the_controllers():
    heart = Heartbeat(0.35)
    assert not silent(heart, 0.0, 5.0)[1]
    now = beating(heart, 5.0)
    assert not heart.tick(now + 10.0)
    assert silent(heart, now + 10.0, 0.4)[1]


def test_an_arm_at_rest_keeps_its_goal_and_a_moving_one_stays_where_it_is():
    resting, moving = Heartbeat(0.35), Heartbeat(0.35)
    sagging = POSE + [0, 0.02, 0, 0, 0, 0]
    now = beating(resting, 0.0, positions=sagging)
    assert resting.hold(now).positions is None
    now = beating(moving, 0.0, moving=True, positions=sagging)
    np.testing.assert_array_equal(moving.hold(now).positions, sagging)
    assert moving.hold(now).positions is None, 'repeated, the arm would sink'
    np.testing.assert_array_equal(moving.command, sagging)


@pytest.mark.parametrize('command', [[], [0.0] * 5, [float('nan')] * 6, [9.0] * 6])
def test_a_report_that_cannot_be_one_keeps_no_arm_from_being_held(command):
    heart = Heartbeat(0.35)
    now = beating(heart, 0.0)
    heart.beat(False, command, float('nan'), now)
    now, found = silent(heart, now, 0.4)
    hold = heart.hold(now)
    assert found
    np.testing.assert_array_equal(hold.positions, POSE)
    assert 0.0 <= hold.openness <= 1.0


def test_nothing_is_sent_on_joints_that_were_not_measured_lately():
    heart = Heartbeat(0.35)
    now = beating(heart, 0.0, moving=True)
    assert heart.hold(now + 0.3) is None


def test_fingers_on_their_way_stay_and_fingers_that_hold_go_on_holding():
    heart = Heartbeat(0.35)
    now = beating(heart, 0.0, finger=FINGER_OPEN)
    heart.beat(False, POSE, 0.0, now)
    now, _ = silent(heart, now, 0.1, finger=0.030)
    assert heart.hold(now).openness == pytest.approx(0.8)
    now, _ = silent(heart, now, 0.4, finger=0.020)      # still for long: they hold something
    assert heart.hold(now).openness == 0.0


def test_the_real_gripper_gets_no_pwm_and_the_joints_their_measured_pose(monkeypatch):
    pytest.importorskip('rclpy')
    from vgps_bringup.arm.heartbeat import Hold
    from vgps_bringup.arm.heartbeat_node import InterbotixDriver
    messages = SimpleNamespace(JointGroupCommand=lambda **c: c, JointSingleCommand=lambda **c: c)
    monkeypatch.setitem(sys.modules, 'interbotix_xs_msgs', SimpleNamespace(msg=messages))
    monkeypatch.setitem(sys.modules, 'interbotix_xs_msgs.msg', messages)
    sent = []
    node = SimpleNamespace(create_publisher=lambda _type, topic, _depth: SimpleNamespace(
        publish=lambda message: sent.append((topic, message))))
    driver = InterbotixDriver(node, 'wx250s')
    driver.relax()
    driver.hold(Hold(POSE, 1.0), POSE)
    driver.hold(Hold(None, 1.0), POSE)
    assert sent == [('/wx250s/commands/joint_single', {'name': 'gripper', 'cmd': 0.0}),
                    ('/wx250s/commands/joint_group', {'name': 'arm', 'cmd': POSE.tolist()})]


@pytest.fixture(scope='module')
def running():
    pytest.importorskip('rclpy')
    from fault_bench import STARTS_WITHIN, Bench
    bench = Bench(f'/heartbeat_{os.getpid()}')
    try:
        bench.wait_for_state(State.READY, timeout=STARTS_WITHIN)
        bench.start('heartbeat')
        bench.wait_for(lambda s: bench.node.count_subscribers(bench.namespace + '/controller_state') >= 2, 'heartbeat',
                       timeout=STARTS_WITHIN)
        bench.wait_for(lambda s: bench.commands.get_subscription_count() > 0, 'discovery')
        yield bench
    finally:
        for process in bench.processes.values():
            process.send_signal(signal.SIGCONT)
        bench.close()


@pytest.fixture
def bench(running):
    if 'widowx' not in running.processes:
        running.start('widowx')
    running.wait_for(lambda s: s.reason != Reason.CONTROLLER_LOST, 'the controller', timeout=60.0)
    running.wait_for(lambda s: s.state in (State.READY, State.STOPPED, State.HOLDING), 'rest', timeout=60.0)
    running.reset()
    running.announce()
    running.spin(0.5)
    yield running
    running.announce(running=False)
    running.assert_safe()


def begin(bench, how):
    """Have the arm move: through a step, or on the way to a pose."""
    if how == 'homing':
        bench.call('home')
        bench.wait_for(lambda s: s.state == State.HOMING, 'homing')
        count = len(bench.joint_commands)
        bench.wait_for(lambda s: len(bench.joint_commands) > count + 10, 'the way')
    else:
        count = len(bench.joint_commands)
        bench.commands.publish(bench.message([0.05, 0.02, 0, 0, 0, 0, 0]))
        bench.wait_for(lambda s: len(bench.joint_commands) > count, 'the step')


def lost(bench):
    bench.wait_for(lambda s: s.reason == Reason.CONTROLLER_LOST and s.state == State.STOPPED, 'CONTROLLER_LOST')
    assert 'widowx_node has said nothing' in bench.state.message


@pytest.mark.ros
@pytest.mark.parametrize('how', ['step', 'homing'])
def test_a_controller_killed_in_mid_motion_leaves_an_arm_that_holds_and_a_name_and_its_successor_takes_over(bench, how):
    begin(bench, how)
    killed = bench.kill('widowx')
    lost(bench)
    bench.spin(1.0)
    assert bench.frames_in_motion(killed) <= IN_TIME
    bench.start('widowx')
    bench.wait_for_state(State.READY, timeout=60.0)
    bench.wait_for(lambda s: bench.commands.get_subscription_count() > 0, 'discovery')
    bench.spin(0.5)
    moved = bench.frames_in_motion(time.time() - 0.3)
    assert moved == 0, 'the new controller moves nothing by itself'
    bench.announce()
    bench.spin(0.3)
    assert bench.send() is Reason.ACCEPTED


@pytest.mark.ros
def test_a_stop_outlives_the_controller_that_took_it(bench):
    bench.call('stop')
    bench.wait_for_state(State.STOPPED, Reason.STOP_REQUESTED)
    bench.kill('widowx')
    lost(bench)
    bench.start('widowx')
    bench.wait_for_state(State.STOPPED, Reason.STOP_REQUESTED, timeout=60.0)
    bench.announce()
    bench.spin(1.0)
    assert bench.state.state == State.STOPPED
    bench.reset()        # the operator's


@pytest.mark.ros
@pytest.mark.parametrize('how', ['step', 'homing'])
def test_a_controller_that_hangs_in_mid_motion_is_named_and_the_stop_still_answers(bench, how):
    begin(bench, how)
    stopped = time.time()
    bench.processes['widowx'].send_signal(signal.SIGSTOP)
    try:
        lost(bench)
        _, response = bench.call('stop', node='heartbeat_node')
        assert response.success
        assert 'hangs' in response.message
        bench.spin(1.5)
        assert bench.frames_in_motion(stopped) <= IN_TIME
    finally:
        woken = time.time()
        bench.processes['widowx'].send_signal(signal.SIGCONT)
    bench.wait_for(lambda s: s.state == State.STOPPED and s.reason == Reason.STOP_REQUESTED, 'the stop reaches it')
    bench.spin(0.5)
    assert bench.frames_in_motion(woken) <= IN_TIME
    bench.reset()        # the operator's
