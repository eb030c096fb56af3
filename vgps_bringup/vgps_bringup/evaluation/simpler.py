"""``vgps-evaluate simpler``: the paper's protocol on SIMPLER's tasks, as trials (same journal, tables and intervals).

Per step: Lanczos resize to 256 x 256, K chunks from the policy, one selected by the value of its first action, the
selected chunks averaged over time, sticky gripper. A step is 1/5 s of simulated time, for the Google Robot 1/3 s.
"""

import copy
import time
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from vgps_bringup.evaluation.actors import Actors
from vgps_bringup.evaluation.bag_reader import EpisodeRecord, Step
from vgps_bringup.evaluation.overlay import Overlay
from vgps_bringup.evaluation.simpler_env import (
    GoogleGripper,
    SimplerError,
    TemporalAverage,
    WidowXGripper,
    axis_angle,
    make_task,
)
from vgps_bringup.evaluation.study import Condition, Trial
from vgps_bringup.evaluation.trials import TrialResult
from vgps_bringup.evaluation.video import VideoWriter
from vgps_critic.action_space import ActionSpace
from vgps_critic.images import resize
from vgps_critic.steering import HEALTHY, step_seed
from vgps_policy_bridge.policy import Candidates, Observation, check_candidates

IMAGE_SIZE = 256   # pixels, what policy and critic see
GRASP_ABOVE = 0.012  # m above the object's origin; the fingers reach 23 mm below the gripper's frame
GAIN = 0.35          # share of the way to its goal that the script asks for per step
SCRIPTED = 'scripted'  # a policy name that only exists here: it sees the simulator's state
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


class ScriptedPickAndPlace:
    """Reach, grasp, carry, release from the simulator's state; to check that tasks can be played and scored.

    Its candidates differ by noise of ``spread`` metres.
    """

    def __init__(self, task, spread: float = 0.003):
        self.task, self.spread = task, spread

    def reset(self, instruction: str, seed: int = 0) -> None:
        """Begin an episode."""
        self._rng, self._phase, self._since, self._anchor = np.random.default_rng(seed), 0, 0, None

    def propose(self, observation: Observation, k: int) -> Candidates:
        """Return k noisy copies of the next action."""
        world, up = self.task.world, np.array([0.0, 0.0, 1.0])
        base = world.agent.robot.pose.sp.to_transformation_matrix()
        link = next(link for link in world.agent.robot.links if link.name == 'ee_gripper_link')
        hand, thing, goal = (x.pose.p[0].cpu().numpy() for x in (link, self.task.source, self.task.target))
        anchor = hand if self._anchor is None else self._anchor  # where the phase began
        carried = np.array([*(hand - thing)[:2], 0.0])  # over the goal is to be the thing, not the hand
        # phases: where the hand goes, how near is there [m], least and most steps, openness
        plan = ((thing + 0.07 * up, 0.015, 0, 20, 1.0), (thing + GRASP_ABOVE * up, 0.008, 1, 10, 1.0),
                (anchor, 1.0, 7, 7, 0.0), (anchor + 0.1 * up, 0.03, 0, 8, 0.0),
                (goal + 0.14 * up + carried, 0.02, 0, 14, 0.0), (goal + 0.06 * up + carried, 0.02, 0, 6, 0.0),
                (anchor, 1.0, 5, 5, 1.0), (anchor + 0.05 * up, 0.0, 99, 99, 1.0))
        target, near, least, most, openness = plan[self._phase]
        self._since += 1
        turn = self._turn() if self._phase == 0 else 0.0
        if self._since >= most or (
                self._since > least and np.linalg.norm(target - hand) < near and abs(turn) < 0.15):
            self._phase, self._since, self._anchor = min(self._phase + 1, len(plan) - 1), 0, hand
        # actions move the controller's target, which the hand follows late: a part of the error at a time
        step = GAIN * (target - hand)
        step *= min(1.0, 0.03 / max(np.linalg.norm(step), 1e-9))
        step = base[:3, :3].T @ step
        actions = np.zeros((k, 1, 7), np.float32)
        noise = self._rng.normal(0, self.spread, (k, 3))
        actions[:, 0, :3] = step + noise * (np.arange(k)[:, None] > 0)  # the first is the script itself
        actions[:, 0, 5] = np.clip(0.5 * turn, -0.2, 0.2)
        actions[:, 0, 6] = openness
        return Candidates(actions, SCRIPTED, used=('simulator state',))

    def _turn(self) -> float:
        """Return the yaw [rad] that lays the fingers across the object's short side."""
        outline = self.task.source.get_first_collision_mesh(to_world_frame=True).vertices[:, :2]
        corners = cv2.boxPoints(cv2.minAreaRect(outline.astype(np.float32)))
        short = min(corners[1] - corners[0], corners[2] - corners[1], key=np.linalg.norm)
        fingers = [link.pose.p[0].cpu().numpy() for link in self.task.world.agent.robot.links
                   if link.name in ('left_finger_link', 'right_finger_link')]
        opening = (fingers[1] - fingers[0])[:2]
        turn = np.arctan2(short[1], short[0]) - np.arctan2(opening[1], opening[0])
        return float((turn + np.pi / 2) % np.pi - np.pi / 2)


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
            return ScriptedPickAndPlace(self._task)
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
