"""Trials on a live system (robot or simulation over ROS) through its action; the only ROS module in this folder.

The system is started once, or joined where it runs already; K, beta, selection and the recorder's folder are live
parameters, set anew for each trial. Where the task has no oracle the operator judges, with keys or through the service
``judge_episode``, during the trial or after it, without seeing the condition.
"""

import contextlib
import os
import select
import sys
import time
from pathlib import Path

import numpy as np
import yaml

from vgps_bringup.system.episode_client import EpisodeClient, EpisodeError
from vgps_bringup.system.supervisor import Runner
from vgps_bringup.trials.plan import Condition, Study, StudyError, Trial
from vgps_bringup.trials.trials import AbandonedError, TrialResult
from vgps_msgs.msg import ControllerState, Episode, TaskState
from vgps_msgs.srv import JudgeEpisode
from vgps_msgs_py import qos
from vgps_msgs_py.bags.writer import is_complete
from vgps_msgs_py.vocabulary import FAILURE_MODES, HEALTHY, ArmState, ControllerReason, Outcome, words

KEYS = 'keys: s success, m missed grasp, e early drop, l late drop, o other failure; then Enter'
JUDGEMENTS = {'s': (True, ''), 'm': (False, 'missed grasp'), 'e': (False, 'early drop'), 'l': (False, 'late drop'),
              'o': (False, 'other')}
PATIENCE = 600.0  # s for the operator's word on an episode that is over
START = 120.0     # s for the nodes to be there and their models loaded
LAST_BAG = 60.0   # s for the recorder to close the last bag: a busy machine may need a while for what is queued


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
            raise AbandonedError('trials on the robot need a terminal: the operator says when the scene is arranged'
                                 ) from error


class Witness:
    """What the topics of a running system say about the present trial."""

    def __init__(self, client: EpisodeClient):
        self.truth: TaskState | None = None     # the simulator's word
        self.episode: Episode | None = None     # the latest announcement
        self.forget()
        for kind, topic, callback, profile in ((TaskState, 'task_state', self._on_truth, qos.EVENT),
                                               (Episode, 'episode', self._on_episode, qos.LATCHED),
                                               (ControllerState, 'controller_state', self._on_controller, qos.EVENT)):
            client.node.create_subscription(kind, topic, callback, profile)

    def forget(self) -> None:
        """Begin a new trial."""
        self.values, self.fallbacks, self.refused, self.times = [], 0, 0, []
        self.latencies: dict[int, float] = {}   # step -> image to joint command [ms]

    def feedback(self, feedback) -> None:
        """Take the action's word on one step."""
        self.times.append(time.monotonic())
        self.values += [float(feedback.value)] if np.isfinite(feedback.value) else []
        self.fallbacks += feedback.reason not in HEALTHY
        self.refused += (feedback.controller_reason != ControllerReason.ACCEPTED
                         or feedback.controller_state not in (ArmState.READY, ArmState.MOVING))

    def facts(self) -> dict:
        """Return loop rate and latencies of the trial, for the journal."""
        span = self.times[-1] - self.times[0] if len(self.times) > 1 else 0.0
        return {'episode_id': self.episode.episode_id if self.episode else '',
                'steps_per_second': round((len(self.times) - 1) / span, 3) if span else None,
                'image_to_command_ms': [round(x, 1) for x in self.latencies.values()]}

    def _on_truth(self, message: TaskState) -> None:
        self.truth = message

    def _on_episode(self, message: Episode) -> None:
        self.episode = message

    def _on_controller(self, message: ControllerState) -> None:
        if self.episode is not None and message.episode_id == self.episode.episode_id \
                and message.state == ControllerState.MOVING:
            self.latencies[message.step] = message.image_to_command_ms


def simulation(study: Study, image_size: int = 256, record: bool = True) -> Runner:
    """Return the simulated system that a study needs, in a namespace of its own; it is started on entering."""
    chosen = study.conditions[0]
    critic = next((c.critic for c in study.conditions if c.critic), 'default')
    return Runner('simulation', {
        'namespace': f'vgps_trials_{os.getpid()}', 'policy': chosen.policy, 'critic': critic,
        'policy_options': yaml.safe_dump(dict(chosen.policy_options), default_flow_style=True).strip(),
        'max_steps': str(study.max_steps), 'image_size': str(image_size), 'record': str(record).lower(),
        'decision_image': 'false'}, log=lambda line: print(line, file=sys.stderr, flush=True), quiet=True)


