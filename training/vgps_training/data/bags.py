"""Episodes in rosbag2 recordings of this suite (MCAP or sqlite3, any number of episodes per bag), without ROS.

A command carries the stamp of the frame it was chosen for, the episode and the step, so a transition is found by stamp
and never by arrival order. Topics are recognised by their last name, in any namespace: `image_raw` (or
`image_raw/compressed`), `command` (or `decision` where no command was recorded), `episode`; where there is a
`controller_state`, its last one before a frame is the robot's state at that frame.
"""
import bisect
import io
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image
from rosbags.highlevel import AnyReader
from rosbags.interfaces import Connection
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from vgps_training.data.episode import Episode, Malformed, check

RUNNING, SUCCESS, FAILURE, TIMEOUT = range(4)  # vgps_msgs/Episode.outcome; what follows was never judged
ACTION = 0                                     # vgps_msgs/EndEffectorCommand.kind
CHANNELS = {'rgb8': (3, (0, 1, 2)), 'bgr8': (3, (2, 1, 0)), 'rgba8': (4, (0, 1, 2)), 'bgra8': (4, (2, 1, 0)),
            'mono8': (1, (0, 0, 0))}
DOWN = np.array([[0, 0, 1], [0, 1, 0], [-1, 0, 0]])  # gripper straight down: BridgeData's angles are relative to it
FRAMES_KEPT = 150  # frames that no command asked for yet: 5 s of a 30 Hz camera


@dataclass
class _Recording:
    """An episode while its messages come in."""

    instruction: str = ''
    outcome: int = RUNNING
    commands: dict[int, tuple[int, np.ndarray]] = field(default_factory=dict)  # step -> (frame stamp, action)
    frames: dict[int, object] = field(default_factory=dict)                    # stamp -> message, None until it comes
    states: list[tuple[int, np.ndarray]] = field(default_factory=list)         # stamp -> (7,), of the whole recording


def is_bag(path: Path) -> bool:
    """Tell whether a folder is a rosbag2 recording."""
    return path.is_dir() and (path / 'metadata.yaml').exists()


def read(folder: Path) -> Iterator[Episode | Malformed]:
    """Yield the episodes of one recording, in the order they began."""
    try:
        with AnyReader([Path(folder)], default_typestore=_typestore()) as reader:
            topics = _topics(reader.connections)
            missing = [name for name in ('image', 'action', 'episode') if not topics[name]]
            if missing:
                yield Malformed(str(folder), f'no topic for {", ".join(missing)} in the recording')
                return
            yield from _episodes(reader, topics, str(folder))
    except Exception as error:  # a cut file makes the reader raise anything; the other recordings go on
        yield Malformed(str(folder), f'recording cannot be read: {type(error).__name__}: {error}')


def _typestore():
    """Return ROS 2's types and, where a ROS workspace is sourced, vgps_msgs' (Humble's sqlite3 bags hold none)."""
    store = get_typestore(Stores.ROS2_HUMBLE)
    for prefix in os.environ.get('AMENT_PREFIX_PATH', '').split(os.pathsep):
        for path in sorted(Path(prefix, 'share/vgps_msgs/msg').glob('*.msg')) if prefix else ():
            name = f'vgps_msgs/msg/{path.stem}'
            if name not in store.fielddefs:
                store.register(get_types_from_msg(path.read_text(), name))
    return store


def _topics(connections: list[Connection]) -> dict[str, list[Connection]]:
    def ending(*names: str) -> list[Connection]:
        for name in names:
            found = [c for c in connections if f'/{c.topic.lstrip("/")}'.endswith(f'/{name}')]
            if found:
                shortest = min((c.topic for c in found), key=len)  # /vgps/image_raw before /vgps/wrist/image_raw
                return [c for c in found if c.topic == shortest]
        return []
    return {'image': ending('image_raw', 'image_raw/compressed'), 'action': ending('command', 'decision'),
            'episode': ending('episode'), 'state': ending('controller_state')}


