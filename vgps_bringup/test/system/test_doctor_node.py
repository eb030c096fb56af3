"""The doctor listens to real topics."""

import io
import threading

import numpy as np
import PIL.Image
import pytest

pytest.importorskip('rclpy')
import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import CompressedImage, JointState

from vgps_bringup.arm.kinematics import JOINT_NAMES
from vgps_bringup.system.doctor.doctor_node import observe
from vgps_bringup.system.doctor.findings import FAULT, OK
from vgps_bringup.system.doctor.running import judge
from vgps_msgs.msg import EndEffectorCommand, NodeConfiguration
from vgps_msgs_py import qos

pytestmark = pytest.mark.ros


class Robot(Node):
    """Stands in for a whole system: one camera, one driver, two critics that should not both be there."""

    def __init__(self, context):
        super().__init__('widowx_node', namespace='/vgps_doctor', context=context)
        self.rng = np.random.default_rng(0)
        self.image = self.create_publisher(CompressedImage, 'image_raw/compressed', qos.EVENT)
        self.joints = self.create_publisher(JointState, 'joint_states', qos.EVENT)
        self.said = self.create_publisher(DiagnosticArray, '/diagnostics', qos.EVENT)
        self.commands = [self.create_publisher(EndEffectorCommand, 'command', qos.EVENT) for _ in range(2)]
        configuration = self.create_publisher(NodeConfiguration, 'configuration', qos.LATCHED_MANY)
        configuration.publish(NodeConfiguration(node='widowx_node', parameters='{dry_run: true, min_height: 0.01}'))
        self.create_timer(0.05, self.tick)

    def tick(self):
        header = EndEffectorCommand().header
        header.stamp = self.get_clock().now().to_msg()
        packed = io.BytesIO()
        PIL.Image.fromarray(self.rng.integers(0, 255, (48, 64, 3), np.uint8)).save(packed, 'JPEG')
        self.image.publish(CompressedImage(header=header, format='rgb8; jpeg compressed bgr8', data=packed.getvalue()))
        self.joints.publish(JointState(name=[*JOINT_NAMES, 'left_finger'],
                                       position=[-0.13, -0.76, 0.44, -0.02, 1.76, -0.16, 0.03]))
        status = DiagnosticStatus(level=DiagnosticStatus.ERROR, name='critic_node: critic', message='FRAME_MISSING')
        self.said.publish(DiagnosticArray(status=[status]))


@pytest.fixture
def robot():
    context = rclpy.Context()
    rclpy.init(context=context, signal_handler_options=SignalHandlerOptions.NO)
    executor, node = SingleThreadedExecutor(context=context), Robot(context)
    executor.add_node(node)
    thread = threading.Thread(target=executor.spin, daemon=True)
    thread.start()
    yield node
    executor.shutdown()
    thread.join(5)
    node.destroy_node()
    rclpy.shutdown(context=context)


def test_a_running_system_is_seen_as_it_is(robot):
    seen = observe('vgps_doctor', 'image_raw', 'joint_states', 5.0)
    findings = {f.subject: f for f in judge(seen)}
    assert findings['nodes'].status == FAULT and 'policy_node, critic_node' in findings['nodes'].found
    assert findings['command'].status == FAULT and '2 publishers' in findings['command'].found
    camera = 'camera /vgps_doctor/image_raw/compressed'  # this camera offers nothing else
    assert '64 x 48, compressed (rgb8; jpeg' in findings[camera].found
    assert findings[f'{camera}: stamps'].status == findings[f'{camera}: picture'].status == OK
    assert findings['arm'].status == OK and 'on: nothing moves' in findings['dry run'].found
    assert findings['critic_node: critic'].found == 'FRAME_MISSING'
