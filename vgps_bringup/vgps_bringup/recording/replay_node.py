"""Play recorded episodes to the live critic, and compare what it chooses with what was chosen then.

    ros2 launch vgps_bringup replay.launch.py bag:=runs/EPISODE beta:=1.0

Frames, steps and candidates are published in the order of their stamps, not of the bag. After each step's candidates
the player waits for the decision, so a slow machine replays slowly, but not differently. Nothing is sent to an arm.
"""

import json
import pathlib
import threading
import time
from collections import Counter
from dataclasses import dataclass, field

from rclpy.node import Node
from rclpy.serialization import deserialize_message
from sensor_msgs.msg import Image

from vgps_bringup.recording.stamp_order import by_stamp
from vgps_msgs.msg import ActionCandidates, Episode, SteeringDecision, StepStarted
from vgps_msgs_py import images, node_main, parameters, qos, stamps
from vgps_msgs_py.bags.reader import IMAGE_TYPES, Bag, BagError, Frame
from vgps_msgs_py.bags.storage import BagStorage, RawMessage
from vgps_msgs_py.vocabulary import HEALTHY, SteeringReason as Reason

PLAYED = {f'vgps_msgs/msg/{kind.__name__}': (kind, topic, quality) for kind, topic, quality in (
    (Episode, 'episode', qos.LATCHED), (StepStarted, 'step_started', qos.EVENT),
    (ActionCandidates, 'candidates', qos.EVENT))}
DECISION_TIMEOUT = 20.0  # [s] a full-width critic on a busy CPU takes one
DISCOVERY_TIMEOUT = 60.0  # [s] until the critic is there, loaded


@dataclass(frozen=True)
class ReplayConfig:
    """What is played, and how fast."""

    bag: str = field(default='', metadata={'description': 'folder or file of a recording'})
    rate: float = field(default=1.0, metadata={
        'description': 'replay speed, relative to real time', 'range': (0.1, 100.0)})
    output_directory: str = field(default='', metadata={
        'description': 'folder for replay.json; empty: the result is only logged'})


