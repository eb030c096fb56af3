"""Publish the camera frame with the decision drawn on it as ``decision_image``, live, for rqt and Foxglove.

Beside the frame it shows every candidate's value, the chosen one and the reason; across the frame, a warning while the
episode is not being recorded. If the camera is calibrated, arrows show where each candidate would take the gripper.
While nobody subscribes, no image is received and nothing is drawn.
"""

import os
import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from ament_index_python.packages import get_package_share_directory
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from sensor_msgs.msg import CompressedImage, Image

from vgps_bringup.episode_pages.overlay import Overlay
from vgps_bringup.episode_pages.projection import CameraCalibration, draw_directions
from vgps_msgs.msg import ActionCandidates, ControllerState, Episode, SteeringDecision
from vgps_msgs_py import images, node_main, parameters, qos, stamps
from vgps_msgs_py.bags.message_types import contradiction
from vgps_msgs_py.bags.reader import Step

RECORDER_SILENT = 5.0  # s after which a recorder that spoke every second is gone
FRAMES_KEPT = 90   # 3 s at 30 Hz: longer than a decision may take on the robot
STEPS_KEPT = 2000  # of the value's curve, where nobody announces a new episode


@dataclass(frozen=True)
class DecisionImageConfig:
    """Parameters of the node."""

    calibration: str = field(default='', metadata={
        'description': "YAML file of the camera's calibration (see the lab guide), or the name of one in this "
                       "package's "
                       'config folder; empty: no directions are drawn',
        'read_only': True})


@dataclass
class Run:
    """What the drawing needs of the present episode."""

    instruction: str = ''
    steps: list[Step] = field(default_factory=list)
    outcome: str = 'running'


def _locate(name: str) -> str:
    return name if '/' in name else os.path.join(get_package_share_directory('vgps_bringup'), 'config', name)


class DecisionImageNode(Node):
    """Pairs frames, candidates and decisions by stamp and draws them."""

    def __init__(self) -> None:
        super().__init__('decision_image_node')
        config = parameters.declare(self, DecisionImageConfig)
        try:
            self._calibration = CameraCalibration.load(_locate(config.calibration)) if config.calibration else None
        except (OSError, ValueError) as error:
            raise parameters.ParameterError(f"parameter 'calibration': {error}") from error
        self._run, self._frames = Run(), dict[int, Image]()    # by header stamp [ns]
        self._candidates: ActionCandidates | None = None
        self._pose: np.ndarray | None = None    # (4, 4), the gripper's target
        self._publisher = self.create_publisher(Image, 'decision_image', 1)
        self._images: Any = None    # the subscription, while somebody looks
        for message_type, topic, callback, profile in (
                (Episode, 'episode', self._on_episode, qos.LATCHED),
                (ActionCandidates, 'candidates', self._on_candidates, qos.EVENT),
                (ControllerState, 'controller_state', self._on_state, qos.EVENT),
                (SteeringDecision, 'decision', self._on_decision, qos.EVENT)):
            self.create_subscription(message_type, topic, callback, profile)
        self._recorder = f'{self.get_namespace().rstrip("/")}/recorder_node: recording'
        self._heard: float | None = None    # monotonic s
        self._unrecorded = ''
        self.create_subscription(DiagnosticArray, '/diagnostics', self._on_diagnostics, qos.EVENT)
        # a timer of the node's clock rests when that is set back
        self.create_timer(0.5, self._look_for_viewers, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def _look_for_viewers(self) -> None:
        watched = self._publisher.get_subscription_count() > 0
        if watched and self._images is None:
            topic = images.followed(self, self.resolve_topic_name('image_raw'), 'auto')
            kind = CompressedImage if topic.endswith('/compressed') else Image
            self._images = self.create_subscription(kind, topic, self._on_image, qos.FRAMES)
        elif not watched and self._images is not None:
            self.destroy_subscription(self._images)
            self._images = None
            self._frames.clear()

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            if status.name == self._recorder:
                self._heard = time.monotonic()
                self._unrecorded = status.message if status.level == DiagnosticStatus.ERROR else ''

    def _warning(self) -> str:
        """Return what to write across the frame, or nothing."""
        if self._heard is not None and time.monotonic() - self._heard > RECORDER_SILENT:
            return 'NOT RECORDING: the recorder is gone'
        return self._unrecorded

    def _on_image(self, message: Image) -> None:
        self._frames[stamps.nanoseconds(message.header.stamp)] = message
        while len(self._frames) > FRAMES_KEPT:
            self._frames.pop(next(iter(self._frames)))

    def _on_episode(self, message: Episode) -> None:
        if message.outcome == Episode.RUNNING:
            self._run = Run(message.instruction)

    def _on_candidates(self, message: ActionCandidates) -> None:
        if not contradiction('vgps_msgs/msg/ActionCandidates', message):
            self._candidates = message

    def _on_state(self, message: ControllerState) -> None:
        self._pose = np.reshape(message.target_pose, (4, 4))

    def _on_decision(self, message: SteeringDecision) -> None:
        if why := contradiction('vgps_msgs/msg/SteeringDecision', message):
            self.get_logger().warning(f'a decision is not shown: {why}', throttle_duration_sec=10.0)
            return
        stamp = stamps.nanoseconds(message.header.stamp)
        known = self._candidates is not None and self._candidates.header.stamp == message.header.stamp
        step = Step(message.step, stamp, message.instruction, candidates=self._candidates if known else None,
                    decision=message)
        self._run.instruction = message.instruction
        self._run.steps.append(step)
        del self._run.steps[:-STEPS_KEPT]
        frame = self._frames.get(stamp)
        if frame is None:
            return
        try:
            picture = images.to_array(frame).copy()
        except images.ImageError as error:
            self.get_logger().warning(f'no decision image: {error}', throttle_duration_sec=10.0)
            return
        if self._calibration is not None and known and self._pose is not None:
            draw_directions(picture, self._calibration, self._pose[:3, 3], step.actions, message.chosen)
        composed = Overlay(self._run).frame(picture, len(self._run.steps) - 1, self._warning())
        self._publisher.publish(images.to_message(np.ascontiguousarray(composed), message.header))


def main(args: list[str] | None = None) -> None:
    """Run the node."""
    node_main.run(DecisionImageNode, args, events=True)


if __name__ == '__main__':
    main()
