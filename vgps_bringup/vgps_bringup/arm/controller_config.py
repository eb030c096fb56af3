"""Parameters of the arm's steps and of the poses that it goes to."""

from dataclasses import dataclass, field

import numpy as np

from vgps_bringup.arm.kinematics import JOINT_LOWER, JOINT_NAMES, JOINT_UPPER, Kinematics
from vgps_msgs_py import robot_state


@dataclass(frozen=True)
class ControllerConfig:
    """Timing of the steps, and the poses that the arm goes to."""

    base_frame: str = field(default='wx250s/base_link', metadata={
        'description': "frame the commands must be in: the arm's base", 'read_only': True})
    dry_run: bool = field(default=True, metadata={
        'description': "compute and check everything, but move nothing; each step starts at the arm's present pose"})
    step_duration: float = field(default=0.2, metadata={
        'description': 'duration of one control step [s]; 5 Hz as in BridgeData', 'range': (0.1, 1.0)})
    # BridgeData gives up on images older than this.
    max_image_age: float = field(default=1.0, metadata={
        'description': 'largest age of the image that a command was made from [s]', 'range': (0.05, 30.0)})
    move_speed: float = field(default=1.0, metadata={
        'description': 'largest joint speed on the way to the neutral and start poses [rad/s]', 'range': (0.1, 1.5)})
    max_gripper_speed: float = field(default=0.25, metadata={
        'description': 'largest speed of the fingertips on the way to the neutral and start poses [m/s]',
        'range': (0.05, 0.5)})
    neutral_joints: tuple[float, ...] = field(
        default=(-0.13192235, -0.76238847, 0.44485444, -0.01994175, 1.7564081, -0.15953401), metadata={
            'description': "joint positions of ~/home [rad]; BridgeData's", 'read_only': True})
    start_state: tuple[float, ...] = field(default=(0.3, 0.0, 0.15, 0.0, 0.0, 0.0), metadata={
        'description': "gripper pose of ~/reset: x y z [m], roll pitch yaw [rad] in BridgeData's convention",
        'read_only': True})

    def start_joints(self) -> np.ndarray:
        """Return the (6,) joints of the start pose; ValueError where the arm cannot go to it or to neutral."""
        if len(self.neutral_joints) != len(JOINT_NAMES) or len(self.start_state) != 6:
            raise ValueError('neutral_joints needs 6 joint positions and start_state x y z roll pitch yaw')
        solution = Kinematics().inverse(robot_state.pose_from_state(np.array(self.start_state)), self.neutral_joints)
        if not solution.ok:
            raise ValueError(f'start_state {self.start_state} is out of reach')
        # sent, they would be clipped to the limits: a pose that nobody asked for and no look along the way has seen
        for what, joints in (('neutral_joints', self.neutral_joints), ('start_state', solution.joint_positions)):
            outside = np.maximum(JOINT_LOWER - joints, joints - JOINT_UPPER)
            worst = int(np.argmax(outside))
            if outside[worst] > 0.0:
                raise ValueError(f'{what} puts {JOINT_NAMES[worst]} at {joints[worst]:.3f} rad, outside '
                                 f'{JOINT_LOWER[worst]:.3f} to {JOINT_UPPER[worst]:.3f}')
        return solution.joint_positions
