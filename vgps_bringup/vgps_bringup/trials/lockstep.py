"""Trials in the embedded simulation without ROS: the same policy, Steerer and arm guards as on the robot."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np

from vgps_bringup.simulation.appearance import LOOKS
from vgps_bringup.simulation.environment import LockstepEnvironment
from vgps_bringup.trials.actors import Actors
from vgps_bringup.trials.loop import Moment, play
from vgps_bringup.trials.plan import Trial
from vgps_bringup.trials.record import TrialRecord
from vgps_bringup.trials.trials import TrialResult
from vgps_critic.steering import Decision
from vgps_msgs_py.vocabulary import FAILURE_MODES, Verdict
from vgps_policy_bridge.policy import Candidates, Observation, check_widowx


class LockstepRunner:
    """Plays trials as fast as the machine allows; policies and critics are loaded once."""

    def __init__(self, max_steps: int = 60, image_size: int = 256, looks: str = 'plain', load_critic=None):
        """Take ``load_critic(name) -> Critic``; images are ``image_size`` squared."""
        self.max_steps = max_steps
        self.environment = LockstepEnvironment(image_size=(image_size, image_size), looks=LOOKS[looks])
        self.actors = Actors(load_critic)

    def close(self) -> None:
        """Free the renderer and the policies."""
        self.environment.close()
        self.actors.close()

    def run(self, trial: Trial, bag: Path | None) -> TrialResult:
        """Play one episode."""
        policy, steerer = self.actors.policy(trial.condition), self.actors.steerer(trial.condition)
        record = None if bag is None else TrialRecord(bag, self.environment.robot, self.max_steps,
                                                      getattr(steerer.critic, 'hash', ''))
        try:
            world = _Simulated(self.environment, record)
            result = play(world, trial, policy, steerer, self.max_steps)
            world.end()
        finally:
            if record is not None:
                record.close()
        return replace(result, refused=world.refused, details=_outlook(world.decisions),
                       bag=f'bags/{bag.name}' if bag is not None else '')


class _Simulated:
    """The simulated WidowX as a world of trials; what happens is written down where there is a record."""

    def __init__(self, environment: LockstepEnvironment, record: TrialRecord | None):
        self._environment, self._record = environment, record
        self._openness = 1.0
        self.refused = 0  # actions
        self.decisions: list[Decision] = []

    def begin(self, trial: Trial) -> tuple[Moment, str]:
        """Start the episode."""
        self._seen = self._environment.reset(trial.seed, trial.task.name)
        self._truth = self._environment.robot.task_state()
        instruction = trial.task.instruction or self._seen.instruction
        if self._record is not None:
            self._record.begin(trial.identity, instruction)
        return self._moment(), instruction

    def step(self, candidates: Candidates, decision: Decision) -> Moment:
        """Execute the decision's action through the arm's guards."""
        check_widowx(candidates)
        action, record, environment = decision.action, self._record, self._environment
        if decision.verdict is Verdict.HOLD:  # no motion, the gripper as it is
            action = np.array([0, 0, 0, 0, 0, 0, self._openness], np.float32)
        self._openness = float(action[6])
        self.decisions.append(decision)
        if record is not None:
            record.decided(self._seen, self._truth, action, candidates, decision)
        self._seen, moved, self._truth = environment.step(action)
        if record is not None:
            record.moved(moved, environment.controller.forward(environment.robot.joint_positions()))
        self.refused += not moved.accepted
        return self._moment()

    def end(self) -> None:
        """Write the last frame and the outcome."""
        if self._record is not None:
            moment = self._moment()
            self._record.end(self._seen, self._truth, moment.success, moment.failure)

    def _moment(self) -> Moment:
        success = bool(self._truth.success)
        return Moment(Observation(self._seen.image, self._seen.stamp, self._seen.state), success,
                      failure='' if success else FAILURE_MODES[self._truth.failure])


def _outlook(decisions: list[Decision]) -> dict:
    """Return what the outlook said step by step; nothing where there was none."""
    if all(np.isnan(decision.success_chance) for decision in decisions):
        return {}
    return {'chances': [round(float(decision.success_chance), 4) for decision in decisions],
            'distances': [round(float(decision.feature_distance), 3) for decision in decisions],
            'alarms': sum(decision.alarm for decision in decisions), 'retries': decisions[-1].retries,
            'reasons': dict(Counter(decision.reason.name for decision in decisions))}
