"""What the controller says of itself, as the fields of a ControllerState. Takes message objects, imports no ROS."""

from typing import Any

from vgps_bringup.arm.controller import ArmController
from vgps_bringup.arm.kinematics import JOINT_NAMES


def fill_state(message: Any, controller: ArmController) -> Any:
    """Write what an ArmController does into a ControllerState and return it; the stamp is the caller's."""
    c, steps = controller, controller.steps
    message.header.frame_id = c.config.base_frame
    message.episode_id, message.step, message.state, message.reason = c.episode_id, c.step, int(c.state), int(c.reason)
    message.message, message.dry_run = c.message, c.config.dry_run
    message.target_pose, message.joint_names = steps.target_pose.ravel(), list(JOINT_NAMES)
    message.joint_command, message.gripper_target = steps.joint_command.tolist(), steps.gripper
    message.accepted, message.refused = c.accepted, c.refused
    message.image_to_command_ms = c.image_to_command * 1e3
    if c.reading is not None:
        message.joint_positions = c.reading.positions.tolist()
        message.measured_pose = steps.forward(c.reading.positions).ravel()
        message.gripper_position = c.reading.openness
    if c.last is not None:
        message.action_clipped, message.workspace_clipped = c.last.action_clipped, c.last.workspace_clipped
        message.inverse_kinematics_ms = c.last.inverse_kinematics_ms
    return message
