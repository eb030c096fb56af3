"""Trials on the live system: real nodes over DDS, real bags, a kill in the middle, an operator at a terminal."""

import os
import pty
import re
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest

from vgps_bringup.system.supervisor import Runner, executable
from vgps_bringup.trials.plan import Condition, Study, StudyError, TaskItem, plan
from vgps_bringup.trials.trials import collect
from vgps_msgs_py.bags.reader import Bag

pytest.importorskip('rclpy')
from vgps_bringup.system.episode_client import EpisodeClient, EpisodeError
from vgps_bringup.trials.robot import RobotRunner
from vgps_msgs.action import ExecuteInstruction
from vgps_msgs.msg import SteeringDecision
from vgps_msgs.srv import JudgeEpisode

pytestmark = pytest.mark.ros

STEPS = 5
SYSTEM = {'policy': 'random-policy', 'critic': 'untrained', 'image_size': '96', 'decision_image': 'false'}


def trials(output, *words):
    return [str(executable('vgps_bringup', 'vgps-evaluate')), 'trials', '--policy', 'random-policy', '--critic',
            'untrained', '--k', '6', '--image-size', '96', '--max-steps', str(STEPS), '--output', str(output), *words]


def finished(output: Path) -> int:
    journal = output / 'journal-0.jsonl'
    return max(0, journal.read_bytes().count(b'\n') - 1) if journal.exists() else 0


def nodes_of(starter: int) -> str:
    pattern = f'__ns:=/vgps_trials_{starter} '
    return subprocess.run(['pgrep', '-f', '--', pattern], capture_output=True, text=True).stdout


def recorded_outcome(output: Path, row: dict) -> str:
    """Compare a row with what its bag holds and return the outcome in it."""
    bag = Bag(output / row['bag'])
    episode, = bag.episodes
    assert (episode.episode_id, episode.seed, len(episode.steps)) == (Path(row['bag']).name, row['seed'], row['steps'])
    candidates, reason = {'baseline': (1, 'CONTROL_FIRST'), 'steered': (6, 'STEERED'),
                          'random-select': (6, 'CONTROL_RANDOM')}[row['condition'].split()[0]]
    assert {step.actions.shape[0] for step in episode.steps} == {candidates}
    decided = sum(step.decision.reason == getattr(SteeringDecision, reason) for step in episode.steps)
    # a starved machine may miss a deadline or let an image grow old: then the row says so
    assert decided + row['fallbacks'] == row['steps'] == len(row['details']['image_to_command_ms']) + row['refused']
    assert decided > 0
    return episode.outcome


@pytest.mark.long
def test_a_study_in_the_live_simulation_survives_kill_9_and_doubles_nothing(tmp_path):
    command = trials(tmp_path, '--runner', 'ros-simulation', '--trials', '2')
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    threading.Thread(target=process.stdout.read, daemon=True).start()
    deadline = time.monotonic() + 200.0
    while finished(tmp_path) < 1 or not list(tmp_path.glob('bags/t0001-*/*/*.mcap')):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    assert nodes_of(process.pid).count('\n') == 6
    process.kill()  # in the middle of the second trial
    process.wait()
    assert finished(tmp_path) == 1
    done = subprocess.run(command, timeout=400, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, done.stdout

    study, rows = collect(tmp_path)
    assert [row['trial'] for row in rows] == [trial.identity for trial in plan(study)]
    assert sorted(path.name for path in (tmp_path / 'bags').iterdir()) == sorted(row['trial'] for row in rows)
    for row in rows:
        assert len(list((tmp_path / 'bags' / row['trial']).iterdir())) == 1, 'the killed trial left no recording behind'
        assert recorded_outcome(tmp_path, row) == 'timeout'
        assert (row['success'], row['failure']) == (False, 'missed grasp')
    assert nodes_of(process.pid) == '', 'the nodes end a moment after whoever started them, killed or not'


class Operator:
    """A terminal with somebody at it."""

    def __init__(self, command):
        self.master, slave = pty.openpty()
        self.process = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, start_new_session=True)
        os.close(slave)
        self.text, self.read = '', 0
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self):
        while True:
            try:
                self.text += os.read(self.master, 4096).decode(errors='replace')
            except OSError:  # the other side has left
                return

    def wait_for(self, words):
        deadline = time.monotonic() + 180.0
        while words not in self.text[self.read:]:
            assert time.monotonic() < deadline, self.text
            time.sleep(0.02)
        self.read = self.text.index(words, self.read) + len(words)

    def type(self, line):
        os.write(self.master, line.encode() + b'\n')


