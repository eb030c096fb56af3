"""BridgeData's action and state: how a 7-D delta becomes the gripper's next target pose.

An action is (dx, dy, dz) in metres and (droll, dpitch, dyaw) in radians about the axes of the arm's base (x forward,
y left, z up) and the gripper's openness, absolute, 0 closed to 1 open. The delta turns and moves the previous
*target*. Measured joints would let gravity pull the arm down a little further with every step, and sums of Euler
angles turn about the wrong axis once the gripper points down (pitch near 90 degrees), which is its usual attitude.
"""

import numpy as np

# Rotation of the gripper that BridgeData calls zero roll, pitch and yaw: straight down.
DEFAULT_ROTATION = np.array([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [-1.0, 0.0, 0.0]])


def rotation_from_euler(roll, pitch, yaw):
    """Return the (3, 3) rotation Rz(yaw) Ry(pitch) Rx(roll); angles in radians."""
    cr, sr, cp, sp, cy, sy = np.cos(roll), np.sin(roll), np.cos(pitch), np.sin(pitch), np.cos(yaw), np.sin(yaw)
    return np.array([[cy * cp, cy * sp * sr - sy * cr, cy * sp * cr + sy * sr],
                     [sy * cp, sy * sp * sr + cy * cr, sy * sp * cr - cy * sr],
                     [-sp, cp * sr, cp * cr]])


def euler_from_rotation(rotation):
    """Return (roll, pitch, yaw) in radians of a (3, 3) rotation; at pitch +-90 degrees roll is 0."""
    cos_pitch = np.hypot(rotation[0, 0], rotation[1, 0])
    pitch = np.arctan2(-rotation[2, 0], cos_pitch)
    if cos_pitch < 1e-9:
        return np.array([0.0, pitch, np.arctan2(-rotation[0, 1], rotation[1, 1])])
    return np.array([np.arctan2(rotation[2, 1], rotation[2, 2]), pitch, np.arctan2(rotation[1, 0], rotation[0, 0])])


def compose(target, measured_position, delta):
    """Return the next (4, 4) target pose: Trans(p) [R(e), d] Trans(p)^-1 T*.

    `target` is the previous (4, 4) target T*, `measured_position` the (3,) measured gripper position p [m], about
    which the rotation R(e) turns, and `delta` the (6,) d [m] and Euler angles e [rad]. No clipping here.
    """
    rotation = rotation_from_euler(*delta[3:6])
    pose = np.eye(4)
    pose[:3, :3] = _orthonormal(rotation @ target[:3, :3])
    pose[:3, 3] = measured_position + delta[:3] + rotation @ (target[:3, 3] - measured_position)
    return pose


def pose_from_state(state):
    """Return the (4, 4) gripper pose of a BridgeData state (x, y, z [m], roll, pitch, yaw [rad], ...)."""
    pose = np.eye(4)
    pose[:3, :3] = rotation_from_euler(*state[3:6]) @ DEFAULT_ROTATION
    pose[:3, 3] = state[:3]
    return pose


def state7(pose, openness):
    """Return BridgeData's (7,) state (x, y, z [m], roll, pitch, yaw [rad], openness) of a (4, 4) gripper pose."""
    return np.concatenate([pose[:3, 3], euler_from_rotation(pose[:3, :3] @ DEFAULT_ROTATION.T), [openness]])


def _orthonormal(rotation):
    """Return the nearest rotation: thousands of products would otherwise drift away from one."""
    u, _, vt = np.linalg.svd(rotation)
    return u @ vt
