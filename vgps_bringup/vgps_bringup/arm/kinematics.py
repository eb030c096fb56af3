"""Forward and inverse kinematics of the WidowX 250 6DOF (wx250s), frames base_link and ee_gripper_link.

MuJoCo computes poses and Jacobians of a model that holds nothing but Interbotix's link offsets; a
Levenberg-Marquardt iteration on top inverts them. The inverse starts at the last command and looks for no other
branch: a solution far from the last command would be a jump of the arm, never what a 5 cm step asked for.

Joint order everywhere: waist, shoulder, elbow, forearm_roll, wrist_angle, wrist_rotate. Radians, metres.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import mujoco
import numpy as np

Joints = np.ndarray | Sequence[float]  # (6,) rad
JOINT_NAMES = ('waist', 'shoulder', 'elbow', 'forearm_roll', 'wrist_angle', 'wrist_rotate')

# Read from Interbotix's driver (RobotInfo service), robot_model wx250s.
JOINT_LOWER = np.array([-3.14158, -1.88496, -2.14675, -3.14158, -1.74533, -3.14158])
JOINT_UPPER = np.array([3.14158, 1.98968, 1.60570, 3.14158, 2.14675, 3.14158])

_ARM = """
<mujoco model="wx250s">
  <worldbody>
    <body name="waist" pos="0 0 0.072"><joint axis="0 0 1"/><inertial pos="0 0 0" mass="1" diaginertia="1 1 1"/>
    <body name="shoulder" pos="0 0 0.03865"><joint axis="0 1 0"/><inertial pos="0 0 0" mass="1" diaginertia="1 1 1"/>
    <body name="elbow" pos="0.04975 0 0.25"><joint axis="0 1 0"/><inertial pos="0 0 0" mass="1" diaginertia="1 1 1"/>
    <body name="forearm" pos="0.175 0 0"><joint axis="1 0 0"/><inertial pos="0 0 0" mass="1" diaginertia="1 1 1"/>
    <body name="wrist" pos="0.075 0 0"><joint axis="0 1 0"/><inertial pos="0 0 0" mass="1" diaginertia="1 1 1"/>
    <body name="hand" pos="0.065 0 0"><joint axis="1 0 0"/><inertial pos="0 0 0" mass="1" diaginertia="1 1 1"/>
      <site name="ee_gripper" pos="0.093575 0 0"/>
    </body></body></body></body></body></body>
  </worldbody>
