"""``vgps-evaluate simpler``: the paper's protocol on SIMPLER's tasks, as trials (same journal, tables and intervals).

Per step: Lanczos resize to 256 x 256, K chunks from the policy, one selected by the value of its first action, the
selected chunks averaged over time, sticky gripper. A step is 1/5 s of simulated time, for the Google Robot 1/3 s.
"""

import copy
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from vgps_bringup.episode_pages.overlay import Overlay
from vgps_bringup.episode_pages.video import VideoWriter
from vgps_bringup.trials.actors import Actors
from vgps_bringup.trials.plan import Condition, Trial
from vgps_bringup.trials.simpler.environments import (
    GoogleGripper,
    SimplerError,
    TemporalAverage,
    WidowXGripper,
    axis_angle,
    make_task,
)
from vgps_bringup.trials.simpler.scripted import SCRIPTED, ScriptedGoogle, ScriptedPickAndPlace
from vgps_bringup.trials.trials import TrialResult
from vgps_critic.action_space import ActionSpace
from vgps_critic.images import resize
from vgps_critic.steering import step_seed
from vgps_msgs_py.bags.reader import EpisodeRecord, Step
from vgps_msgs_py.vocabulary import HEALTHY
from vgps_policy_bridge.policy import Observation, check_candidates

IMAGE_SIZE = 256  # pixels, what policy and critic see
FRACTAL = 'fractal20220817_data'  # the Google Robot's data set, by the name that Octo's and OpenVLA's statistics bear


def for_robot(condition: Condition, robot: str) -> Condition:
    """Return the condition with the statistics of the robot's own data, unless it names some.

    Raises:
        SimplerError: the policy speaks BridgeData's units only.

    """
    if robot != 'google' or condition.policy == SCRIPTED:
        return condition
    if condition.policy.startswith('rt-1-x'):
        raise SimplerError(f'{condition.policy} proposes WidowX actions here; the Google Robot needs other units')
    if condition.policy.startswith(('octo', 'openvla')):
        return replace(condition, policy_options={'statistics': FRACTAL, **condition.policy_options})
    return condition


def critic_for_robot(critic, robot: str):
    """Return the critic with the reference's action bounds of this robot.

    One critic serves both, but the reference's evaluation normalises the Google Robot's actions with that data's
    limits; within BridgeData's most of them would be clipped to the same number. A critic that never saw that data, or
    whose bounds are its own, stays as it is.
    """
    bridge = ActionSpace.named('bridge')
    space = critic.action_space
    if robot != 'google' or 'fractal' not in critic.config.data or \
            (space.rule, space.low, space.high) != (bridge.rule, bridge.low, bridge.high):
        return critic
    critic = copy.copy(critic)
    critic.action_space = ActionSpace.named('fractal')
    return critic


class SimplerRunner:
    """Plays SIMPLER trials; a task stays loaded while it is played."""

    def __init__(self, max_steps: int, load_critic):
        self.max_steps, self._actors = max_steps, Actors(load_critic)
        self._task, self._name = None, ''
        self.steps, self.seconds = 0, 0.0  # played so far, for steps/s

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
            steerer.critic = critic_for_robot(steerer.critic, self._task.robot)
        return steerer

    def run(self, trial: Trial, bag: Path | None) -> TrialResult:
        """Play one episode; ``bag`` (a folder) receives ``video.mp4``."""
        if self._name != trial.task.name:
            self._leave_task()
            self._task, self._name = make_task(trial.task.name), trial.task.name
        condition, task = trial.condition, self._task
        policy, steerer, average = self._policy(condition), self._steerer(condition), TemporalAverage()
        gripper = WidowXGripper() if task.robot == 'widowx' else GoogleGripper()
        began = time.monotonic()
        seen, spoken = task.reset(trial.seed)
        instruction = trial.task.instruction or spoken
        policy.reset(instruction, trial.seed)
        steps, images, values, fallbacks = [], [], [], 0
        for step in range(self.max_steps):
            image = resize(seen.image, IMAGE_SIZE)
            observation = Observation(image, step / task.rate)
            candidates = check_candidates(policy.propose(observation, condition.k), condition.k)
            encoded = steerer.encode(image, instruction) if condition.critic else None
            decision = steerer.decide(encoded, candidates.actions, seed=step_seed(trial.seed, step))
            getattr(policy, 'committed', lambda _: None)(decision.chosen)
            # hold: a chunk of no motion with the gripper as it was predicted to be
            chunk = candidates.actions[decision.chosen] if decision.chosen >= 0 else \
                candidates.actions[0] * np.array([0, 0, 0, 0, 0, 0, 1], np.float32)
            action = average(chunk)
            steps.append(Step(step, round(step / task.rate * 1e9), instruction, decision=decision))
            images.append(seen.image)
            values += [decision.value] if np.isfinite(decision.value) else []
            fallbacks += decision.reason not in HEALTHY
            seen = task.step(np.array([*action[:3], *axis_angle(*action[3:6]), gripper(float(action[6]))]))
            if seen.success or seen.over:
                break
        seconds = time.monotonic() - began
        self.steps, self.seconds = self.steps + len(steps), self.seconds + seconds
        if bag is not None:
            self._write_video(bag, trial, steps, [*images, seen.image], seen.success)
        return TrialResult(success=seen.success, failure='' if seen.success else seen.failure, steps=len(steps),
                           seconds=seconds, mean_value=float(np.mean(values)) if values else None, fallbacks=fallbacks,
                           bag='', details={'video': f'bags/{bag.name}/video.mp4'} if bag is not None else {})

    def _write_video(self, folder: Path, trial: Trial, steps: list[Step], images: list[np.ndarray],
                     success: bool) -> None:
        rate = self._task.rate
        folder.mkdir(parents=True, exist_ok=True)
        outcome = 'success' if success else 'failure'
        episode = EpisodeRecord(trial.identity, steps[0].instruction, trial.task.name, trial.seed, outcome, '', 0,
                                round(len(steps) / rate * 1e9), tuple(steps))
        overlay = Overlay(episode, trial.condition.name)
        with VideoWriter(folder / 'video.mp4', rate) as writer:
            for position, image in enumerate(images[:-1]):
                writer.write(overlay.frame(image, position))
            for _ in range(round(1.5 * rate)):
                writer.write(overlay.frame(images[-1], len(steps) - 1, outcome))
