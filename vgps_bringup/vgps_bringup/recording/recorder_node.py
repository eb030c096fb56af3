"""Record the wanted topics, serialised as they arrive, one bag per episode. See ``recording.py``.

On a machine with ``ros2 bag`` either may be used: the layout is the same.
"""

import importlib

from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.serialization import deserialize_message

from vgps_bringup.recording.recording import EPISODE_TYPE, RecorderConfig, Recording
from vgps_msgs.msg import Episode
from vgps_msgs_py import node_main, parameters
from vgps_msgs_py.bags.writer import Topic
from vgps_msgs_py.configuration import ConfigurationPublisher

GRAPH_PERIOD = 0.2  # s between looks at who publishes what
TICK_PERIOD = 0.1   # s
DEPTH = 100         # messages queued while a chunk is compressed


class RecorderNode(Node):
    """Subscribes to a topic once somebody publishes it, with the quality of service that is offered."""

    def __init__(self):
        super().__init__('recorder_node')
        self.config = parameters.declare(self, RecorderConfig, self.on_parameters)
        self.recording = Recording(self.config)
        self.topics: dict[str, Topic] = {}         # subscribed, by resolved name
        self.taps: dict[str, object] = {}          # their subscriptions
        self.reported: set[str] = set()
        self.announced = 0                         # how many of the finished bags
        ConfigurationPublisher(self, 'vgps_bringup').publish()
        self.create_timer(GRAPH_PERIOD, self.look_around)
        self.create_timer(TICK_PERIOD, self.on_tick)
        self.look_around()

    def now(self) -> int:
        """Return the node's clock in nanoseconds."""
        return self.get_clock().now().nanoseconds

    def on_parameters(self, config: RecorderConfig) -> None:
        """Take a new folder or new times; an open bag stays where it is."""
        self.config = self.recording.config = config

    def look_around(self) -> None:
        """Subscribe to wanted topics that have appeared or whose offered quality of service has changed."""
        for name in self.config.topics:
            name = self.resolve_topic_name(name)
            offers = self.get_publishers_info_by_topic(name)
            if not offers:
                continue
            profiles = [offer.qos_profile for offer in offers]
            topic = Topic(name, offers[0].topic_type,
                          reliable=all(p.reliability == ReliabilityPolicy.RELIABLE for p in profiles),
                          latched=all(p.durability == DurabilityPolicy.TRANSIENT_LOCAL for p in profiles))
            if self.topics.get(name) != topic:
                self.subscribe(topic)

    def subscribe(self, topic: Topic) -> None:
        """Record a topic from now on."""
        package, _, short = topic.type.split('/')
        try:
            message_class = getattr(importlib.import_module(f'{package}.msg'), short)
        except (ImportError, AttributeError):
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
        """Pass a message on; an Episode also opens and closes bags."""
        now = self.now()
        announced = deserialize_message(data, Episode) if topic.type == EPISODE_TYPE else None
        running = announced is not None and announced.outcome == Episode.RUNNING
        if running:
            self.recording.episode(announced.episode_id, True, now)
            self.report_missing()
        self.recording.message(topic, data, now)
        if announced is not None and not running:
            self.recording.episode(announced.episode_id, False, now)

    def on_tick(self) -> None:
        """Flush and close bags; say which ones are done."""
        self.recording.tick(self.now())
        self.announce_finished()
        for name, reason in self.recording.refused.items():
            self.report(name, f'{name} is not recorded: {reason}')

    def report_missing(self) -> None:
        """Name wanted topics nobody publishes, once each."""
        for name in map(self.resolve_topic_name, self.config.topics):
            if name not in self.topics:
                self.report(name, f'{name} is not recorded: nobody publishes it')

    def report(self, key: str, text: str) -> None:
        """Warn once."""
        if key not in self.reported:
            self.reported.add(key)
            self.get_logger().warning(text)

    def close(self) -> None:
        """Finish the bag before the node goes."""
        self.recording.close()
        self.announce_finished()

    def announce_finished(self) -> None:
        """Say which bags are done, once each."""
        for folder in self.recording.finished[self.announced:]:
            self.get_logger().info(f'bag written: {folder}')
        self.announced = len(self.recording.finished)


def main() -> None:
    """Run the node."""
    node_main.run(RecorderNode)
