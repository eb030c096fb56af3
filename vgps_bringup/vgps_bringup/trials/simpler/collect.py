"""Record demonstrations of mixed quality in SIMPLER's four WidowX tasks, through ManiSkill 3 and without ROS.

Example: vgps-collect-simpler --output demonstrations --tasks widowx_carrot_on_plate --episodes 150 --processes 2

Next: vgps-train iql --preset small --data demonstrations/ --out runs/iql

The scenes are drawn around SIMPLER's own configurations and are never one of them. The script sees the simulator's
state and makes the same mistakes as the paper's policies. Images are recorded as policies see them in the trials,
resized to 256 x 256. Resuming, shards and a larger --episodes work as in vgps-collect.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from vgps_bringup.arm.step_controller import StepResult
from vgps_bringup.simulation import collect
from vgps_bringup.simulation.environment import Observation
from vgps_bringup.simulation.oracle import TaskState
from vgps_bringup.trials.simpler.environments import MANISKILL, ManiSkillTask, WidowXGripper, axis_angle
from vgps_bringup.trials.simpler.robot import Robot
from vgps_bringup.trials.simpler.scenes import LAYOUTS
from vgps_bringup.trials.simpler.scripted import ScriptedPickAndPlace


class Environment:
    """One of the tasks in demonstrations' scenes, behind the face of `LockstepEnvironment`."""

    def __init__(self, name: str):
        self._task, self._layout = ManiSkillTask(name), LAYOUTS[name]
        self.robot = self.controller = Robot(self._task, name)

    def reset(self, seed: int) -> Observation:
        """Start the demonstration that `seed` means."""
        self.robot.begin(seed, *self._task.reset(seed, self._layout.draw(seed)))
        self._gripper = WidowXGripper()
        return self.robot.observe()

    def step(self, action: np.ndarray) -> tuple[Observation, StepResult, TaskState]:
        """Execute one (7,) physical action as the trials do."""
        gripper = self._gripper(float(action[6]))
        seen = self._task.step(np.array([*action[:3], *axis_angle(*action[3:6]), gripper]))
        moved = self.robot.moved(seen, float(gripper > 0))
        return self.robot.observe(), moved, self.robot.task_state()

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

    tasks: tuple[str, ...] = tuple(MANISKILL)  # SIMPLER's tasks
    episodes: int = 150  # episodes per task, at least 1; a larger number later adds the missing ones
    episodes_per_bag: int = 10  # episodes in one recording; an interrupted recording is made again
    max_steps: int = 60  # control steps of 0.2 s after which an episode counts as failed

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