def _episodes(reader: AnyReader, topics: dict[str, list[Connection]], source: str) -> Iterator[Episode | Malformed]:
    recordings: dict[str, _Recording] = {}
    recent: dict[int, object] = {}
    states: list[tuple[int, np.ndarray]] = []
    image_topic = topics['image'][0].topic
    for connection, _, data in reader.messages(connections=[c for group in topics.values() for c in group]):
        message = reader.deserialize(data, connection.msgtype)
        stamp = message.header.stamp.sec * 10**9 + message.header.stamp.nanosec
        if connection.topic == image_topic:
            wanted = [r for r in recordings.values() if r.frames.get(stamp, 0) is None]
            for recording in wanted:
                recording.frames[stamp] = message
            if not wanted:
                recent[stamp] = message
                if len(recent) > FRAMES_KEPT:
                    recent.pop(next(iter(recent)))
            continue
        if connection in topics['state']:
            states.append((stamp, state7(message.measured_pose, message.gripper_position)))
            continue
        recording = recordings.setdefault(message.episode_id, _Recording(states=states))
        if connection in topics['episode']:
            recording.instruction, recording.outcome = message.instruction, message.outcome
            # a finished episode is complete once the next one starts: its last frame may arrive late
            for name in [n for n, r in recordings.items() if n != message.episode_id and r.outcome != RUNNING]:
                yield _finish(recordings.pop(name), f'{source}#{name}')
        elif getattr(message, 'kind', ACTION) == ACTION and getattr(message, 'chosen', 0) >= 0:
            recording.commands[message.step] = (stamp, np.asarray(message.action, np.float32))
            recording.frames.setdefault(stamp, recent.pop(stamp, None))
    for name, recording in recordings.items():
        yield _finish(recording, f'{source}#{name}')


def _finish(recording: _Recording, source: str) -> Episode | Malformed:
    steps = [recording.commands[step] for step in sorted(recording.commands)]
    if not steps:
        return Malformed(source, 'no action was recorded')
    messages = [recording.frames[stamp] for stamp, _ in steps]
    if any(message is None for message in messages):
        return Malformed(source, 'the frame of a command is missing')
    try:
        frames = [to_array(message) for message in messages]
    except (ValueError, OSError) as error:
        return Malformed(source, f'frame cannot be decoded: {error}')
    success = {SUCCESS: True, FAILURE: False, TIMEOUT: False}.get(recording.outcome)
    states = [_state_at(stamp, recording.states) for stamp, _ in steps]
    return check(Episode(frames, np.stack([action for _, action in steps]), recording.instruction, success, source,
                         None if any(state is None for state in states) else np.stack(states)))


def _state_at(stamp: int, states: list[tuple[int, np.ndarray]]) -> np.ndarray | None:
    index = bisect.bisect_right(states, stamp, key=lambda entry: entry[0])
    return states[index - 1][1] if index else None


def state7(pose: np.ndarray, openness: float) -> np.ndarray | None:
    """Return BridgeData's state (7,) float32, x y z [m], roll pitch yaw [rad], openness, of a row-major (16,) pose.

    None where the controller had not measured yet and sent zeros.
    """
    pose = np.asarray(pose, np.float64).reshape(4, 4)
    rotation = pose[:3, :3] @ DOWN.T
    if not np.isfinite(pose).all() or abs(np.linalg.det(rotation) - 1) > 1e-3:
        return None
    angles = (np.arctan2(rotation[2, 1], rotation[2, 2]), np.arcsin(np.clip(-rotation[2, 0], -1, 1)),
              np.arctan2(rotation[1, 0], rotation[0, 0]))
    return np.array([*pose[:3, 3], *angles, openness], np.float32)


def to_array(message) -> np.ndarray:
    """Return (H, W, 3) uint8 RGB of an Image or CompressedImage; raises ValueError for an unknown encoding."""
    if hasattr(message, 'format'):
        return np.asarray(Image.open(io.BytesIO(bytes(message.data))).convert('RGB'))
    if message.encoding not in CHANNELS:
        raise ValueError(f"image encoding '{message.encoding}' is not one of {', '.join(CHANNELS)}")
    channels, order = CHANNELS[message.encoding]
    rows = np.asarray(message.data, np.uint8).reshape(message.height, message.step)  # rows may be padded
    pixels = rows[:, :message.width * channels].reshape(message.height, message.width, channels)
    return np.ascontiguousarray(pixels[..., order])
