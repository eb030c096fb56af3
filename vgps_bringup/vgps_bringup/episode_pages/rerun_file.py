"""A recorded episode for the Rerun viewer: ``vgps-report BAG --rerun`` writes ``episode.rrd``.

Camera images, the arm in 3-D from the shipped kinematics, where each candidate chunk would lead the gripper, values and
reasons, on one time line in seconds from the first step and one in control steps. Needs ``pip install rerun-sdk``.
"""

from pathlib import Path

import numpy as np

from vgps_bringup.arm.kinematics import Kinematics
from vgps_bringup.episode_pages.facts import VALUE_BAND, refusal
from vgps_bringup.episode_pages.plots import BLUE, GREY, ORANGE
from vgps_msgs_py import stamps
from vgps_msgs_py.bags.reader import Bag, EpisodeRecord, Step
from vgps_msgs_py.vocabulary import SteeringReason, words

ARM, CANDIDATES, CHOSEN, CAMERA = 'arm/links', 'arm/candidates', 'arm/chosen', 'camera'
REASONS, VALUES = 'reasons', 'values'


class RerunMissingError(RuntimeError):
    """The optional library is not installed; the text says how to get it."""


def write(bag: Bag, episode: EpisodeRecord, path: Path, camera: str | None = None) -> dict[str, int]:
    """Write the file; return how many images, arm poses, steps with candidates and reasons are in it.

    Raises:
        RerunMissingError: rerun-sdk is not installed.

    """
    try:
        import rerun as rr
    except ImportError as error:
        raise RerunMissingError('a Rerun file needs the Rerun library: pip install rerun-sdk') from error
    first = min([episode.started, *(step.stamp for step in episode.steps)])
    stream = rr.RecordingStream('vgps', recording_id=episode.episode_id or None)
    stream.save(str(path))
    counts = dict.fromkeys(('images', 'poses', 'candidates', 'reasons'), 0)

    def at(stamp: int, step: int | None = None) -> None:
        stream.reset_time()
        stream.set_time('time', duration=(stamp - first) * 1e-9)
        if step is not None:
            stream.set_time('step', sequence=step)

    stream.log('arm', rr.ViewCoordinates.RIGHT_HAND_Z_UP, static=True)
    stream.log('episode', rr.TextDocument(f'{episode.instruction}: {episode.outcome}\n{episode.message}'), static=True)
    low, high = VALUE_BAND
    for name, colour, label in (('executed', ORANGE, 'executed'), ('best', BLUE, 'best of K'),
                                ('never', GREY, 'never succeeds'), ('now', GREY, 'success now')):
        stream.log(f'{VALUES}/{name}', rr.SeriesLines(colors=[_rgb(colour)], names=[label]), static=True)
    counts['images'] = _images(rr, stream, at, bag, episode, camera)
    kinematics, position = Kinematics(), np.full(3, np.nan)
    poses = _arm_poses(bag, episode)
    for time, joints in poses:
        at(time)
        stream.log(ARM, rr.LineStrips3D([kinematics.skeleton(joints)], radii=0.012, colors=[_rgb(GREY)]))
    counts['poses'] = len(poses)
    for step in episode.steps:
        at(step.stamp, step.index)
        known = [joints for time, joints in poses if time <= step.stamp] or [joints for _, joints in poses[:1]]
        if known:
            position = kinematics.forward(known[-1])[:3, 3]
        counts['candidates'] += _step(rr, stream, step, position)
        for name, value in (('never', low), ('now', high)):
            stream.log(f'{VALUES}/{name}', rr.Scalars(value))
        if text := _reason(step):
            stream.log(REASONS, rr.TextLog(f'step {step.index}: {text}'))
            counts['reasons'] += 1
    stream.flush()
    stream.disconnect()
    return counts


def _rgb(colour: str) -> tuple[int, int, int]:
    return tuple(int(colour[i:i + 2], 16) for i in (1, 3, 5))


def _images(rr, stream, at, bag: Bag, episode: EpisodeRecord, camera: str | None) -> int:
    count = 0
    if not bag.image_stamps:
        return 0
    steps = {step.stamp: step.index for step in episode.steps}
    begin = min([episode.started, *steps])
    for frame in bag.frames(camera):
        if frame.stamp < begin or frame.received > episode.ended:
            continue
        try:
            image = frame.image()
        except ValueError:
            continue  # as on the page: the picture before stays
        at(frame.stamp, steps.get(frame.stamp))
        stream.log(CAMERA, rr.Image(image).compress(jpeg_quality=85))
        count += 1
    return count


def _arm_poses(bag: Bag, episode: EpisodeRecord) -> list[tuple[int, np.ndarray]]:
    """Return (stamp [ns], measured joint positions (6,)) during an episode, by time."""
    found = []
    for received, state, _ in bag.of_type('ControllerState'):
        joints = np.asarray(state.joint_positions, float)
        if len(joints) == 6 and np.isfinite(joints).all() and episode.started <= received <= episode.ended:
            found.append((stamps.nanoseconds(state.header.stamp), joints))
    return sorted(found, key=lambda item: item[0])


def _step(rr, stream, step: Step, position: np.ndarray) -> int:
    """Log values and candidate chunks of a step; return 1 where there were candidates to draw."""
    chosen = step.decision.chosen if step.decision is not None else -1
    if step.q_values is not None:
        minimum = step.q_values.min(axis=0)
        stream.log(f'{VALUES}/best', rr.Scalars(float(minimum.max())))
        if chosen >= 0:
            stream.log(f'{VALUES}/executed', rr.Scalars(float(minimum[chosen])))
    if step.actions is None or not np.isfinite(position).all():
        return 0
    # each action is a motion from the target before it: their sum is where the chunk leads
    start, moves = np.zeros((len(step.actions), 1, 3)), np.cumsum(step.actions[:, :, :3], axis=1)
    ways = position + np.concatenate([start, moves], 1)
    stream.log(CANDIDATES, rr.LineStrips3D(list(ways), radii=0.001, colors=[_rgb(BLUE)]))
    stream.log(CHOSEN, rr.LineStrips3D(list(ways[chosen:chosen + 1]) if chosen >= 0 else [], radii=0.003,
                                       colors=[_rgb(ORANGE)]))
    return 1


def _reason(step: Step) -> str:
    parts = []
    if step.decision is not None:
        parts.append(words(SteeringReason, step.decision.reason))
        parts += [step.decision.message] if step.decision.message else []
    if refusal(step):
        parts.append(f'refused: {refusal(step)}')
    return '; '.join(parts)
