"""ManiSkill's WidowX with its task, with the interface of the simulated robot that recordings and demonstrators use."""

from typing import NamedTuple

import numpy as np

from vgps_bringup.arm.step_controller import StepResult
from vgps_bringup.simulation.environment import STEP_DURATION, Observation
from vgps_bringup.simulation.oracle import TaskState
from vgps_bringup.trials.simpler.environments import IMAGE_SIZE, ManiSkillTask, Seen
from vgps_msgs_py.lanczos import resize
from vgps_msgs_py.vocabulary import FAILURE_MODES, ControllerReason, TaskFailure


class Spoken(NamedTuple):
    """What is known of a task before it is played."""

    instruction: str


class Robot:
    """A ManiSkill arm with its task, as recordings and demonstrators know a robot."""

    def __init__(self, task: ManiSkillTask, name: str):
        self.simulated, self.task_name = task, name
        self.task, self.seed, self.time = Spoken(''), 0, 0.0
        self.seen: Seen
        arm = task.arm
        self.joint_positions, self.joint_velocities = arm.joint_positions, arm.joint_velocities
        self.finger_position, self.gripper_openness = arm.finger_position, arm.gripper_openness
        self.gripper_pose = arm.gripper_pose

    def begin(self, seed: int, seen: Seen, instruction: str) -> None:
        """Take note of an episode that was just begun."""
        self.task, self.seed, self.seen, self.time = Spoken(instruction), seed, seen, 0.0

    def moved(self, seen: Seen, openness: float) -> StepResult:
        """Take note of what is seen after a step; return what a controller would report of it."""
        self.seen, self.time = seen, self.time + STEP_DURATION
        return StepResult(True, ControllerReason.ACCEPTED, '', self.target_pose, self.joint_positions(), openness,
                          False, False, 0.0)

    def observe(self) -> Observation:
        """Return what a policy sees: the camera's picture resized."""
        return Observation(resize(self.seen.image, IMAGE_SIZE), self.seen.state, self.task.instruction, self.time)

    @property
    def target_pose(self) -> np.ndarray:
        """Where the controller is steering to, (4, 4) [m] in the base frame."""
        return self.simulated.arm.target_pose()

    def task_state(self) -> TaskState:
        """Return the ground truth."""
        simulated, seen = self.simulated, self.seen
        failures = {name: failure for failure, name in FAILURE_MODES.items()}
        failure = TaskFailure.NONE if seen.success else failures[seen.failure or FAILURE_MODES[TaskFailure.NONE]]
        positions = (simulated.arm.in_base(x.pose.p[0].cpu().numpy()) for x in (simulated.source, simulated.target))
        return TaskState(self.task_name, self.task.instruction, self.seed, seen.success, seen.failure == 'late drop',
                         seen.failure not in ('', 'missed grasp'), failure, *positions)
