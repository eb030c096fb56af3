"""What a recorded episode tells about its own frames, without labels: targets to pre-train the critic's encoder on.

A small critic that learns everything from rewards alone gets features too coarse to grasp by (measured: 8 to 20 mm).
Every recording holds better teachers: where the gripper was, and, once the episode is over, where it closed on the
object and where it let go. Only successes say where the object and the goal really were; the rest is masked.
All positions are relative to the gripper of the frame, so that a shifted camera does not make them wrong.
"""
from typing import NamedTuple

import numpy as np

NAMES = ('x', 'y', 'z', 'roll', 'pitch', 'yaw', 'openness', 'grasp_x', 'grasp_y', 'grasp_z', 'grasp_yaw',
         'release_x', 'release_y', 'release_z')  # then the outcome: 1 success, 0 failure
POSE = np.array([0, 1, 2, 5])  # of a state: x, y, z, yaw
SETTLED = 2  # steps after the first closing command at which the fingers hold the object
SCALE = np.array([0.03, 0.03, 0.03, 0.2, 0.05, 0.05, 0.05], np.float32)  # of grasp and release: m, rad
SMALLEST_DEVIATION = np.array([0.01, 0.01, 0.01, 0.05, 0.05, 0.05, 0.1], np.float32)  # of the states: m, rad, openness


class Targets(NamedTuple):
    """What to predict for each of N frames; columns as in `NAMES`."""

    values: np.ndarray  # (N, 14) float32, standardised states, then grasp and release in units of `SCALE`
    known: np.ndarray   # (N, 14) float32, 1 where the recording tells
    success: np.ndarray  # (N,) float32, outcome of the frame's episode
    units: np.ndarray   # (14,) float32, what 1 means in m, rad or openness


def targets(states: np.ndarray, actions: np.ndarray, starts: np.ndarray, success: np.ndarray) -> Targets:
    """Return the targets of N steps of M episodes.

    Args:
        states: (N, 7) measured x y z [m], roll pitch yaw [rad], openness 0..1 before each step.
        actions: (N, 7) physical; the last column commands the gripper, below 0.5 is close.
        starts: (M,) first step of each episode.
        success: (M,) outcome of each episode.

    """
    deviation = np.maximum(states.std(0), SMALLEST_DEVIATION)
    relative = np.zeros((len(states), 7), np.float32)
    known = np.zeros((len(states), 14), np.float32)
    known[:, :7] = 1
    for start, stop, good in zip(starts, np.append(starts[1:], len(states)), success):
        closing = np.flatnonzero(actions[start:stop, 6] < 0.5)
        if not good or not len(closing):
            continue
        held = start + min(closing[0] + SETTLED, stop - start - 1)
        before = np.arange(start, held)
        relative[before, :4] = states[held, POSE] - states[before][:, POSE]
        known[before, 7:11] = 1
        opening = np.flatnonzero(actions[held:stop, 6] >= 0.5)
        if len(opening):
            released = held + opening[0]
            before = np.arange(start, released + 1)
            relative[before, 4:] = states[released, :3] - states[before, :3]
            known[before, 11:] = 1
    values = np.concatenate([(states - states.mean(0)) / deviation, relative / SCALE], 1).astype(np.float32)
    outcome = np.repeat(np.asarray(success, np.float32), np.diff(np.append(starts, len(states))))
    return Targets(values, known, outcome, np.concatenate([deviation, SCALE]).astype(np.float32))
