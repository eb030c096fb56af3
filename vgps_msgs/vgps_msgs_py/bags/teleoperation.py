"""What a robot did in a recording that this project did not make, in steps of exactly 0.2 s.

Motions are differences between reached poses, BridgeData's relabelling: joint states at whatever rate are interpolated
to 5 Hz, so that nothing of the motion is lost, or recorded commands are put together over 0.2 s. Where the recording
is not continuous (a clock set back, stamps of 0, readings of zero, jumps that no joint makes) it is cut, and what was
left out is counted.
"""

import re
from collections import Counter, defaultdict
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from vgps_msgs_py import stamps
from vgps_msgs_py.bags.reader import JOINT_STATE, Bag
from vgps_msgs_py.bags.storage import BagError
from vgps_msgs_py.robot_state import euler_from_rotation, rotation_from_euler

PERIOD = 200_000_000           # [ns] BridgeData's 5 Hz
GAP = 450_000_000              # [ns] longer without a reading: nothing is interpolated across
FRAME_AGE = 300_000_000        # [ns] an older frame does not show where a step began
SHUFFLED = 60_000_000          # [ns] a stamp so little older came in another order; the clock was not set back
CLOCKS = 500_000_000           # [ns] between camera and joints: more is two clocks, not a delay
SLOW = 150_000_000             # [ns] likewise: what a camera over a network takes
DRIFT = 150_000_000            # [ns] by which their delay may change from one quarter of a recording to another
JOINT_SPEED, JOINT_SLACK = 8.0, 0.3  # [rad/s], [rad] between two readings: more is no motion of this arm
FINGER, FINGER_RANGE = 'left_finger', (0.010, 0.035)  # [m] closed, open: the BridgeData robots' finger travel
FINGER_FURTHEST, FINGER_LEAST = 0.06, -0.005  # [m] no reading of this gripper is larger, or further below zero
ALONE, ALONE_SPEED = 0.05, 4.0  # [rad], [rad/s]: a reading off both of its neighbours by more was not measured
SHAKE, SHARE = 0.02, 0.2       # [rad], of the readings: so many that leap to and fro are those of two arms
ACCELERATION = 30.0            # [rad/s^2] more than these joints have
MODEL = re.compile(r'(?<![a-z0-9])(?:[prvw]x[0-9]{3}s?)(?![a-z0-9])')  # Interbotix's, as their driver names topics
TURNED = 7.0                   # [rad] no joint of an arm has turned further


@dataclass(frozen=True)
class Motion:
    """One step of 0.2 s."""

    stamp: int           # of the newest frame at its beginning [ns]
    arrival: int         # of that frame in the recording; stamps may repeat
    time: int            # its beginning [ns], on the recording's clock
    part: int            # which continuous part of the recording it belongs to
    action: np.ndarray   # (7,) float32: motion in metres and radians about the base axes, openness at its end
    pose: np.ndarray | None      # (4, 4) of the gripper at its beginning, None from commands
    openness: float      # at its beginning; NaN from commands


@dataclass(frozen=True)
class Part:
    """A continuous part of the joint states."""

    clock: int               # how often the stamps had gone back before it
    times: np.ndarray        # (n,) int64 [ns], ascending
    positions: np.ndarray    # (n, joints) rad
    openness: np.ndarray     # (n,)


