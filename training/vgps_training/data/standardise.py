"""How each Open-X data set spells observation, instruction and action; one entry per data set.

Target: BridgeData's convention, a 7-D end-effector delta in metres and radians and an absolute gripper openness.
"""
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from vgps_training.data.episode import DataError

COMMANDED = 0.03  # [m] of motion that a working arm would have shown
Steps = dict[str, np.ndarray]  # numeric features of an episode by name without 'steps/', each (T, ...)


@dataclass(frozen=True)
class Standard:
    """Where to find things in a data set's steps and how to make actions of them."""

    image: str                             # feature of the camera the policy sees; --camera names another
    instruction: str                       # feature of the text
    actions: Callable[[Steps], np.ndarray]  # steps -> (T', 7), T' <= T: trailing steps without an action are dropped
    rate: float                            # control steps a second, for the plausibility of their sizes
    state: str = ''                        # feature with BridgeData's state: x y z roll pitch yaw (pad) openness
    success: str = ''                      # feature of the steps that judges; without one `success` of the episode does


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
    # Reached-state differences replace the commanded motion; the last step has none and is dropped. The authors leave
    # the jump of 2 pi where an angle wraps around, which no arm made: it is taken out.
    state, action = steps['observation/state'], steps['action']
    lost = np.flatnonzero(~state.any(1))
    if len(lost) and len(lost) < len(state):
        raise DataError(f'the state of step {lost[0]} is zero throughout: a reading that was lost, between two leaps')
    if len(state) > 4 and not np.ptp(state, axis=0).any() and np.abs(action[1:, :3].sum(0)).max() > COMMANDED:
        raise DataError('its states never change while motions were commanded: readings that were not updated')
    if action[:, 6].min() < -0.05 or action[:, 6].max() > 1.05:
        raise DataError(f'gripper commands from {action[:, 6].min():.3g} to {action[:, 6].max():.3g} are not an '
                        'openness 0..1')
    motion = state[1:, :6] - state[:-1, :6]
    around = np.abs(motion[:, 3:]) > np.pi
    motion[:, 3:][around] = (motion[:, 3:][around] + np.pi) % (2 * np.pi) - np.pi
    return np.concatenate([motion, binarise_gripper(action[:, 6])[:-1, None]], 1).astype(np.float32)


def _deltas(openness: Callable[[Steps], np.ndarray]) -> Callable[[Steps], np.ndarray]:
    """Return the rule of sets with `world_vector` [m] and, where the arm turns, `rotation_delta` [rad]."""
    def actions(steps: Steps) -> np.ndarray:
        motion = steps['action/world_vector']
        turn = steps.get('action/rotation_delta', np.zeros_like(motion))
        return np.concatenate([motion, turn, openness(steps).reshape(-1, 1)], 1).astype(np.float32)
    return actions


def _relative(steps: Steps) -> np.ndarray:  # +1 closes, -1 opens, 0 leaves it
    return absolute_gripper(steps['action/gripper_closedness_action'].reshape(-1))


def _closedness(steps: Steps) -> np.ndarray:  # 1 is closed
    return 1 - np.clip(steps['action/gripper_closedness_action'], 0, 1)


def _open_flag(steps: Steps) -> np.ndarray:  # 1 is open
    return np.asarray(steps['action/open_gripper'], np.float32)


def _bc_z(steps: Steps) -> np.ndarray:
    # residuals to the next ten reached states: the first is the motion of this step; target_close 1 is closed
    motion, turn = steps['action/future/xyz_residual'], steps['action/future/axis_angle_residual']
    return np.concatenate([motion[:, :3], turn[:, :3],
                           1 - np.clip(steps['action/future/target_close'][:, :1], 0, 1)], 1).astype(np.float32)


def _delta_with_openness(steps: Steps) -> np.ndarray:
    return np.asarray(steps['action'], np.float32)


_TEXT = 'observation/natural_language_instruction'
STANDARDS = {
    'bridge_dataset': Standard('observation/image_0', 'language_instruction', _bridge, 5, 'observation/state'),
    'bridge_orig': Standard('observation/image_0', 'language_instruction', _bridge, 5, 'observation/state'),
    'bridge': Standard('observation/image', _TEXT, _deltas(_open_flag), 5),
    'fractal20220817_data': Standard('observation/image', _TEXT, _deltas(_relative), 3),
    'kuka': Standard('observation/image', _TEXT, _deltas(_relative), 10),
    'jaco_play': Standard('observation/image', _TEXT, _deltas(_relative), 10),
    'berkeley_autolab_ur5': Standard('observation/image', _TEXT, _deltas(_relative), 5),
    'roboturk': Standard('observation/front_rgb', _TEXT, _deltas(_closedness), 10),
    'toto': Standard('observation/image', _TEXT, _deltas(_open_flag), 30),
    'bc_z': Standard('observation/image', _TEXT, _bc_z, 10, success='observation/episode_success'),
    # 7-D deltas in metres and radians with absolute openness, recorded as such
    'vgps': Standard('observation/image', 'language_instruction', _delta_with_openness, 5, 'observation/state'),
}


def standard(name: str) -> Standard:
    """Return a data set's entry; raises DataError naming the known ones."""
    if not isinstance(name, str) or name not in STANDARDS:
        raise DataError(f"no standardisation for data set '{str(name)[:80]}'; known: {', '.join(STANDARDS)}. "
                        'Add an entry to vgps_training/data/standardise.py')
    return STANDARDS[name]
