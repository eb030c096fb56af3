"""What the live critic chose is what judging its recording again chooses."""

import importlib
import os
import subprocess
import sys
import time

import numpy as np
import pytest
from evaluation_bags import Messages, episode_messages, topic

from vgps_bringup.rejudging.rejudge import Rejudge, agreement
from vgps_critic.critic import Critic
from vgps_msgs_py.bags.reader import Bag
from vgps_msgs_py.bags.writer import BagWriter

STAND_IN = {'num_filters': 8, 'image_size': 64}  # the live node's untrained critic


@pytest.mark.ros
def test_live_and_offline_choices_are_identical(tmp_path):
    """The live critic, in its own process, samples among the candidates; its bag is judged here."""
    messages = Messages()
    rclpy = pytest.importorskip('rclpy')
    from rclpy.executors import SingleThreadedExecutor
    from rclpy.serialization import deserialize_message, serialize_message

    from vgps_msgs.msg import SteeringDecision
    from vgps_msgs_py import qos
    context = rclpy.Context()
    rclpy.init(context=context)
    critic_node = subprocess.Popen(
        [sys.executable, '-c', 'from vgps_critic.critic_node import main; main()', '--ros-args', '-r', '__ns:=/vgps',
         '-p', 'critic:=untrained', '-p', 'beta:=0.5', '-p', 'deadline_ms:=10000.0', '-p', 'frame_wait_ms:=2000.0'],
        env={**os.environ, 'OMP_NUM_THREADS': '1'})
    try:
        executor = SingleThreadedExecutor(context=context)
        node = rclpy.create_node('player', context=context, namespace='vgps')
        executor.add_node(node)
        decisions, publishers = {}, {}
        node.create_subscription(SteeringDecision, 'decision', lambda m: decisions.update({m.step: m}), qos.EVENT)

        def wait(condition, seconds):
            limit = time.monotonic() + seconds
            while not condition() and time.monotonic() < limit:
                executor.spin_once(timeout_sec=0.1)
            assert condition()

        parts = [p for p in episode_messages(messages, steps=10)
                 if p[0].name.rpartition('/')[2] in ('episode', 'image_raw', 'step_started', 'candidates')]
        for where, _, _ in parts:
            if where.name not in publishers:
                package, _, short = where.type.split('/')
                kind = getattr(importlib.import_module(f'{package}.msg'), short)
                publishers[where.name] = kind, node.create_publisher(
                    kind, where.name, qos.LATCHED if where.latched else qos.EVENT)
        wait(lambda: all(p.get_subscription_count() for _, p in publishers.values())
             and node.count_publishers('/vgps/decision'), 60)
        settled = time.monotonic() + 1.0  # the readers know of the writers a little later than the writers of them
        wait(lambda: time.monotonic() > settled, 10)
        writer = BagWriter(tmp_path / 'live', messages.types)
        for where, message, received in parts:
            kind, publisher = publishers[where.name]
            data = messages.serialize(message)
            publisher.publish(deserialize_message(data, kind))
            writer.write(where, data, received)
            if where.name.endswith('candidates'):
                wait(lambda step=message.step: step in decisions, 30)
                writer.write(topic('decision', 'vgps_msgs/msg/SteeringDecision'),
                             bytes(serialize_message(decisions[message.step])), received + 1)
        writer.close()
    finally:
        critic_node.terminate()
        critic_node.wait(20)
        executor.shutdown()
        node.destroy_node()
        context.try_shutdown()
    live = Bag(tmp_path / 'live')
    rejudge = Rejudge({'a': Critic.untrained(**STAND_IN)}, betas=(0.0, 0.5))
    rows = [row for judged in rejudge.run(live, live.episodes[0]) for row in judged.judgements]
    same, compared = agreement(rows)  # what a busy machine made the live node miss cannot be compared
    assert same == compared >= 7
    assert len({r.chosen for r in rows if r.as_recorded}) > 1, 'the selection was sampled, not constant'
    recorded = {s.index: s.q_values for s in live.episodes[0].steps}
    # another process may split its sums over another number of threads: equal to rounding, not to the bit
    scored = [r for r in rows if r.as_recorded and recorded[r.step].size]
    np.testing.assert_allclose([r.executed_value for r in scored],
                               [recorded[r.step].min(axis=0)[r.executed] for r in scored], atol=1e-5)