@pytest.fixture(scope='module')
def robot(tmp_path_factory):
    """A system that somebody has started: (its namespace, a client of it, where it records)."""
    namespace, output = f'robot_{os.getpid()}', tmp_path_factory.mktemp('robot') / 'before'
    with Runner('simulation', {**SYSTEM, 'namespace': namespace, 'output': str(output)}, quiet=True), \
            EpisodeClient(namespace) as client:
        client.wait_until_ready(90.0)
        yield namespace, client, output


def test_on_the_robot_a_blind_operator_judges_by_key_or_service(robot, tmp_path):
    """The simulated arm takes the robot's place: no scene is reset and no oracle asked, as on the real one."""
    namespace, client, before = robot
    judge = client.node.create_client(JudgeEpisode, 'judge_episode')

    def say(**verdict):
        assert judge.wait_for_service(10.0)
        future = judge.call_async(JudgeEpisode.Request(**verdict))
        client.executor.spin_until_future_complete(future, 10.0)
        assert future.result().accepted

    operator = Operator(trials(tmp_path / 'study', '--runner', 'robot', '--namespace', namespace, '--trials', '1',
                               '--conditions', 'baseline,steered,random-select'))
    try:
        for judge_it in (lambda: operator.type('s'),  # while it runs
                         lambda: (operator.wait_for('time is up'), operator.type('?'), operator.type('m')),
                         lambda: (operator.wait_for('time is up'), say(success=False, failure='early drop'))):
            operator.wait_for('arrange the scene for "put_eggplant_in_basket"')
            operator.type('')
            operator.wait_for('keys: ')
            judge_it()
        operator.wait_for('Report:')
        assert operator.process.wait(120) == 0
    finally:
        if operator.process.poll() is None:
            operator.process.send_signal(signal.SIGINT)  # it gives the system back as it was
            operator.process.wait(120)
    assert client.get_parameters('recorder_node', 'output_directory') == [str(before)]
    assert client.get_parameters('critic_node', 'selection', 'beta') == ['value', 1.0]
    assert client.get_parameters('policy_node', 'num_candidates') == [10], 'the system is as it was'
    blind = operator.text[:operator.text.index('| Task |')]
    assert not re.search('baseline|steered|random|K=', blind), blind
    rows = collect(tmp_path / 'study')[1]
    assert [(row['success'], row['failure']) for row in rows] == [
        (True, ''), (False, 'missed grasp'), (False, 'early drop')]
    assert rows[0]['steps'] < STEPS == rows[1]['steps'] == rows[2]['steps']
    outcomes = [recorded_outcome(tmp_path / 'study', row) for row in rows]
    assert outcomes[0] == 'success'
    assert {*outcomes[1:]} <= {'failure', 'timeout'}, 'after the end the word may come when the bag is closed already'
    assert not before.exists()


def study(*conditions):
    return Study((TaskItem('put_eggplant_in_basket'),), conditions, trials=1)


def test_one_live_system_cannot_serve_two_policies_or_two_critics():
    for pair in ((Condition('a', 'flow', selection='first', k=1), Condition('b', 'binned', selection='first', k=1)),
                 (Condition('a', 'flow', 'x'), Condition('b', 'flow', 'y'))):
        with pytest.raises(StudyError, match='one policy and one critic'):
            RobotRunner(study(*pair))


def test_a_system_that_runs_something_else_or_a_dry_arm_is_refused(robot):
    namespace, client, _ = robot
    with pytest.raises(StudyError, match="runs policy 'random-policy', the study wants 'flow'"):
        RobotRunner(study(Condition('a', 'flow', selection='first', k=1)), namespace)
    with pytest.raises(StudyError, match="runs critic 'untrained', the study wants '/my/critic'"):
        RobotRunner(study(Condition('a', 'random-policy', '/my/critic')), namespace)
    client.set_parameters('widowx_node', dry_run=True)
    try:
        with pytest.raises(StudyError, match='is in a dry run'):
            RobotRunner(study(Condition('a', 'random-policy', 'untrained')), namespace)
    finally:
        client.set_parameters('widowx_node', dry_run=False)


@pytest.mark.parametrize('answers', [['a'], ['', '', 'a'], [''] * 5])
def test_a_simulated_episode_that_did_not_begin_is_asked_again_but_not_for_ever(monkeypatch, answers):
    asked = []
    monkeypatch.setattr(time, 'sleep', lambda _: None)
    monkeypatch.setattr(EpisodeClient, 'run', lambda self, **goal: asked.append(goal) or ExecuteInstruction.Result(
        episode_id=answers[len(asked) - 1], message='the arm could not be reset'))
    client = EpisodeClient.__new__(EpisodeClient)
    if not any(answers):
        with pytest.raises(EpisodeError, match='5 attempts: the arm could not be reset'):
            client.run_simulated('stack', 7)
    else:
        assert client.run_simulated('stack', 7).episode_id == 'a'
    assert asked == [{'task': 'stack', 'seed': 7}] * len(answers)
