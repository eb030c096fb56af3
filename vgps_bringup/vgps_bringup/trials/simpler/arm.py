"""ManiSkill's WidowX in the conventions of recordings and policies: joints, fingers, poses in its base frame."""

import numpy as np

from vgps_msgs_py import robot_state

FINGER_CLOSED, FINGER_OPEN = 0.015, 0.037  # m from the centre, as ManiSkill's gripper controller is told
HAND = 'ee_gripper_link'


class Arm:
    """Reads the arm of a ManiSkill world of one scene; commands go through the task."""

    def __init__(self, world):
        self._world = world

    def joint_positions(self) -> np.ndarray:
        """Return the joint angles (6,) rad, waist to wrist_rotate."""
        return self._world.agent.robot.get_qpos()[0, :6].cpu().numpy().astype(float)

    def joint_velocities(self) -> np.ndarray:
        """Return the joint velocities (6,) rad/s."""
        return self._world.agent.robot.get_qvel()[0, :6].cpu().numpy().astype(float)

    def finger_position(self) -> float:
        """Return the distance of one finger from the centre [m]."""
        return float(self._world.agent.robot.get_qpos()[0, 6])

    def gripper_openness(self) -> float:
        """Return the measured openness, 0 closed to 1 open."""
        return float(np.clip((self.finger_position() - FINGER_CLOSED) / (FINGER_OPEN - FINGER_CLOSED), 0.0, 1.0))

    def base_pose(self) -> np.ndarray:
        """Return the pose (4, 4) [m] of the arm's base in the world."""
        return self._world.agent.robot.pose.sp.to_transformation_matrix().astype(float)

    def world_pose(self) -> np.ndarray:
        """Return the pose (4, 4) [m] of the gripper in the world."""
        return self._world.agent.robot.links_map[HAND].pose.sp.to_transformation_matrix().astype(float)

    def gripper_pose(self) -> np.ndarray:
        """Return the pose (4, 4) [m] of the gripper in the arm's base frame."""
        return np.linalg.inv(self.base_pose()) @ self.world_pose()

    def in_base(self, point: np.ndarray) -> tuple[float, ...]:
        """Return a point (3,) [m] of the world in the arm's base frame."""
        return tuple((np.linalg.inv(self.base_pose()) @ [*point, 1.0])[:3].tolist())

    def target_pose(self) -> np.ndarray:
        """Return the pose (4, 4) [m] in the base frame that the controller is steering to."""
        target = self._world.agent.controller.controllers['arm']._target_pose
        return self.gripper_pose() if target is None else target.sp.to_transformation_matrix().astype(float)

    def state(self) -> np.ndarray:
        """Return BridgeData's state (7,): metres, radians, openness."""
        return robot_state.state_from_pose(self.gripper_pose(), self.gripper_openness())
