"""One episode without ROS: what is seen goes to the policy, its candidates to the critic, the decision to the world.

The embedded simulation (``lockstep.py``) and SIMPLER's tasks (``simpler/runner.py``) are worlds; the loop is this one.
"""

import time
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from vgps_bringup.trials.plan import Trial
from vgps_bringup.trials.trials import TrialResult
from vgps_critic.steering import Decision, Steerer, step_seed
from vgps_msgs_py.vocabulary import HEALTHY
from vgps_policy_bridge.policy import Candidates, Observation, check_candidates


@dataclass(frozen=True)
class Moment:
    """What a world shows after a reset or a step."""

    observation: Observation  # what policy and critic see
    success: bool = False
    over: bool = False        # the world's own step limit
    failure: str = ''         # what it would be called if it ended now
    picture: np.ndarray | None = None  # what the critic sees of it, where that is not the policy's image


class World(Protocol):
    """Where an episode is played."""

    def begin(self, trial: Trial) -> tuple[Moment, str]:
        """Start the episode that the trial's seed means; return what is seen and the instruction."""

    def step(self, candidates: Candidates, decision: Decision) -> Moment:
        """Carry out one decision about these candidates."""


def play(world: World, trial: Trial, policy, steerer: Steerer, max_steps: int) -> TrialResult:
    """Play one episode to success, to the world's limit, to `max_steps`, or until the policy ends it."""
    condition, began, decisions = trial.condition, time.monotonic(), []
    moment, instruction = world.begin(trial)
    policy.reset(instruction, trial.seed)
    steerer.reset(max_steps)
    for step in range(max_steps):
        observation = moment.observation
        candidates = check_candidates(policy.propose(observation, condition.k), condition.k)
        picture = observation.image if moment.picture is None else moment.picture
        encoded = steerer.encode(picture, instruction) if condition.critic else None
        decision = steerer.decide(encoded, candidates.actions, seed=step_seed(trial.seed, step))
        getattr(policy, 'committed', lambda _: None)(decision.chosen)
        steerer.sent(decision)
        moment = world.step(candidates, decision)
        decisions.append(decision)
        if moment.success or moment.over or candidates.finished:
            break
    values = [decision.value for decision in decisions if np.isfinite(decision.value)]
    return TrialResult(
        success=moment.success, failure='' if moment.success else moment.failure, steps=len(decisions),
        seconds=time.monotonic() - began, mean_value=float(np.mean(values)) if values else None,
        details={'ended by': 'the policy'} if candidates.finished and not moment.success else {},
        fallbacks=sum(decision.reason not in HEALTHY for decision in decisions))
