"""What stands beside the code: the YAML, the lab guide, the rqt perspective and the Foxglove layout agree with it."""

import ast
import dataclasses
import json
import os
import re
import time
from pathlib import Path

import pytest
import yaml

from vgps_bringup.arm.controller_config import ControllerConfig
from vgps_bringup.arm.gripper import GripperConfig
from vgps_bringup.arm.step_controller import WORKSPACES, StepControllerConfig
from vgps_bringup.arm.watchdog import WatchdogConfig
from vgps_bringup.system.description import SYSTEMS
from vgps_msgs_py.vocabulary import ArmState as State, ControllerReason as Reason

PACKAGE = Path(__file__).parents[2]
CONFIGS = (ControllerConfig, StepControllerConfig, WatchdogConfig)
TYPES = {'decision': 'SteeringDecision', 'controller_state': 'ControllerState', 'episode': 'Episode'}


def paths():
    """Return every '/vgps/TOPIC.FIELD' of the layout and '/vgps/TOPIC/FIELD' of the perspective as (topic, field)."""
    layout = (PACKAGE / 'config' / 'foxglove_layout.json').read_text()
    perspective = (PACKAGE / 'config' / 'vgps.perspective').read_text()
    found = re.findall(r'"/vgps/(\w+)\.(\w+)', layout) + re.findall(r"'/vgps/(\w+)/(\w+)'", perspective)
    return sorted(set(found))


def test_the_yaml_holds_every_parameter_with_its_default():
    values = yaml.safe_load((PACKAGE / 'config' / 'widowx.yaml').read_text())['/**/widowx_node']['ros__parameters']
    defaults = {field.name: list(field.default) if isinstance(field.default, tuple) else field.default
                for config in CONFIGS for field in dataclasses.fields(config)}
    for name in ('dry_run', 'base_frame'):     # the launch file gives them
        defaults.pop(name)
    assert values == defaults


@pytest.mark.parametrize('config', [*CONFIGS, GripperConfig])
def test_every_parameter_says_what_it_is_and_its_default_is_allowed(config):
    for field in dataclasses.fields(config):
        assert field.metadata['description'], field.name
        low, high = field.metadata.get('range', (field.default, field.default))
        assert low <= field.default <= high, field.name


def test_the_lab_guide_explains_every_reason_and_state_and_box():
    guide = (PACKAGE / 'doc' / 'lab_guide.md').read_text()
    for name in [*Reason.__members__, *State.__members__]:
        assert name == 'ACCEPTED' or re.search(rf'\| [A-Z_, ]*\b{name}\b[A-Z_, ]* \|', guide), name
    for name in WORKSPACES:
        assert f'| `{name}` |' in guide


def test_the_foxglove_layout_places_every_panel_once():
    layout = json.loads((PACKAGE / 'config' / 'foxglove_layout.json').read_text())

    def leaves(node):
        return [node] if isinstance(node, str) else leaves(node['first']) + leaves(node['second'])
    assert sorted(leaves(layout['layout'])) == sorted(layout['configById'])


def perspective(*groups):
    """Return the settings of one group of the perspective, read as qt_gui's import does, and its groups."""
    group = json.loads((PACKAGE / 'config' / 'vgps.perspective').read_text())
    for name in groups:
        group = group['groups'][name]
    settings = {}
    for name, value in group['keys'].items():
        text = value[value['type']]
        is_bytes = value['type'] == 'repr(QByteArray.hex)'
        settings[name] = bytes.fromhex(re.fullmatch(r"QtCore.QByteArray\(b'(\w+)'\)", text)[1]) if is_bytes else (
            ast.literal_eval(text))
    return settings, group['groups']


def test_the_perspective_configures_the_plugins_it_runs():
    keys, plugins = perspective('pluginmanager')
    running = keys['running-plugins']
    assert sorted(plugins) == sorted(
        f'plugin__{name.replace("/", "__")}__{serial}' for name, serials in running.items() for serial in serials)
    assert {'rqt_reconfigure/Param', 'rqt_image_view/ImageView', 'rqt_plot/Plot'} <= set(running)


def test_the_perspective_places_every_dock():
    state = perspective('mainwindow')[0]['state']
    for plugin, content in perspective('pluginmanager')[1].items():
        dock, = (name for name in content['groups'] if name.startswith('dock_widget__'))
        name = plugin.removeprefix('plugin__') + dock.removeprefix('dock_widget')
        assert name.encode('utf-16-be') in state, name


def test_the_perspective_opens_the_nodes_that_have_beta_and_k():
    keys, _ = perspective('pluginmanager', 'plugin__rqt_reconfigure__Param__1', 'plugin')
    assert keys['selected_nodes'] == ['/vgps/critic_node', '/vgps/policy_node']
    system = SYSTEMS['simulation']
    nodes = {process.name for process in system.build(system.resolve({}))}
    assert {name.removeprefix('/vgps/') for name in keys['selected_nodes']} <= nodes


@pytest.mark.parametrize(('topic', 'field'), paths())
def test_plotted_fields_exist(topic, field):
    pytest.importorskip('rclpy')  # the folder of the same name is found without ROS, too
    messages = pytest.importorskip('vgps_msgs.msg')
    assert field in getattr(messages, TYPES[topic]).get_fields_and_field_types()


@pytest.mark.ros
def test_the_configuration_of_the_node_follows_its_parameters():
    rclpy = pytest.importorskip('rclpy')
    from rclpy.parameter import Parameter

    from vgps_bringup.arm.widowx_node import WidowXNode
    from vgps_msgs.msg import NodeConfiguration
    from vgps_msgs_py import qos
    rclpy.init(args=['--ros-args', '-p', 'arm:=simulated', '-r', f'__ns:=/configuration_{os.getpid()}'])
    node, peer, heard = WidowXNode(), rclpy.create_node('peer'), []
    executor = rclpy.executors.SingleThreadedExecutor()
    executor.add_node(node)
    executor.add_node(peer)
    peer.create_subscription(NodeConfiguration, 'configuration', heard.append, qos.LATCHED_MANY)

    def hears(expected):
        end = time.monotonic() + 20.0
        while time.monotonic() < end and not (heard and expected in heard[-1].parameters):
            executor.spin_once(timeout_sec=0.05)
        return expected in heard[-1].parameters
    try:
        assert hears('dry_run: true') and hears('min_height: -0.01')
        for name, value in (('dry_run', False), ('min_height', 0.05)):
            assert node.set_parameters([Parameter(name, value=value)])[0].successful
        assert hears('min_height: 0.05') and hears('dry_run: false'), 'a bag must tell what the arm was allowed to do'
    finally:
        node.close()
        executor.shutdown()
        node.destroy_node()
        peer.destroy_node()
        rclpy.shutdown()