def from_joint_states(bag: Bag, arm: Any, camera: str | None = None, topic: str | None = None
                      ) -> tuple[list[Motion], list[str]]:
    """Return (motions, what was left out). ``arm`` has ``joint_names`` and ``forward(positions)`` -> (4, 4) pose.

    Raises:
        BagError: no joint states of this arm, several arms or cameras and no choice, readings below 4 Hz, or a camera
            whose clock is not that of the joints.

    """
    left_out: Counter[str] = Counter()
    topic = joint_topic(bag, arm.joint_names, topic)
    other = next((name for name in MODEL.findall(topic) if name != getattr(arm, 'model', name)), None)
    if other:  # its joints have the same names and its links other lengths
        raise BagError(f'{bag.path}: {topic} names another arm, {other}, than {arm.model}, whose links would be taken')
    parts, backs, delays = _parts(bag, arm.joint_names, topic, left_out)
    frames = _Frames(bag, camera, backs, delays, left_out)
    motions = []
    for number, part in enumerate(parts):
        grid = np.arange(part.times[0], part.times[-1] + 1, PERIOD)
        seconds, known = (grid - part.times[0]) * 1e-9, (part.times - part.times[0]) * 1e-9
        positions = np.stack([np.interp(seconds, known, joint) for joint in part.positions.T], 1)
        openness = np.interp(seconds, known, part.openness)
        poses = [np.asarray(arm.forward(p)) for p in positions]
        for i, moment in enumerate(grid[:-1].tolist()):
            frame = frames.at(moment, part.clock)
            if frame is None:
                left_out['steps without a camera frame'] += 1
                continue
            motions.append(Motion(*frame, moment, number, difference(poses[i], poses[i + 1], openness[i + 1]), poses[i],
                                  float(openness[i])))
    if not motions:
        raise BagError(f'{bag.path}: no camera frame belongs to the joint states; {_told(left_out)}')
    return motions, [f'{text}: {count}' for text, count in left_out.items()]


def from_commands(bag: Bag, camera: str | None = None, topic: str | None = None) -> tuple[list[Motion], list[str]]:
    """Return (motions, what was left out) of recorded EndEffectorCommands; faster ones are put together over 0.2 s.

    Raises:
        BagError: no such commands, or a camera or a robot that has to be chosen.

    """
    left_out: Counter[str] = Counter()
    frames = _Frames(bag, camera, np.zeros(0, np.int64), {}, left_out)
    commands = bag.of_type('EndEffectorCommand')
    robots = sorted({name for *_, name in commands})
    if topic:
        robots = _chosen(robots, topic) or robots[:0]
    if len(robots) > 1 or (topic and not robots):
        raise BagError(f'{bag.path} has commands of several robots; choose the one that the camera shows with '
                       f'--joint-topic: {", ".join(sorted({name for *_, name in commands}))}')
    sent = [m for _, m, name in commands if m.kind == 0 and name in robots]
    # merged recordings hold a message twice; put together over 0.2 s it would move the hand twice
    once = {(m.episode_id, m.step, stamps.nanoseconds(m.header.stamp), bytes(np.asarray(m.action))): m for m in sent}
    left_out['commands recorded twice'] += len(sent) - len(once)
    given = sorted(((stamps.nanoseconds(m.header.stamp), np.asarray(m.action, np.float64)) for m in once.values()),
                   key=lambda item: item[0])
    finite = [(moment, action) for moment, action in given if moment and np.isfinite(action).all()]
    left_out['commands without a stamp or with NaN'] += len(given) - len(finite)
    if not finite:
        raise BagError(f'{bag.path} holds no EndEffectorCommand; topics: {", ".join(sorted(bag.counts))}')
    motions, part, at = [], 0, 0
    usual = float(np.median(np.diff([moment for moment, _ in finite]))) if len(finite) > 1 else PERIOD
    single = usual > 0.75 * PERIOD  # one command a step, as this project records them
    while at < len(finite):
        begin = finite[at][0]
        stop = at + 1
        while not single and stop < len(finite) and finite[stop][0] < begin + PERIOD - usual / 2:
            stop += 1
        group, at = [action for _, action in finite[at:stop]], stop
        frame = frames.at(begin, 0)
        if frame is None:
            left_out['steps without a camera frame'] += 1
        else:
            action = group[0] if len(group) == 1 else np.concatenate(
                [np.sum([a[:3] for a in group], 0), euler_from_rotation(_turns(group)), group[-1][6:]])
            motions.append(Motion(*frame, begin, part, action.astype(np.float32), None, float('nan')))
        if at < len(finite) and finite[at][0] - finite[at - 1][0] > max(GAP, 2 * usual):
            part += 1
    if not motions:
        raise BagError(f'{bag.path}: no camera frame before the first command')
    return motions, [f'{text}: {count}' for text, count in left_out.items() if count]


