"""The one description of the system: arguments, processes, and that launch files and runner read the same."""

import os
import pathlib
import shlex
import subprocess
import sys
from xml.etree import ElementTree

import pytest
import yaml

from vgps_bringup.commands.run import parse
from vgps_bringup.system import supervisor
from vgps_bringup.system.description import SYSTEMS, Include, Process, ends_system, obituary
from vgps_msgs_py import discovery

MINIMAL = {'replay': {'bag': '/some/bag'}}


def processes(name, **given):
    system = SYSTEMS[name]
    return {part.name: part for part in system.build(system.resolve({**MINIMAL.get(name, {}), **given}))
            if isinstance(part, Process)}


@pytest.mark.parametrize('name', SYSTEMS)
def test_every_system_builds_from_its_defaults(name):
    assert 'critic_node' in processes(name)


def test_the_robot_is_dry_until_told_otherwise():
    assert processes('robot')['widowx_node'].parameters['dry_run'] is True
    assert processes('robot', dry_run='false')['widowx_node'].parameters['dry_run'] is False


def test_policy_is_swapped_by_one_argument():
    assert processes('robot', policy='openvla')['policy_node'].parameters['policy'] == 'openvla'


@pytest.mark.parametrize('name', SYSTEMS)
def test_the_critic_goes_to_the_gpu_by_one_argument(name):
    assert processes(name, device='cuda')['critic_node'].parameters['device'] == 'cuda'


def test_camera_topic_is_remapped_for_everyone_who_looks():
    robot = processes('robot', camera_topic='/wrist/image_raw')
    for name in ('policy_node', 'critic_node', 'recorder_node', 'widowx_node'):
        assert robot[name].remappings['image_raw'] == '/wrist/image_raw', name


def test_the_robots_camera_must_live_and_a_simulated_one_need_not_see_the_arm():
    for name, expected in (('robot', True), ('simulation', False)):
        policy = next(p for p in SYSTEMS[name].build(SYSTEMS[name].resolve({}))
                      if isinstance(p, Process) and p.name == 'policy_node')
        assert policy.parameters['require_live_camera'] is expected


def test_a_wrist_camera_is_for_the_policy_and_the_recording_alone():
    robot = processes('robot', wrist_topic='/wrist/image_raw')
    assert {name for name, process in robot.items() if process.parameters.get('wrist_topic') == '/wrist/image_raw'} == {
        'policy_node', 'recorder_node'}


def test_commands_and_controller_name_the_same_base_frame():
    robot = processes('robot', robot_name='left')
    assert robot['critic_node'].parameters['base_frame'] == robot['widowx_node'].parameters['base_frame']
    assert robot['widowx_node'].parameters['base_frame'] == 'left/base_link'


def test_on_the_robot_no_node_of_ours_ends_the_rest():
    robot = processes('robot')  # not even the controller: heartbeat_node holds the arm when that dies
    assert not [name for name, process in robot.items() if ends_system(process, -9) or ends_system(process, 2)]
    assert {name for name, process in robot.items() if process.respawn} == {
        'recorder_node', 'decision_image_node', 'heartbeat_node'}


def test_in_the_simulation_a_node_may_die_alone_but_must_start():
    simulation = processes('simulation')
    assert {name for name, process in simulation.items() if ends_system(process, -9)} == {'simulation_node'}
    assert all(ends_system(process, 2) for process in simulation.values())


def test_the_line_that_starts_a_node_again_can_be_pasted_into_a_shell():
    process = processes('robot')['critic_node']
    text = obituary('robot', process, -9, {'critic': '/models/my critic', 'policy_options': '{a: 1}'})
    words = shlex.split(text[text.index('vgps-run'):])
    assert words[:4] == ['vgps-run', 'robot', '--only', 'critic_node']
    assert words[4:] == ['critic:=/models/my critic', 'policy_options:={a: 1}']
    assert supervisor.Runner('robot', parse(words[4:]), only='critic_node').parts[0].parameters['critic'] \
        == '/models/my critic', 'without the driver, which the runner could not start'


@pytest.mark.parametrize('distribution, machines, variables', [
    ('', '', {'ROS_AUTOMATIC_DISCOVERY_RANGE': 'LOCALHOST'}),
    ('jazzy', 'this', {'ROS_AUTOMATIC_DISCOVERY_RANGE': 'LOCALHOST'}),
    ('humble', '', {'ROS_LOCALHOST_ONLY': '1'}), ('humble', 'all', {'ROS_LOCALHOST_ONLY': '0'}),
    ('kilted', 'all', {'ROS_AUTOMATIC_DISCOVERY_RANGE': 'SUBNET'})])
