"""BridgeData's 7-D robot state from the measured gripper pose."""

from __future__ import annotations

import numpy as np

# Gripper straight down in BridgeData's convention: its roll, pitch and yaw are those of R @ DOWN.T.
DOWN = np.array([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [-1.0, 0.0, 0.0]])


def state7(pose: np.ndarray, openness: float) -> np.ndarray | None:
    """Return (7,) float32: x y z [m], roll pitch yaw [rad] of Rz Ry Rx, openness 0..1.

    Args:
        pose: (4, 4) gripper in the arm's base frame [m].
        openness: measured, 0 closed .. 1 open.

    Returns:
        None when the pose is not finite or not a pose (a controller that has not measured yet sends zeros).
    """
    pose = np.asarray(pose, np.float64).reshape(4, 4)
    if not np.isfinite(pose).all() or abs(np.linalg.det(pose[:3, :3]) - 1.0) > 1e-3:
        return None
    rotation = pose[:3, :3] @ DOWN.T
    roll = np.arctan2(rotation[2, 1], rotation[2, 2])
    pitch = np.arcsin(np.clip(-rotation[2, 0], -1.0, 1.0))
    yaw = np.arctan2(rotation[1, 0], rotation[0, 0])
    return np.array([*pose[:3, 3], roll, pitch, yaw, np.clip(openness, 0.0, 1.0)], np.float32)
