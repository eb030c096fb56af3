"""A recording as episodes of steps: frame, candidates, decision, command, controller. No ROS.

Messages are told apart by type, not by topic name: namespaces and remapping do not matter. Images are not kept.
"""

import re
import struct
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from vgps_msgs_py import images, stamps
from vgps_msgs_py.bags.message_types import MessageTypes, UnknownTypeError, contradiction, differ
from vgps_msgs_py.bags.storage import BagError, BagStorage, RawMessage
from vgps_msgs_py.vocabulary import ArmState, Outcome, words

IMAGE_TYPES = ('sensor_msgs/msg/Image', 'sensor_msgs/msg/CompressedImage')
JOINT_STATE = 'sensor_msgs/msg/JointState'
Parts = dict[tuple[str, int], dict[str, Any]]    # (episode, step) -> its messages by part
VIDEO = re.compile('(?i)ffmpeg|video|theora|image|jpeg')  # in the names of their types
OUT_OF_ORDER = 5_000_000_000  # ns that a recorder may write messages late


@dataclass(frozen=True)
class Step:
    """One control step; parts that were not recorded are None. Messages have ROS's field names, arrays are numpy."""

    index: int
    stamp: int                       # of the camera frame behind it [ns]
    instruction: str
    started: Any = None              # StepStarted
    candidates: Any = None
    decision: Any = None
    command: Any = None
    states: tuple[Any, ...] = ()     # ControllerState of this step, in order
    received: dict[str, int] = field(default_factory=dict)  # part -> when the recorder got it [ns]
    verdict: int | None = None       # ControllerState.reason of its command, 0 where it was carried out

    @property
    def actions(self) -> np.ndarray | None:
        """Candidates, ``(K, H, 7) float32`` physical, or None."""
        if self.candidates is None:
            return None
        return np.asarray(self.candidates.actions, np.float32).reshape(
            self.candidates.num_candidates, max(self.candidates.horizon, 1), 7)

    def finished_before(self, time: int) -> bool:
        """Tell whether the controller was done with the step's command by then [ns of receipt]."""
        return self.received.get('finished', time + 1) <= time

    @property
    def q_values(self) -> np.ndarray | None:
        """Values, ``(E, K) float32``, or None where nothing was scored."""
        if self.decision is None or len(self.decision.q_values) == 0:
            return None
        return np.asarray(self.decision.q_values, np.float32).reshape(-1, self.decision.num_candidates)


@dataclass(frozen=True)
class EpisodeRecord:
    """One run of one instruction."""

    episode_id: str
    instruction: str
    task: str
    seed: int
    outcome: str                     # an Outcome in words; 'running' where the recording ends first
    message: str
    started: int                     # [ns]
    ended: int                       # [ns]
    steps: tuple[Step, ...]
    task_states: tuple[Any, ...] = ()    # TaskState of a simulation
    contradiction: str = ''          # why its messages cannot all be of one run, which nothing should be learned from
    announced: tuple[int, int] | None = None  # policy_node's stamps of start and first outcome [ns]

    @property
    def duration(self) -> float:
        """Return seconds from start to outcome, as the action's result has them; a later correction adds nothing."""
        started, ended = self.announced or (self.started, self.ended)
        return (ended - started) * 1e-9

    @property
    def finished_steps(self) -> tuple[Step, ...]:
        """The steps that the arm was done with when the outcome came: what the action's result and every page count.

        A verdict may fall while one more step is decided or carried out: that one is in `steps` alone.
        """
        if self.outcome == 'timeout' or not any(step.states for step in self.steps):  # or no controller was recorded
            return self.steps
        return self.steps if self.steps[-1].finished_before(self.ended) else self.steps[:-1]

    @property
    def control_steps(self) -> int:
        """Return how many steps the arm finished, as the action's result has it."""
        return len(self.finished_steps)