def test_activate_and_nodes_limit_discovery_alike(distribution, machines, variables):
    assert discovery.environment(machines, distribution) == variables
    script = pathlib.Path(__file__).resolve().parents[2] / 'workspace' / 'activate.sh'
    names = ('ROS_AUTOMATIC_DISCOVERY_RANGE', 'ROS_LOCALHOST_ONLY', 'ROS_STATIC_PEERS')
    clean = {k: v for k, v in os.environ.items() if k not in (*names, 'VGPS_MACHINES')}
    told = subprocess.run(['bash', '-c', f'. {script} >&2; env -0'], capture_output=True, text=True, check=True, env={
        **clean, 'ROS_DISTRO': distribution, 'VGPS_MACHINES': machines}).stdout
    activated = dict(word.partition('=')[::2] for word in told.split('\0'))
    assert {n: activated[n] for n in names if n in activated} == {k: v for k, v in variables.items() if v != '0'}


def test_what_the_user_has_set_counts_unless_an_argument_is_given():
    variables = {'ROS_AUTOMATIC_DISCOVERY_RANGE': 'SUBNET', 'ROS_DISTRO': ''}
    discovery.limit(variables)
    assert variables['ROS_AUTOMATIC_DISCOVERY_RANGE'] == 'SUBNET'
    discovery.limit(variables, 'this')
    assert variables['ROS_AUTOMATIC_DISCOVERY_RANGE'] == 'LOCALHOST'
    with pytest.raises(ValueError, match='Humble'):
        discovery.environment('10.0.0.7', 'humble')


def test_recording_can_be_left_out():
    assert 'recorder_node' in processes('simulation')
    assert 'recorder_node' not in processes('simulation', record='false')


@pytest.mark.parametrize('given, word', [({'taks': 'x'}, 'taks'), ({'selection': 'best'}, 'selection')])
def test_a_wrong_argument_is_named(given, word):
    with pytest.raises(ValueError, match=word):
        SYSTEMS['simulation'].resolve(given)


def test_the_driver_comes_from_interbotix_unless_it_runs_already():
    robot = SYSTEMS['robot']
    assert any(isinstance(part, Include) for part in robot.build(robot.resolve({})))
    assert not any(isinstance(part, Include) for part in robot.build(robot.resolve({'driver': 'false'})))


def test_the_runner_says_what_only_ros2_launch_can_start():
    with pytest.raises(supervisor.RunnerError, match='ros2 launch vgps_bringup robot.launch.py'):
        supervisor.Runner('robot', {})


def test_command_line_carries_name_namespace_parameters_and_remaps(tmp_path):
    pytest.importorskip('rclpy')  # the commands of nodes are there where the workspace was built
    process = Process('vgps_critic', 'critic_node', 'judge', {'beta': 0.5}, (), {'decision': 'other'})
    command = supervisor.command_line(process, 'lab', tmp_path / 'judge.yaml')
    assert command[0].endswith('lib/vgps_critic/critic_node')
    assert '__node:=judge' in command and '__ns:=/lab' in command and 'decision:=other' in command
    assert yaml.safe_load((tmp_path / 'judge.yaml').read_text()) == {'/**': {'ros__parameters': {'beta': 0.5}}}


def test_on_the_robot_nothing_moves_that_the_critic_did_not_choose_unless_the_operator_says_so():
    robot = SYSTEMS['robot']
    for given, fallback in (({}, 'hold'), ({'fallback': 'first'}, 'first')):
        built = {p.name: p for p in robot.build(robot.resolve(given)) if not isinstance(p, Include)}
        assert built['critic_node'].parameters['fallback'] == fallback
    assert processes('simulation')['critic_node'].parameters['fallback'] == 'first'


def test_the_nodes_of_the_simulation_do_not_fight_for_cores():
    assert all(process.environment['OMP_NUM_THREADS'] == '1' for process in processes('simulation').values())
    assert 'OMP_NUM_THREADS' not in processes('robot')['policy_node'].environment, 'a large policy needs them'


def test_show_args_lists_every_argument_with_default():
    text = subprocess.run([sys.executable, '-m', 'vgps_bringup.commands.run', 'simulation', '--show-args'],
                          check=True, capture_output=True, text=True).stdout
    for argument in SYSTEMS['simulation'].arguments:
        assert argument.name in text and argument.description in text


