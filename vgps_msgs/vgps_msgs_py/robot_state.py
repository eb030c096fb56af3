"""BridgeData's 7-D robot state, once: position, attitude relative to "gripper straight down", openness.

A state is x, y, z [m] of the gripper in the arm's base frame (x forward, y left, z up), then roll, pitch and yaw [rad]
of Rz(yaw) Ry(pitch) Rx(roll) relative to the gripper pointing straight down, then openness, 0 closed to 1 open.

At pitch +-90 degrees (the gripper level with the table) roll and yaw turn about the same axis and only their sum or
difference is defined. There roll is 0 and yaw holds the whole turn; away from it the formula is the usual one.
"""

import numpy as np

# Rotation of the gripper that BridgeData calls zero roll, pitch and yaw: straight down
DOWN = np.array([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [-1.0, 0.0, 0.0]])
# What others' gripper numbers mean, and how they become openness; the user names it, nothing guesses it
TO_OPENNESS = {'openness': lambda g: g, 'closedness': lambda g: 1 - g, 'minus-one-open': lambda g: (1 - g) / 2,
               'minus-one-closed': lambda g: (1 + g) / 2}
_LEVEL = 1e-9  # cosine of the pitch below which roll and yaw cannot be told apart


def rotation_from_euler(roll: float, pitch: float, yaw: float) -> np.ndarray:
    """Return the (3, 3) rotation Rz(yaw) Ry(pitch) Rx(roll); angles in radians."""
    cr, sr, cp, sp, cy, sy = np.cos(roll), np.sin(roll), np.cos(pitch), np.sin(pitch), np.cos(yaw), np.sin(yaw)
    return np.array([[cy * cp, cy * sp * sr - sy * cr, cy * sp * cr + sy * sr],
                     [sy * cp, sy * sp * sr + cy * cr, sy * sp * cr - cy * sr],
                     [-sp, cp * sr, cp * cr]])


def euler_from_rotation(rotation: np.ndarray) -> np.ndarray:
    """Return (roll, pitch, yaw) [rad] of a (3, 3) rotation, pitch within +-90 degrees; there, roll is 0."""
    cos_pitch = np.hypot(rotation[0, 0], rotation[1, 0])
    pitch = np.arctan2(-rotation[2, 0], cos_pitch)
    if cos_pitch < _LEVEL:
        return np.array([0.0, pitch, np.arctan2(-rotation[0, 1], rotation[1, 1])])
    return np.array([np.arctan2(rotation[2, 1], rotation[2, 2]), pitch, np.arctan2(rotation[1, 0], rotation[0, 0])])


def pose_from_state(state: np.ndarray) -> np.ndarray:
    """Return the (4, 4) gripper pose of a state (x, y, z [m], roll, pitch, yaw [rad], ...)."""
    pose = np.eye(4)
    pose[:3, :3] = rotation_from_euler(*state[3:6]) @ DOWN
    pose[:3, 3] = state[:3]
    return pose


def state_from_pose(pose: np.ndarray, openness: float) -> np.ndarray:
    """Return the (7,) float64 state of a (4, 4) gripper pose and an openness, 0..1."""
    return np.concatenate([pose[:3, 3], euler_from_rotation(pose[:3, :3] @ DOWN.T), [openness]])


def measured_state(pose: np.ndarray, openness: float) -> np.ndarray | None:
    """Return the (7,) float32 state of a measured pose as a message carries it, openness kept within 0..1.

    Args:
        pose: (16,) row-major or (4, 4), gripper in the arm's base frame [m].
        openness: measured, 0 closed .. 1 open.

    Returns:
        None where the pose is not finite or no pose: a controller that has not measured yet sends zeros.

    """
    pose = np.asarray(pose, np.float64).reshape(4, 4)
    if not np.isfinite(pose).all() or abs(np.linalg.det(pose[:3, :3]) - 1.0) > 1e-3:
        return None
    return state_from_pose(pose, np.clip(openness, 0.0, 1.0)).astype(np.float32)
