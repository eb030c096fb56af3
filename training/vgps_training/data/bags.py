"""Episodes of this suite's recordings (MCAP or sqlite3, any number of episodes per bag), without ROS.

A command carries the stamp of the frame it was chosen for, the episode and the step, so a transition is found by stamp
and never by arrival order. Where there is a `controller_state`, its last one before a frame is the robot's state then.
"""
import bisect
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np

from vgps_msgs_py import stamps
from vgps_msgs_py.bags.camera import one_frame, stood_still
from vgps_msgs_py.bags.reader import Bag, CameraError, EpisodeRecord, Frame
from vgps_msgs_py.bags.storage import SUFFIXES, BagError
from vgps_msgs_py.robot_state import measured_state
from vgps_training.data.checks import check
from vgps_training.data.episode import PLAIN, CameraChoiceError, DataError, Episode, Frames, Malformed, Reading

ACTION = 0                                     # vgps_msgs/EndEffectorCommand.kind
SUCCESS = {'success': True, 'failure': False, 'timeout': False}  # what else an episode ended with was never judged
AGE = 1_000_000_000  # [ns] an older state is not the one behind a frame
APART = 100_000_000  # [ns] half a step: a picture of a second camera further from the frame shows another moment


class RecordedFrames(Frames):
    """Frames of the recording, as they were sent."""

    def __init__(self, frames: list[Frame]):
        self.frames = frames

    def __len__(self) -> int:
        return len(self.frames)

    def since(self, step: int) -> 'RecordedFrames':
        """Return the frames from a step on."""
        return RecordedFrames(self.frames[step:])

    def __getitem__(self, index: int) -> np.ndarray:
        """Return (H, W, 3) uint8 RGB. Raises DataError where the bytes are no picture."""
        try:
            return self.frames[index].image()
        except ValueError as error:
            raise DataError(str(error)) from error


def is_bag(path: Path) -> bool:
    """Tell whether a folder is a rosbag2 recording, or what is left of one that lost its metadata.yaml."""
    if not path.is_dir() or (path / 'metadata.yaml').exists():
        return path.is_dir()
    inside = list(path.iterdir())
    return any(f.name.endswith(SUFFIXES) for f in inside) and not any(f.is_dir() for f in inside)


class _Beside:
    """A second camera of a recording: its pictures nearest to given moments, fetched as the recording is read on."""

    def __init__(self, bag: Bag, topic: str, moments: set[int]):
        self.topic, self._stamps = topic, np.unique(np.array(bag.image_stamps[topic], np.int64))
        self._left = Counter(stamp for moment in moments if (stamp := self._nearest(moment)) is not None)
        self._frames, self._have = bag.frames(topic, set(self._left)), dict[int, Frame]()

    def _nearest(self, moment: int) -> int | None:
        after = int(np.searchsorted(self._stamps, moment))
        near = min(self._stamps[max(after - 1, 0):after + 1].tolist(), key=lambda stamp: abs(stamp - moment))
        return near if abs(near - moment) <= APART else None

    def at(self, moments: list[int]) -> RecordedFrames:
        """Return one picture for each moment; raises DataError where there is none of that time."""
        stamps_ = [self._nearest(moment) for moment in moments]
        if None in stamps_:
            raise DataError(f'step {stamps_.index(None)} has no image of {self.topic} within {APART * 1e-9:g} s')
        while not self._have.keys() >= set(stamps_) and (frame := next(self._frames, None)) is not None:
            self._have.setdefault(frame.stamp, frame)
        found = RecordedFrames([self._have[stamp] for stamp in stamps_])
        self._left.subtract(stamps_)
        for stamp in {stamp for stamp in stamps_ if self._left[stamp] <= 0}:
            del self._have[stamp]
        return found


def read(folder: Path, reading: Reading = PLAIN, wrist: str | None = None) -> Iterator[Episode | Malformed]:
    """Yield the episodes of one recording, in the order of their last frames.

    `wrist` names the topic, or its end, of a second camera whose pictures are to go along; '' takes the one that the
    recording calls its wrist camera, if any.

    Raises CameraChoiceError where several cameras could be the one that was looked through.
    """
    try:
        bag = Bag(folder)
        if not bag.episodes:
            yield Malformed(str(folder), 'the recording holds no episode of this project; `vgps-data convert` turns '
                                         'teleoperation into episodes')
            return
        camera = bag.image_topic(reading.camera or None)
        yield from _episodes(bag, camera, reading, _second_camera(bag, wrist))
    except CameraError as error:
        raise CameraChoiceError(str(error), folder, error.cameras) from error
    except BagError as error:
        yield Malformed(str(folder), f'recording cannot be read: {error}')
    except (AttributeError, TypeError, ValueError, IndexError) as error:  # by its own definitions, which are damaged
        yield Malformed(str(folder), f'recording cannot be read: its messages have other fields ({error})')


def _second_camera(bag: Bag, wrist: str | None) -> str | None:
    """Return the topic that `read` means by `wrist`; raises BagError where it was asked for and is not there."""
    if wrist == '' and any(f'/{bag.wrist_topic}/' in f'{topic}/' for topic in bag.image_stamps if bag.wrist_topic):
        return bag.image_topic(bag.wrist_topic)
    return bag.image_topic(wrist) if wrist else None


