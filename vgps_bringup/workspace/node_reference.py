"""Write doc/nodes/, one page per node, from the nodes themselves: what they do, their topics, their parameters.

python vgps_bringup/workspace/node_reference.py          # rewrites them
python vgps_bringup/workspace/node_reference.py --check  # says whether they are up to date

Each node is started for a moment, with the simulated arm, to see what it opens.
"""

import dataclasses
import inspect
import pathlib
import sys
import tempfile
import time
from dataclasses import dataclass
from types import SimpleNamespace

import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node

from vgps_bringup.arm.controller_config import ControllerConfig
from vgps_bringup.arm.gripper import GripperConfig
from vgps_bringup.arm.heartbeat_node import HeartbeatConfig, HeartbeatNode
from vgps_bringup.arm.step_controller import StepControllerConfig
from vgps_bringup.arm.watchdog import WatchdogConfig
from vgps_bringup.arm.widowx_node import ArmConfig, WidowXNode
from vgps_bringup.episode_pages.decision_image_node import DecisionImageConfig, DecisionImageNode
from vgps_bringup.recording import replay_node
from vgps_bringup.recording.recorder_node import RecorderNode
from vgps_bringup.recording.recording import RecorderConfig
from vgps_bringup.recording.replay_node import ReplayConfig, ReplayNode
from vgps_bringup.simulation.simulation_node import SimulationConfig, SimulationNode
from vgps_critic.critic_node import CriticNode, CriticNodeConfig
from vgps_critic.steering import SteeringConfig
from vgps_msgs.action import ExecuteInstruction
from vgps_policy_bridge.loop.policy_config import PolicyNodeConfig
from vgps_policy_bridge.policy_node import PolicyNode

FOLDER = pathlib.Path(__file__).resolve().parents[1] / 'doc' / 'nodes'
FOOT = """
Parameters marked `live` can be changed while the node runs (`ros2 param set`, `vgps-param set`, `rqt_reconfigure`);
values outside the range are refused. [All nodes](../nodes.md). Written by `workspace/node_reference.py`.
"""


@dataclass(frozen=True)
class Described:
    """A node, its configuration, and how it is started here."""

    kind: type[Node]
    configuration: tuple[type, ...]
    fixed: tuple[type, ...] = ()     # classes of `configuration` whose values stay while the node runs
    arguments: tuple[str, ...] = ()


NODES = {
    'policy_node': Described(PolicyNode, (PolicyNodeConfig,)),
    'critic_node': Described(CriticNode, (SteeringConfig, CriticNodeConfig), (CriticNodeConfig,)),
    'widowx_node': Described(
        WidowXNode, (ArmConfig, ControllerConfig, StepControllerConfig, WatchdogConfig, GripperConfig), (ArmConfig,),
        ('arm:=simulated',)),
    'heartbeat_node': Described(HeartbeatNode, (HeartbeatConfig,), (HeartbeatConfig,), ('arm:=simulated',)),
    'simulation_node': Described(SimulationNode, (SimulationConfig,), (SimulationConfig,)),
    'decision_image_node': Described(DecisionImageNode, (DecisionImageConfig,), (DecisionImageConfig,)),
    'recorder_node': Described(RecorderNode, (RecorderConfig,)),
    'replay_node': Described(ReplayNode, (ReplayConfig,), (ReplayConfig,)),
}
OF_EVERY_NODE = {'/rosout', '/parameter_events', '/clock'}


def opened(name: str) -> dict[str, list[str]]:
    """Start the node for a moment; return what it publishes, listens to, answers and asks, as Markdown."""
    described, space = NODES[name], f'/page_{name}'
    replay_node.Bag = lambda _path: SimpleNamespace(problems=[], episodes=(), image_topic=str)    # nothing is played
    with tempfile.TemporaryDirectory() as folder:
        arguments = [*described.arguments, *([f'output_directory:={folder}'] if name == 'recorder_node' else [])]
        rclpy.init(args=['--ros-args', '--log-level', 'fatal', '-r', f'__ns:={space}',
                         *(word for value in arguments for word in ('-p', value))])
        node = described.kind()
        executor = SingleThreadedExecutor()
        executor.add_node(node)
        try:
            until = time.monotonic() + 20.0
            while time.monotonic() < until and (name == 'policy_node') and not node.action_server:
                executor.spin_once(timeout_sec=0.1)
            found = {'publishes': [(p.topic_name, p.msg_type) for p in node.publishers],
                     'subscribes to': [(s.topic_name, s.msg_type) for s in node.subscriptions],
                     'offers': [(s.service_name, s.srv_type) for s in node.services],
                     'calls': [(c.service_name, c.srv_type) for c in node.clients]}
            if name == 'policy_node':
                found['offers'].append((f'{space}/execute_instruction', ExecuteInstruction))
        finally:
            if hasattr(node, 'close'):
                node.close()
            executor.shutdown()
            node.destroy_node()
            rclpy.shutdown()
    return {what: sorted({_topic(path, kind, space, name) for path, kind in pairs
                          if path not in OF_EVERY_NODE and kind.__module__.split('.')[0] != 'rcl_interfaces'
                          and kind.__module__.split('.')[0] != 'type_description_interfaces'})
            for what, pairs in found.items()}


def _topic(path: str, kind: type, space: str, node: str) -> str:
    package, group = kind.__module__.split('.')[:2]
    shown = path.removeprefix(f'{space}/')
    if shown.startswith(f'{node}/'):
        shown = '~' + shown.removeprefix(node)
    return f'`{shown}` ({package}/{group}/{kind.__name__})'


def _cell(value) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return '[' + ', '.join(map(str, value)) + ']'
    return str(value).replace('|', '\\|') if value != '' else "''"


def _row(field: dataclasses.Field, fixed: bool) -> str:
    default = field.default if field.default is not dataclasses.MISSING else field.default_factory()
    limits = ''
    if 'range' in field.metadata:
        limits = f'{field.metadata["range"][0]} … {field.metadata["range"][1]}'
    elif 'choices' in field.metadata:
        limits = ', '.join(map(str, field.metadata['choices']))
    live = '' if fixed or field.metadata.get('read_only') else 'live'
    kind = {'tuple': 'list', 'str': 'string'}.get(type(default).__name__, type(default).__name__)
    return (f'| `{field.name}` | {kind} | {_cell(default)} | {limits} | {live} | '
            f'{field.metadata.get("description", "").replace("|", chr(92) + "|")} |')


def page(name: str) -> str:
    """Return a node's page as Markdown."""
    described = NODES[name]
    text = inspect.getdoc(sys.modules[described.kind.__module__]).replace('``', '`')
    lines = [f'# {name}', '', text.replace('::\n\n', ''), '', '| | |', '|---|---|']
    lines += [f'| {what} | {"<br>".join(items)} |' for what, items in opened(name).items() if items]
    lines += ['', '| parameter | type | default | range | | meaning and unit |', '|---|---|---|---|---|---|']
    lines += [_row(f, c in described.fixed) for c in described.configuration for f in dataclasses.fields(c)
              if not f.metadata.get('internal')]
    return '\n'.join(lines) + '\n' + FOOT


if __name__ == '__main__':
    stale = []
    for node_name in NODES:
        file, wanted = FOLDER / f'{node_name}.md', page(node_name)
        if '--check' in sys.argv:
            stale += [] if file.exists() and file.read_text(encoding='utf-8') == wanted else [file.name]
        else:
            FOLDER.mkdir(exist_ok=True)
            file.write_text(wanted, encoding='utf-8')
    if stale:
        sys.exit(f'out of date: {", ".join(stale)}; run node_reference.py')
