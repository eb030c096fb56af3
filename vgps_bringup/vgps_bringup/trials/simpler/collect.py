"""Record demonstrations of mixed quality in SIMPLER's four WidowX tasks, through ManiSkill 3 and without ROS.

Example: vgps-collect-simpler --output demonstrations --tasks widowx_carrot_on_plate --episodes 150 --processes 2

Next: vgps-train iql --preset small --data demonstrations/ --out runs/iql

The scenes are drawn around SIMPLER's own configurations and never are one of them. The script sees the simulator's
state and errs as the paper's policies do. Recordings, resuming and shards are those of vgps-collect; what a policy sees
in the trials, the camera's picture resized to 256 x 256, is what is recorded.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from vgps_bringup.arm.step_controller import StepResult
from vgps_bringup.simulation import collect
from vgps_bringup.simulation.environment import STEP_DURATION, Observation
from vgps_bringup.simulation.oracle import TaskState
from vgps_bringup.trials.simpler.environments import (
    IMAGE_SIZE,
    MANISKILL,
    ManiSkillTask,
    Seen,
    WidowXGripper,
    axis_angle,
)
from vgps_bringup.trials.simpler.scenes import LAYOUTS
from vgps_bringup.trials.simpler.scripted import ScriptedPickAndPlace
from vgps_critic.images import resize
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


class Environment:
    """One of the tasks in demonstrations' scenes, behind the face of `LockstepEnvironment`."""

    def __init__(self, name: str):
        self._task, self._layout = ManiSkillTask(name), LAYOUTS[name]
        self.robot = self.controller = Robot(self._task, name)

    def reset(self, seed: int) -> Observation:
        """Start the demonstration that `seed` means."""
        robot = self.robot
        robot.seen, instruction = self._task.reset(seed, self._layout.draw(seed))
        robot.task, robot.seed, robot.time = Spoken(instruction), seed, 0.0
        self._gripper = WidowXGripper()
        return self._observe()

    def step(self, action: np.ndarray) -> tuple[Observation, StepResult, TaskState]:
        """Execute one (7,) physical action as the trials do."""
        gripper = self._gripper(float(action[6]))
        self.robot.seen = self._task.step(np.array([*action[:3], *axis_angle(*action[3:6]), gripper]))
        self.robot.time += STEP_DURATION
        arm = self._task.arm
        moved = StepResult(True, ControllerReason.ACCEPTED, '', arm.target_pose(), arm.joint_positions(),
                           float(gripper > 0), False, False, 0.0)
        return self._observe(), moved, self.robot.task_state()

    def _observe(self) -> Observation:
        seen = self.robot.seen
        return Observation(resize(seen.image, IMAGE_SIZE), seen.state, self.robot.task.instruction, self.robot.time)

    def close(self) -> None:
        """Free the renderer."""
        self._task.close()


class Script:
    """The scripted policy with its errors, as a demonstrator."""

    def __init__(self, config: collect.DemonstratorConfig):
        self._config = config

    def reset(self, robot: Robot, seed: int) -> None:
        """Begin an episode."""
        self._policy = ScriptedPickAndPlace(robot.simulated, errors=self._config)
        self._policy.reset('', seed)

    @property
    def done(self) -> bool:
        """Whether it has let go and withdrawn."""
        return self._policy.done

    def act(self, robot: Robot, target_pose: np.ndarray) -> np.ndarray:
        """Return the next (7,) action."""
        return self._policy.propose(None, 1).actions[0, 0]


@dataclass(frozen=True)
class CollectConfig(collect.Collection):
    """Demonstrations in SIMPLER's tasks."""

    tasks: tuple[str, ...] = tuple(MANISKILL)
    episodes: int = 150  # per task, at least 1
    episodes_per_bag: int = 10  # episodes in one recording; one that is interrupted is made again
    max_steps: int = 60  # control steps of 0.2 s; then the episode has failed

    def known_tasks(self) -> Iterable[str]:
        """Return the four WidowX tasks."""
        return MANISKILL

    def stage(self, task: str) -> tuple[Environment, Script]:
        """Return the task's world and the script."""
        return Environment(task), Script(self.demonstrator)


def main() -> None:
    """Collect in SIMPLER's tasks."""
    collect.run(CollectConfig, 'vgps-collect-simpler', __doc__,
                'vgps-train iql --preset small --data {output}/ --out runs/iql')


if __name__ == '__main__':
    main()
