"""What every episode passes before it is used: its actions must be possible for a robot at that rate.

A reader promises metres, radians and openness. Joint angles, normalised commands and inverted grippers look like any
other seven numbers to a network, so their sizes are held against what arms can do, and the reason says what they look
like.
"""
import ast
import re
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from vgps_msgs_py.bags.camera import stood_still
from vgps_msgs_py.images import mask
from vgps_msgs_py.robot_state import TO_OPENNESS
from vgps_training.data.episode import PLAIN, Episode, Frames, Malformed, Reading
from vgps_training.data.states import MARGIN, contradiction, late_arm, other_axes, other_measure, unusable

MIN_STEPS = 2        # a shorter episode holds no transition
SLOWEST = 3.0        # [Hz] Fractal, the slowest data here: assumed where the rate is not known
SPEED = 2.5          # [m/s] no manipulator's hand is faster
USUAL_SPEED = 1.2    # [m/s] half of the steps are slower than this on any arm
TURN, USUAL_TURN = 4 * np.pi, 4.0  # [rad/s] likewise
STRAIGHT, STRAIGHT_SPEED = 0.4, 0.5  # [m], [m/s] of a way that a hand from rest does not make at one speed
REACH = 2.5          # [m] how far the steps of an episode may lead from where it began: a mobile arm's workspace
TURNS = 4 * np.pi    # [rad] likewise
EPISODES = 5         # fewer say nothing of a whole data set
NO_COLOURS = {'depth', 'disparity', 'mask', 'masks', 'seg', 'segm', 'segmentation', 'semantic', 'normals', 'heatmap'}
COLOURS = {'color', 'colour', 'rgb', 'bgr'}


def check(episode: Episode, reading: Reading = PLAIN, fingers: np.ndarray | None = None) -> Episode | Malformed:
    """Return the episode in this project's convention if it can be trained on, else the reason why not.

    `fingers` (T,) is any recorded measure that grows as the gripper opens. Looks at the first frame only.
    """
    try:
        actions = np.asarray(episode.actions, np.float32)
    except (ValueError, TypeError) as error:
        return Malformed(episode.source, f'actions are not numbers: {error}')
    reason = _shape(actions, episode)
    if reason is None and episode.states is not None and (wrong := unusable(episode.states, actions)):
        episode = replace(episode, states=None, notes=(*episode.notes, f'states {wrong}: left out'))
    if (text := _unwrapped(episode.instruction)) != episode.instruction:
        episode = replace(episode, instruction=text, notes=(
            *episode.notes, "instructions were written as Python shows bytes (b'...'): taken out of it"))
    if reason is None and reading.first_zero_step == 'drop' and len(actions) > MIN_STEPS and not actions[0].any():
        episode = _without_first(episode, 'first step dropped: its action is zero throughout, gripper included')
        actions, fingers = actions[1:], None if fingers is None else fingers[1:]
    if not episode.instruction.strip():
        episode = replace(episode, notes=(*episode.notes, 'without an instruction'))
    if reason is None:
        actions = converted(actions, reading)
        reason = (no_colours(episode.camera) or contradiction(actions, episode.states)
                  or implausible(actions, episode.rate) or _inverted(actions, episode, fingers)
                  or other_measure(actions, episode.states))
    if reason is None:
        frame, reason = _first_frame(episode)
    if reason is None and isinstance(episode.frames, Frames) and np.ptp(frame):  # else there is nothing to see move
        places = np.cumsum(actions[:, :3], 0, np.float64) if episode.states is None else episode.states[:, :3]
        reason = stood_still(episode.frames.same(), places) or None
    if reason is not None:
        return Malformed(episode.source, reason)
    return replace(episode, actions=actions, notes=(*episode.notes, *_odd(actions, episode.states, frame)))


