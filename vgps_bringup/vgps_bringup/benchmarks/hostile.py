"""Hostile messages: of the right type with values nobody should send, and bytes that are not a message. Seeded."""

import importlib
import re
import struct
import time

import numpy as np
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.serialization import serialize_message
from sensor_msgs.msg import CameraInfo, Image, JointState

from vgps_msgs.msg import (
    ActionCandidates,
    ControllerState,
    EndEffectorCommand,
    Episode,
    NodeConfiguration,
    SteeringDecision,
    StepStarted,
    TaskState,
)
from vgps_msgs_py import qos

BASE = 'wx250s/base_link'
FLOATS = (np.nan, np.inf, -np.inf, 3e38, -3e38, 1e-45, 0.0, -0.0, 1.0, -1.0, 0.01, 7.0)
INTEGERS = (0, 1, 2, 3, 127, 255, 2**15, 2**31 - 1, 2**31, 2**32 - 1, 2**63, 2**64 - 1, -1, -2**31, -2**63)
STRINGS = ('', 'e', '../../tmp/x', 'x' * 3000, 'epsilon ε 腕 \U0001f9be', 'a\nb', '<script>',
           '%s%n', "'; --", 'scene 9', BASE, 'nan')
SIZES = (0, 1, 2, 5, 6, 7, 8, 9, 16, 100, 700)
TOPICS = ((EndEffectorCommand, 'command', qos.EVENT), (ActionCandidates, 'candidates', qos.EVENT),
          (Episode, 'episode', qos.LATCHED), (JointState, 'joint_states', qos.EVENT),
          (CameraInfo, 'camera_info', qos.EVENT), (Image, 'image_raw', qos.EVENT),
          (ControllerState, 'controller_state', qos.EVENT), (SteeringDecision, 'decision', qos.EVENT),
          (StepStarted, 'step_started', qos.EVENT), (EndEffectorCommand, 'correction', qos.EVENT),
          (NodeConfiguration, 'configuration', qos.LATCHED_MANY), (TaskState, 'task_state', qos.EVENT),
          (DiagnosticArray, '/diagnostics', qos.EVENT))


def value(kind, rng):
    """Return a hostile value of a field's type, as `get_fields_and_field_types` writes it."""
    if match := re.fullmatch(r'sequence<(.+?)(?:, \d+)?>', kind):
        inner, size = match[1], int(rng.choice(SIZES))
        return [value(inner, rng) for _ in range(min(size, 3) if '/' in inner else size)]
    if match := re.fullmatch(r'(.+)\[(\d+)\]', kind):
        return [value(match[1], rng) for _ in range(int(match[2]))]
    if '/' in kind:
        package, name = kind.split('/')
        return message(getattr(importlib.import_module(f'{package}.msg'), name), rng)
    if kind in ('float', 'double', 'float32', 'float64'):
        return float(FLOATS[rng.integers(len(FLOATS))] if rng.random() < 0.7 else rng.normal())
    if kind.startswith('string'):
        return STRINGS[rng.integers(len(STRINGS))]
    if kind == 'boolean':
        return bool(rng.integers(2))
    if kind == 'octet':
        return bytes([int(rng.integers(256))])
    bits, signed = int(re.search(r'\d+', kind)[0]), not kind.startswith('u')
    low, high = (-2**(bits - 1), 2**(bits - 1) - 1) if signed else (0, 2**bits - 1)
    fitting = [number for number in INTEGERS if low <= number <= high]
    return fitting[rng.integers(len(fitting))]


def message(message_type, rng):
    """Return a message of `message_type` with a hostile value in every field."""
    result = message_type()
    for name, kind in message_type.get_fields_and_field_types().items():
        if kind == 'builtin_interfaces/Time':
            setattr(result, name, stamp(rng))
        else:
            setattr(result, name, value(kind, rng))
    return result


def stamp(rng):
    """Return now, a little ago, or a time far in the past or in the future."""
    moment = time.time() + float(rng.choice([0.0, -0.05, -1.0, 1.0, -3600.0, 3600.0, -1.7e9]))
    moment = min(max(moment, 0.0), 2.0**31 - 1) if rng.random() < 0.9 else 2.0**31 - 1
    return Time(sec=int(moment), nanosec=int(moment % 1 * 1e9))


def garbage(message_type, rng):
    """Return bytes that a publisher of `message_type` may put on the wire and that are no such message."""
    good = bytearray(serialize_message(message_type()))
    what = rng.integers(7)
    if what == 0:
        return bytes(good[:rng.integers(len(good))])
    if what == 1:
        return bytes(good[:4]) + b'\xff' * int(rng.integers(1, 400))
    if what == 2:
        return b'\xff\xff\xff\xff' + bytes(good[4:])
    if what == 3:
        return b''
    if what == 4:
        at = 4 + 4 * int(rng.integers(max(1, (len(good) - 4) // 4)))
        return bytes(good[:at]) + struct.pack('<I', 0x7fffffff) + bytes(good[at + 4:])
    if what == 5:
        return bytes(rng.integers(0, 256, int(rng.integers(5, 300)), np.uint8))
    for _ in range(int(rng.integers(1, 9))):
        good[rng.integers(4, len(good))] = rng.integers(256)
    return bytes(good)
