"""Recordings made by other software (teleoperation, other policies): value of what was done, step by step.

Actions come from recorded commands, or from the joint states: BridgeData's relabelling, the difference between
reached states 0.2 s apart.
"""

from dataclasses import dataclass

import numpy as np

from vgps_bringup.arm import previous_target
from vgps_bringup.arm.kinematics import JOINT_NAMES, Kinematics
from vgps_bringup.rejudging.rejudge import ahead
from vgps_msgs_py import stamps
from vgps_msgs_py.bags.reader import Bag, Frame
from vgps_msgs_py.bags.storage import BagError

PERIOD = 200_000_000          # [ns] BridgeData's 5 Hz
FINGER_RANGE = (0.010, 0.035)  # [m] closed, open: the BridgeData robots' finger travel
FINGER = 'left_finger'


@dataclass(frozen=True)
class DoneAction:
    """What was done after a frame."""

    stamp: int           # of the frame [ns]
    action: np.ndarray   # (7,) float32 physical


@dataclass(frozen=True)
class ValuePoint:
    """Value of what was done."""

    stamp: int
    seconds: float       # since the first
    value: float         # ensemble minimum
    disagreement: float


def done_actions(bag: Bag, topic: str | None = None) -> list[DoneAction]:
    """Return the actions of a recording at 5 Hz, each with the newest frame before it.

    Raises:
        BagError: neither commands nor joint states of this arm.

    """
    frames = np.unique(bag.image_stamps[bag.image_topic(topic)])
    commands = [(stamps.nanoseconds(m.header.stamp), np.asarray(m.action, np.float32))
                for _, m, _ in bag.of_type('EndEffectorCommand') if m.kind == 0]
    pairs = commands or _from_joint_states(bag, frames)
    done = []
    for moment, action in pairs:
        earlier = np.searchsorted(frames, moment, side='right') - 1
        if earlier >= 0:
            done.append(DoneAction(int(frames[earlier]), action))
    if not done:
        raise BagError(f'{bag.path}: no camera frame before the first action')
    return done


def _from_joint_states(bag: Bag, frames: np.ndarray) -> list[tuple[int, np.ndarray]]:
    kinematics, moments, states = Kinematics(), [], []
    for _, message, _ in sorted(bag.messages.get('sensor_msgs/msg/JointState', []), key=lambda item: item[0]):
        names = list(message.name)
        if not set(JOINT_NAMES) <= set(names) or len(message.position) != len(names):
            continue
        moment = stamps.nanoseconds(message.header.stamp)
        if moments and moment < moments[-1] + PERIOD * 0.9:
            continue  # thinned to 5 Hz
        position = dict(zip(names, message.position))
        pose = kinematics.forward(np.array([position[name] for name in JOINT_NAMES]))
        low, high = FINGER_RANGE
        openness = np.clip((position.get(FINGER, high) - low) / (high - low), 0, 1)
        moments.append(moment)
        states.append((pose, float(openness)))
    if len(states) < 2:
        raise BagError(f'{bag.path} holds neither EndEffectorCommand nor joint states of this arm '
                       f'({", ".join(JOINT_NAMES)}); topics: {", ".join(sorted(bag.counts))}')
    return [(moment, _difference(before, after)) for moment, before, after in zip(moments, states, states[1:])]


def _difference(before: tuple, after: tuple) -> np.ndarray:
    """Return the action that leads from one reached state to the next; rotation about the base axes."""
    (a, _), (b, openness) = before, after
    euler = previous_target.euler_from_rotation(b[:3, :3] @ a[:3, :3].T)
    return np.concatenate([b[:3, 3] - a[:3, 3], euler, [openness]]).astype(np.float32)


def value_curve(bag: Bag, critic, instruction: str, topic: str | None = None) -> list[ValuePoint]:
    """Return the value of what was done over the recording.

    Raises:
        BagError: no images, actions or instruction.

    """
    if not instruction:
        raise BagError(f'{bag.path} names no instruction: give --instruction')
    by_stamp = {}
    for done in done_actions(bag, topic):
        by_stamp.setdefault(done.stamp, done)
    def judge(frame: Frame) -> tuple[int, np.ndarray]:
        try:
            image = frame.image()
        except ValueError as error:
            raise BagError(f'{bag.path}: frame {frame.stamp}: {error}') from error
        encoded = critic.encode(image, instruction)
        return frame.stamp, critic.score(encoded, by_stamp[frame.stamp].action[None])[:, 0]

    first = min(by_stamp)
    return [ValuePoint(stamp, (stamp - first) * 1e-9, float(q_values.min()), float(np.ptp(q_values)))
            for stamp, q_values in ahead(judge, bag.frames(topic, wanted=set(by_stamp)))]
