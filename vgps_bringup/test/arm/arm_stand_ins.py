"""Processes that play the arm's neighbours, so that a test can kill -9 them: python arm_stand_ins.py PART.

driver: echoes joint commands as joint states (100 Hz, a servo's lag). camera: camera_info at 30 Hz. policy: one set of
candidates per READY. critic: a command for each set of candidates.
"""

import sys
import time

import numpy as np
import rclpy
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from sensor_msgs.msg import CameraInfo, JointState

from vgps_msgs.msg import ActionCandidates, ControllerState, EndEffectorCommand, Episode
from vgps_msgs_py import qos

# Not imported from the arm: its kinematics would make these processes slow to start.
JOINT_NAMES = ('waist', 'shoulder', 'elbow', 'forearm_roll', 'wrist_angle', 'wrist_rotate')
NEUTRAL = (-0.13192235, -0.76238847, 0.44485444, -0.01994175, 1.7564081, -0.15953401)
BASE = 'wx250s/base_link'


class Driver(Node):
    def __init__(self):
        super().__init__('driver')
        self.positions, self.goal, self.openness = np.array(NEUTRAL), None, 1.0
        self.publisher = self.create_publisher(JointState, 'joint_states', 10)
        self.create_subscription(JointState, 'joint_command', self.on_command, 10)
        self.create_timer(0.01, self.publish)

    def on_command(self, message):
        self.goal, self.openness = np.array(message.position[:6]), message.position[6]

    def publish(self):
        if self.goal is not None:
            self.positions = self.positions + 0.15 * (self.goal - self.positions)
        finger = 0.010 + 0.025 * self.openness
        message = JointState(name=[*JOINT_NAMES, 'gripper', 'left_finger', 'right_finger'],
                             position=[*self.positions.tolist(), 0.0, finger, -finger])
        message.header.stamp = self.get_clock().now().to_msg()
        self.publisher.publish(message)


class Camera(Node):
    def __init__(self):
        super().__init__('camera')
        self.publisher = self.create_publisher(CameraInfo, 'camera_info', 1)
        self.create_timer(1 / 30, self.publish)

    def publish(self):
        message = CameraInfo()
        message.header.stamp = self.get_clock().now().to_msg()
        self.publisher.publish(message)


class Policy(Node):
    def __init__(self):
        super().__init__('policy')
        self.rng, self.episode, self.step, self.asked = np.random.default_rng(0), '', -1, 0.0
        self.publisher = self.create_publisher(ActionCandidates, 'candidates', qos.EVENT)
        self.create_subscription(Episode, 'episode', lambda m: setattr(self, 'episode', m.episode_id), qos.LATCHED)
        self.create_subscription(ControllerState, 'controller_state', self.on_state, qos.EVENT)

    def on_state(self, message):
        if not self.episode or message.state not in (ControllerState.READY, ControllerState.HOLDING):
            return
        last = message.step if message.episode_id == self.episode else -1
        # A neighbour killed a moment ago may have taken the candidates with it: ask again.
        if last < self.step and time.monotonic() - self.asked < 1.0:
            return
        self.step, self.asked = last + 1, time.monotonic()
        actions = self.rng.uniform(-1, 1, (2, 1, 7)) * [0.02, 0.02, 0.02, 0.1, 0.1, 0.1, 1.0]
        candidates = ActionCandidates(episode_id=self.episode, step=self.step, num_candidates=2, horizon=1,
                                      actions=actions.astype(np.float32).ravel())
        candidates.header.stamp = self.get_clock().now().to_msg()
        self.publisher.publish(candidates)


class Critic(Node):
    def __init__(self):
        super().__init__('critic')
        self.pending = []
        self.publisher = self.create_publisher(EndEffectorCommand, 'command', qos.EVENT)
        self.create_subscription(ActionCandidates, 'candidates', self.on_candidates, qos.EVENT)
        self.create_timer(0.02, self.publish)

    def on_candidates(self, message):
        command = EndEffectorCommand(header=message.header, episode_id=message.episode_id, step=message.step,
                                     action=np.array(message.actions[:7], np.float64))
        command.header.frame_id = BASE
        self.pending.append(command)
        self.publish()

    def publish(self):
        while self.pending and self.publisher.get_subscription_count():
            self.publisher.publish(self.pending.pop(0))


PARTS = {'driver': Driver, 'camera': Camera, 'policy': Policy, 'critic': Critic}


def main():
    rclpy.init()
    executor = SingleThreadedExecutor()
    node = PARTS[sys.argv[1]]()
    executor.add_node(node)
    try:
        executor.spin()
    except (KeyboardInterrupt, ExternalShutdownException):
        pass


if __name__ == '__main__':
    main()