def joint_topic(bag: Bag, names: tuple[str, ...], topic: str | None = None) -> str:
    """Return the topic of the arm's joint states; raises BagError where there is none, or several and no choice."""
    found = sorted({name for _, message, name in bag.messages.get(JOINT_STATE, ()) if set(names) <= set(message.name)})
    if topic:
        chosen = _chosen(found, topic)
        if len(chosen) != 1:
            raise BagError(f'{bag.path} has no joint states {topic} of this arm; topics: {", ".join(found) or "none"}')
        return chosen[0]
    if not found:
        raise BagError(f'{bag.path} holds neither EndEffectorCommand nor joint states of this arm '
                       f'({", ".join(names)}); topics: {", ".join(sorted(bag.counts))}')
    if len(found) > 1:
        raise BagError(f'{bag.path} has joint states of several arms; choose the one that the camera shows with '
                       f'--joint-topic: {", ".join(found)}')
    return found[0]


def _chosen(found: list[str], topic: str) -> list[str]:
    return [n for n in found if n == topic] or [n for n in found if f'/{topic.strip("/")}/' in f'{n}/']


def difference(before: np.ndarray, after: np.ndarray, openness: float) -> np.ndarray:
    """Return the action (7,) float32 that leads from one (4, 4) pose to the next; rotation about the base axes."""
    return np.concatenate([after[:3, 3] - before[:3, 3], euler_from_rotation(after[:3, :3] @ before[:3, :3].T),
                           [openness]]).astype(np.float32)


def _turns(actions: list[np.ndarray]) -> np.ndarray:
    """Return the (3, 3) rotation of actions made one after the other."""
    total = np.eye(3)
    for _, _, _, roll, pitch, yaw, _ in actions:
        total = rotation_from_euler(roll, pitch, yaw) @ total
    return total


