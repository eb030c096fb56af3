"""`vgps-data convert`: recordings of other software as episodes of this project, in steps of exactly 0.2 s.

What a recording must hold is written in vgps_bringup/doc/foreign_bags.md. Where it is not continuous it is cut; the
last part carries the outcome, the parts before it end unjudged.
"""
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import tyro

from vgps_msgs_py.bags import teleoperation
from vgps_msgs_py.bags.camera import stood_still
from vgps_msgs_py.bags.message_types import MessageTypes
from vgps_msgs_py.bags.reader import Bag
from vgps_msgs_py.bags.storage import BagError
from vgps_msgs_py.bags.teleoperation import PERIOD, Motion
from vgps_msgs_py.bags.writer import BagWriter, Topic
from vgps_msgs_py.images import mask
from vgps_training.data.checks import MIN_STEPS, implausible, no_colours
from vgps_training.data.episode import DataError

OUTCOMES = {'unjudged': 0, 'success': 1, 'failure': 2}  # vgps_msgs/Episode.outcome
BREAK = 10 * PERIOD  # [ns] between the parts of a recording, whose own clock need not be whole


@dataclass(frozen=True)
class ConvertConfig:
    """Turn recordings of other software (teleoperation, another policy) into episodes with steps of 0.2 s.

    Example: vgps-data convert session_1 --out bags --instruction "put the carrot on the plate" --outcome ask

    What such a recording must hold: vgps_bringup/doc/foreign_bags.md. Next: vgps-data inspect bags
    """

    bags: Annotated[tuple[Path, ...], tyro.conf.Positional]  # rosbag2 folders or files
    out: Path                        # folder that receives one recording per bag
    instruction: str                 # what the robot was told to do, the same for all recordings
    outcome: Literal['success', 'failure', 'unjudged', 'ask']  # of all recordings; 'ask': ask for each
    # where actions come from: motions between the poses reached (joint_states), or recorded commands
    actions: Literal['joint_states', 'commands'] = 'joint_states'
    camera: str = ''                 # image topic, or whole names of it; needed if there are several cameras
    joint_topic: str = ''            # topic of joint states or commands, or whole names of it; needed for several arms
    arm: str = 'wx250s'              # the recorded arm: its name in the entry-point group vgps.arms


def convert(config: ConvertConfig) -> None:
    """Write the recordings and say what was left out; a bag that cannot be used does not keep the others.

    Raises DataError where none could be used.
    """
    if not config.instruction.strip():
        raise DataError('--instruction is empty: a critic must know what the robot was told to do')
    written = 0
    for path in config.bags:
        try:
            bag = Bag(path)
            camera = bag.image_topic(config.camera or None)
            if complaint := no_colours(camera):
                raise DataError(f'{path}: {complaint}')
            topic = config.joint_topic or None
            motions, left_out = (teleoperation.from_commands(bag, camera, topic) if config.actions == 'commands' else
                                 teleoperation.from_joint_states(bag, load_arm(config.arm), camera, topic))
            broken, stood = _damages(bag, camera, motions)
            if stood:
                raise DataError(f'{path}: {stood}')
            runs = _runs([m for m in motions if m.arrival not in broken])
            for text in [*bag.problems, *left_out, *_told(broken)]:
                print(f'{path}: left out, corrected or unusual: {text}')
            if not runs:
                raise DataError('; '.join([f'{path}: no continuous part of {MIN_STEPS} steps', *_told(broken)]))
            if reason := next(filter(None, (implausible(np.stack([m.action for m in run]), 5.0) for run in runs)), ''):
                raise DataError(f'{path}: {reason}')
            _tell_rest(path, [m for run in runs for m in run])
            outcome = ask(path) if config.outcome == 'ask' else config.outcome
            _write(bag, camera, runs, config.out / path.stem, config.instruction, OUTCOMES[outcome])
        except (BagError, DataError, FileExistsError) as error:
            print(f'not converted: {error}')
            continue
        written += 1
        steps = ', '.join(str(len(run)) for run in runs)
        print(f'{path}: camera {camera}, {steps} steps of 0.2 s, {outcome}: {config.out / path.stem}')
    if not written:
        raise DataError('no recording could be converted')


def _tell_rest(path: Path, motions: list[Motion]) -> None:
    """Say where most of a recording is waiting; raises DataError where nothing moves in it."""
    actions = np.stack([motion.action for motion in motions])
    rest = (np.abs(actions[:, :6]).max(1) < 1e-4) & (np.abs(np.diff(actions[:, 6], prepend=actions[0, 6])) < 0.02)
    if rest.all():
        raise DataError(f'{path}: nothing moves in it: joint states that were not updated?')
    if rest.mean() > 0.5:
        print(f'{path}: nothing moves in {rest.sum()} of {len(rest)} steps; cut them out, or the critic learns that '
              'waiting leads to the goal')


def load_arm(name: str):
    """Return an arm's kinematics (`joint_names`, `forward`); raises DataError naming the installed ones."""
    found = {entry.name: entry for entry in entry_points(group='vgps.arms')}
    if name not in found:
        raise DataError(f"no arm '{name}' is installed (vgps_bringup brings wx250s; source the workspace); arms: "
                        f'{", ".join(found) or "none"}')
    return found[name].load()()