class RobotRunner:
    """Plays trials with the nodes of one namespace."""

    def __init__(self, study: Study, namespace: str = 'vgps', system: Runner | None = None, simulated: bool = False):
        """Join a namespace, or start ``system`` and stop it at the end.

        ``simulated``: scenes reset and judge themselves; otherwise the operator does.

        Raises:
            StudyError: one live system cannot serve the study, or the one that runs has something else loaded.
            EpisodeError: the system is not there.

        """
        self._check(study)
        self._joined, self._before = system is None, {}  # node -> the parameters it had
        self._bag: Path | None = None  # of the last trial
        self.max_steps, self.simulated, self.keyboard = study.max_steps, simulated, Keyboard()
        with contextlib.ExitStack() as stack:
            if system is not None:
                stack.enter_context(system)
                namespace = system.arguments['namespace']
            self.client = stack.enter_context(EpisodeClient(namespace))
            self.witness = Witness(self.client)
            self._judge = self.client.node.create_client(JudgeEpisode, 'judge_episode')
            self.client.wait_until_ready(START, system.why_not_ready if system else lambda: '')
            if system is None:
                self._check_loaded(study.conditions)
                stack.callback(self._give_back)
            self._stack = stack.pop_all()

    @staticmethod
    def _check(study: Study) -> None:
        if len({(c.policy, repr(sorted(c.policy_options.items()))) for c in study.conditions}) > 1 \
                or len({c.critic for c in study.conditions if c.critic}) > 1:
            raise StudyError('a live system runs one policy and one critic: choose conditions that differ in '
                             'selection, K or beta, or the lockstep simulation')

    def _check_loaded(self, conditions: tuple[Condition, ...]) -> None:
        """The journal will say what the study names: it must be what runs."""
        for node, parameter, wanted in (('policy_node', 'policy', {c.policy for c in conditions}),
                                        ('critic_node', 'critic', {c.critic for c in conditions if c.critic})):
            loaded, = self.client.get_parameters(node, parameter)
            if wanted - {loaded}:
                raise StudyError(f"{node} in {self.client.namespace} runs {parameter} '{loaded}', the study wants "
                                 f"'{', '.join(wanted)}': give --{parameter} {loaded}, or start the other")
        if self.client.get_parameters('widowx_node', 'dry_run')[0]:
            raise StudyError(f'the arm in {self.client.namespace} is in a dry run: ros2 param set '
                             f'{self.client.namespace}/widowx_node dry_run false')

    def _set(self, node: str, **values) -> None:
        if self._joined and node not in self._before:
            self._before[node] = dict(zip(values, self.client.get_parameters(node, *values)))
        self.client.set_parameters(node, **values)

    def _give_back(self) -> None:
        for node, values in self._before.items():
            with contextlib.suppress(EpisodeError):  # it may be gone
                self.client.set_parameters(node, **values)

    def close(self) -> None:
        """Stop the system that was started for the study, or give the one that was joined its parameters back.

        Not before the last recording is closed: interrupted, it would lack the outcome that the journal already has.
        """
        deadline = time.monotonic() + LAST_BAG
        while self._bag is not None and not is_complete(self._bag) and time.monotonic() < deadline:
            self.client.executor.spin_once(timeout_sec=0.05)
        self._stack.close()

    def run(self, trial: Trial, bag: Path | None) -> TrialResult:
        """Play one episode; the live recorder writes its bag into the folder ``bag``.

        Raises:
            AbandonedError: the episode was cancelled, a part was lost, or nothing was recorded.

        """
        condition = trial.condition
        # a simulated task brings its own instruction; on the robot a task that has none is one
        instruction = trial.task.instruction or ('' if self.simulated else trial.task.name)
        try:
            self._set('critic_node', selection=condition.selection, beta=float(condition.beta))
            self._set('policy_node', num_candidates=int(condition.k))
            if bag is not None:
                self._set('recorder_node', output_directory=str(bag.resolve()))
            if not self.simulated:
                self.keyboard.ask(f'  arrange the scene for "{instruction}", then press Enter ')
                print(f'  {KEYS}', flush=True)
            self.witness.forget()
            goal = {'instruction': instruction, 'seed': trial.seed, 'max_steps': self.max_steps,
                    'on_feedback': self._on_feedback}
            answer = self.client.run_simulated(trial.task.name, **goal) if self.simulated else self.client.run(**goal)
        except EpisodeError as error:
            raise AbandonedError(str(error)) from error
        if answer.outcome in (Outcome.CANCELLED, Outcome.ABORTED):
            raise AbandonedError(f'{trial.identity} was {words(Outcome, answer.outcome)}: {answer.message}')
        success, failure = answer.outcome == Outcome.SUCCESS, answer.message
        if answer.outcome == Outcome.TIMEOUT and self.simulated:
            failure = FAILURE_MODES[self.witness.truth.failure] if self.witness.truth is not None else 'time out'
        elif answer.outcome == Outcome.TIMEOUT:
            success, failure = self._ask(answer.episode_id)
        if bag is not None and not any((bag / answer.episode_id).glob('*')):
            raise AbandonedError(f'{trial.identity} was not recorded into {bag}: is recorder_node running, on this '
                                 'machine? Without bags: --no-record')
        self._bag = None if bag is None else bag / answer.episode_id
        seen = self.witness
        return TrialResult(success=success, failure='' if success else failure or 'other', steps=int(answer.steps),
                           seconds=float(answer.duration), fallbacks=seen.fallbacks, refused=seen.refused,
                           mean_value=float(np.mean(seen.values)) if seen.values else None,
                           bag='' if bag is None else f'bags/{bag.name}/{answer.episode_id}', details=seen.facts())

    def _on_feedback(self, feedback) -> None:
        self.witness.feedback(feedback)
        if not self.simulated and (key := self.keyboard.poll()) in JUDGEMENTS:
            self._say(key)

    def _say(self, key: str) -> None:
        """Pass the operator's word on: the episode's announcement, its bag and whoever watches should know it too."""
        success, failure = JUDGEMENTS[key]
        self._judge.call_async(JudgeEpisode.Request(
            episode_id=self.witness.episode.episode_id, success=success, failure=failure))

    def _ask(self, episode_id: str) -> tuple[bool, str]:
        """Wait for the word on an episode that is over, from the keyboard or through the service."""
        print(f'  time is up. {KEYS}', flush=True)
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            self.client.executor.spin_once(timeout_sec=0.05)
            if (key := self.keyboard.poll()) in JUDGEMENTS:
                self._say(key)
            said = self.witness.episode
            if said.episode_id == episode_id and said.outcome in (Episode.SUCCESS, Episode.FAILURE):
                return said.outcome == Episode.SUCCESS, said.message
        raise AbandonedError(f'nobody judged {episode_id} for {PATIENCE:.0f} s, by key or through '
                             f'{self.client.namespace}/judge_episode')
