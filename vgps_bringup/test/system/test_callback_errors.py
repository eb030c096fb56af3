"""A bug in one callback of a shipped node ends neither the node nor what else it does, and cannot be overlooked."""

import subprocess
import sys
import time

import pytest

rclpy = pytest.importorskip('rclpy')
# ruff: noqa: E402
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.executors import SingleThreadedExecutor
from sensor_msgs.msg import JointState
from std_srvs.srv import Trigger

from vgps_msgs_py.node_main import callback_of

pytestmark = pytest.mark.ros

BROKEN = '''
from vgps_bringup.arm import heartbeat_node
from vgps_msgs_py import node_main

def on_joint_states(self, message):
    raise RuntimeError('a bug')

heartbeat_node.HeartbeatNode._on_joint_states = on_joint_states
node_main.run(heartbeat_node.HeartbeatNode, ['--ros-args', '-p', 'arm:=simulated'], events={events})
'''


@pytest.mark.parametrize('events', [False, True])
def test_a_node_with_a_bug_in_one_callback_goes_on_and_says_so_by_name(events):
    process = subprocess.Popen([sys.executable, '-c', BROKEN.format(events=events)], text=True, stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT)
    rclpy.init()
    bench, executor = rclpy.create_node('bench'), SingleThreadedExecutor()
    executor.add_node(bench)
    counts = []

    def on_diagnostics(message):
        status = message.status[0]
        if status.name == '/heartbeat_node: callbacks' and status.level == DiagnosticStatus.ERROR:
            counts.append({value.key: int(value.value) for value in status.values})
            assert 'on_joint_states' in status.message and 'RuntimeError: a bug' in status.message
    bench.create_subscription(DiagnosticArray, '/diagnostics', on_diagnostics, 10)
    joints, stop = bench.create_publisher(JointState, 'joint_states', 10), bench.create_client(Trigger,
                                                                                             'heartbeat_node/stop')
    try:
        end = time.monotonic() + 60.0
        while time.monotonic() < end and not (counts and min(counts[-1].values()) >= 3):
            joints.publish(JointState())
            executor.spin_once(timeout_sec=0.1)
        assert list(counts[-1]) == ['on_joint_states (<string>)']
        answer = stop.call_async(Trigger.Request())
        executor.spin_until_future_complete(answer, timeout_sec=30.0)
        assert answer.result().success
    finally:
        executor.shutdown()
        bench.destroy_node()
        rclpy.shutdown()
        process.terminate()
        said = process.communicate(timeout=30)[0]
    assert process.returncode == 0, said
    assert said.count('Traceback') == 1     # the events executor says a line or two of its own each time
    assert 'an error in a callback, on_joint_states (<string>): the node goes on' in said


def test_an_error_bears_the_name_of_the_callback_whatever_it_came_out_of():
    def on_image(bad):
        return int(bad)
    with pytest.raises(ValueError) as raised:
        on_image('no number')
    raised.value.__traceback__ = raised.value.__traceback__.tb_next    # without this test's own frame
    assert callback_of(raised.value) == 'on_image (test_callback_errors.py)'
    assert callback_of(ValueError('never raised')) == 'an unknown callback'
