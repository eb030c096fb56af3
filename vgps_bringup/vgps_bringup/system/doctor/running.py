"""The running system: what was observed on its topics and what that says. No ROS import; doctor_node observes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from vgps_bringup.arm.kinematics import JOINT_LOWER, JOINT_NAMES, JOINT_UPPER, Kinematics
from vgps_bringup.system.doctor.findings import FAULT, OK, UNKNOWN, WARNING, Finding

NODES = ('policy_node', 'critic_node', 'widowx_node')
ONE_PUBLISHER = ('command', 'candidates', 'episode')
FRESH = 1.0  # [s] older images are refused by the controller's default
SLOWEST_CAMERA = 5.0  # [Hz] one frame per step
LONGEST_GAP = 0.5  # [s] between two frames: the controller holds after that
SLOWEST_JOINTS = 20.0  # [Hz] the controller calls readings stale after 0.25 s


@dataclass
class Camera:
    """Frames of one image topic during the observation."""

    stamps: list[float] = field(default_factory=list)  # [s] of their headers
    ages: list[float] = field(default_factory=list)  # [s] clock at reception minus stamp
    arrivals: list[float] = field(default_factory=list)  # [s] monotonic
    encoding: str = ''
    size: tuple[int, int] = (0, 0)  # width, height [pixels]
    first: np.ndarray | None = None  # (H, W, 3) uint8 RGB
    last: np.ndarray | None = None
    error: str = ''  # why a frame could not be converted


@dataclass
class Joints:
    """Joint states during the observation."""

    arrivals: list[float] = field(default_factory=list)  # [s] monotonic
    names: tuple[str, ...] = ()
    positions: tuple[float, ...] = ()  # the newest, rad
    efforts: int = 0  # how many of them, the newest
    publishers: int = 0


@dataclass
class Observed:
    """Everything seen of a system."""

    namespace: str
    seconds: float  # how long was looked
    nodes: list[str] = field(default_factory=list)  # names in the namespace; one name twice is two nodes
    publishers: dict[str, list[str]] = field(default_factory=dict)  # topic -> nodes that publish it
    camera_topic: str = ''  # that was listened to
    camera_offers: list[str] = field(default_factory=list)  # which of raw and compressed somebody publishes
    camera: Camera = field(default_factory=Camera)
    joints: Joints = field(default_factory=Joints)
    diagnostics: dict[str, tuple[int, str]] = field(default_factory=dict)  # name -> level, message
    models: dict[str, tuple[str, str]] = field(default_factory=dict)  # node -> model, hash
    min_height: float = -0.01  # [m] widowx_node's
    max_image_age: float = FRESH  # [s] widowx_node's
    dry_run: bool | None = None
    unreadable: Counter[str] = field(default_factory=Counter)  # what was wrong with messages -> how many


def nodes(seen: Observed) -> Iterable[Finding]:
    """Is every node there, once?"""
    missing = [name for name in NODES if name not in seen.nodes]
    twice = sorted({name for name in seen.nodes if seen.nodes.count(name) > 1})
    if missing:
        yield Finding(
            'nodes',
            FAULT,
            f'{", ".join(missing)} not in {seen.namespace}; there are: {", ".join(sorted(set(seen.nodes))) or "none"}',
            'start the system (ros2 launch, vgps-run), in this namespace and ROS_DOMAIN_ID',
        )
    if twice:
        yield Finding(
            'nodes', FAULT, f'{", ".join(twice)} runs twice in {seen.namespace}', 'stop one of the two systems'
        )
    if not missing and not twice:
        yield Finding('nodes', OK, f'{", ".join(NODES)} in {seen.namespace}')
    for topic in ONE_PUBLISHER:
        sources = seen.publishers.get(topic, [])
        if len(sources) > 1:
            yield Finding(
                topic,
                FAULT,
                f'{len(sources)} publishers: {", ".join(sources)}: the arm holds',
                'end the one that does not belong here',
            )


def _rate(arrivals: list[float]) -> float:
    return (
        (len(arrivals) - 1) / (arrivals[-1] - arrivals[0]) if len(arrivals) > 1 and arrivals[-1] > arrivals[0] else 0.0
    )


def _offer(seen: Observed) -> str:
    if seen.camera_topic in seen.camera_offers:
        return ' although it is published: quality of service, or a driver that hangs'
    others = ', '.join(seen.camera_offers)
    return f'; nobody publishes it, but {others} is there' if others else '; nobody publishes it, raw or compressed'


def camera(seen: Observed) -> Iterable[Finding]:
    """Does the camera send fresh, live pictures in colours that are understood?"""
    c, subject = seen.camera, f'camera {seen.camera_topic}'
    if not c.arrivals:
        yield Finding(
            subject,
            FAULT,
            f'no frame in {seen.seconds:.0f} s{_offer(seen)}',
            'is the camera driver running, and camera_topic:= its image topic?'
            if seen.camera_topic in seen.camera_offers or not seen.camera_offers
            else 'image_transport:=auto uses the topic that is published',
        )
        return
    rate, (width, height) = _rate(c.arrivals), c.size
    found = f'{rate:.1f} Hz, {width} x {height}, {c.encoding}'
    if c.error:
        yield Finding(subject, FAULT, f'{found}: {c.error}', 'choose another encoding in the camera driver')
        return
    yield Finding(
        subject,
        FAULT if rate < SLOWEST_CAMERA else OK,
        found,
        'a step needs a new frame every 0.2 s' if rate < SLOWEST_CAMERA else '',
    )
    gap = float(np.diff(c.arrivals).max(initial=0.0))
    if gap > LONGEST_GAP and rate >= SLOWEST_CAMERA:
        yield Finding(
            f'{subject}: gaps',
            WARNING,
            f'a gap of {gap:.1f} s between frames',
            'the arm holds in each: USB bandwidth, a busy machine, a network camera',
        )
    age = float(np.median(c.ages))
    if not all(c.stamps):
        yield Finding(f'{subject}: stamps', FAULT, 'zero', 'the driver must stamp its frames')
    elif len(c.stamps) > 2 and len(set(c.stamps)) == 1:
        yield Finding(
            f'{subject}: stamps', FAULT, 'the same on every frame', 'the driver repeats one frame: start it again'
        )
    elif age < -0.05:
        yield Finding(
            f'{subject}: stamps',
            FAULT,
            f'{-age:.2f} s in the future',
            "the camera's machine runs another clock: chrony",
        )
    elif age > seen.max_image_age:
        yield Finding(
            f'{subject}: stamps',
            FAULT,
            f'{age:.2f} s old on arrival, the controller accepts {seen.max_image_age} s',
            "the camera's machine runs another clock (chrony), or the network is slow",
        )
    else:
        yield Finding(f'{subject}: stamps', OK, f'{1e3 * age:.0f} ms old on arrival')
    yield _picture(subject, c)


def _picture(subject: str, c: Camera) -> Finding:
    """What the frames show: a lens cap, a frozen driver, no colours."""
    subject = f'{subject}: picture'
    if c.last is None or c.first is None:
        return Finding(subject, UNKNOWN, 'no frame was converted')
    last = c.last.astype(float)
    if last.std() < 2.0:
        return Finding(
            subject,
            FAULT,
            f'one colour all over (mean {last.mean():.0f} of 255)',
            'lens cap, exposure, or a driver without a camera',
        )
    if len(c.arrivals) > 2 and c.first is not c.last and np.array_equal(c.first, c.last):
        # sensor noise makes no two pictures of a camera equal; a simulated one that rests does
        return Finding(
            subject,
            WARNING,
            'the first and the last frame are identical to the bit',
            'a simulation at rest, or a frozen driver',
        )
    if np.abs(last - last.mean(axis=2, keepdims=True)).max() < 3:
        return Finding(subject, WARNING, 'grey: policy and critic were trained on colour images',
                       "the driver's encoding")
    return Finding(
        subject, OK, f'alive, mean {last.mean():.0f} of 255; check by eye that it is upright, sharp and of the scene'
    )


def joints(seen: Observed) -> Iterable[Finding]:
    """Are the readings of the arm complete, fast enough and possible, and is it somewhere sane?"""
    j = seen.joints
    if not j.arrivals:
        yield Finding(
            'joint states', FAULT, f'none in {seen.seconds:.0f} s', "the arm's driver: USB, power, its terminal"
        )
        return
    if j.publishers > 1:
        yield Finding(
            'joint states', FAULT, f'{j.publishers} publishers on one topic', 'one driver per arm: check robot_name'
        )
    rate = _rate(j.arrivals)
    if len(j.positions) < len(j.names) or len(set(j.names)) < len(j.names):
        yield Finding(
            'joint states',
            FAULT,
            f'{len(j.names)} names, of which {len(set(j.names))} differ, and {len(j.positions)} positions',
            "the arm's driver: one position per joint, each joint once",
        )
        return
    missing = [name for name in (*JOINT_NAMES, 'left_finger') if name not in j.names]
    if missing:
        yield Finding(
            'joint states',
            FAULT,
            f'{", ".join(missing)} missing: a servo that does not answer, or another model',
            'cables of these servos; robot_model',
        )
        return
    if rate < SLOWEST_JOINTS:
        yield Finding('joint states', FAULT, f'{rate:.0f} Hz', 'the driver publishes 100 Hz; is the USB bus shared?')
    else:
        yield Finding('joint states', OK, f'{rate:.0f} Hz')
    if j.efforts != len(j.names):
        yield Finding(
            'efforts',
            WARNING,
            f'{j.efforts} for {len(j.names)} joints: obstacles will not be felt, and the real arm holds',
            "right for a simulation; on the robot the driver's version, or require_efforts false (lab guide)",
        )
    q = np.array([j.positions[j.names.index(name)] for name in JOINT_NAMES])
    if not np.isfinite(q).all() or np.allclose(q, -np.pi, atol=0.01):
        yield Finding('arm', FAULT, 'readings are NaN or all at -pi: the bus could not be read', 'cables, power supply')
        return
    beyond = np.maximum(JOINT_LOWER - q, q - JOINT_UPPER)
    if (beyond > 0).any():
        text = ', '.join(f'{JOINT_NAMES[i]} by {beyond[i]:.3f} rad' for i in np.flatnonzero(beyond > 0))
        yield Finding('arm', WARNING, f'beyond a limit: {text}', 'lift the arm; ~/home brings it back slowly')
        return
    height = float(Kinematics().forward(q)[2, 3])
    if height < seen.min_height:
        yield Finding(
            'arm',
            WARNING,
            f'gripper at {100 * height:.1f} cm, below min_height {100 * seen.min_height:.1f} cm',
            'lift it, or set min_height to your table (lab guide, section 4)',
        )
    else:
        yield Finding('arm', OK, f'inside its limits, gripper at {100 * height:.1f} cm')


def health(seen: Observed) -> Iterable[Finding]:
    """What the nodes themselves say."""
    for text, count in sorted(seen.unreadable.items()):
        yield Finding('messages', WARNING, f'{count} could not be read: {text}', 'who publishes them? vgps-topic list')
    for name, (level, message) in sorted(seen.diagnostics.items()):
        if level:
            yield Finding(name, FAULT if level >= 2 else WARNING, message or 'no reason given', "see that node's log")
    for node, (model, digest) in sorted(seen.models.items()):
        if model:
            yield Finding(f'{node}: model', OK, f'{model}{f", hash {digest[:12]}" if digest else ""}')
    if seen.dry_run is not None:
        yield Finding('dry run', OK, 'on: nothing moves' if seen.dry_run else 'OFF: the arm moves')


def judge(seen: Observed) -> Iterable[Finding]:
    """Yield every finding about a running system."""
    for part in (nodes, camera, joints, health):
        yield from part(seen)
