"""critic_node with a peer that plays camera and policy, for tests over real DDS."""

import array
import time

import numpy as np
import rclpy
import torch
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from vgps_critic.critic_node import CriticNode
from vgps_msgs.msg import (
    ActionCandidates,
    EndEffectorCommand,
    Episode,
    NodeConfiguration,
    SteeringDecision,
    StepStarted,
)
from vgps_msgs_py import images, qos

torch.set_num_threads(1)
INSTRUCTION = 'put the eggplant in the basket'


class Rig:
    """The node, and a peer that plays camera and policy and keeps what comes back."""

    def __init__(self):
        # longer than a busy machine may take between two messages
        rclpy.init(args=['--ros-args', '-p', 'frame_wait_ms:=1000.0'])
        self.node, self.peer = CriticNode(), rclpy.create_node('peer')
        self.executor = SingleThreadedExecutor()
        self.executor.add_node(self.node)
        self.executor.add_node(self.peer)
        publish = self.peer.create_publisher
        self.image = publish(Image, 'image_raw', qos.EVENT)
        self.episode = publish(Episode, 'episode', qos.LATCHED)
        self.started = publish(StepStarted, 'step_started', qos.EVENT)
        self.candidates = publish(ActionCandidates, 'candidates', qos.EVENT)
        self.decisions, self.commands, self.diagnostics, self.configurations = [], [], [], []
        for kind, topic, into, quality in (
                (SteeringDecision, 'decision', self.decisions, qos.EVENT),
                (EndEffectorCommand, 'command', self.commands, qos.EVENT),
                (DiagnosticArray, '/diagnostics', self.diagnostics, qos.EVENT),
                (NodeConfiguration, 'configuration', self.configurations, qos.LATCHED_MANY)):
            self.peer.create_subscription(kind, topic, into.append, quality)
        self.spin_until(lambda: self.configurations and self.started.get_subscription_count()
                        and self.image.get_subscription_count() and self.candidates.get_subscription_count())
        self.count = 0

    def close(self):
        self.node.close()
        self.executor.shutdown()
        self.node.destroy_node()
        self.peer.destroy_node()
        rclpy.shutdown()

    def spin_until(self, condition, timeout=20.0):
        end = time.monotonic() + timeout
        while not condition():
            assert time.monotonic() < end, 'nothing came'
            self.executor.spin_once(timeout_sec=0.05)

    def spin(self, seconds):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.executor.spin_once(timeout_sec=0.01)

    def set(self, **values):
        return self.node.set_parameters([Parameter(name, value=value) for name, value in values.items()])

    def start_episode(self, seed=7):
        episode = Episode(episode_id=f'e{seed}', instruction=INSTRUCTION, seed=seed, outcome=Episode.RUNNING)
        self.episode.publish(episode)
        self.spin_until(lambda: self.node._episode == episode)

    def step(self, actions, *, frame='first', instruction=INSTRUCTION, image=None, message=None):
        """Play one step and return its decision and command."""
        self.count += 1
        header = Header(frame_id='camera')
        header.stamp.sec = 1000 + self.count
        names = dict(header=header, episode_id='e7', step=self.count, instruction=instruction)
        picture = image if image is not None else images.to_message(frame_of(self.count), header)
        picture.header = header
        seen = len(self.decisions)
        if frame == 'first':
            self.image.publish(picture)
        self.started.publish(StepStarted(**names))
        if message is None:
            message = candidates_message(actions)
        for name, value in names.items():
            setattr(message, name, value)
        self.candidates.publish(message)
        if frame == 'late':
            self.spin(0.05)
            assert len(self.decisions) == seen
            self.image.publish(picture)
        self.spin_until(lambda: len(self.decisions) > seen and len(self.commands) == len(self.decisions))
        return self.decisions[-1], self.commands[-1]


def frame_of(seed):
    return np.random.default_rng(seed).integers(0, 256, (48, 64, 3), np.uint8)


def candidates_message(actions):
    actions = np.asarray(actions, np.float32)
    message = ActionCandidates(num_candidates=actions.shape[0], horizon=actions.shape[1], policy='test', seed=3)
    message.actions = array.array('f', actions.tobytes())
    return message


def some_actions(k=10, h=2, seed=0):
    actions = np.random.default_rng(seed).uniform(-0.04, 0.04, (k, h, 7)).astype(np.float32)
    actions[..., 6] = 1
    return actions