</mujoco>
"""

_CONVERGED = (1e-6, 1e-5)    # m, rad: where the descent stops
_ACCEPTED = (2e-5, 2e-4)     # m, rad: good enough where it ran out of iterations
_STALLED = (1e-2, 1e-1)      # m, rad: so close that a stalled descent is worth another start
_MAX_ITERATIONS = 40         # a step of BridgeData's size takes about 4
_MAX_STEP = 0.5              # rad per iteration
_MAX_DAMPING = 10.0          # more means that no direction leads downhill: a local minimum
_WEIGHTS = np.array([1.0, 1.0, 1.0, 0.1, 0.1, 0.1])  # 0.1 m per rad: an angle against a distance at the hand's scale
# Beside a singular pose (straight elbow, wrist in line with the forearm) the descent can stall in a curved valley;
# starting it a little to the side of the seed gets it out.
_NUDGES = np.vstack([np.zeros(6), 0.15 * np.random.default_rng(0).choice([-1.0, 1.0], (7, 6))])


@dataclass(frozen=True)
class InverseResult:
    """Outcome of the inverse kinematics."""

    joint_positions: np.ndarray  # (6,) rad, the best found even where ok is False
    ok: bool                     # both errors are within tolerance
    position_error: float        # m
    rotation_error: float        # rad


class Kinematics:
    """Pose, Jacobian and inverse of one arm. Holds MuJoCo's work space, so use one instance per thread."""

    joint_names, model = JOINT_NAMES, 'wx250s'

    def __init__(self) -> None:
        self._model = mujoco.MjModel.from_xml_string(_ARM)
        self._data = mujoco.MjData(self._model)
        self._site = self._model.site('ee_gripper').id
        self._jacobian = np.zeros((6, self._model.nv))

    def forward(self, joint_positions: Joints) -> np.ndarray:
        """Return the (4, 4) pose of the gripper in the base frame for (6,) joint positions."""
        self._data.qpos[:] = joint_positions
        mujoco.mj_kinematics(self._model, self._data)
        pose = np.eye(4)
        pose[:3, :3] = self._data.site_xmat[self._site].reshape(3, 3)
        pose[:3, 3] = self._data.site_xpos[self._site]
        return pose

    def skeleton(self, joint_positions: Joints) -> np.ndarray:
        """Return (8, 3) points [m] in the base frame, from the base over every joint to the gripper."""
        gripper = self.forward(joint_positions)[:3, 3]
        return np.vstack([self._data.xpos, gripper])  # the world body is the base

    def jacobian(self, joint_positions: Joints) -> np.ndarray:
        """Return the (6, 6) Jacobian in base axes, rows dx dy dz [m] then rotation vector [rad], per radian."""
        self.forward(joint_positions)
        mujoco.mj_comPos(self._model, self._data)
        mujoco.mj_jacSite(self._model, self._data, self._jacobian[:3], self._jacobian[3:], self._site)
        return np.array(self._jacobian)

    def inverse(self, pose: np.ndarray, seed: Joints) -> InverseResult:
        """Find the joint positions near `seed` whose pose is the (4, 4) `pose`.

        Joint limits are not applied here: the caller can then name the joint that would have to leave its range.
        Not-finite input gives ok=False with the seed, never a pose of its own.
        """
        pose, joints = np.asarray(pose, float), np.array(seed, float)
        if not (np.isfinite(pose).all() and np.isfinite(joints).all()):
            return InverseResult(joints, False, np.inf, np.inf)
        for nudge in _NUDGES:
            result = self._descend(pose, joints + nudge)
            if result.ok or result.position_error > _STALLED[0] or result.rotation_error > _STALLED[1]:
                break
        return result

    def _descend(self, pose: np.ndarray, joints: np.ndarray) -> InverseResult:
        """Run Levenberg-Marquardt from (6,) `joints`."""
        damping, error = 1e-6, self._error(pose, joints)
        for _ in range(_MAX_ITERATIONS):
            if _within(error, _CONVERGED) or damping > _MAX_DAMPING:
                break
            jacobian = self.jacobian(joints) * _WEIGHTS[:, None]
            weighted = error * _WEIGHTS
            step = np.linalg.solve(jacobian.T @ jacobian + damping * np.eye(6), jacobian.T @ weighted)
            # A full turn in one iteration would land on another branch of the solution.
            step *= min(1.0, _MAX_STEP / max(np.abs(step).max(), 1e-12))
            trial_error = self._error(pose, joints + step)
            if np.linalg.norm(trial_error * _WEIGHTS) < np.linalg.norm(weighted):
                joints, error, damping = joints + step, trial_error, max(damping * 0.2, 1e-9)
            else:
                damping *= 10.0
        return InverseResult(joints, _within(error, _ACCEPTED), float(np.linalg.norm(error[:3])),
                             float(np.linalg.norm(error[3:])))

    def _error(self, pose: np.ndarray, joint_positions: np.ndarray) -> np.ndarray:
        """Return (6,) what is missing to `pose`: dx dy dz [m], rotation vector [rad], in base axes."""
        present = self.forward(joint_positions)
        return np.concatenate([pose[:3, 3] - present[:3, 3], rotation_vector(pose[:3, :3] @ present[:3, :3].T)])


def _within(error: np.ndarray, tolerance: tuple[float, float]) -> bool:
    return bool(np.linalg.norm(error[:3]) < tolerance[0] and np.linalg.norm(error[3:]) < tolerance[1])


def rotation_vector(rotation: np.ndarray) -> np.ndarray:
    """Return the (3,) rotation vector [rad] of a (3, 3) rotation matrix; at pi either of both axes."""
    quaternion, vector = np.zeros(4), np.zeros(3)
    mujoco.mju_mat2Quat(quaternion, np.ascontiguousarray(rotation).reshape(9))
    mujoco.mju_quat2Vel(vector, quaternion, 1.0)
    return vector
