"""The simulated robot in lockstep: one action in, 0.2 s of simulated time, one observation out. As fast as it can.

The actions pass the same guards as on the robot (``arm.step_controller``); only ROS is left out.
"""

from dataclasses import dataclass

import numpy as np

from vgps_bringup.arm.step_controller import StepController, StepControllerConfig, StepResult
from vgps_bringup.simulation.appearance import PLAIN, VisualRandomisation
from vgps_bringup.simulation.oracle import TaskState
from vgps_bringup.simulation.tasks import DEFAULT_TASK
from vgps_bringup.simulation.widowx import SimulatedWidowX
from vgps_msgs_py import robot_state

STEP_DURATION = 0.2  # s, BridgeData's 5 Hz
MIN_HEIGHT = 0.0235  # m; the fingers reach 23.4 mm below ee_gripper_link, and the simulated table is at 0


@dataclass(frozen=True)
class Observation:
    """What a policy may see before a step."""

    image: np.ndarray | None  # (H, W, 3) uint8 RGB; None without a camera
    state: np.ndarray  # (7,) x y z [m], roll pitch yaw [rad, BridgeData's convention], openness 0 .. 1
    instruction: str
    stamp: float  # s since the reset


class LockstepEnvironment:
    """Runs episodes of one simulated robot without ROS and without waiting."""

    def __init__(self, task: str = DEFAULT_TASK, image_size: tuple[int, int] | None = (256, 256),
                 renderer: str = 'auto', looks: VisualRandomisation = PLAIN):
        """Build the world of `task`; `image_size` (height, width) None leaves the camera out."""
        self.robot = SimulatedWidowX(task, image_size or (256, 256), renderer, looks)
        self.controller = StepController(StepControllerConfig(min_height=MIN_HEIGHT))
        self._camera = image_size is not None

    def reset(self, seed: int, task: str | None = None) -> Observation:
        """Start the episode that `seed` means, of another `task` where one is named."""
        self.robot.reset(seed, task)
        self.controller.reset(self.robot.joint_positions(), self.robot.gripper_openness())
        return self.observe()

    def observe(self) -> Observation:
        """Return the observation of this moment."""
        pose = self.controller.forward(self.robot.joint_positions())
        state = robot_state.state_from_pose(pose, self.robot.gripper_openness())
        return Observation(self.robot.render() if self._camera else None, state, self.robot.task.instruction,
                           self.robot.time)

    def step(self, action: np.ndarray) -> tuple[Observation, StepResult, TaskState]:
        """Execute one (7,) physical action for 0.2 s; a refused one lets the same time pass without a new command."""
        result = self.controller.step(action, self.robot.joint_positions())
        if result.accepted:
            self.robot.command(result.joint_command, result.gripper, STEP_DURATION)
        self.robot.advance(STEP_DURATION)
        return self.observe(), result, self.robot.task_state()

    def close(self) -> None:
        """Free the renderer."""
        self.robot.close()
