"""Parameters, stop and rates of a node that runs, and a second system beside it, without ``ros2``."""

import contextlib
import subprocess
import sys
import time
from types import SimpleNamespace
from unittest.mock import MagicMock

import pytest

from vgps_bringup.commands import episode, without_ros2 as commands
from vgps_bringup.system.presence import Announcer, second_system, where_else
from vgps_msgs_py.vocabulary import Outcome

NAMESPACE = 'commands_test'

pytestmark = pytest.mark.ros


@pytest.fixture(scope='module')
def arm():
    """Start the controller of a simulated arm, alone."""
    node = subprocess.Popen([sys.executable, '-m', 'vgps_bringup.arm.widowx_node', '--ros-args', '-r',
                             f'__ns:=/{NAMESPACE}', '-p', 'arm:=simulated'], stdout=subprocess.DEVNULL,
                            stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not second_system(NAMESPACE, ['widowx_node']):
        assert node.poll() is None and time.monotonic() < deadline
    yield node
    node.kill()
    node.wait()


@pytest.fixture
def patient(monkeypatch):
    """A machine that tests share may need long to find what is there."""
    monkeypatch.setattr(commands, 'CALL_PATIENCE', 90.0)


def test_a_parameter_is_shown_changed_and_a_bad_value_refused(arm, patient):
    get = commands.Get('widowx_node', 'move_speed', NAMESPACE)
    assert commands.parameters(get).startswith('move_speed: ')
    changed = commands.parameters(commands.Set('widowx_node', 'move_speed', '0.25', NAMESPACE))
    assert changed.endswith('-> 0.25, from the next step on') and commands.parameters(get) == 'move_speed: 0.25'
    with pytest.raises(commands.CommandError, match='refuses move_speed = -1'):
        commands.parameters(commands.Set('widowx_node', 'move_speed', '-1', NAMESPACE))
    with pytest.raises(commands.CommandError, match='is of type float'):
        commands.parameters(commands.Set('widowx_node', 'move_speed', 'fast', NAMESPACE))
    with pytest.raises(commands.CommandError, match='has no parameter speed; it has .*move_speed'):
        commands.parameters(commands.Get('widowx_node', 'speed', NAMESPACE))
    assert 'move_speed: 0.25' in commands.parameters(commands.List('widowx_node', NAMESPACE))


def test_the_arm_is_stopped_and_a_refusal_is_an_error(arm, patient):
    assert '~/stop was called' in commands.arm(commands.Arm('stop', namespace=NAMESPACE))
    with pytest.raises(commands.CommandError, match='refuses to home: no joint states yet'):
        commands.arm(commands.Arm('home', namespace=NAMESPACE))


@pytest.mark.parametrize('what, asked', [('stop', ['widowx_node', 'heartbeat_node']), ('home', ['widowx_node'])])
def test_a_stop_that_nobody_answers_goes_to_the_heartbeat_and_nothing_else_does(monkeypatch, what, asked):
    calls = []

    def call(_caller, _kind, name, _request, node, _namespace):
        calls.append(node)
        if node == 'widowx_node':
            raise commands.CommandError('it does not answer')
        return SimpleNamespace(success=True, message=f'{name}: the arm is held')
    monkeypatch.setattr(commands.Caller, 'call', call)
    if what == 'stop':
        assert 'the arm is held' in commands.arm(commands.Arm('stop', namespace=NAMESPACE))
    else:
        with pytest.raises(commands.CommandError, match='does not answer'):
            commands.arm(commands.Arm(what, namespace=NAMESPACE))
    assert calls == asked


@pytest.mark.parametrize('outcome, episode_id, failed', [
    (Outcome.SUCCESS, 'e', False), (Outcome.CANCELLED, '', True), (Outcome.ABORTED, 'e', True)])
def test_an_episode_that_was_aborted_or_did_not_begin_is_a_failure(monkeypatch, outcome, episode_id, failed):
    result = SimpleNamespace(outcome=outcome, episode_id=episode_id, steps=0, duration=0.0, message='STOP_REQUESTED')
    client = MagicMock()
    client.return_value.__enter__.return_value.run.return_value = result
    monkeypatch.setattr('vgps_bringup.system.episode_client.EpisodeClient', client)
    monkeypatch.setattr(sys, 'argv', ['vgps-episode', '--instruction', 'put it there'])
    with pytest.raises(SystemExit, match='STOP_REQUESTED') if failed else contextlib.nullcontext():
        episode.main()


def test_the_rate_of_a_topic_is_measured(arm):
    said = commands.topic(commands.Topic('rate', 'controller_state', 3.0, NAMESPACE))
    assert f'/{NAMESPACE}/controller_state: ' in said and 'messages per second' in said
    with pytest.raises(commands.CommandError, match=f'did you mean /{NAMESPACE}/controller_state'):
        commands.topic(commands.Topic('rate', '/elsewhere/controller_state', 1.0))


def test_a_second_system_in_one_namespace_is_refused_and_another_namespace_is_free(arm):
    refused = second_system(NAMESPACE, ['widowx_node', 'policy_node'])
    assert refused.startswith(f'widowx_node already runs in /{NAMESPACE}') and 'namespace:=OTHER' in refused
    assert second_system('elsewhere', ['widowx_node', 'policy_node']) == ''


def test_a_node_in_another_namespace_is_named(arm):
    with pytest.raises(commands.CommandError, match=f'widowx_node runs in /{NAMESPACE}: give --namespace {NAMESPACE}'):
        commands.arm(commands.Arm('stop', namespace='nobody_here'))


def test_waiting_speaks_after_a_moment_and_says_where_the_node_is(monkeypatch):
    said, now = [], [0.0]
    monkeypatch.setattr(time, 'monotonic', lambda: now[0])
    announcer = Announcer('policy_node in /vgps', said.append)
    for now[0] in (0.5, 1.9, 2.1, 3.0, 12.5):
        announcer.look(lambda: {'/lab/policy_node', '/lab/critic_node'})
    assert said == ['waiting for policy_node in /vgps (2 s); policy_node is in sight in /lab',
                    'waiting for policy_node in /vgps (12 s); policy_node is in sight in /lab']
    assert where_else(['/lab/policy_node']) == 'policy_node runs in /lab: give --namespace lab'
    assert 'start a system' in where_else([])
