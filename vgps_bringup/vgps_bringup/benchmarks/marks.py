"""Run one node and note when each of its messages goes out and comes in, and when its models begin and end.

::

    python -m vgps_bringup.benchmarks.marks FILE EXECUTABLE --ros-args ...

The node's own code stays as it is: rclpy's publishing and subscribing and a few functions are wrapped from outside. A
mark is a line ``what where image_stamp time``, nanoseconds of the system's clock, which header stamps are of, too.
"""

import functools
import importlib
import os
import runpy
import sys
import time

# the functions whose begin and end are marked, by the last word of the executable
FUNCTIONS = {
    'simulation_node': (('vgps_bringup.simulation.rendering', 'GlRenderer.render', 'draw'),
                        ('vgps_bringup.simulation.rays', 'RayRenderer.render', 'draw')),
    'policy_node': (('vgps_policy_bridge.loop.session', 'PolicySession.propose', 'sample'),),
    'critic_node': (('vgps_critic.steering', 'Steerer.encode', 'encode'),
                    ('vgps_critic.steering', 'Steerer.score', 'score')),
    'widowx_node': (('vgps_bringup.arm.step_controller', 'StepController.step', 'guards'),),
}
BEGINS = ('step_started', 'candidates', 'command')  # messages that say which image a node works on


class Marks:
    """Appends marks to a file, one write each: a node that is killed has written all of them."""

    def __init__(self, path: str):
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self._topics: dict[int, str] = {}
        self._image = 0  # stamp [ns] of the image that is worked on

    def note(self, what: str, where: str, stamp: int | None = None) -> None:
        """Write one mark; without a stamp it belongs to the image that is worked on."""
        stamp = self._image if stamp is None else stamp
        os.write(self._file, f'{what} {where} {stamp} {time.time_ns()}\n'.encode())

    def message(self, what: str, topic: str, message) -> None:
        """Mark a message that has a header."""
        topic, header = topic.rsplit('/', 1)[-1], getattr(message, 'header', None)
        if header is None:
            return
        stamp = header.stamp.sec * 10**9 + header.stamp.nanosec
        if topic in BEGINS:
            self._image = stamp
        self.note(what, topic, None if topic == 'joint_command' else stamp)

    def wrap_rclpy(self) -> None:
        """Mark what every publisher sends and every subscription receives."""
        from rclpy.node import Node
        from rclpy.publisher import Publisher
        publish, subscribe = Publisher.publish, Node.create_subscription

        def marked_publish(publisher, message):
            topic = self._topics.get(id(publisher)) or self._topics.setdefault(id(publisher), publisher.topic_name)
            self.message('publish', topic, message)
            publish(publisher, message)

        def marked_subscribe(node, kind, topic, callback, *args, **options):
            if options.get('raw'):
                return subscribe(node, kind, topic, callback, *args, **options)

            def marked(message):
                self.message('receive', topic, message)
                return callback(message)
            return subscribe(node, kind, topic, marked, *args, **options)

        Publisher.publish, Node.create_subscription = marked_publish, marked_subscribe

    def wrap_function(self, module: str, name: str, label: str) -> None:
        """Mark begin and end of a method, given as ``Class.method``."""
        owner = importlib.import_module(module)
        *path, last = name.split('.')
        for part in path:
            owner = getattr(owner, part)
        function = getattr(owner, last)

        @functools.wraps(function)
        def marked(*args, **options):
            self.note('begin', label)
            try:
                return function(*args, **options)
            finally:
                self.note('end', label)

        setattr(owner, last, marked)


def main() -> None:
    """Run the node of the command line."""
    path, sys.argv = sys.argv[1], sys.argv[2:]
    marks = Marks(path)
    marks.wrap_rclpy()
    for function in FUNCTIONS.get(os.path.basename(sys.argv[0]), ()):
        marks.wrap_function(*function)
    runpy.run_path(sys.argv[0], run_name='__main__')


if __name__ == '__main__':
    main()
