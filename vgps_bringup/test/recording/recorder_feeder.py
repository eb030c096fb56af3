"""Feeds a recorder two episodes, with trouble in the first: ``recorder_feeder.py NAMESPACE WHAT FOLDER``."""

import array
import os
import shutil
import sys
import time

import numpy as np
import rclpy
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.executors import SingleThreadedExecutor
from rclpy.serialization import serialize_message
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import Image

from vgps_msgs.msg import Episode
from vgps_msgs_py import qos

NAMESPACE, WHAT, FOLDER = sys.argv[1:]
HEARD = []

rclpy.init()
node = rclpy.create_node('feeder', namespace=NAMESPACE)
executor = SingleThreadedExecutor()
executor.add_node(node)
images = node.create_publisher(Image, 'image_raw', 10)
episodes = node.create_publisher(Episode, 'episode', qos.LATCHED)
clock = node.create_publisher(Clock, '/clock', 10)
node.create_subscription(DiagnosticArray, '/diagnostics', lambda m: HEARD.extend(
    s.message for s in m.status if s.name == f'{NAMESPACE}/recorder_node: recording'), 10)
noise = array.array('B', np.random.default_rng(0).bytes(230_400))
origin, offset = time.monotonic(), 10_000.0


def frames(condition, what, at_least=1):
    """Publish frames until the condition holds."""
    limit = time.monotonic() + 30
    for i in range(10_000):
        now = offset + time.monotonic() - origin
        clock.publish(Clock(clock=Time(sec=int(now), nanosec=int(now % 1 * 1e9))))
        images.publish(Image(height=240, width=320, encoding='rgb8', step=960, data=noise))
        executor.spin_once(timeout_sec=0.05)
        if i >= at_least and condition():
            return
        if time.monotonic() > limit:
            sys.exit(f'{what} did not happen; heard {HEARD[-3:]}')


def heard(text):
    """Return a condition: the recorder says this from now on."""
    before = len(HEARD)
    return lambda: any(text in message for message in HEARD[before:])


frames(lambda: images.get_subscription_count() and episodes.get_subscription_count() and HEARD, 'the recorder')
episodes.publish(Episode(episode_id='odd', instruction='i', outcome=Episode.RUNNING))
frames(lambda: any(message == 'recording' or message.startswith('recording;') for message in HEARD), 'recording', 10)
if WHAT == 'no file may grow':
    frames(lambda: any('NOT RECORDING' in message for message in HEARD), 'a file of the largest size')
elif WHAT == 'the folder goes':
    shutil.rmtree(FOLDER)
    open(FOLDER, 'w').close()  # nor can it be made again
    frames(heard('NOT RECORDING'), 'the warning')
    os.unlink(FOLDER)
    frames(heard('recording'), 'recording again')
elif WHAT == 'the clock is set back':
    offset -= 3600.0
    frames(lambda: True, '', 40)
elif WHAT == 'malformed':
    good = serialize_message(Episode(episode_id='odd'))
    for data in (good[:5], good[:12] + b'\xff\xff\xff\x7f' + good[16:], b'', b'\xff' * 4 + good[4:],
                 b'\0\1\0\0' + b'\xff' * 400):
        episodes.publish(data)
        frames(lambda: True, '', 3)
episodes.publish(Episode(episode_id='odd', instruction='i', outcome=Episode.SUCCESS))
frames(heard('waiting for an episode'), 'the end of the bag')
episodes.publish(Episode(episode_id='next', instruction='i', outcome=Episode.RUNNING))
frames(heard('recording'), 'the next bag')
episodes.publish(Episode(episode_id='next', instruction='i', outcome=Episode.SUCCESS))
frames(heard('waiting for an episode'), 'the end of the next bag')
print(*dict.fromkeys(HEARD), sep='\n')