def no_colours(camera: str) -> str | None:
    """Return why a camera's name says that its pictures are no colours, or None."""
    words = set(re.findall('[a-z]+', camera.lower()))
    found = sorted(words & NO_COLOURS)
    return None if not found or words & COLOURS else (
        f"the camera {camera} has '{found[0]}' in its name: distances or a mask, not colours")


def converted(actions: np.ndarray, reading: Reading) -> np.ndarray:
    """Return actions (T, 7) in metres, radians and openness, by the units and the gripper the user named."""
    if (reading.translation_unit, reading.rotation_unit, reading.gripper) == (1.0, 1.0, 'openness'):
        return actions
    return np.concatenate([actions[:, :3] * reading.translation_unit, actions[:, 3:6] * reading.rotation_unit,
                           TO_OPENNESS[reading.gripper](actions[:, 6:])], 1).astype(np.float32)


def _shape(actions: np.ndarray, episode: Episode) -> str | None:
    if actions.ndim != 2 or actions.shape[1] != 7:
        return f'actions of shape {actions.shape}, not (T, 7)'
    if len(actions) < MIN_STEPS:
        return f'fewer than {MIN_STEPS} steps'
    if not np.isfinite(actions).all():
        return 'NaN or infinity in the actions'
    if episode.states is not None and np.shape(episode.states) != actions.shape:
        return 'states and actions differ in shape'
    if len(episode.frames) != len(actions):
        return 'frames and actions differ in number'
    return None


def _unwrapped(instruction: str) -> str:
    """Return what is in the written form of a Python bytes object; any other text as it is."""
    if instruction[:2] in ("b'", 'b"') and len(instruction) > 2 and instruction[-1] == instruction[1]:
        try:
            return ast.literal_eval(instruction).decode()
        except (ValueError, SyntaxError, UnicodeDecodeError, AttributeError):
            pass
    return instruction


def _without_first(episode: Episode, note: str) -> Episode:
    def rest(frames: Sequence[np.ndarray]) -> Sequence[np.ndarray]:
        return frames.since(1) if isinstance(frames, Frames) else frames[1:]
    return replace(episode, frames=rest(episode.frames),
                   beside=tuple((camera, rest(frames)) for camera, frames in episode.beside),
                   actions=episode.actions[1:], states=None if episode.states is None else episode.states[1:],
                   extras=tuple((name, values[1:]) for name, values in episode.extras),
                   notes=(*episode.notes, note))


def implausible(actions: np.ndarray, rate: float | None) -> str | None:
    """Return why no arm can have made these actions (T, 7) at this rate [Hz], or None."""
    rate = rate or SLOWEST
    actions = np.asarray(actions, np.float64)
    steps, turns, gripper = np.linalg.norm(actions[:, :3], axis=1), np.abs(actions[:, 3:6]), actions[:, 6]
    if gripper.min() < -MARGIN or gripper.max() > 1 + MARGIN:
        problem = f'gripper values from {gripper.min():.3g} to {gripper.max():.3g} are not an openness 0..1'
    elif steps.max() * rate > SPEED or np.median(steps) * rate > USUAL_SPEED:
        problem = (f'translations of up to {steps.max():.3g} and usually {np.median(steps):.3g} per step are not '
                   f'metres at {rate:g} steps per second')
    elif turns.max() * rate > TURN or np.median(turns.max(1)) * rate > USUAL_TURN:
        problem = (f'rotations of up to {turns.max():.3g} and usually {np.median(turns.max(1)):.3g} per step are not '
                   f'radians at {rate:g} steps per second')
    elif (far := np.abs(np.cumsum(actions[:, :3], 0)).max()) > REACH:
        problem = f'the steps add up to {far:.3g} m, out of reach of any arm'
    elif (far := np.abs(np.cumsum(actions[:, 3:6], 0)).max()) > TURNS:
        problem = f'the steps add up to a rotation of {far:.3g} rad'
    elif speed := _straight(actions[:, :3], rate):
        problem = f'the hand would move at {speed:.2g} m/s from its first step to its last, always the same way'
    else:
        return None
    return f'{problem}: {looks_like(actions)}'


