"""From a camera frame's stamp to the joint command it leads to, over real DDS, less what the models take.

::

    python -m vgps_bringup.benchmarks.command_latency --steps 300

The real policy_node, critic_node and widowx_node run in processes of their own. A stand-in plays camera (640x480 at
30 Hz) and driver (joint states at 100 Hz): rendering a scene would be measured as well otherwise. What remains when
the models' time is taken away is the price of the middleware, of the conversions and of the guards.
"""

import argparse
import array
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from rclpy.node import Node
from sensor_msgs.msg import CameraInfo, Image, JointState

from vgps_bringup.arm.controller_config import ControllerConfig
from vgps_bringup.arm.kinematics import JOINT_NAMES
from vgps_bringup.system.episode_client import EpisodeClient
from vgps_bringup.system.supervisor import Runner
from vgps_msgs.msg import ActionCandidates, ControllerState, SteeringDecision
from vgps_msgs_py import node_main, qos

WIDTH, HEIGHT = 640, 480


class CameraAndDriver(Node):
    """Publishes noise as images and echoes joint commands as joint states."""

    def __init__(self):
        super().__init__('camera_and_driver')
        self.positions, self.openness = list(ControllerConfig().neutral_joints), 1.0
        self.pixels = np.random.default_rng(0).integers(0, 256, WIDTH * HEIGHT * 3, np.uint8).tobytes()
        self.images = self.create_publisher(Image, 'image_raw', 1)
        self.infos = self.create_publisher(CameraInfo, 'camera_info', 1)
        self.joints = self.create_publisher(JointState, 'joint_states', 10)
        self.create_subscription(JointState, 'joint_command', self.on_command, 10)
        self.create_timer(1 / 30, self.publish_image)
        self.create_timer(1 / 100, self.publish_joints)

    def on_command(self, message):
        """Be where the command says."""
        self.positions, self.openness = list(message.position[:6]), message.position[6]

    def publish_image(self):
        """Publish one frame, stamped when it is taken."""
        image = Image(width=WIDTH, height=HEIGHT, encoding='rgb8', step=WIDTH * 3)
        image.header.stamp = self.get_clock().now().to_msg()
        image.data = array.array('B', self.pixels)
        self.images.publish(image)
        self.infos.publish(CameraInfo(header=image.header, width=WIDTH, height=HEIGHT))

    def publish_joints(self):
        """Publish one frame of joint states."""
        finger = 0.010 + 0.025 * self.openness
        message = JointState(name=[*JOINT_NAMES, 'gripper', 'left_finger', 'right_finger'],
                             position=[*self.positions, 0.0, finger, -finger])
        message.header.stamp = self.get_clock().now().to_msg()
        self.joints.publish(message)


def stand_in():
    """Spin a CameraAndDriver until told to stop."""
    node_main.run(CameraAndDriver)


def model_milliseconds(candidates, decision):
    """Return the models' share [ms] of one step's critical path.

    The policy samples while the critic encodes; scoring comes after both. Conversions are not the models'.
    """
    policy = dict(zip(candidates.stages, candidates.stage_milliseconds))
    critic = dict(zip(decision.stages, decision.stage_milliseconds))
    sampling = policy.get('total', 0.0) - policy.get('convert', 0.0)
    return max(sampling, critic.get('embed', 0.0) + critic.get('encode', 0.0)) + critic.get('score', 0.0)


def measure(steps, selection, settle):
    """Run episodes and return ((N,) camera to command, (N,) models' share), both in milliseconds."""
    namespace = f'latency_{os.getpid()}'
    arguments = {'namespace': namespace, 'policy': 'random-policy', 'critic': 'untrained', 'record': 'false',
                 'k': '10', 'selection': selection, 'max_steps': str(steps)}
    runner = Runner('simulation', arguments, log=lambda line: print(line, file=sys.stderr), quiet=True)
    runner.parts = [part for part in runner.parts if part.name != 'simulation_node']
    camera = subprocess.Popen([sys.executable, '-m', 'vgps_bringup.benchmarks.command_latency', '--stand-in',
                               '--ros-args', '-r', f'__ns:=/{namespace}'])
    candidates, decisions, commands = {}, {}, {}

    def on_state(message):
        if message.reason == ControllerState.ACCEPTED and message.state == ControllerState.MOVING:
            commands[message.episode_id, message.step] = message.image_to_command_ms

    try:
        with runner, EpisodeClient(namespace) as client:
            for kind, topic, sink in ((ActionCandidates, 'candidates', candidates),
                                      (SteeringDecision, 'decision', decisions)):
                client.node.create_subscription(
                    kind, topic, lambda m, sink=sink: sink.__setitem__((m.episode_id, m.step), m), qos.EVENT)
            client.node.create_subscription(ControllerState, 'controller_state', on_state, qos.EVENT)
            client.wait_until_ready(120.0, runner.why_not_ready)
            time.sleep(settle)
            for episode in range(10):
                client.run('put the object on the plate', seed=episode)
                if len(commands) >= steps:
                    break
    finally:
        camera.terminate()
        camera.wait()
    keys = [key for key in commands if key in candidates and key in decisions]
    return (np.array([commands[key] for key in keys]),
            np.array([model_milliseconds(candidates[key], decisions[key]) for key in keys]))


def main():
    """Print the figures."""
    if '--stand-in' in sys.argv:
        stand_in()
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--steps', type=int, default=300, help='control steps to measure')
    parser.add_argument('--selection', default='value', choices=('value', 'first'), help='first: without the critic')
    parser.add_argument('--settle', type=float, default=2.0, help='pause before the first step [s]')
    options = parser.parse_args()
    total, models = measure(options.steps, options.selection, options.settle)
    print(f'{len(total)} steps, {WIDTH}x{HEIGHT} at 30 Hz, load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores, '
          f'{processor()}')
    for name, values in (('camera stamp to joint command', total), ('models', models), ('the rest', total - models)):
        p50, p95, p99 = np.percentile(values, [50, 95, 99])
        print(f'  {name:30}  p50 {p50:7.1f}  p95 {p95:7.1f}  p99 {p99:7.1f}  ms')


def processor():
    """Return the processor's name where the system tells."""
    info = Path('/proc/cpuinfo')
    names = [line.split(':', 1)[1].strip() for line in info.read_text().splitlines() if line.startswith('model name')] \
        if info.exists() else []
    return names[0] if names else 'unknown processor'


if __name__ == '__main__':
    main()