def _episodes(bag: Bag, camera: str, reading: Reading, wrist: str | None) -> Iterator[Episode | Malformed]:
    states = _states(bag)
    problems = tuple(f'{bag.path.name}: {problem}' for problem in bag.problems)
    waiting, have = {}, {}  # episodes whose frames are to come; stamp -> frame, None where two are different
    commanded = bool(bag.of_type('EndEffectorCommand'))
    for episode in bag.episodes:
        steps, gaps = _actions(episode, commanded)
        if not steps:
            yield Malformed(f'{bag.path}#{episode.episode_id}', 'no action was recorded')
            continue
        if wrong := episode.contradiction or one_frame([stamp for stamp, _ in steps]):
            yield Malformed(f'{bag.path}#{episode.episode_id}', wrong)
            continue
        waiting[episode.episode_id] = (episode, steps, gaps, {stamp for stamp, _ in steps})
    asked = {stamp for *_, stamps_ in waiting.values() for stamp in stamps_}
    second = None if wrist in (None, camera) else _Beside(bag, wrist, asked)

    def finish(identity: str) -> Episode | Malformed:
        episode, steps, gaps, _ = waiting.pop(identity)
        source, found = f'{bag.path}#{identity}', [have.get(stamp, 'missing') for stamp, _ in steps]
        if 'missing' in found:
            return Malformed(source, f'the frame of a command is missing ({found.count("missing")} of {len(steps)})')
        if None in found:
            return Malformed(source, 'two different frames carry the stamp of a command')
        moments = [stamp for stamp, _ in steps]
        try:
            beside = () if second is None else ((second.topic, second.at(moments)),)
        except DataError as error:
            return Malformed(source, str(error))
        measured = [_state_at(moment, states) for moment in moments]
        without = sum(state is None for state in measured)
        old = (f'{without} of {len(moments)} steps have no state of the second before: states left out',) if (
            0 < without and states) else ()
        if stood := _stood(found, measured):
            return Malformed(source, stood)
        return check(Episode(RecordedFrames(found), np.stack([action for _, action in steps]), episode.instruction,
                             SUCCESS.get(episode.outcome), source,
                             None if without else np.stack(measured), camera,
                             notes=problems + gaps + old, extras=_candidates(episode, moments), beside=beside), reading)

    for frame in bag.frames(camera, asked):
        if frame.stamp in have:
            if have[frame.stamp] is not None and have[frame.stamp].data != frame.data:
                have[frame.stamp] = None
            continue
        have[frame.stamp] = frame
        for identity, (*_, wanted) in list(waiting.items()):
            # an episode is done once the next one has a frame: a second frame with its stamps would have come
            if frame.stamp not in wanted and wanted <= have.keys():
                yield finish(identity)
                for stamp in wanted.difference(*(other for *_, other in waiting.values())):
                    del have[stamp]
    for identity in list(waiting):
        yield finish(identity)


def _actions(episode: EpisodeRecord, commanded: bool) -> tuple[list[tuple[int, np.ndarray]], tuple[str, ...]]:
    """Return (stamp of the frame, action) of every step that moved, and notes; decisions where no command is recorded.

    Nothing leads from one step to another where the recording lacks what was done between them: the last part counts,
    for it has the outcome.
    """
    given = [(step.index, step.command if commanded else step.decision) for step in episode.steps]
    known = {index: message for index, message in given if message is not None}  # in the order of the steps
    moved = [i for i, m in known.items() if getattr(m, 'kind', ACTION) == ACTION and getattr(m, 'chosen', 0) >= 0]
    gaps = [(last, after) for last, after in pairwise(known) if after > last + 1 and moved[0] < after <= moved[-1]
            ] if moved else []
    begin, notes = 0, ()
    if gaps:
        last, begin = gaps[-1]
        notes = (f'the recording lacks what was done from step {last + 1} to {begin - 1}: the '
                 f'{sum(i < begin for i in moved)} steps before are left out',)
    with np.errstate(over='ignore'):  # infinity is refused by name
        return [(stamps.nanoseconds(known[i].header.stamp), np.asarray(known[i].action, np.float32))
                for i in moved if i >= begin], notes


def _stood(frames: list[Frame], states: list[np.ndarray | None]) -> str:
    """Return why the camera cannot have seen the hand move, or nothing: fresh stamps on one picture."""
    same = [one.data[12:] == after.data[12:] for one, after in pairwise(frames)]  # all behind the stamp
    return stood_still(same, np.array([np.full(3, np.nan) if s is None else s[:3] for s in states]))


def _candidates(episode: EpisodeRecord, moments: list[int]) -> tuple[tuple[str, np.ndarray], ...]:
    """Return the candidates' values (ensemble minimum) and which was chosen, where every step was decided alike."""
    decisions = {stamps.nanoseconds(s.decision.header.stamp): s for s in episode.steps if s.decision is not None}
    found = [decisions.get(moment) for moment in moments]
    count = max((step.decision.num_candidates for step in found if step is not None), default=0)
    if not count:
        return ()
    values, chosen = np.full((len(found), count), np.nan, np.float32), np.full(len(found), -1, np.int64)
    for row, step in enumerate(found):  # NaN where nothing was scored
        if step is not None:
            chosen[row] = step.decision.chosen
            if step.q_values is not None:
                values[row, :step.decision.num_candidates] = step.q_values.min(0)
    return (('steering.values', values), ('steering.chosen', chosen))


def _states(bag: Bag) -> list[tuple[int, np.ndarray | None]]:
    if len({topic for *_, topic in bag.of_type('ControllerState')}) > 1:
        return []  # of several arms: whose command a stamp belongs to is not written in them
    return sorted(((stamps.nanoseconds(m.header.stamp), measured_state(m.measured_pose, m.gripper_position))
                   for _, m, _ in bag.of_type('ControllerState')), key=lambda entry: entry[0])


def _state_at(stamp: int, states: list[tuple[int, np.ndarray]]) -> np.ndarray | None:
    index = bisect.bisect_right(states, stamp, key=lambda entry: entry[0])
    return states[index - 1][1] if index and stamp - states[index - 1][0] <= AGE else None
