"""policy_node over real DDS, with small peers in place of camera, critic, controller and simulation."""

import dataclasses
import io
import os
import time

import numpy as np
import PIL.Image
import rclpy
from rclpy.action import ActionClient
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from vgps_msgs.action import ExecuteInstruction
from vgps_msgs.msg import (
    ActionCandidates,
    ControllerState,
    Episode,
    NodeConfiguration,
    SteeringDecision,
    StepStarted,
)
from vgps_msgs.srv import ResetForEpisode, ResetScene
from vgps_msgs_py import images, qos
from vgps_msgs_py.stamps import nanoseconds
from vgps_policy_bridge.loop import session
from vgps_policy_bridge.policies.random_policy import RandomPolicy
from vgps_policy_bridge.policy_node import PolicyNode


class TroublePolicy(RandomPolicy):
    """Random, plus whatever `trouble` does in each request."""

    used = ('image', 'instruction')

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
        return dataclasses.replace(super().propose(observation, k), used=self.used)


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
        self.packed = None
        self.picture = np.arange(48 * 64 * 3).reshape(48, 64, 3).astype(np.uint8)
        self.state = self.create_publisher(ControllerState, 'controller_state', qos.EVENT)
        self.decision = self.create_publisher(SteeringDecision, 'decision', qos.EVENT)
        self.create_subscription(ActionCandidates, 'candidates', self.on_candidates, qos.EVENT)
        self.create_subscription(StepStarted, 'step_started', self.started.append, qos.EVENT)
        self.create_subscription(Episode, 'episode', self.episodes.append, qos.LATCHED)
        self.create_subscription(NodeConfiguration, 'configuration', self.configurations.append, qos.LATCHED_MANY)
        self.create_service(ResetScene, 'reset_scene', self.on_reset_scene)
        self.refuses_reset = ''
        self.create_service(ResetForEpisode, 'widowx_node/reset_for_episode', self.on_reset_arm)
        self.create_timer(0.02, self.publish_image)
        self.create_timer(0.1, self.publish_state)

    def compress(self):
        """Be a camera that offers its pictures compressed and in no other way."""
        self.destroy_publisher(self.image)
        self.image = self.create_publisher(CompressedImage, 'image_raw/compressed', 10)
        packed = io.BytesIO()
        PIL.Image.fromarray(self.picture).save(packed, 'PNG')
        self.packed = CompressedImage(format='rgb8; png compressed rgb8', data=packed.getvalue())

    def publish_image(self):
        if self.camera_on:
            header = Header(stamp=self.get_clock().now().to_msg(), frame_id='camera')
            message = self.picture if isinstance(self.picture, Image) else self.packed or images.to_message(
                self.picture, header)
            message.header = header
            self.image.publish(message)

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

    def on_reset_arm(self, request, response):
        call = ('withdraw' if request.withdraw else 'arm', request.episode_id)
        if call not in self.calls:    # asked again and again
            self.calls.append(call)
        response.success, response.message = not self.refuses_reset, self.refuses_reset
        return response


class System:
    count = 0

    def __init__(self, monkeypatch, **parameters):
        self.policy = TroublePolicy()
        monkeypatch.setattr(session, 'build_policy', lambda *_: self.policy)
        # A namespace of its own: the server of the test before may still be known to discovery.
        System.count += 1
        rclpy.init(args=['--ros-args', '-r', f'__ns:=/t{os.getpid()}_{System.count}', '-p',
                         'num_candidates:=20', '-p', 'camera_timeout:=2.0', '-p',
                         'critic_timeout:=2.0', '-p', 'controller_timeout:=2.0', '-p', 'policy_timeout:=2.0',
                         '-p', 'max_steps:=4',
                         *(part for name, value in parameters.items() for part in ('-p', f'{name}:={value}'))])
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
