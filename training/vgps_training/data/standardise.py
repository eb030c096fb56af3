"""How each Open-X data set spells observation, instruction and action; one entry per data set.

Target: BridgeData's convention, a 7-D end-effector delta in metres and radians and an absolute gripper openness.
"""
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

Steps = dict[str, np.ndarray]  # numeric features of an episode by name without 'steps/', each (T, ...)


@dataclass(frozen=True)
class Standard:
    """Where to find things in a data set's steps and how to make actions of them."""

    image: str                             # feature of the camera the policy sees
    instruction: str                       # feature of the text
    actions: Callable[[Steps], np.ndarray]  # steps -> (T', 7), T' <= T: trailing steps without an action are dropped


def binarise_gripper(openness: np.ndarray) -> np.ndarray:
    """Return open 1 / closed 0; values in between take the state reached after them (authors' code, bridge).

    A trailing run in between keeps its last raw value.
    """
    result = np.array(openness, np.float32)
    state = result[-1]
    for t in range(len(result) - 1, -1, -1):
        if result[t] > 0.95:
            state = 1.0
        elif result[t] < 0.05:
            state = 0.0
        result[t] = state
    return result


def absolute_gripper(closing: np.ndarray) -> np.ndarray:
    """Return open 1 / closed 0 of relative commands, +1 close and -1 open beyond 0.1 (authors' code, fractal).

    Before the first command the gripper is the opposite of that command; with none it is open.
    """
    command = np.where(closing > 0.1, 0.0, np.where(closing < -0.1, 1.0, np.nan)).astype(np.float32)
    given = np.flatnonzero(~np.isnan(command))
    if not len(given):
        return np.ones(len(command), np.float32)
    state = 1.0 - command[given[0]]
    for t, value in enumerate(command):
        if not np.isnan(value):
            state = value
        command[t] = state
    return command


def _bridge(steps: Steps) -> np.ndarray:
    # Reached-state differences replace the commanded motion (Euler angles without wrap-around, as the authors do);
    # the last step has none and is dropped.
    state, action = steps['observation/state'], steps['action']
    motion = state[1:, :6] - state[:-1, :6]
    return np.concatenate([motion, binarise_gripper(action[:, 6])[:-1, None]], 1).astype(np.float32)


def _fractal(steps: Steps) -> np.ndarray:
    gripper = absolute_gripper(steps['action/gripper_closedness_action'].reshape(-1))
    return np.concatenate([steps['action/world_vector'], steps['action/rotation_delta'], gripper[:, None]],
                          1).astype(np.float32)


def _delta_with_openness(steps: Steps) -> np.ndarray:
    return np.asarray(steps['action'], np.float32)


STANDARDS = {
    'bridge_dataset': Standard('observation/image_0', 'language_instruction', _bridge),
    'bridge_orig': Standard('observation/image_0', 'language_instruction', _bridge),
    'fractal20220817_data': Standard('observation/image', 'observation/natural_language_instruction', _fractal),
    # 7-D deltas in metres and radians with absolute openness, recorded as such
    'vgps': Standard('observation/image', 'language_instruction', _delta_with_openness),
}


def standard(name: str) -> Standard:
    """Return a data set's entry; raises ValueError naming the known ones."""
    if name not in STANDARDS:
        raise ValueError(f"no standardisation for data set '{name}'; known: {', '.join(STANDARDS)}. "
                         'Add an entry to vgps_training/data/standardise.py')
    return STANDARDS[name]
