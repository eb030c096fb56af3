"""``vgps-evaluate simpler``: the paper's protocol on SIMPLER's tasks, as trials (same journal, tables and intervals).

Per step: Lanczos resize to 256 x 256 (policies of the Google Robot resize the camera's picture themselves), K chunks
from the policy, one selected by the value of its first action, the selected chunks averaged over time, sticky gripper.
A step is 1/5 s of simulated time, for the Google Robot 1/3 s.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np

from vgps_bringup.episode_pages.overlay import Overlay
from vgps_bringup.episode_pages.video import VideoWriter
from vgps_bringup.trials.actors import Actors
from vgps_bringup.trials.loop import Moment, play
from vgps_bringup.trials.plan import Condition, Trial
from vgps_bringup.trials.record import TrialRecord
from vgps_bringup.trials.simpler.environments import (
    IMAGE_SIZE,
    GoogleGripper,
    Seen,
    TemporalAverage,
    WidowXGripper,
    axis_angle,
    make_task,
)
from vgps_bringup.trials.simpler.fit import check_units, critic_for_robot, for_robot
from vgps_bringup.trials.simpler.robot import Robot
from vgps_bringup.trials.simpler.scripted import SCRIPTED, ScriptedGoogle, ScriptedPickAndPlace
from vgps_bringup.trials.trials import TrialResult
from vgps_critic.steering import Decision
from vgps_msgs_py.bags.reader import EpisodeRecord, Step
from vgps_msgs_py.lanczos import resize
from vgps_policy_bridge.policy import Candidates, Observation


class SimplerRunner:
    """Plays SIMPLER trials; a task stays loaded while it is played."""

    def __init__(self, max_steps: int, load_critic):
        self.max_steps, self._actors = max_steps, Actors(load_critic)
        self._task, self._name = None, ''

    def close(self) -> None:
        """Free the renderer and the policies."""
        self._leave_task()
        self._actors.close()

    def _leave_task(self) -> None:
        if self._task is not None:
            self._task.close()
        self._task, self._name = None, ''

    def _policy(self, condition: Condition):
        robot = self._task.robot
        if condition.policy == SCRIPTED:
            return (ScriptedGoogle if robot == 'google' else ScriptedPickAndPlace)(self._task)
        return self._actors.policy(for_robot(condition, robot))

    def _steerer(self, condition: Condition):
        steerer = self._actors.steerer(condition)
        if condition.critic:
            steerer.critic = critic_for_robot(steerer.critic, condition.critic, self._task.robot)
        return steerer

    def run(self, trial: Trial, bag: Path | None) -> TrialResult:
        """Play one episode; ``bag`` (a folder) receives ``video.mp4`` and, in ManiSkill, a recording."""
        if self._name != trial.task.name:
            self._leave_task()
            self._task, self._name = make_task(trial.task.name), trial.task.name
        policy, steerer = self._policy(trial.condition), self._steerer(trial.condition)
        robot = Robot(self._task, self._name) if bag is not None and hasattr(self._task, 'arm') else None
        record = robot and TrialRecord(bag, robot, self.max_steps, getattr(steerer.critic, 'hash', ''))
        try:
            world = _Simpler(self._task, robot, record)
            result = play(world, trial, policy, steerer, self.max_steps)
            if record:
                record.end(robot.observe(), robot.task_state(), result.success, result.failure)
        finally:
            if record:
                record.close()
        if bag is None:
            return result
        world.write_video(bag, trial, result.success)
        return replace(result, details={**result.details, 'video': f'bags/{bag.name}/video.mp4'},
                       bag=f'bags/{bag.name}' if record else '')


class _Simpler:
    """A SIMPLER task as a world of trials: the paper's averaging and sticky gripper between decision and motion."""

    def __init__(self, task, robot: Robot | None = None, record: TrialRecord | None = None):
        self._task, self._average, self._robot, self._record = task, TemporalAverage(), robot, record
        self._gripper = WidowXGripper() if task.robot == 'widowx' else GoogleGripper()
        self._steps: list[Step] = []
        self._images: list[np.ndarray] = []

    def begin(self, trial: Trial) -> tuple[Moment, str]:
        """Start the episode."""
        seen, spoken = self._task.reset(trial.seed)
        self._condition = trial.condition
        self._instruction = trial.task.instruction or spoken
        if self._record:
            self._robot.begin(trial.seed, seen, self._instruction)
            self._record.begin(trial.identity, self._instruction)
        return self._moment(seen), self._instruction

    def step(self, candidates: Candidates, decision: Decision) -> Moment:
        """Execute what the selected chunks say of now."""
        check_units(candidates, self._condition, self._task.robot)
        # hold: a chunk of no motion with the gripper as it was predicted to be
        chunk = candidates.actions[decision.chosen] if decision.chosen >= 0 else \
            candidates.actions[0] * np.array([0, 0, 0, 0, 0, 0, 1], np.float32)
        action = self._average(chunk)
        index = len(self._steps)
        self._steps.append(Step(index, round(index / self._task.rate * 1e9), self._instruction, decision=decision))
        if self._record:
            self._record.decided(self._robot.observe(), self._robot.task_state(), action, candidates, decision)
        if candidates.closing is None:
            gripper = self._gripper(float(action[6]))
        else:  # the policy says itself what this gripper is told
            gripper = float(candidates.closing[decision.chosen]) if decision.chosen >= 0 else 0.0
        seen = self._task.step(np.array([*action[:3], *axis_angle(*action[3:6]), gripper]))
        if self._record:
            self._record.moved(self._robot.moved(seen, float(gripper > 0)), self._robot.gripper_pose())
        return self._moment(seen)

    def _moment(self, seen: Seen) -> Moment:
        self._images.append(seen.image)
        picture = resize(seen.image, IMAGE_SIZE)
        # policies of the Google Robot were trained on its pictures in different sizes: each resizes the camera's own
        shown = seen.image if self._task.robot == 'google' else picture
        observation = Observation(shown, len(self._steps) / self._task.rate, seen.state)
        return Moment(observation, seen.success, seen.over, seen.failure, picture)

    def write_video(self, folder: Path, trial: Trial, success: bool) -> None:
        """Write the episode as it was played, with the critic's values."""
        rate, steps, outcome = self._task.rate, self._steps, 'success' if success else 'failure'
        folder.mkdir(parents=True, exist_ok=True)
        episode = EpisodeRecord(trial.identity, self._instruction, trial.task.name, trial.seed, outcome, '', 0,
                                round(len(steps) / rate * 1e9), tuple(steps))
        overlay = Overlay(episode, trial.condition.name)
        with VideoWriter(folder / 'video.mp4', rate) as writer:
            for position, image in enumerate(self._images[:-1]):
                writer.write(overlay.frame(image, position))
            for _ in range(round(1.5 * rate)):
                writer.write(overlay.frame(self._images[-1], len(steps) - 1, outcome))