def _parts(bag: Bag, names: tuple[str, ...], topic: str, left_out: Counter[str]
           ) -> tuple[list[Part], np.ndarray, dict[int, np.ndarray]]:
    """Return (continuous parts, arrivals at which the stamps went back, (n, 2) receipts and delays by clock [ns])."""
    readings: list[tuple[int, int, np.ndarray, float]] = []
    backs, delays = list[int](), defaultdict[int, list[tuple[int, int]]](list)
    clock, previous, shuffled = 0, 0, list[int]()
    # an arm that stands at zero reads zero; among other readings, zero or -pi throughout is a bus that did not answer
    elsewhere = any(np.ptp([p for n, p in zip(m.name, m.position) if n in names] or [0.0]) > 0
                    for _, m, name in bag.messages[JOINT_STATE] if name == topic)
    for arrival, (received, message, name) in zip(bag.arrivals[JOINT_STATE], bag.messages[JOINT_STATE]):
        if name != topic or not set(names) <= set(message.name):
            continue
        if len(message.position) != len(message.name) or len(set(message.name)) < len(message.name):
            left_out['joint states that name a joint twice, or whose positions do not match the names'] += 1
            continue
        position = dict(zip(message.name, message.position))
        if FINGER not in position:
            raise BagError(f'{bag.path}: {topic} has no joint {FINGER}, so whether the gripper is open is unknown')
        joints, moment = np.array([position[n] for n in names]), stamps.nanoseconds(message.header.stamp)
        if moment <= 0:
            left_out['joint states stamped 0'] += 1
        elif not np.isfinite([*joints, position[FINGER]]).all():
            left_out['joint states with NaN'] += 1
        elif elsewhere and np.ptp(joints) == 0:
            left_out['joint states in which all joints have the same value'] += 1
        else:
            if readings and moment < previous - SHUFFLED:
                clock += 1
                backs.append(arrival)
                left_out[f'times the stamps went back, by {(previous - moment) * 1e-9:.1f} s'] += 1
                previous = moment
            elif readings and moment < previous:
                shuffled.append(previous - moment)
            previous = max(previous, moment)
            delays[clock].append((received, received - moment))
            readings.append((clock, moment, joints, position[FINGER]))
    if shuffled:
        left_out[f'joint states stamped up to {max(shuffled) * 1e-9:.3f} s before an earlier one, put in order'] += len(
            shuffled)
    readings.sort(key=lambda reading: reading[:2])  # stable: of equal stamps the first counts
    fresh = [True, *((one[:2] != after[:2]) for one, after in pairwise(readings))]
    if repeated := fresh.count(False):
        left_out['joint states with the stamp of another one'] += repeated
    readings = [reading for reading, new in zip(readings, fresh) if new]
    readings = _measured(readings, f'{bag.path}: {topic}', left_out)
    if len(readings) < 2:
        raise BagError(f'{bag.path}: {topic} holds {len(readings)} usable joint states; {_told(left_out)}')
    clocks, times = np.array([r[0] for r in readings]), np.array([r[1] for r in readings], np.int64)
    joints = np.stack([r[2] for r in readings])
    fingers, (low, high) = np.array([r[3] for r in readings]), FINGER_RANGE
    if not fingers.any():
        raise BagError(f'{bag.path}: {FINGER} of {topic} reads 0 throughout, which this gripper cannot read '
                       f'({low:g} closed, {high:g} open): whether it is open is unknown')
    if fingers.min() < FINGER_LEAST or fingers.max() > FINGER_FURTHEST:
        raise BagError(f'{bag.path}: {FINGER} of {topic} reads {fingers.min():.3g} to {fingers.max():.3g}, which is '
                       f'not finger travel in metres ({low:g} closed, {high:g} open)')
    if (most := np.abs(joints).max()) > TURNED:
        raise BagError(f'{bag.path}: {topic} reads joints of up to {most:.3g}, which are not radians (degrees?)')
    openness = np.clip((fingers - low) / (high - low), 0, 1)
    steps = np.diff(times)
    usual = float(np.median(steps[np.diff(clocks) == 0])) if (np.diff(clocks) == 0).any() else np.inf
    if usual > PERIOD * 1.25:
        raise BagError(f'{bag.path}: {topic} comes every {usual * 1e-9:.2f} s; steps of 0.2 s need joint states '
                       'at 4 Hz or more')
    same, gaps = np.diff(clocks) == 0, steps > GAP
    jumps = np.abs(np.diff(joints, axis=0)).max(1) > np.maximum(JOINT_SLACK, JOINT_SPEED * steps * 1e-9)
    for text, where in (('gaps in the joint states', same & gaps), ('jumps of a joint', same & ~gaps & jumps)):
        if where.any():
            left_out[text] += int(where.sum())
    cuts = np.flatnonzero(~same | gaps | jumps) + 1
    parts = [Part(int(clocks[p[0]]), times[p], joints[p], openness[p]) for p in np.split(np.arange(len(times)), cuts)
             if len(p) > 1 and times[p[-1]] - times[p[0]] >= PERIOD]
    return parts, np.array(backs, np.int64), {number: np.array(of) for number, of in delays.items()}


def _measured(readings: list[tuple[int, int, np.ndarray, float]], where: str, left_out: Counter[str]
              ) -> list[tuple[int, int, np.ndarray, float]]:
    """Return the readings without single ones that no arm can have made; raises BagError where two arms alternate."""
    if len(readings) < 8:
        return readings
    joints, clocks = np.stack([r[2] for r in readings]), np.array([r[0] for r in readings])
    seconds = np.diff([r[1] for r in readings]) * 1e-9
    steps, within = np.diff(joints, axis=0), np.diff(clocks) == 0
    dt, fits = np.minimum(seconds[:-1], seconds[1:])[:, None], (within[:-1] & within[1:])[:, None]
    bends = (np.abs(np.diff(steps, axis=0)) > SHAKE + ACCELERATION * np.maximum(dt, 1e-3)**2) & fits & (
        steps[:-1] * steps[1:] < 0)
    if (share := bends.any(1).mean()) > SHARE:
        raise BagError(f'{where} jumps back and forth in {share:.0%} of its readings: two arms seem to publish to it')
    far = np.maximum(ALONE, ALONE_SPEED * dt)
    alone = np.flatnonzero((bends & (np.abs(steps[:-1]) > far) & (np.abs(steps[1:]) > far)).any(1)) + 1
    if len(alone):
        left_out['joint states far from both of their neighbours'] += len(alone)
    spikes = set(alone.tolist())
    return [reading for i, reading in enumerate(readings) if i not in spikes]