@dataclass(frozen=True)
class Frame:
    """A camera frame, decoded on demand."""

    stamp: int                       # header stamp [ns]
    received: int                    # [ns]
    type: str
    data: bytes
    types: MessageTypes
    arrival: int = -1                # among all messages of the recording, in the order of the files

    def image(self) -> np.ndarray:
        """Return ``(H, W, 3) uint8`` RGB.

        Raises:
            ValueError: the bytes are not an image.

        """
        return images.to_array(self.types.deserialize(self.data, self.type))


class CameraError(BagError):
    """A recording has several cameras and nothing says which one is meant."""

    def __init__(self, path: Path, cameras: list[str]):
        super().__init__(f'{path} has several cameras; choose one with --camera (vgps-train: --data.camera): '
                         f'{", ".join(cameras)}')
        self.cameras = cameras


class Bag:
    """A recording, read once except for its images.

    Raises:
        BagError: nothing in it can be used.

    """

    def __init__(self, path: Path | str):
        self.path = Path(path)
        self.types = MessageTypes()
        self.storage = BagStorage(path)
        # type -> (received [ns], message, topic)
        self.messages: dict[str, list[tuple[int, Any, str]]] = defaultdict(list)
        self.image_stamps: dict[str, list[int]] = defaultdict(list)  # topic -> header stamps [ns]
        self.image_received: dict[str, list[int]] = defaultdict(list)  # topic -> when the recorder got them [ns]
        self.arrivals: dict[str, list[int]] = defaultdict(list)  # likewise: its number among all. Stamps may repeat
        self.counts: Counter[str] = Counter()
        self.kinds: dict[str, str] = {}  # topic -> type
        self.problems: list[str] = []
        undecoded: Counter[str] = Counter()
        self.first = self.last = 0    # received [ns]
        newest, backwards = 0, 0
        for arrival, raw in enumerate(self.storage.messages(self.types)):
            self.counts[raw.topic] += 1
            self.kinds[raw.topic] = raw.type
            newest, backwards = max(newest, raw.received), max(backwards, newest - raw.received)
            self.first = min(self.first, raw.received) if arrival else raw.received
            self.last = max(self.last, raw.received) if arrival else raw.received
            try:
                if raw.type in IMAGE_TYPES:
                    self.image_stamps[raw.topic].append(_header_stamp(raw))
                    self.image_received[raw.topic].append(raw.received)
                    self.arrivals[raw.topic].append(arrival)
                elif raw.type.startswith('vgps_msgs/') or raw.type == JOINT_STATE:  # not a lidar's point clouds
                    message = self.types.deserialize(raw.data, raw.type)
                    if complaint := contradiction(raw.type, message):
                        raise ValueError(complaint)
                    self.messages[raw.type].append((raw.received, message, raw.topic))
                    self.arrivals[raw.type].append(arrival)
            except (UnknownTypeError, ValueError, struct.error) as error:
                undecoded[f'{raw.topic}: {error}'] += 1
        self.problems = self.storage.problems + [f'{text} ({n} messages)' for text, n in undecoded.items()]
        if backwards > OUT_OF_ORDER:
            self.problems.append(f'times go back by {backwards * 1e-9:.0f} s in the recording: the clock was set, or '
                                 'the files were merged; durations and order cannot be trusted')
        if not self.counts:
            raise BagError(f'{self.path} holds no message' + ''.join(f'; {p}' for p in self.problems))

    def of_type(self, name: str) -> list[tuple[int, Any, str]]:
        """Return ``(received [ns], message, topic)`` of a ``vgps_msgs`` type, in order of receipt."""
        return sorted(self.messages.get(f'vgps_msgs/msg/{name}', []), key=lambda item: item[0])

    @cached_property
    def configurations(self) -> dict[str, Any]:
        """The last NodeConfiguration of each node."""
        return {message.node: message for _, message, _ in self.of_type('NodeConfiguration')}

    @cached_property
    def wrist_topic(self) -> str:
        """The wrist camera's topic by policy_node's configuration, which no critic looks at; '' where it had none."""
        told = str(getattr(self.configurations.get('policy_node'), 'parameters', ''))
        found = re.search(r'^wrist_topic: (\S+)', told, re.M)
        return found[1].strip('\'"/') if found else ''

    @cached_property
    def episodes(self) -> tuple[EpisodeRecord, ...]:
        """Every episode in the bag, in order; empty for a recording made by other software.

        Raises:
            BagError: the definitions in the bag are damaged, so that its messages lack fields.

        """
        try:
            return self._all_episodes()
        except (AttributeError, TypeError, ValueError, IndexError) as error:
            raise BagError(f'{self.path}: its messages are not those of any version of vgps_msgs ({error}): the '
                           'definitions in the recording are damaged') from error

    def _all_episodes(self) -> tuple[EpisodeRecord, ...]:
        announced = defaultdict(list)
        for received, message, _ in self.of_type('Episode'):
            announced[message.episode_id].append((received, message))
        for messages in announced.values():  # an outcome comes after the start, also where the clock was set back
            messages.sort(key=lambda item: item[1].outcome != 0)
        parts = self._parts()
        # the tail of the episode before may be in the bag too: its steps count only where nothing was announced
        identities = list(announced) or list(dict.fromkeys(episode for episode, _ in parts))
        return tuple(self._episode(e, announced[e], parts) for e in identities)

    def _parts(self) -> Parts:
        """Return (episode, step) -> the messages of that step."""
        parts: Parts = defaultdict(lambda: {'states': [], 'received': {}})
        for name, kind in (('started', 'StepStarted'), ('candidates', 'ActionCandidates'),
                           ('decision', 'SteeringDecision'), ('command', 'EndEffectorCommand')):
            for received, message, _ in self.of_type(kind):
                part = parts[message.episode_id, message.step]
                if differ(name, part.setdefault(name, message), message):
                    part['twice'] = kind
                part['received'].setdefault(name, received)
        for received, message, _ in self.of_type('ControllerState'):
            if (message.episode_id, message.step) in parts:  # states between episodes belong to no step
                part = parts[message.episode_id, message.step]
                part['states'].append(message)
                part['received'].setdefault('state', received)
        self._add_verdicts(parts)
        return parts

    def _add_verdicts(self, parts: Parts) -> None:
        """Add what the controller said of each command, and when it was done with it."""
        states = self.of_type('ControllerState')
        received = [time for time, *_ in states]
        commanded = sorted(p['received']['command'] for p in parts.values() if 'command' in p)
        for part in parts.values():
            if 'command' not in part:
                continue
            sent, of_step = part['received']['command'], part['states']
            after = bisect_right(received, sent)
            later = bisect_right(commanded, sent)
            until = bisect_right(received, commanded[later]) if later < len(commanded) else len(received)
            if of_step:
                part['verdict'] = 0 if any(s.state == ArmState.MOVING for s in of_step) else int(of_step[0].reason)
                done = [t for t, s, _ in states[after:until] if s.state in (ArmState.READY, ArmState.HOLDING)
                        and (s.episode_id, s.step) == (of_step[0].episode_id, of_step[0].step)]
            else:  # not taken, so the states keep the number of the step before: the count of refusals tells
                before = states[after - 1][1].refused if after else 0
                refusing = [(t, s) for t, s, _ in states[after:until] if s.refused > before and s.reason]
                part['verdict'] = int(refusing[0][1].reason) if refusing else None
                done = [t for t, _ in refusing]
            if done:
                part['received']['finished'] = done[0]

    def _episode(self, identity: str, announced: list[tuple[int, Any]], parts: Parts) -> EpisodeRecord:
        steps = []
        for (_, index), part in sorted((item for item in parts.items() if item[0][0] == identity),
                                       key=lambda item: item[0][1]):
            messages = [part.get(name) for name in ('started', 'candidates', 'decision', 'command')]
            first = next(m for m in messages if m is not None)
            steps.append(Step(
                index=index, stamp=stamps.nanoseconds(first.header.stamp),
                instruction=next((m.instruction for m in messages[:3] if m is not None), ''),
                started=messages[0], candidates=messages[1], decision=messages[2], command=messages[3],
                states=tuple(part['states']), received=part['received'], verdict=part.get('verdict')))
        last = announced[-1][1] if announced else None
        received = [t for step in steps for t in step.received.values()]
        started = announced[0][0] if announced else min(received)
        over = last is not None and last.outcome != Outcome.RUNNING
        first_end = next((stamps.nanoseconds(m.header.stamp) for _, m in announced if m.outcome != 0), None)
        begun = stamps.nanoseconds(announced[0][1].header.stamp) if announced else 0
        texts = list(dict.fromkeys(message.instruction for _, message in announced))
        twice = [(index, part['twice']) for (episode, index), part in parts.items()
                 if episode == identity and 'twice' in part]
        wrong = f"it was announced as '{texts[0]}' and as '{texts[1]}'" if len(texts) > 1 else '' if not twice else (
            f'step {twice[0][0]} has two different {twice[0][1]}s: two robots or two controllers under one episode id')
        if wrong:
            self.problems.append(f'episode {identity}: {wrong}')
        return EpisodeRecord(
            episode_id=identity, steps=tuple(steps), started=started, contradiction=wrong,
            instruction=last.instruction if last else steps[0].instruction,
            task=last.task if last else '', seed=int(last.seed) if last else 0,
            outcome=words(Outcome, last.outcome if last else Outcome.RUNNING),
            message=last.message if last else 'the recording does not hold its Episode message',
            ended=announced[-1][0] if over else max([started, *received]),
            announced=(begun, first_end) if first_end is not None and 0 < begun <= first_end else None,
            task_states=tuple(m for t, m, _ in self.of_type('TaskState')
                              if started <= t <= (announced[-1][0] if over else self.last)))

    def image_topic(self, topic: str | None = None) -> str:
        """Return the topic of the frames the steps refer to; ``topic``, or its end, settles it where that is open.

        Raises:
            BagError: no images, no such topic, or several cameras that could be meant.

        """
        known = ', '.join(sorted(self.image_stamps)) or 'none'
        if topic:
            found = [name for name in self.image_stamps if topic == name] or [
                name for name in self.image_stamps if f'/{topic.strip("/")}/' in f'{name}/']
            if len(found) != 1:
                raise BagError(f'{self.path} has no camera {topic}; image topics: {known}')
            return found[0]
        cameras = [name for name in self.image_stamps if f'/{self.wrist_topic}/' not in f'{name}/']
        if not cameras:
            videos = [f'{name} ({kind})' for name, kind in sorted(self.kinds.items()) if VIDEO.search(kind)]
            raise BagError(f'{self.path} holds no camera image ({", ".join(IMAGE_TYPES)})' + (
                f'; first convert these topics to such images: {", ".join(videos)}' if videos else ''))
        wanted = {step.stamp for episode in self.episodes for step in episode.steps}
        matches = {name: len(wanted.intersection(self.image_stamps[name])) for name in cameras}
        best = max(matches, key=lambda name: matches[name])
        # two synchronised cameras carry the same stamps: which one the policy looked at cannot be told from them
        if len(matches) > 1 and (matches[best] == 0 or sum(2 * n > matches[best] for n in matches.values()) > 1):
            raise CameraError(self.path, sorted(self.image_stamps))
        return best

    def frames(self, topic: str | None = None, wanted: set[int] | None = None) -> Iterator[Frame]:
        """Stream the frames of one camera, in order; only those with a header stamp in ``wanted`` if given."""
        topic = self.image_topic(topic)
        for arrival, raw in enumerate(BagStorage(self.path).messages(self.types)):
            if raw.topic == topic:
                try:
                    stamp = _header_stamp(raw)
                except struct.error:
                    continue  # counted in problems already
                if wanted is None or stamp in wanted:
                    yield Frame(stamp, raw.received, raw.type, raw.data, self.types, arrival)


def _header_stamp(raw: RawMessage) -> int:
    """Return the header stamp of a serialised message [ns] without touching its payload."""
    little = raw.data[1] & 1 if len(raw.data) > 1 else 1
    seconds, nanoseconds = struct.unpack_from('<iI' if little else '>iI', raw.data, 4)
    return int(seconds) * 1_000_000_000 + int(nanoseconds)
