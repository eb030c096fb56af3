"""A recording is replayed in the order of its stamps, in whatever order its recorder got the messages."""

import random
import struct

import pytest

from vgps_bringup.recording.stamp_order import HORIZON, by_stamp, stamp
from vgps_msgs_py.bags.storage import RawMessage

SECOND = 1_000_000_000
IMAGE, STEP, CANDIDATES = 'sensor_msgs/msg/Image', 'vgps_msgs/msg/StepStarted', 'vgps_msgs/msg/ActionCandidates'


def raw(kind, stamped, received, order='<'):
    header = b'\0' + (b'\1' if order == '<' else b'\0') + b'\0\0'
    return RawMessage('/' + kind, kind, received, header + struct.pack(order + 'iI', *divmod(stamped, SECOND)))


@pytest.mark.parametrize('order', ['<', '>'])
def test_the_stamp_is_read_in_either_byte_order(order):
    assert stamp(raw(IMAGE, 12 * SECOND + 34, 0, order)) == 12 * SECOND + 34


@pytest.mark.parametrize('seed', range(10))
def test_candidates_follow_their_frame_and_step_however_they_were_received(seed):
    random_number = random.Random(seed)
    messages = [raw(kind, step * SECOND // 5, step * SECOND // 5 + random_number.randrange(SECOND))
                for step in range(30) for kind in (IMAGE, STEP, CANDIDATES)]
    messages.sort(key=lambda message: message.received)
    played = list(by_stamp(messages))
    assert [at for at, _ in played] == sorted(at for at, _ in played)
    assert [message.type for _, message in played] == [IMAGE, STEP, CANDIDATES] * 30


def test_no_more_than_the_horizon_is_held_in_memory():
    taken = []

    def messages():
        for step in range(1000):
            taken.append(step)
            yield raw(IMAGE, step * SECOND, step * SECOND)

    for at, _ in by_stamp(messages()):
        assert taken[-1] * SECOND - at <= HORIZON + 2 * SECOND
