"""Trials on a live system (robot or simulation over ROS) through its action; the only ROS module in this folder.

Policy and critic are what the running nodes have loaded; K, beta and selection are set live for each trial. Where the
task has no oracle the operator judges, with keys during the trial or when asked after it, without seeing the condition.
"""

import select
import sys
from pathlib import Path

from vgps_bringup.episode_client_node import OUTCOMES, EpisodeClient, EpisodeError
from vgps_bringup.evaluation.study import Study, StudyError, Trial
from vgps_bringup.evaluation.trials import FAILURE_MODES, AbandonedError, TrialResult
from vgps_msgs.msg import TaskState
from vgps_msgs.srv import JudgeEpisode

KEYS = 'keys: s success, m missed grasp, e early drop, l late drop, o other failure; then Enter'
JUDGEMENTS = {'s': (True, ''), 'm': (False, 'missed grasp'), 'e': (False, 'early drop'), 'l': (False, 'late drop'),
              'o': (False, 'other')}
MODES = ('other', *(FAILURE_MODES[name] for name in ('never_grasped', 'dropped_outside', 'still_holding', 'misplaced')))


class Keyboard:
    """Lines typed by the operator, without waiting for them."""

    def poll(self) -> str:
        """Return a line typed since the last call, or nothing."""
        if sys.stdin is None or sys.stdin.closed or not sys.stdin.isatty():
            return ''
        return sys.stdin.readline().strip().lower() if select.select([sys.stdin], [], [], 0)[0] else ''

    def ask(self, question: str) -> str:
        """Wait for a line.

        Raises:
            AbandonedError: there is no keyboard.

        """
        try:
            return input(question).strip().lower()
        except EOFError as error:
            raise AbandonedError('nobody judged the episode and there is no keyboard to ask at; judge with the '
                                 'service judge_episode') from error


class RobotRunner:
    """Plays trials with the nodes that are running in a namespace."""

    def __init__(self, namespace: str = 'vgps', max_steps: int = 60, keyboard: Keyboard | None = None,
                 simulated: bool = False, timeout: float = 60.0):
        self.client = EpisodeClient(namespace)
        self.client.wait_until_ready(timeout)
        self.max_steps, self.keyboard, self.simulated = max_steps, keyboard or Keyboard(), simulated
        self._judge = self.client.node.create_client(JudgeEpisode, f'{self.client.namespace}/judge_episode')
        self._truth = None  # the simulator's word
        if simulated:
            self.client.node.create_subscription(TaskState, f'{self.client.namespace}/task_state', self._on_truth, 10)

    @staticmethod
    def check(study: Study) -> None:
        """Raise StudyError where the conditions need another policy or critic than one system has loaded."""
        if len({c.policy for c in study.conditions}) > 1 or len({c.critic for c in study.conditions if c.critic}) > 1:
            raise StudyError('a live system runs one policy and one critic: choose conditions that differ in '
                             'selection, K or beta, or the lockstep simulation')

    def _on_truth(self, message: TaskState) -> None:
        self._truth = message

    def close(self) -> None:
        """Leave the ROS graph."""
        self.client.close()

    def run(self, trial: Trial, bag: Path | None) -> TrialResult:
        """Play one episode; the bag is the live recorder's, named by the episode.

        Raises:
            AbandonedError: the episode was cancelled or a part was lost.

        """
        condition = trial.condition
        try:
            self.client.set_parameters('critic_node', selection=condition.selection, beta=float(condition.beta))
            self.client.set_parameters('policy_node', num_candidates=int(condition.k))
            if not self.simulated:
                self.keyboard.ask(f'  arrange the scene for "{trial.task.instruction}", then press Enter ')
                print(f'  {KEYS}')
            answer = self.client.run(
                instruction=trial.task.instruction, task=trial.task.name if self.simulated else '', seed=trial.seed,
                max_steps=self.max_steps, on_feedback=lambda _: self._judge_if_typed(self.keyboard.poll()))
        except EpisodeError as error:
            raise AbandonedError(str(error)) from error
        outcome = OUTCOMES[answer.outcome]
        if outcome in ('cancelled', 'aborted'):
            raise AbandonedError(f'{trial.identity} was {outcome}: {answer.message}')
        success, failure = outcome == 'success', answer.message
        if outcome == 'timeout' and self.simulated:
            failure = MODES[self._truth.failure] if self._truth is not None else 'time out'
        elif outcome == 'timeout':
            success, failure = self._ask()
        return TrialResult(success=success, failure='' if success else failure or 'other', steps=int(answer.steps),
                           seconds=float(answer.duration), bag=answer.episode_id)

    def _judge_if_typed(self, key: str) -> None:
        if key in JUDGEMENTS:
            success, failure = JUDGEMENTS[key]
            self._judge.call_async(JudgeEpisode.Request(success=success, failure=failure))

    def _ask(self) -> tuple[bool, str]:
        while True:
            key = self.keyboard.ask(f'  {KEYS}: ')
            if key in JUDGEMENTS:
                self._judge_if_typed(key)  # the episode's announcement, and whoever watches it, should know too
                return JUDGEMENTS[key]
