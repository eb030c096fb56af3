"""Trials in the embedded simulation without ROS: the same policy, Steerer and arm guards as on the robot."""

import time
from collections import Counter
from pathlib import Path

import numpy as np

from vgps_bringup.simulation.appearance import LOOKS
from vgps_bringup.simulation.bag_episode import EpisodeWriter
from vgps_bringup.simulation.environment import LockstepEnvironment
from vgps_bringup.trials.actors import Actors
from vgps_bringup.trials.plan import Trial
from vgps_bringup.trials.trials import TrialResult
from vgps_critic.steering import Decision, step_seed
from vgps_msgs_py.bags.writer import BagWriter
from vgps_msgs_py.vocabulary import FAILURE_MODES, HEALTHY, Verdict
from vgps_policy_bridge.policy import Observation, check_candidates


class LockstepRunner:
    """Plays trials as fast as the machine allows; policies and critics are loaded once."""

    def __init__(self, max_steps: int = 60, image_size: int = 256, renderer: str = 'auto', looks: str = 'plain',
                 load_critic=None):
        """Take ``load_critic(name) -> Critic``; images are ``image_size`` squared."""
        self.max_steps = max_steps
        self.environment = LockstepEnvironment(image_size=(image_size, image_size), renderer=renderer,
                                               looks=LOOKS[looks])
        self.actors = Actors(load_critic)

    def close(self) -> None:
        """Free the renderer and the policies."""
        self.environment.close()
        self.actors.close()

    def run(self, trial: Trial, bag: Path | None) -> TrialResult:
        """Play one episode."""
        condition, seed, environment = trial.condition, trial.seed, self.environment
        policy, steerer = self.actors.policy(condition), self.actors.steerer(condition)
        began, values, fallbacks, refused, step, decisions = time.monotonic(), [], 0, 0, -1, []
        seen = environment.reset(seed, trial.task.name)
        instruction = trial.task.instruction or seen.instruction
        policy.reset(instruction, seed)
        steerer.reset(self.max_steps)
        writer = None if bag is None else BagWriter(bag)
        episode = None if writer is None else EpisodeWriter(writer, self.max_steps)
        try:
            if episode is not None:
                episode.begin(trial.identity, environment.robot, instruction)
            state, accepted, openness = environment.robot.task_state(), 0, 1.0
            for step in range(self.max_steps):
                candidates = check_candidates(policy.propose(
                    Observation(seen.image, seen.stamp, seen.state), condition.k), condition.k)
                encoded = steerer.encode(seen.image, instruction) if condition.critic else None
                decision = steerer.decide(encoded, candidates.actions, seed=step_seed(seed, step))
                getattr(policy, 'committed', lambda _: None)(decision.chosen)
                action = decision.action
                if decision.verdict is Verdict.HOLD:  # hold: no motion, the gripper as it is
                    action = np.array([0, 0, 0, 0, 0, 0, openness], np.float32)
                openness = float(action[6])
                if episode is not None:
                    episode.frame(seen, state)
                    episode.start_step(action)
                    episode.decide(candidates, decision, getattr(steerer.critic, 'hash', ''))
                seen, moved, state = environment.step(action)
                if episode is not None:
                    joints = environment.robot.joint_positions()
                    episode.end_step(moved, environment.controller.forward(joints), accepted, refused)
                accepted, refused = accepted + moved.accepted, refused + (not moved.accepted)
                decisions.append(decision)
                fallbacks += decision.reason not in HEALTHY
                values += [decision.value] if np.isfinite(decision.value) else []
                if state.success:
                    break
            failure = '' if state.success else FAILURE_MODES[state.failure]
            if episode is not None:
                episode.frame(seen, state)
                episode.end(state.success, failure)
        finally:
            if writer is not None:
                writer.close()
        return TrialResult(
            success=bool(state.success), failure=failure, steps=step + 1, seconds=time.monotonic() - began,
            mean_value=float(np.mean(values)) if values else None, fallbacks=fallbacks, refused=refused,
            bag=f'bags/{bag.name}' if bag is not None else '', details=_outlook(decisions))


def _outlook(decisions: list[Decision]) -> dict:
    """Return what the outlook said step by step; nothing where there was none."""
    if all(np.isnan(decision.success_chance) for decision in decisions):
        return {}
    return {'chances': [round(float(decision.success_chance), 4) for decision in decisions],
            'distances': [round(float(decision.feature_distance), 3) for decision in decisions],
            'alarms': sum(decision.alarm for decision in decisions), 'retries': decisions[-1].retries,
            'reasons': dict(Counter(decision.reason.name for decision in decisions))}
