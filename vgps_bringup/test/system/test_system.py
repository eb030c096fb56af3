"""The whole system over real DDS: one episode from camera to arm, and what happens when a part is killed."""

import os
import pathlib
import signal
import subprocess
import time

import numpy as np
import pytest

from vgps_bringup.system.supervisor import Runner, executable
from vgps_msgs_py.bags.reader import Bag
from vgps_msgs_py.bags.writer import is_complete

pytest.importorskip('rclpy')
from vgps_bringup.system.episode_client import EpisodeClient, EpisodeError
from vgps_msgs.msg import ControllerState, EndEffectorCommand, SteeringDecision
from vgps_msgs_py.stamps import seconds
from vgps_msgs_py.vocabulary import Outcome

pytestmark = pytest.mark.ros

NODES = {'simulation_node', 'widowx_node', 'critic_node', 'policy_node', 'recorder_node'}
STEPS = 8


@pytest.fixture
def arguments(tmp_path):
    return {'namespace': f'system_{os.getpid()}_{time.monotonic_ns() % 100000}', 'output': str(tmp_path), 'k': '6',
            'policy': 'random-policy', 'critic': 'untrained', 'max_steps': str(STEPS), 'image_size': '128',
            'decision_image': 'false', 'beta': '0.0'}


class Live:
    """A running system, its client and what the arm and its controller say."""

    def __init__(self, arguments):
        self.lines = []
        self.runner = Runner('simulation', arguments, log=self.lines.append)
        self.output = arguments['output']

    def __enter__(self):
        self.runner.__enter__()
        try:
            self.client = EpisodeClient(self.runner.arguments['namespace'])
            self.states, self.commands, self.joint_commands = [], [], []
            from sensor_msgs.msg import JointState
            for kind, topic, sink in ((ControllerState, 'controller_state', self.states),
                                      (EndEffectorCommand, 'command', self.commands),
                                      (JointState, 'joint_command', self.joint_commands)):
                self.client.node.create_subscription(
                    kind, topic, lambda m, sink=sink: sink.append((seconds(m.header.stamp), m)), 50)
            self.client.wait_until_ready(90.0, lambda: str(self.runner.ended() or ''))
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        self.runner.stop()
        self.client.close()

    def run(self, seed=0):
        return self.client.run(task='put_eggplant_in_basket', seed=seed, on_feedback=self.on_feedback)

    def on_feedback(self, feedback):
        if self.trigger and feedback.step >= self.trigger_step:
            trigger, self.trigger = self.trigger, None
            trigger()

    trigger, trigger_step, killed = None, 2, None

    def kill(self, name):
        self.runner.children[name].kill()
        self.killed = time.time()

    def watch_past_now(self):
        """Wait until all that was sent so far has come: the controller goes on saying how it is."""
        now, deadline = time.time(), time.monotonic() + 90
        while not (self.states and self.states[-1][0] > now):
            assert time.monotonic() < deadline, self.tail()
            self.client.executor.spin_once(timeout_sec=0.05)

    def watch_until_recorded(self, bags=1):
        """Wait until the recorder has closed this many bags: on a busy machine it lags behind the action's answer."""
        deadline = time.monotonic() + 90
        while sum(is_complete(path.parent) for path in pathlib.Path(self.output).glob('*/*.mcap')) < bags:
            assert time.monotonic() < deadline, self.tail()
            self.client.executor.spin_once(timeout_sec=0.05)

    def bag(self):
        return self.bags()[-1]

    def bags(self):
        return [Bag(path.parent) for path in sorted(pathlib.Path(self.output).glob('*/*.mcap'))]

    def tail(self):
        return '\n'.join(self.lines[-40:])


def test_an_episode_runs_from_camera_to_arm_and_its_bag_holds_everything(arguments):
    with Live(arguments) as live:
        result = live.run(seed=3)
        live.watch_until_recorded()
        assert result.outcome == Outcome.TIMEOUT, f'{result.message}\n{live.tail()}'
        assert result.steps == STEPS
        answered = max(state.accepted + state.refused for _, state in live.states)
    assert answered == STEPS, 'every command was executed or refused by name'
    bag = live.bag()
    assert not bag.problems
    assert NODES <= set(bag.configurations)
    assert 'untrained' in bag.configurations['critic_node'].model
    (episode,) = bag.episodes
    assert (episode.outcome, episode.seed, len(episode.steps)) == ('timeout', 3, STEPS)
    frames = {frame.stamp: frame for frame in bag.frames()}
    for step in episode.steps:
        assert step.actions.shape[0] == 6 and step.q_values.shape == (2, 6)
        assert step.decision.header.stamp == step.candidates.header.stamp == step.started.header.stamp
        assert step.stamp in frames, 'the very frame that was scored is in the bag'
        assert step.decision.reason == SteeringDecision.STEERED
        assert step.decision.chosen == int(np.argmax(step.q_values.min(axis=0)))
        np.testing.assert_allclose(step.command.action, step.actions[step.decision.chosen, 0], rtol=1e-6)
        assert len(step.decision.critic_hash) >= 8
    assert frames[episode.steps[0].stamp].image().shape == (128, 128, 3)