class ReplayNode(Node):
    """Player and judge of agreement."""

    def __init__(self) -> None:
        super().__init__('replay_node')
        self.config = parameters.declare(self, ReplayConfig)
        self.finished = False
        try:
            self.bag = Bag(self.config.bag)
            self.image_topic = self.bag.image_topic()
        except BagError as error:
            raise parameters.ParameterError(f'bag: {error}') from error
        for problem in self.bag.problems:
            self.get_logger().warning(problem)
        self.recorded = {(e.episode_id, s.index): s.decision for e in self.bag.episodes for s in e.steps
                         if s.decision is not None}
        self.replayed: dict[tuple[str, int], SteeringDecision] = {}
        self.arrived = threading.Condition()
        self.senders = {name: self.create_publisher(kind, topic, quality)
                        for name, (kind, topic, quality) in PLAYED.items()}
        self.frames = self.create_publisher(Image, 'image_raw', qos.EVENT)
        self.create_subscription(SteeringDecision, 'replayed_decision', self.on_decision, qos.EVENT)
        self.stopping = threading.Event()
        self.player = threading.Thread(target=self.play)
        self.player.start()

    def close(self) -> None:
        """Stop playing."""
        self.stopping.set()
        self.player.join(timeout=5.0)

    def on_decision(self, message: SteeringDecision) -> None:
        """Keep a decision of the live critic."""
        with self.arrived:
            self.replayed[message.episode_id, message.step] = message
            self.arrived.notify_all()

    def play(self) -> None:
        """Publish the recording in the order of its stamps, at its pace."""
        try:
            if not self.wait_for_critic():
                self.get_logger().error('no critic listens to the candidates: nothing was played')
                return
            origin, started = None, time.monotonic()
            wanted = (raw for raw in BagStorage(self.config.bag).messages(self.bag.types)
                      if (raw.topic == self.image_topic if raw.type in IMAGE_TYPES else raw.type in PLAYED))
            for stamp, raw in by_stamp(wanted):
                if origin is None:
                    origin = stamp
                due = started + (stamp - origin) * 1e-9 / self.config.rate
                if self.stopping.wait(max(0.0, due - time.monotonic())):
                    return
                started += self.send(raw)  # waiting for the critic shifts the rest
            self.report()
        finally:
            self.finished = True

    def wait_for_critic(self) -> bool:
        """Wait until somebody listens to the frames and the candidates."""
        deadline = time.monotonic() + DISCOVERY_TIMEOUT
        listeners = [self.frames, *self.senders.values()]
        while not all(p.get_subscription_count() for p in listeners) or not self.count_publishers('replayed_decision'):
            if self.stopping.wait(0.1) or time.monotonic() > deadline:
                return False
        return True

    def send(self, raw: RawMessage) -> float:
        """Publish one message and return the seconds spent waiting for an answer to it."""
        if raw.type == 'sensor_msgs/msg/Image':
            self.frames.publish(deserialize_message(raw.data, Image))
        elif raw.type in IMAGE_TYPES:
            frame = Frame(0, raw.received, raw.type, raw.data, self.bag.types)
            try:
                picture = frame.image()
            except ValueError as error:  # as live: the critic will say that the frame is missing
                self.get_logger().warning(f'a recorded frame is not replayed: {error}')
                return 0.0
            message = self.bag.types.deserialize(raw.data, raw.type)
            image = Image()
            image.header.stamp.sec, image.header.stamp.nanosec = message.header.stamp.sec, message.header.stamp.nanosec
            self.frames.publish(images.to_message(picture, image.header))
        else:
            message = deserialize_message(raw.data, PLAYED[raw.type][0])
            self.senders[raw.type].publish(message)
            if isinstance(message, ActionCandidates):
                return self.wait_for_decision((message.episode_id, message.step))
        return 0.0

    def wait_for_decision(self, key: tuple[str, int]) -> float:
        """Wait for the live critic's decision and return how long it took [s]."""
        before = time.monotonic()
        with self.arrived:
            if not self.arrived.wait_for(lambda: key in self.replayed or self.stopping.is_set(), DECISION_TIMEOUT):
                self.get_logger().warning(f'no decision for step {key[1]} of {key[0]} within {DECISION_TIMEOUT:.0f} s')
        return time.monotonic() - before

    def report(self) -> None:
        """Say how often the choices agree, and write every step to replay.json."""
        both = sorted(self.recorded.keys() & self.replayed.keys())
        rows = [{'episode_id': key[0], 'step': key[1], 'stamp': stamps.nanoseconds(self.replayed[key].header.stamp),
                 'recorded': self.recorded[key].chosen, 'replayed': self.replayed[key].chosen,
                 'value': self.replayed[key].value, 'reason': self.replayed[key].message or 'steered',
                 'fallback': '' if self.replayed[key].reason in HEALTHY else Reason(self.replayed[key].reason).name,
                 'critic_hash': self.replayed[key].critic_hash} for key in both]
        same = sum(row['recorded'] == row['replayed'] for row in rows)
        lost = len(self.recorded.keys() - self.replayed.keys())
        fallbacks = Counter(row['fallback'] for row in rows if row['fallback'])
        named = ', '.join(f'{name} {count}' for name, count in fallbacks.most_common())
        self.get_logger().info(f'{same} of {len(rows)} choices are the recorded ones; '
                               + (f'{fallbacks.total()} are fallbacks ({named})' if named else 'none is a fallback')
                               + (f'; {lost} steps were not decided' if lost else ''))
        if self.config.output_directory:
            folder = pathlib.Path(self.config.output_directory)
            folder.mkdir(parents=True, exist_ok=True)
            (folder / 'replay.json').write_text(json.dumps(
                {'bag': self.config.bag, 'same': same, 'compared': len(rows), 'fallbacks': fallbacks,
                 'undecided': lost, 'steps': rows},
                indent=1))
            self.get_logger().info(f'every step: {folder / "replay.json"}')


def main() -> None:
    """Run the node."""
    node_main.run(ReplayNode)


if __name__ == '__main__':
    main()