def _straight(motions: np.ndarray, rate: float) -> float:
    """Return the speed [m/s] of motions (T, 3) that are one and the same all along, 0 where they are not."""
    way = motions.sum(0)
    length = float(np.linalg.norm(way))
    speed = length / len(motions) * rate
    if length < STRAIGHT or speed < STRAIGHT_SPEED:
        return 0.0
    return speed if (motions @ way / length).min() > 0.5 * length / len(motions) else 0.0


def looks_like(actions: np.ndarray) -> str:
    """Return what actions (T, 7) outside the convention look like, and which option converts them, where one can."""
    motion, gripper = np.abs(actions[:, :6]), actions[:, 6]
    # positions change little from step to step, motions as much as they are large
    positions = np.abs(np.diff(actions[:, :6], axis=0)).mean() < 0.25 * motion.mean()
    unit = motion[:, :3].max() <= 1.01 and motion[:, 3:].max() <= 1.01
    if -1.01 <= gripper.min() < -0.5 and gripper.max() <= 1.01 and motion.max() <= 1.01:
        scale = ' --translation-unit 0.05 --rotation-unit 0.5' if motion[:, :3].max() > 0.3 else ''
        return ('they look like LIBERO or robosuite commands, gripper -1 is open and 1 closed (--gripper '
                f'minus-one-open{scale}); where -1 is closed, --gripper minus-one-closed')
    if not positions and motion[:, :3].max() < 0.2 and np.median(motion[:, 3:].max(1)) > 0.2:
        return 'they look like rotations in degrees (--rotation-unit 0.0174533)'
    if motion.max() > 2 * np.pi + 1:
        if motion[:, 3:].max() < 1 and motion[:, :3].max() > 1:
            return ('they look like translations in millimetres (--translation-unit 0.001) or centimetres '
                    '(--translation-unit 0.01)')
        if not positions and motion[:, :3].max() < 0.5:
            return 'they look like rotations in degrees (--rotation-unit 0.0174533)'
        return ('they look like joint positions in degrees; this project needs end-effector motions: convert a '
                'recording of the joints with `vgps-data convert`')
    if positions and motion.mean() > 0.02:
        return ('they look like absolute positions (of joints in radians, or of the hand), not motions; this project '
                'needs end-effector motions')
    if gripper.max() > 1.5:
        return 'they look like a gripper in per cent, millimetres or counts, which no option converts'
    if unit:
        return ('they look like commands normalised to -1..1 (--translation-unit and --rotation-unit say what a 1 '
                'stands for)')
    return 'the units of the data are unknown (--translation-unit, --rotation-unit, --gripper)'


def _inverted(actions: np.ndarray, episode: Episode, fingers: np.ndarray | None) -> str | None:
    """Return a reason where the commanded gripper runs against the fingers that were measured afterwards."""
    if fingers is None and episode.states is not None:
        fingers = episode.states[:, 6]
    if fingers is None or len(fingers) < 4:
        return None
    command, after = actions[:-1, 6].astype(np.float64), np.asarray(fingers, np.float64)[1:]
    if np.ptp(command) < 0.3 or not np.ptp(after) > 1e-3 or not np.isfinite(after).all():
        return None
    if np.corrcoef(command, after)[0, 1] > -0.5:
        return None
    return ('the gripper runs against the measured fingers (it says open where they close): it looks like closedness '
            '(--gripper closedness)')


def _odd(actions: np.ndarray, states: np.ndarray | None, frame: np.ndarray) -> list[str]:
    """Return what a person should know of an episode that can be used."""
    notes = []
    if not actions[:, :6].any():
        notes.append('the arm never moves in it')
    if states is not None:
        notes += filter(None, (other_axes(actions, states), late_arm(actions, states)))
    if np.ptp(frame) and (frame == frame[..., :1]).all():
        notes.append('its images have no colours: a depth or infrared camera?')
    return notes


