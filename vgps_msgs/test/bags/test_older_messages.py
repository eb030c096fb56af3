"""Recordings that are older than the installed messages and hold no definitions of their own are read all the same."""

from pathlib import Path

import numpy as np
import pytest
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from vgps_msgs_py.bags.message_types import MessageTypes

NAME = 'vgps_msgs/msg/SteeringDecision'
TEXT = (Path(__file__).parents[2] / 'msg' / 'SteeringDecision.msg').read_text(encoding='utf-8')


def decision_of_before():
    """Return the bytes of a decision as version 0.1 wrote it: up to `value_trend` and the stages, no outlook."""
    store = get_typestore(Stores.ROS2_HUMBLE)
    store.register(get_types_from_msg(TEXT[:TEXT.index('float32 success_chance')], NAME))
    header = store.types['std_msgs/msg/Header'](
        stamp=store.types['builtin_interfaces/msg/Time'](sec=5, nanosec=6), frame_id='camera')
    values = {'header': header, 'chosen': 1, 'action': np.zeros(7, np.float32), 'value': -3.5, 'stages': ['score'],
              'stage_milliseconds': np.array([2.0], np.float32), 'q_values': np.zeros(4, np.float32)}
    for name, (kind, argument) in store.fielddefs[NAME][1]:
        if name not in values:
            empty = np.zeros(0, np.float32) if kind.name == 'SEQUENCE' else '' if argument[0] == 'string' else 0
            values[name] = empty
    return bytes(store.serialize_cdr(store.types[NAME](**values), NAME))


def test_a_decision_without_the_outlook_s_fields_is_read():
    message = MessageTypes().deserialize(decision_of_before(), NAME)
    assert message.value == pytest.approx(-3.5) and message.stages == ['score'] and message.header.stamp.sec == 5
    assert not hasattr(message, 'success_chance')


def test_a_decision_that_was_cut_off_is_not_taken_for_an_older_one():
    with pytest.raises(ValueError, match='are not a'):
        MessageTypes().deserialize(decision_of_before()[:-12], NAME)
