"""What a recorded episode tells about its own frames: targets to pre-train the critic's encoder on, without labels.

A small critic that learns everything from rewards alone gets features too coarse to grasp by. Every recording holds
better teachers: where the gripper was, and, once the episode is over, where it closed on the object and let go.
One recording's grasp is off by centimetres (that is why half of them fail), so frames are not taught their own grasp,
but where demonstrators of this scene grasp on average: `locate` fits that to the first frame of every episode, in which
nothing yet tells where this one's gripper is going (measured: 16 mm of scatter become 3 to 4 mm).
"""
from typing import NamedTuple

import numpy as np

NAMES = ('x', 'y', 'z', 'roll', 'pitch', 'yaw', 'openness', 'grasp_x', 'grasp_y', 'grasp_z', 'grasp_yaw',
         'release_x', 'release_y', 'release_z')
RELATIVE = slice(7, 14)  # columns that are relative to the gripper of the frame: a shifted camera does not falsify them
POSE = np.array([0, 1, 2, 5])  # of a state: x, y, z, yaw
SETTLED = 2  # steps after the first closing command at which the fingers hold the object
FAILURE_WEIGHT = 0.35  # of a failure's grasp in the fit: it tells less well where the object was
COMPONENTS = 30  # principal components of the features that the fit may use: few against the number of episodes
SCALE = np.array([0.03, 0.03, 0.03, 0.2, 0.05, 0.05, 0.05], np.float32)  # of the relative columns: m, rad
SMALLEST_DEVIATION = np.array([0.01, 0.01, 0.01, 0.05, 0.05, 0.05, 0.1], np.float32)  # of states: m, rad, openness


class Events(NamedTuple):
    """When M episodes grasped and released; step indices into the whole table."""

    held: np.ndarray      # (M,) int, the grasp; the episode's end where the gripper never closed
    released: np.ndarray  # (M,) int, the opening after it; the last step where there was none
    grasped: np.ndarray   # (M,) bool
    let_go: np.ndarray    # (M,) bool


class Places(NamedTuple):
    """Where to grasp and where to release in the scenes of M episodes, in the arm's base frame."""

    grasp: np.ndarray    # (M, 4) float32: x y z [m], yaw [rad]
    release: np.ndarray  # (M, 3) float32: x y z [m]


class Targets(NamedTuple):
    """What to predict for each of N frames; columns as in `NAMES`."""

    values: np.ndarray   # (N, 14) float32, standardised states, then grasp and release in units of `SCALE`
    known: np.ndarray    # (N, 14) float32, 1 where the recordings tell
    success: np.ndarray  # (N,) float32, outcome of the frame's episode
    units: np.ndarray    # (14,) float32, what 1 means in m, rad or openness


def events(actions: np.ndarray, starts: np.ndarray) -> Events:
    """Find grasps and releases in the gripper commands, the last column of actions (N, 7): below 0.5 is close."""
    found = []
    for start, stop in zip(starts, np.append(starts[1:], len(actions))):
        closing = np.flatnonzero(actions[start:stop, 6] < 0.5)
        if not len(closing):
            found.append((stop, stop - 1, False, False))
            continue
        held = start + min(int(closing[0]) + SETTLED, stop - start - 1)
        opening = np.flatnonzero(actions[held:stop, 6] >= 0.5)
        found.append((held, held + int(opening[0]) if len(opening) else stop - 1, True, len(opening) > 0))
    return Events(*(np.array(column) for column in zip(*found)))


def own_places(states: np.ndarray, when: Events, success: np.ndarray) -> Places:
    """Return where each episode grasped, and where a success released; NaN where it did not."""
    last = len(states) - 1
    grasp = np.where(when.grasped[:, None], states[np.minimum(when.held, last)][:, POSE], np.nan)
    good = (when.let_go & (np.asarray(success) > 0))[:, None]
    return Places(grasp, np.where(good, states[when.released, :3], np.nan))


def locate(features: np.ndarray, own: Places, success: np.ndarray, training: np.ndarray,
           instruction: np.ndarray) -> Places:
    """Return where demonstrators grasp and release on average in the scene that each first frame shows.

    Args:
        features: (M, D) of each episode's first frame.
        own: from `own_places`.
        success: (M,) outcomes.
        training: (M,) bool, episodes to fit to.
        instruction: (M,) int; each is fitted by itself.

    """
    weights = np.where(np.asarray(success) > 0, 1.0, FAILURE_WEIGHT)
    result = Places(*(np.full(place.shape, np.nan) for place in own))
    for task in np.unique(instruction):
        of_task = instruction == task
        for place, fitted in zip(own, result):
            rows = of_task & training & ~np.isnan(place[:, 0])
            if not rows.any():
                continue
            standard = (features - features[rows].mean(0)) / (features[rows].std(0) + 1e-6)
            axes = np.linalg.svd(standard[rows], full_matrices=False)[2][:COMPONENTS]
            inputs = np.concatenate([standard @ axes.T, np.ones((len(features), 1))], 1)
            weighted = inputs[rows] * weights[rows, None]
            gram = weighted.T @ inputs[rows] + 1e-3 * np.eye(inputs.shape[1])
            fitted[of_task] = (inputs @ np.linalg.solve(gram, weighted.T @ place[rows]))[of_task]
    return result


def targets(states: np.ndarray, when: Events, places: Places, starts: np.ndarray, success: np.ndarray) -> Targets:
    """Return the targets of N steps of M episodes.

    The object is where it lay until it is grasped; in a success it then stays in the gripper. In a failure it may be
    anywhere, so nothing is known. The goal does not move.

    Args:
        states: (N, 7) measured x y z [m], roll pitch yaw [rad], openness 0..1 before each step.
        when: from `events`.
        places: of each episode's scene, NaN where unknown.
        starts: (M,) first step of each episode.
        success: (M,) outcomes.

    """
    deviation = np.maximum(states.std(0), SMALLEST_DEVIATION)
    relative = np.full((len(states), 7), np.nan)
    for i, (start, stop) in enumerate(zip(starts, np.append(starts[1:], len(states)))):
        before = slice(start, min(when.held[i] + 1, stop))
        relative[before, :4] = places.grasp[i] - states[before][:, POSE]
        if success[i] and when.grasped[i]:
            relative[when.held[i]:when.released[i] + 1, :4] = places.grasp[i] - states[when.held[i], POSE]
        relative[start:stop, 4:] = places.release[i] - states[start:stop, :3]
    known = np.concatenate([np.ones((len(states), 7)), ~np.isnan(relative)], 1).astype(np.float32)
    values = np.concatenate([(states - states.mean(0)) / deviation, np.nan_to_num(relative) / SCALE], 1)
    outcome = np.repeat(np.asarray(success, np.float32), np.diff(np.append(starts, len(states))))
    return Targets(values.astype(np.float32), known, outcome, np.concatenate([deviation, SCALE]).astype(np.float32))
