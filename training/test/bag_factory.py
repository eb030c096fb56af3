"""Write small recordings with the suite's topics, without ROS."""
from pathlib import Path

import numpy as np
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

MESSAGES = Path(__file__).resolve().parents[2] / 'vgps_msgs/msg'


def typestore():
    store = get_typestore(Stores.ROS2_HUMBLE)
    for name in ('Episode', 'EndEffectorCommand', 'NodeConfiguration'):
        store.register(get_types_from_msg((MESSAGES / f'{name}.msg').read_text(), f'vgps_msgs/msg/{name}'))
    return store


class BagFactory:
    """A recording under construction; times are nanoseconds."""

    def __init__(self, folder, storage=StoragePlugin.MCAP, namespace='/vgps'):
        self.store = typestore()
        self.types = self.store.types
        self.writer = Writer(folder, version=9, storage_plugin=storage)
        self.writer.open()
        self.namespace, self.connections, self.now = namespace, {}, 1_000_000_000

    def _send(self, topic, kind, message):
        if topic not in self.connections:
            self.connections[topic] = self.writer.add_connection(f'{self.namespace}/{topic}', kind,
                                                                 typestore=self.store)
        self.now += 1_000_000
        self.writer.write(self.connections[topic], self.now, self.store.serialize_cdr(message, kind))

    def _header(self, stamp):
        time = self.types['builtin_interfaces/msg/Time'](stamp // 10**9, stamp % 10**9)
        return self.types['std_msgs/msg/Header'](time, 'camera')

    def image(self, stamp, pixels, padding=4, topic='image_raw'):
        rows = np.zeros((pixels.shape[0], pixels.shape[1] * 3 + padding), np.uint8)
        rows[:, :pixels.shape[1] * 3] = pixels[..., ::-1].reshape(pixels.shape[0], -1)
        self._send(topic, 'sensor_msgs/msg/Image', self.types['sensor_msgs/msg/Image'](
            self._header(stamp), pixels.shape[0], pixels.shape[1], 'bgr8', 0, rows.shape[1], rows.reshape(-1)))

    def command(self, stamp, episode, step, action, kind=0):
        self._send('command', 'vgps_msgs/msg/EndEffectorCommand', self.types['vgps_msgs/msg/EndEffectorCommand'](
            self._header(stamp), episode, step, kind, np.asarray(action, np.float64), ''))

    def episode(self, name, instruction, outcome):
        self._send('episode', 'vgps_msgs/msg/Episode', self.types['vgps_msgs/msg/Episode'](
            self._header(self.now), name, instruction, '', 0, 60, outcome, ''))

    def configuration(self, node, parameters):
        self._send('configuration', 'vgps_msgs/msg/NodeConfiguration', self.types['vgps_msgs/msg/NodeConfiguration'](
            self._header(self.now), node, '', parameters, '', ''))

    def whole_episode(self, name, instruction, outcome, steps=6, size=32, seed=0, late_images=False):
        """Write an episode and return its images and actions."""
        random = np.random.default_rng(seed)
        images = random.integers(0, 256, (steps, size, size + 4, 3), dtype=np.uint8)
        actions = random.normal(0, 0.01, (steps, 7)).astype(np.float32)
        self.episode(name, instruction, 0)
        for step in range(steps):
            stamp = self.now + 500_000
            self.image(stamp - 33_000_000, np.zeros_like(images[0]))  # frames of other moments surround it
            if not late_images:
                self.image(stamp, images[step])
            self.command(stamp, name, step, actions[step])
            if late_images:
                self.image(stamp, images[step])
        self.episode(name, instruction, outcome)
        return images, actions

    def close(self):
        self.writer.close()
