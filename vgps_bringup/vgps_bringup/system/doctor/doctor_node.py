"""Listens to a running system for a few seconds; what it means is said by ``running``. Publishes and calls nothing."""

from __future__ import annotations

import time

import rclpy
import yaml
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.clock import Clock, ClockType
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import CompressedImage, Image, JointState

from vgps_bringup.system.doctor.running import Observed
from vgps_msgs.msg import NodeConfiguration
from vgps_msgs_py import images, qos
from vgps_msgs_py.stamps import seconds


class DoctorNode(Node):
    """Collects what the topics of one namespace carry."""

    def __init__(self, namespace: str, camera_topic: str, joint_topic: str, transport: str, context: rclpy.Context):
        super().__init__('doctor', namespace=namespace, context=context)
        self.seen = Observed(namespace, 0.0, camera_topic=self.resolve_topic_name(camera_topic))
        self._joint_topic = self.resolve_topic_name(joint_topic)
        self._camera = images.CameraSubscription(self, self._on_image, qos.IMAGE, transport,
                                                 Clock(clock_type=ClockType.STEADY_TIME), topic=camera_topic)
        self.create_subscription(JointState, joint_topic, self._on_joints, qos.EVENT)
        self.create_subscription(DiagnosticArray, '/diagnostics', self._on_diagnostics, qos.EVENT)
        self.create_subscription(NodeConfiguration, 'configuration', self._on_configuration, qos.LATCHED_MANY)

    def _on_image(self, message: Image | CompressedImage) -> None:
        camera, stamp = self.seen.camera, seconds(message.header.stamp)
        camera.arrivals.append(time.monotonic())
        camera.stamps.append(stamp)
        camera.ages.append(self.get_clock().now().nanoseconds * 1e-9 - stamp)
        compressed = isinstance(message, CompressedImage)
        camera.encoding = f'compressed ({message.format})' if compressed else message.encoding
        camera.size = (0, 0) if compressed else (message.width, message.height)
        try:
            camera.last = images.to_array(message)
        except images.ImageError as error:
            camera.error = str(error)
            return
        camera.size = (camera.last.shape[1], camera.last.shape[0])
        if camera.first is None:
            camera.first = camera.last

    def _on_joints(self, message: JointState) -> None:
        joints = self.seen.joints
        joints.arrivals.append(time.monotonic())
        joints.names, joints.positions = tuple(message.name), tuple(message.position)
        joints.efforts = len(message.effort)

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            level = status.level[0] if isinstance(status.level, bytes) else int(status.level)
            self.seen.diagnostics[status.name] = (level, status.message)

    def _on_configuration(self, message: NodeConfiguration) -> None:
        self.seen.models[message.node] = (message.model, message.model_hash)
        if message.node == 'widowx_node':
            values = yaml.safe_load(message.parameters) or {}
            self.seen.dry_run = bool(values['dry_run']) if 'dry_run' in values else None
            self.seen.min_height = float(values.get('min_height', self.seen.min_height))
            self.seen.max_image_age = float(values.get('max_image_age', self.seen.max_image_age))

    def look_around(self) -> None:
        """Note which nodes there are and who publishes what."""
        namespace = self.get_namespace()
        self.seen.nodes = [
            name
            for name, space in self.get_node_names_and_namespaces()
            if space == namespace and name != self.get_name()
        ]
        for topic in ('command', 'candidates', 'episode'):
            self.seen.publishers[topic] = [
                p.node_name for p in self.get_publishers_info_by_topic(self.resolve_topic_name(topic))
            ]
        raw = self.seen.camera_topic.removesuffix('/compressed')
        self.seen.camera_offers = [topic for topic in (raw, f'{raw}/compressed') if self.count_publishers(topic)]
        self.seen.camera_topic = self._camera.topic
        self.seen.joints.publishers = len(self.get_publishers_info_by_topic(self._joint_topic))


def observe(namespace: str, camera_topic: str, joint_topic: str, duration: float = 5.0,
            transport: str = 'auto') -> Observed:
    """Listen for `duration` seconds and return what was seen."""
    context = rclpy.Context()
    rclpy.init(context=context, signal_handler_options=SignalHandlerOptions.NO)
    executor = SingleThreadedExecutor(context=context)
    node = DoctorNode('/' + namespace.strip('/'), camera_topic, joint_topic, transport, context)
    executor.add_node(node)
    try:
        end = time.monotonic() + duration
        while (left := end - time.monotonic()) > 0:
            try:
                executor.spin_once(timeout_sec=left)
            except Exception as error:  # bytes that are no message, a configuration that is none: somebody else's
                node.seen.unreadable[f'{type(error).__name__}: {error}'.splitlines()[0]] += 1
        node.seen.seconds = duration
        node.look_around()
        return node.seen
    finally:
        executor.shutdown()
        node.destroy_node()
        rclpy.shutdown(context=context)