def _first_frame(episode: Episode) -> tuple[np.ndarray, str | None]:
    """Return the first frame and why it is none that a camera sees, or None."""
    frame = np.zeros((0, 0, 3), np.uint8)
    try:
        frame = np.asarray(episode.frames[0])
    except Exception as error:  # a decoder raises whatever its library has; the data set goes on without this episode
        return frame, f'frame cannot be decoded: {type(error).__name__}: {error}'
    if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8:
        return frame, f'frame is {frame.dtype} {frame.shape}, not uint8 (H, W, 3)'
    if not frame.any() and not np.any(episode.frames[len(episode.frames) // 2]):
        return frame, 'its images are black: a camera that was absent (BridgeData fills these in)'
    complaint = mask(frame)
    return frame, f'its first frame is {complaint}' if complaint else None


def flat_rewards(rewards: np.ndarray) -> tuple[str, ...]:
    """Return a note where the rewards (T,) of an episode that counts as a success never rise: 0, or a -1 a step."""
    if len(rewards) < 2 or np.ptp(rewards) > 0 or rewards[0] > 0:
        return ()
    return (f'its rewards are {rewards[0]:g} throughout, which may mean that it failed',)


def suspicious(actions: np.ndarray, starts: np.ndarray, names: tuple[str, ...]) -> list[str]:
    """Return what is odd about the actions (N, 7) of a whole data set, though each could be true.

    `starts` (M,) are the first steps of its episodes.
    """
    found = []
    for i, name in enumerate(names):
        column = np.abs(actions[:, i])
        largest = column.max()
        if np.ptp(actions[:, i]) == 0:
            found.append(f'{name} is {actions[0, i]:g} in every step')
        elif i < 6 and len(column) >= 50 and (share := (column >= 0.999 * largest).mean()) > 0.2:
            found.append(f'{name} is at its largest size {largest:g} in {share:.0%} of the steps: clipped commands')
    gripper = actions[:, 6]
    if 1e-3 < np.ptp(gripper) and 0 <= gripper.min() and gripper.max() < 0.15:
        found.append(f'the gripper never opens beyond {gripper.max():.3g}: it looks like metres of finger travel')
    elif np.ptp(gripper) > 1e-3 and (gripper.max() < 0.7 or gripper.min() > 0.3):
        found.append(f'the gripper only goes from {gripper.min():.3g} to {gripper.max():.3g}: is it an openness 0..1?')
    both = (np.minimum.reduceat(gripper, starts) < 0.3) & (np.maximum.reduceat(gripper, starts) > 0.7)
    if both.sum() >= EPISODES and (share := (gripper[starts[both]] < 0.3).mean()) > 0.8:
        found.append(f'the gripper begins closed in {share:.0%} of the episodes in which it opens: where a 1 closes '
                     'it, say --gripper closedness')
    return found


def unverified(actions: np.ndarray, starts: np.ndarray, states: bool, pictures_by_name: bool) -> str:
    """Return, for a person to judge, what no check can tell of the actions (N, 7) of a data set; '' where all is told.

    `starts` (M,) are the first steps of its episodes; `pictures_by_name` tells that nothing but a file's name and
    length ties pictures to rows.
    """
    open_first, turn = (actions[starts, 6] > 0.5).mean(), float(np.median(np.abs(actions[:, 3:6]).max(1)))
    parts = [] if states else [
        f'that turns, usually {turn:.2g} rad ({np.degrees(turn):.2g} degrees) a step, are radians',
        f'that a 1 opens the gripper, which begins open in {open_first:.0%} of the episodes',
        'that no action stands one row early or late (no states are there that would tell)']
    parts += ['that no two videos of the same length were swapped (see the contact sheet)'] * pictures_by_name
    return 'not checked: ' + '; '.join(parts) if parts else ''