class _Frames:
    """Which frame was the newest at a moment."""

    def __init__(self, bag: Bag, camera: str | None, backs: np.ndarray, delays: dict[int, np.ndarray],
                 left_out: Counter[str]):
        topic = bag.image_topic(camera)
        moments, arrivals = np.array(bag.image_stamps[topic], np.int64), np.array(bag.arrivals[topic], np.int64)
        clocks, received = np.searchsorted(backs, arrivals), np.array(bag.image_received[topic], np.int64)
        self._by_clock = {}
        for clock in np.unique(clocks):
            here = np.flatnonzero((clocks == clock) & (moments > 0))
            late = np.median(delays[clock][:, 1]) if clock in delays else np.nan
            if len(here) and abs(apart := float(np.median(received[here] - moments[here]) - late)) > CLOCKS:
                raise BagError(f'{bag.path}: the stamps of {topic} are {abs(apart) * 1e-9:.1f} s '
                               f'{"behind" if apart > 0 else "ahead of"} those of the joints: they have different '
                               'clocks, so frames cannot be matched with motions')
            if len(here) and SLOW < abs(apart) <= CLOCKS:
                told = 'later' if apart > 0 else 'earlier'
                left_out[f'frames that arrive {abs(apart) * 1e-9:.2f} s {told} after their stamps than joint states '
                         'do: a slow camera, or another clock?'] += len(here)
            if clock in delays and (drift := _drift(received[here], moments[here], delays[clock])) > DRIFT:
                raise BagError(f'{bag.path}: the stamps of {topic} drift by {drift * 1e-9:.2f} s against those of the '
                               'joints: they have different clocks, so frames cannot be matched with motions')
            # a frame of before the clock was set back may come after: it is newer than all that follow
            ordered = here[moments[here] <= np.minimum.accumulate(moments[here][::-1])[::-1]] if len(here) else here
            left_out['frames out of the order of their stamps'] += len(here) - len(ordered)
            self._by_clock[int(clock)] = (moments[ordered], arrivals[ordered])
        left_out['frames stamped 0'] += int((moments <= 0).sum())
        for text in [t for t, count in left_out.items() if not count]:
            del left_out[text]
        if not (moments > 0).any():
            raise BagError(f'{bag.path}: no frame of {topic} carries a stamp')

    def at(self, moment: int, clock: int) -> tuple[int, int] | None:
        """Return (stamp, arrival) of the newest frame at a moment, None where it is too old."""
        moments, arrivals = self._by_clock.get(clock, (np.zeros(0, np.int64),) * 2)
        index = int(np.searchsorted(moments, moment, side='right')) - 1
        if index < 0 or moment - moments[index] > FRAME_AGE:
            return None
        return int(moments[index]), int(arrivals[index])


def _drift(received: np.ndarray, moments: np.ndarray, joints: np.ndarray) -> float:
    """Return by how much the delay of frames against joint states (n, 2) changes between quarters [ns]."""
    apart = []
    for part in np.array_split(np.arange(len(received)), 4):
        if len(part) > 1:
            near = joints[(joints[:, 0] >= received[part[0]]) & (joints[:, 0] <= received[part[-1]]), 1]
            if len(near):
                apart.append(float(np.median(received[part] - moments[part]) - np.median(near)))
    return max(apart) - min(apart) if apart else 0.0


def _told(left_out: Counter[str]) -> str:
    return '; '.join(f'{text}: {count}' for text, count in left_out.items()) or 'nothing was left out'
