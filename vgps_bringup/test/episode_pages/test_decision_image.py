"""The decision image over DDS: drawn for the frame the decision was made from, and only while somebody looks."""

import time

import numpy as np
import pytest
import yaml

rclpy = pytest.importorskip('rclpy')
# ruff: noqa: E402
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.executors import SingleThreadedExecutor
from sensor_msgs.msg import Image

from vgps_bringup.episode_pages.decision_image_node import DecisionImageNode
from vgps_bringup.episode_pages.overlay import Overlay
from vgps_msgs.msg import ActionCandidates, ControllerState, SteeringDecision
from vgps_msgs_py import images, qos
from vgps_msgs_py.vocabulary import SteeringReason

pytestmark = pytest.mark.ros

CALIBRATION = {'image_width': 640, 'image_height': 480, 'intrinsics': [500.0, 0, 320, 0, 500, 240, 0, 0, 1],
               'distortion': [0.0] * 5,
               'pose': [0.0, -1, 0, 0.3, -1, 0, 0, 0, 0, 0, -1, 1, 0, 0, 0, 1]}     # straight down from 1 m


@pytest.fixture
def world(tmp_path):
    path = tmp_path / 'camera.yaml'
    path.write_text(yaml.safe_dump(CALIBRATION))
    rclpy.init(args=['--ros-args', '-p', f'calibration:={path}'])
    node, bench = DecisionImageNode(), rclpy.create_node('bench')
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    executor.add_node(bench)
    yield node, bench, executor
    executor.shutdown()
    bench.destroy_node()
    node.destroy_node()
    rclpy.shutdown()


def spin_until(executor, condition, timeout=20.0):
    end = time.monotonic() + timeout
    while not condition() and time.monotonic() < end:
        executor.spin_once(timeout_sec=0.02)
    return condition()


def test_the_decided_frame_is_shown_with_values_and_directions(world):
    node, bench, executor = world
    frames = bench.create_publisher(Image, 'image_raw', 1)
    candidates = bench.create_publisher(ActionCandidates, 'candidates', qos.EVENT)
    states = bench.create_publisher(ControllerState, 'controller_state', qos.EVENT)
    decisions = bench.create_publisher(SteeringDecision, 'decision', qos.EVENT)
    assert spin_until(executor, lambda: decisions.get_subscription_count() and candidates.get_subscription_count())
    assert frames.get_subscription_count() == 0      # nobody looks yet
    shown = []
    bench.create_subscription(Image, 'decision_image', shown.append, 1)
    assert spin_until(executor, lambda: frames.get_subscription_count() == 1)

    frame = images.to_message(np.full((480, 640, 3), 90, np.uint8), Image().header)
    frame.header.stamp = Time(sec=7, nanosec=5)
    pose = np.eye(4)
    pose[:3, 3] = 0.3, 0.0, 0.0
    states.publish(ControllerState(target_pose=pose.ravel()))
    frames.publish(frame)
    actions = np.zeros((2, 1, 7), np.float32)
    actions[0, 0, 1], actions[1, 0, 1] = 0.05, -0.05
    candidates.publish(ActionCandidates(header=frame.header, num_candidates=2, horizon=1, actions=actions.ravel()))
    assert spin_until(executor, lambda: node._candidates is not None and node._frames and node._pose is not None)
    # values of other candidates than it says: not drawn, and nobody's end
    decisions.publish(SteeringDecision(header=frame.header, num_candidates=3, num_members=1, q_values=[-9.0, -3.0]))
    decisions.publish(SteeringDecision(header=frame.header, num_candidates=2, num_members=1, q_values=[-9.0, -3.0],
                                       probabilities=[0.0, 1.0], chosen=1, value=-3.0,
                                       reason=int(SteeringReason.STEERED), message='values\ndiffer'))
    assert spin_until(executor, lambda: shown)
    picture = images.to_array(shown[0])
    assert shown[0].header.stamp == frame.header.stamp
    assert picture.shape[0] == 480
    assert picture.shape[1] > 640                     # the panel beside the frame
    orange = np.argwhere((picture[:, :640] == (255, 176, 59)).all(axis=2))
    assert orange[:, 1].max() in range(340, 350)      # the chosen one goes 5 cm to the right: 25 pixels

    # A camera with an encoding we cannot draw costs the picture, not the node.
    frame.encoding, frame.header.stamp = 'yuv422', Time(sec=8)
    frames.publish(frame)
    assert spin_until(executor, lambda: 8_000_000_000 in node._frames)
    decisions.publish(SteeringDecision(header=frame.header, chosen=0, reason=int(SteeringReason.STEERED)))
    assert spin_until(executor, lambda: len(node._run.steps) == 2)


@pytest.mark.parametrize('said, silent, warning', [
    (DiagnosticStatus(level=DiagnosticStatus.OK, message='recording'), False, ''),
    (DiagnosticStatus(level=DiagnosticStatus.ERROR, message='NOT RECORDING: No space left on device'), False,
     'NOT RECORDING: No space left on device'),
    (DiagnosticStatus(level=DiagnosticStatus.OK, message='recording'), True, 'NOT RECORDING: the recorder is gone'),
    (None, True, '')])
def test_an_episode_that_is_not_recorded_is_said_across_the_frame(world, monkeypatch, said, silent, warning):
    node, bench, executor = world
    other = DiagnosticStatus(level=DiagnosticStatus.ERROR, name='/other_robot/recorder_node: recording', message='full')
    publisher = bench.create_publisher(DiagnosticArray, '/diagnostics', qos.EVENT)
    assert spin_until(executor, lambda: publisher.get_subscription_count())
    if said is not None:
        said.name = '/recorder_node: recording'
    publisher.publish(DiagnosticArray(status=[other, *([said] if said is not None else [])]))
    if said is not None:
        assert spin_until(executor, lambda: node._heard is not None)
    if silent and node._heard is not None:
        node._heard -= 60.0
    assert node._warning() == warning
    picture = np.full((480, 640, 3), 90, np.uint8)
    plain, marked = (Overlay(node._run).frame(picture, None, text) for text in ('', warning))
    assert np.array_equal(plain, marked) == (not warning)
