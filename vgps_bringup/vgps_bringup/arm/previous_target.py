"""BridgeData's action and state: how a 7-D delta becomes the gripper's next target pose.

An action is (dx, dy, dz) in metres and (droll, dpitch, dyaw) in radians about the axes of the arm's base (x forward,
y left, z up) and the gripper's openness, absolute, 0 closed to 1 open. The delta turns and moves the previous
*target*. Measured joints would let gravity pull the arm down a little further with every step, and sums of Euler
angles turn about the wrong axis once the gripper points down (pitch near 90 degrees), which is its usual attitude.
"""

import numpy as np

from vgps_msgs_py.robot_state import rotation_from_euler


def compose(target: np.ndarray, measured_position: np.ndarray, delta: np.ndarray) -> np.ndarray:
    """Return the next (4, 4) target pose: Trans(p) [R(e), d] Trans(p)^-1 T*.

    `target` is the previous (4, 4) target T*, `measured_position` the (3,) measured gripper position p [m], about
    which the rotation R(e) turns, and `delta` the (6,) d [m] and Euler angles e [rad]. No clipping here.
    """
    rotation = rotation_from_euler(*delta[3:6])
    pose = np.eye(4)
    pose[:3, :3] = _orthonormal(rotation @ target[:3, :3])
    pose[:3, 3] = measured_position + delta[:3] + rotation @ (target[:3, 3] - measured_position)
    return pose


def _orthonormal(rotation: np.ndarray) -> np.ndarray:
    """Return the nearest rotation: thousands of products would otherwise drift away from one."""
    u, _, vt = np.linalg.svd(rotation)
    return np.asarray(u @ vt)
