"""A trial as a recording: what was seen, proposed, decided and done at every step, written by the one writer."""

from pathlib import Path

import numpy as np

from vgps_bringup.arm.step_controller import StepResult
from vgps_bringup.simulation.bag_episode import EpisodeWriter
from vgps_bringup.simulation.environment import Observation
from vgps_bringup.simulation.oracle import TaskState
from vgps_critic.steering import Decision
from vgps_msgs_py.bags.writer import BagWriter
from vgps_policy_bridge.policy import Candidates


class TrialRecord:
    """The recording of one trial; `close` it whatever happens."""

    def __init__(self, folder: Path, robot, max_steps: int, critic_hash: str):
        """Open the bag `folder`; `robot` is a SimulatedWidowX, or what has its face."""
        self._bag = BagWriter(folder)
        self._writer, self._robot, self._critic_hash = EpisodeWriter(self._bag, max_steps), robot, critic_hash
        self._accepted, self._refused = 0, 0

    def begin(self, identity: str, instruction: str) -> None:
        """Announce the episode that `robot` was just reset to."""
        self._writer.begin(identity, self._robot, instruction)

    def decided(self, seen: Observation, truth: TaskState, action: np.ndarray, candidates: Candidates,
                decision: Decision) -> None:
        """Write what was seen and what was decided about it; before the robot moves by the (7,) `action`."""
        self._writer.frame(seen, truth)
        self._writer.start_step(action)
        self._writer.decide(candidates, decision, self._critic_hash)

    def moved(self, result: StepResult, pose: np.ndarray) -> None:
        """Write what the guards made of the action, and the gripper's pose (4, 4) [m] after it."""
        self._writer.end_step(result, pose, self._accepted, self._refused)
        self._accepted, self._refused = self._accepted + result.accepted, self._refused + (not result.accepted)

    def end(self, seen: Observation, truth: TaskState, success: bool, failure: str) -> None:
        """Write the last frame and the outcome."""
        self._writer.frame(seen, truth)
        self._writer.end(success, failure)

    def close(self) -> None:
        """Finish the file."""
        self._bag.close()
