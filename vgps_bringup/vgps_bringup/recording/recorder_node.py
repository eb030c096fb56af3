"""Record the topics of the parameter ``topics``, serialised as they arrive, in one bag per episode.

The bags have the layout of ``ros2 bag record``. If something cannot be recorded, the log, ``/diagnostics`` and
``decision_image_node`` say so; the node goes on, and writes again once it can.
"""

import importlib
import time
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.serialization import deserialize_message

from vgps_bringup.recording.recording import EPISODE_TYPE, RecorderConfig, Recording
from vgps_msgs.msg import Episode
from vgps_msgs_py import images, node_main, parameters, qos
from vgps_msgs_py.bags.writer import Topic
from vgps_msgs_py.configuration import ConfigurationPublisher

GRAPH_PERIOD = 0.2  # s between looks at who publishes what
TICK_PERIOD = 0.1   # s
DEPTH = 100         # messages queued while a chunk is compressed
LITTLE_ROOM = 1e9   # bytes: half an hour of VGA frames
STATUS = 'recording'  # name of the status on /diagnostics, after the node's


class RecorderNode(Node):
    """Subscribes to a topic once somebody publishes it, with the quality of service that is offered."""

    def __init__(self) -> None:
        super().__init__('recorder_node')
        self.config = parameters.declare(self, RecorderConfig, self.on_parameters)
        self.recording = Recording(self.config)
        self.topics: dict[str, Topic] = {}         # subscribed, by resolved name
        self.taps: dict[str, Any] = {}             # their subscriptions
        self.sources: dict[str, str] = {}          # wanted topic -> the one it is recorded from
        self.wanted = [self.resolve_topic_name(name) for name in (*self.config.topics, self.config.wrist_topic) if name]
        self.reported: set[str] = set()
        self.trouble = ''
        ConfigurationPublisher(self, 'vgps_bringup').publish()
        self.diagnostics = self.create_publisher(DiagnosticArray, '/diagnostics', qos.EVENT)
        steady = Clock(clock_type=ClockType.STEADY_TIME)  # a timer of the node's clock rests when that is set back
        self.create_timer(GRAPH_PERIOD, self.look_around, clock=steady)
        self.create_timer(TICK_PERIOD, self.on_tick, clock=steady)
        self.create_timer(1.0, self.diagnose, clock=steady)
        self.look_around()

    def now(self) -> tuple[int, int]:
        """Return a clock that is never set, and the node's, in nanoseconds."""
        return time.monotonic_ns(), self.get_clock().now().nanoseconds

    def on_parameters(self, config: RecorderConfig) -> None:
        """Take a new folder or new times; an open bag stays where it is."""
        self.config = self.recording.config = config

    def look_around(self) -> None:
        """Subscribe to wanted topics that have appeared or whose offered quality of service has changed."""
        for wanted in self.wanted:
            name = wanted
            if self.count_publishers(f'{wanted}/compressed'):
                name = images.followed(self, wanted, self.config.image_transport)
            offers = self.get_publishers_info_by_topic(name)
            if not offers:
                continue
            profiles = [offer.qos_profile for offer in offers]
            topic = Topic(name, offers[0].topic_type,
                          reliable=all(p.reliability == ReliabilityPolicy.RELIABLE for p in profiles),
                          latched=all(p.durability == DurabilityPolicy.TRANSIENT_LOCAL for p in profiles))
            if self.topics.get(name) != topic:
                self.subscribe(topic)
            if name != (before := self.sources.setdefault(wanted, name)) and before in self.taps:
                self.destroy_subscription(self.taps.pop(before))  # one camera is recorded once
                del self.topics[before]
            self.sources[wanted] = name

    def subscribe(self, topic: Topic) -> None:
        """Record a topic from now on."""
        try:
            package, _, short = topic.type.split('/')
            message_class = getattr(importlib.import_module(f'{package}.msg'), short)
        except (ImportError, AttributeError, ValueError):
            self.report(topic.name, f"{topic.name} is not recorded: cannot import {topic.type}; source its workspace")
            return
        if topic.name in self.taps:
            self.destroy_subscription(self.taps.pop(topic.name))
        profile = QoSProfile(
            history=HistoryPolicy.KEEP_LAST, depth=DEPTH,
            reliability=ReliabilityPolicy.RELIABLE if topic.reliable else ReliabilityPolicy.BEST_EFFORT,
            durability=DurabilityPolicy.TRANSIENT_LOCAL if topic.latched else DurabilityPolicy.VOLATILE)
        self.topics[topic.name] = topic
        self.taps[topic.name] = self.create_subscription(
            message_class, topic.name, lambda data, topic=topic: self.on_message(topic, data), profile, raw=True)
        self.get_logger().info(f'recording {topic.name} ({topic.type})')

    def on_message(self, topic: Topic, data: bytes) -> None:
        """Pass a message on, readable or not; an Episode also opens and closes bags."""
        now = self.now()
        announced = self.read_episode(topic, data) if topic.type == EPISODE_TYPE else None
        running = announced is not None and announced.outcome == Episode.RUNNING
        if announced is not None and running:
            self.recording.episode(announced.episode_id, True, *now)
            self.report_missing()
        self.recording.message(topic, data, *now)
        if announced is not None and not running:
            self.recording.episode(announced.episode_id, False, *now)
        self.say()

    def read_episode(self, topic: Topic, data: bytes) -> Episode | None:
        """Return the announcement, or None where its bytes are no Episode: they are recorded as they came."""
        try:
            return deserialize_message(data, Episode)
        except Exception as error:  # rclpy raises several kinds
            self.get_logger().warning(f'{topic.name}: a message of {len(data)} bytes is malformed and neither begins '
                                      f'nor ends an episode: {error}', throttle_duration_sec=5.0)
            return None

    def on_tick(self) -> None:
        """Flush and close bags, try again what failed, and say what happened."""
        self.recording.tick(*self.now())
        self.say()

    def say(self) -> None:
        """Log which bags are done or given up, what cannot be recorded, and that it can again."""
        recording = self.recording
        while recording.finished:
            self.get_logger().info(f'bag written: {recording.finished.pop(0)}')
        while recording.abandoned:
            folder, why, kept = recording.abandoned.pop(0)
            self.get_logger().error(f'{folder} was given up: {why}. ' + (
                'What was flushed before is in it.' if kept else 'Nothing is left of it.'))
        for name, reason in recording.refused.items():
            self.report(name, f'{name} is not recorded: {reason}')
        if recording.trouble != self.trouble:
            self.trouble = recording.trouble
            if self.trouble:
                self.get_logger().error(f'NOT RECORDING: {self.trouble}. The robot goes on; writing is tried again '
                                        'every second')
            else:
                self.get_logger().info('recording again' if recording.writer else 'the unrecorded episode is over')
            self.diagnose()

    def diagnose(self) -> None:
        """Say on /diagnostics whether everything that should be is being recorded."""
        room, writer = self.recording.room(), self.recording.writer
        level, message = DiagnosticStatus.OK, 'recording' if writer else 'waiting for an episode'
        if self.trouble:
            level, message = DiagnosticStatus.ERROR, f'NOT RECORDING: {self.trouble}'
        elif room < LITTLE_ROOM:
            level, message = DiagnosticStatus.WARN, f'{message}; only {room / 1e6:.0f} MB are free'
        facts = {'folder': self.config.output_directory, 'free [MB]': f'{room / 1e6:.0f}',
                 'bag': str(writer.folder) if writer else '', 'messages in no bag': self.recording.missed}
        array = DiagnosticArray(status=[DiagnosticStatus(
            level=level, name=f'{self.get_fully_qualified_name()}: {STATUS}', message=message,
            values=[KeyValue(key=key, value=str(value)) for key, value in facts.items()])])
        array.header.stamp = self.get_clock().now().to_msg()
        self.diagnostics.publish(array)

    def report_missing(self) -> None:
        """Name wanted topics nobody publishes, once each."""
        for name in self.wanted:
            if self.sources.get(name) not in self.topics:
                self.report(name, f'{name} is not recorded: nobody publishes it')

    def report(self, key: str, text: str) -> None:
        """Warn once."""
        if key not in self.reported:
            self.reported.add(key)
            self.get_logger().warning(text)

    def close(self) -> None:
        """Finish the bag before the node goes."""
        self.recording.close()
        self.say()


def main() -> None:
    """Run the node."""
    node_main.run(RecorderNode, events=True)