@pytest.mark.parametrize('given, words', [({'k': 'ten'}, 'k:=ten must be a whole number'),
                                          ({'beta': 'cold'}, 'beta:=cold must be a number')])
def test_a_number_that_is_none_is_named(given, words):
    system = SYSTEMS['simulation']
    with pytest.raises(ValueError, match=words):
        system.build(system.resolve(given))


@pytest.mark.parametrize('words', [['task'], ['task=x']])
def test_words_that_are_no_arguments_are_refused(words):
    with pytest.raises(ValueError, match='name:=value'):
        parse(words)


@pytest.mark.parametrize('name', SYSTEMS)
def test_launch_file_declares_the_same_arguments_and_nodes(name):
    pytest.importorskip('launch_ros', reason='ros2 launch comes with apt ROS only')
    from launch import LaunchContext
    from launch.actions import DeclareLaunchArgument, OpaqueFunction, TimerAction
    from launch.launch_description_sources import PythonLaunchDescriptionSource
    from launch_ros.actions import Node
    path = pathlib.Path(__file__).resolve().parents[2] / 'launch' / f'{name}.launch.py'
    context = LaunchContext()
    description = PythonLaunchDescriptionSource(str(path)).get_launch_description(context)
    declared = [e for e in description.entities if isinstance(e, DeclareLaunchArgument)]
    assert {e.name for e in declared} == {a.name for a in SYSTEMS[name].arguments}
    for argument in SYSTEMS[name].arguments:
        context.launch_configurations[argument.name] = argument.default
    context.launch_configurations.update({**MINIMAL.get(name, {}), **({'driver': 'false'} if name == 'robot' else {})})
    start = next(e for e in description.entities if isinstance(e, OpaqueFunction))
    nodes = [e.actions[0] if isinstance(e, TimerAction) else e for e in start.execute(context)]
    assert sum(isinstance(node, Node) for node in nodes) == len(processes(name))


def test_ros2_launch_starts_nothing_beside_a_system_in_the_same_namespace(monkeypatch):
    pytest.importorskip('launch_ros', reason='ros2 launch comes with apt ROS only')
    from launch import LaunchContext
    from launch.actions import OpaqueFunction

    from vgps_bringup.system import launch_adapter
    asked = []
    monkeypatch.setattr(launch_adapter.presence, 'second_system',
                        lambda namespace, names: asked.append((namespace, set(names))) or 'widowx_node already runs')
    context = LaunchContext()
    context.launch_configurations.update({a.name: a.default for a in SYSTEMS['robot'].arguments})
    start = next(e for e in launch_adapter.launch_description('robot').entities if isinstance(e, OpaqueFunction))
    with pytest.raises(RuntimeError, match='widowx_node already runs'):
        start.execute(context)
    (namespace, names), = asked
    assert namespace == 'vgps' and {'widowx_node', 'policy_node', 'critic_node'} <= names


@pytest.mark.ros
@pytest.mark.parametrize(('before', 'after'), [
    ({}, 'fastdds_udp.xml'), ({'FASTDDS_DEFAULT_PROFILES_FILE': '/opt/ws/config/fastdds_shm.xml'}, 'fastdds_udp.xml'),
    ({'FASTDDS_DEFAULT_PROFILES_FILE': '/home/lab/our_network.xml'}, 'our_network.xml')])
def test_what_holds_the_arm_stays_out_of_shared_memory_that_a_killed_node_may_have_locked(before, after):
    node_main = pytest.importorskip('vgps_msgs_py.node_main')
    variables = dict(before)
    node_main.over_udp(variables)
    chosen = pathlib.Path(variables['FASTDDS_DEFAULT_PROFILES_FILE'])
    assert chosen.name == after
    if after == 'fastdds_udp.xml':
        kinds = [kind.text for kind in ElementTree.parse(chosen).iter() if kind.tag.endswith('}type')]
        assert kinds == ['UDPv4']


@pytest.mark.ros
def test_each_nodes_page_says_what_the_node_opens_and_takes():
    pytest.importorskip('rclpy')
    script = pathlib.Path(__file__).resolve().parents[2] / 'workspace' / 'node_reference.py'
    done = subprocess.run([sys.executable, str(script), '--check'], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-500:]


def test_a_replay_is_not_heard_by_a_robot_that_runs():
    assert SYSTEMS['replay'].resolve(MINIMAL['replay'])['namespace'] != SYSTEMS['robot'].resolve({})['namespace']