def ask(path: Path) -> str:
    """Return the outcome a person types."""
    while True:
        answer = input(f'{path.name}: did it succeed? [y]es, [n]o, [u]nknown: ').strip().lower()[:1]
        if answer in ('y', 'n', 'u'):
            return {'y': 'success', 'n': 'failure', 'u': 'unjudged'}[answer]


def _frames(bag: Bag, camera: str, motions: list[Motion]):
    wanted = {motion.arrival for motion in motions}
    return (f for f in bag.frames(camera, {motion.stamp for motion in motions}) if f.arrival in wanted)


def _damages(bag: Bag, camera: str, motions: list[Motion]) -> tuple[dict[int, str], str]:
    """Return (why a frame is no picture, by arrival; why the camera cannot have seen the motions, or nothing)."""
    broken: dict[int, str] = {}
    moved = {motion.arrival: motion.action[:3] for motion in motions}
    before, same, places = None, [], [np.zeros(3)]
    for frame in _frames(bag, camera, motions):
        try:
            picture = frame.image()
        except ValueError as error:
            broken[frame.arrival] = str(error)
            continue
        if before is not None:
            same.append(np.array_equal(picture, before))
        elif not broken and (complaint := mask(picture)):
            return broken, f'{camera} shows {complaint}'
        places.append(places[-1] + moved[frame.arrival])
        before = picture
    stood = stood_still(same, np.stack(places[:-1] if len(places) > 1 else places))
    return broken, f'{camera}: {stood}' if stood else ''


def _told(broken: dict[int, str]) -> list[str]:
    return [f'frames that cannot be decoded: {len(broken)} ({why})' for why in list(broken.values())[:1]]


def _runs(motions: list[Motion]) -> list[list[Motion]]:
    """Return the motions in runs without a missing step."""
    runs: list[list[Motion]] = []
    for motion in motions:
        if runs and motion.part == runs[-1][-1].part and motion.time - runs[-1][-1].time <= 1.5 * PERIOD:
            runs[-1].append(motion)
        else:
            runs.append([motion])
    return [run for run in runs if len(run) >= MIN_STEPS]


def _write(bag: Bag, camera: str, runs: list[list[Motion]], folder: Path, instruction: str, outcome: int) -> None:
    """Write a recording as the recorder would have, on a clock of its own without gaps or repetitions."""
    types, times, clock = MessageTypes(), {}, runs[0][0].time
    for number, run in enumerate(runs):
        for step, motion in enumerate(run):
            times.setdefault(motion.arrival, []).append((number, step, clock, motion))
            clock += PERIOD
        clock += BREAK
    writer = BagWriter(folder, types)

    def send(name: str, kind: str, stamp: int, **fields) -> None:
        header = _blank(types, 'std_msgs/msg/Header', stamp=_time(types, stamp))
        message = _blank(types, kind, header=header, **fields)
        writer.write(Topic(f'/vgps/{name}', kind, latched=name == 'episode'), types.serialize(message, kind), stamp)

    def announce(number: int, stamp: int, value: int) -> None:
        send('episode', 'vgps_msgs/msg/Episode', stamp, episode_id=f'{folder.name}-{number}', instruction=instruction,
             max_steps=len(runs[number]), outcome=value)

    for frame in _frames(bag, camera, [motion for run in runs for motion in run]):
        for number, step, stamp, motion in times[frame.arrival]:
            if step == 0:
                announce(number, stamp, 0)
            image = bag.types.deserialize(frame.data, frame.type)
            image.header.stamp = _time(bag.types, stamp)
            name = 'image_raw' if frame.type.endswith('/Image') else 'image_raw/compressed'
            writer.write(Topic(f'/vgps/{name}', frame.type), bag.types.serialize(image, frame.type), stamp)
            if motion.pose is not None:
                send('controller_state', 'vgps_msgs/msg/ControllerState', stamp, step=step,
                     episode_id=f'{folder.name}-{number}', measured_pose=motion.pose.ravel().astype(np.float64),
                     gripper_position=motion.openness)
            send('command', 'vgps_msgs/msg/EndEffectorCommand', stamp, episode_id=f'{folder.name}-{number}', step=step,
                 action=motion.action.astype(np.float64))
            if step == len(runs[number]) - 1 and number == len(runs) - 1 and outcome:
                announce(number, stamp + PERIOD, outcome)
    writer.close()


def _time(types: MessageTypes, stamp: int):
    return types.message_class('builtin_interfaces/msg/Time')(stamp // 10**9, stamp % 10**9)


def _blank(types: MessageTypes, name: str, **fields):
    """Return a message with every field empty except these."""
    kind = types.message_class(name)

    def empty(node, argument):
        if node.name == 'NAME':
            return _blank(types, argument)
        if node.name == 'BASE':
            return '' if argument[0] == 'string' else False if argument[0] == 'bool' else 0
        element = argument[0][1][0] if argument[0][0].name == 'BASE' else 'message'
        if element in ('string', 'message'):
            return []
        return np.zeros(argument[1] if node.name == 'ARRAY' else 0, {'bool': 'bool'}.get(element, element))

    return kind(**{key: fields[key] if key in fields else empty(*described)
                   for key, described in types.store.fielddefs[name][1]})