def test_cancelling_holds_the_arm_and_closes_the_bag(arguments):
    with Live({**arguments, 'max_steps': '200'}) as live:
        def interrupt():
            raise KeyboardInterrupt
        live.trigger = interrupt
        with pytest.raises(KeyboardInterrupt):
            live.run()
        cancelled = time.time()
        live.watch_past_now()
        assert [c for t, c in live.commands if t > cancelled and c.kind == EndEffectorCommand.ACTION] == []
        assert not live.runner.ended(), 'every node is alive and the next episode can start'
        again = live.client.run(task='put_eggplant_in_basket', max_steps=2)
        assert again.outcome == Outcome.TIMEOUT, f'{again.message}\n{live.tail()}'
        live.watch_until_recorded(2)
    assert sorted(episode.outcome for bag in live.bags() for episode in bag.episodes) == ['cancelled', 'timeout']


@pytest.mark.parametrize('victim', ['critic_node', 'simulation_node'])
def test_a_killed_part_ends_the_episode_by_name_and_the_arm_holds(arguments, victim):
    with Live({**arguments, 'max_steps': '200'}) as live:
        live.trigger = lambda: live.kill(victim)
        result = live.run()
        held = time.time()
        live.watch_past_now()
        live.watch_until_recorded()
        assert result.outcome == Outcome.ABORTED, live.tail()
        assert result.message
        assert live.states[-1][1].state in (ControllerState.HOLDING, ControllerState.READY)
        if victim == 'simulation_node':
            assert live.states[-1][1].state == ControllerState.HOLDING
            assert live.states[-1][1].message
            held = next(t for t, s in live.states if t > live.killed and s.state == ControllerState.HOLDING)
        # by the clock of who sends: on a starved machine what was sent in time is received late
        positions = {tuple(np.round(c.position, 6)) for t, c in live.joint_commands if t > held}
        assert len(positions) <= 1, 'once the arm holds the command no longer changes'
    bag = live.bag()
    assert bag.episodes[-1].outcome == 'aborted'
    # the client adds which process died
    assert bag.episodes[-1].message and result.message.startswith(bag.episodes[-1].message)
    assert f'{victim} was killed (signal 9)' in result.message


def test_a_killed_policy_leaves_a_readable_bag_and_a_holding_arm_although_it_is_started_again(arguments):
    with Live({**arguments, 'max_steps': '200'}) as live:
        def kill_and_start_again():
            live.kill('policy_node')
            time.sleep(1.0)  # until the runner has seen it end
            live.runner._start(next(part for part in live.runner.parts if part.name == 'policy_node'))
        live.trigger = kill_and_start_again
        with pytest.raises(EpisodeError) as error:
            live.run()
        assert 'policy_node was killed' in str(error.value), f'{error.value}\n{live.tail()}'
        assert 'the arm holds' in str(error.value)
        live.watch_past_now()
        assert [c for t, c in live.commands if t > live.killed] == []  # about a picture that came later
        assert live.states[-1][1].state == ControllerState.HOLDING
    assert live.bag().episodes[-1].steps


def test_a_killed_recorder_leaves_a_readable_bag_and_the_episode_goes_on(arguments):
    with Live({**arguments, 'max_steps': '16'}) as live:
        live.trigger, live.trigger_step = lambda: live.kill('recorder_node'), 10  # the last half second may be lost
        result = live.run()
        assert live.killed, f'{result}\n{live.tail()}'
        assert result.outcome == Outcome.TIMEOUT and result.steps == 16, f'{result}\n{live.tail()}'
    assert len(live.bag().episodes[-1].steps) >= 2


def test_interrupting_the_demo_leaves_nothing_running(arguments, tmp_path):
    demo = subprocess.Popen(
        [str(executable('vgps_bringup', 'vgps-demo')), '--policy', 'random-policy', '--critic', 'untrained',
         '--output', str(tmp_path), '--namespace', arguments['namespace'], '--seed', '0'],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True)
    deadline = time.monotonic() + 300
    for line in demo.stdout:
        if 'step' in line:
            break
        assert time.monotonic() < deadline
    demo.send_signal(signal.SIGINT)
    demo.communicate(timeout=120)
    marker = f'__ns:=/{arguments["namespace"]}'
    left = subprocess.run(['pgrep', '-f', '--', marker], capture_output=True, text=True).stdout
    assert left == ''
    assert demo.returncode != 0
