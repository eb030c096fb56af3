"""Write doc/parameters.md from the nodes' own configuration classes.

python vgps_bringup/workspace/node_reference.py          # rewrites it
python vgps_bringup/workspace/node_reference.py --check  # says whether it is up to date
"""

import dataclasses
import pathlib
import sys

from vgps_bringup.arm.controller_config import ControllerConfig
from vgps_bringup.arm.gripper import GripperConfig
from vgps_bringup.arm.heartbeat_node import HeartbeatConfig
from vgps_bringup.arm.step_controller import StepControllerConfig
from vgps_bringup.arm.watchdog import WatchdogConfig
from vgps_bringup.arm.widowx_node import ArmConfig
from vgps_bringup.episode_pages.decision_image_node import DecisionImageConfig
from vgps_bringup.recording.recording import RecorderConfig
from vgps_bringup.recording.replay_node import ReplayConfig
from vgps_bringup.simulation.simulation_node import SimulationConfig
from vgps_critic.critic_node import CriticNodeConfig
from vgps_critic.steering import SteeringConfig
from vgps_policy_bridge.loop.policy_config import PolicyNodeConfig

PAGE = pathlib.Path(__file__).resolve().parents[1] / 'doc' / 'parameters.md'
HEAD = """# Parameters of the nodes

Written by `workspace/node_reference.py` from the nodes' own configuration classes; `live` ones can be changed while the
node runs (`ros2 param set`, `rqt_reconfigure`), values outside their range are refused.

"""
# node -> (configuration classes, those of them that are fixed while the node runs)
NODES = {
    'policy_node': ((PolicyNodeConfig,), ()),
    'critic_node': ((SteeringConfig, CriticNodeConfig), (CriticNodeConfig,)),
    'widowx_node': ((ArmConfig, ControllerConfig, StepControllerConfig, WatchdogConfig, GripperConfig), (ArmConfig,)),
    'heartbeat_node': ((HeartbeatConfig,), (HeartbeatConfig,)),
    'simulation_node': ((SimulationConfig,), (SimulationConfig,)),
    'decision_image_node': ((DecisionImageConfig,), (DecisionImageConfig,)),
    'recorder_node': ((RecorderConfig,), ()),
    'replay_node': ((ReplayConfig,), (ReplayConfig,)),
}


def _cell(value) -> str:
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
    return (f'| `{field.name}` | {type(default).__name__} | {_cell(default)} | {limits} | {live} | '
            f'{field.metadata.get("description", "").replace("|", chr(92) + "|")} |')


def page() -> str:
    """Return the page as Markdown."""
    lines = []
    for node, (classes, fixed) in NODES.items():
        lines += [f'## {node}', '', '| parameter | type | default | range | | meaning, unit |',
                  '|---|---|---|---|---|---|']
        lines += [_row(f, c in fixed) for c in classes for f in dataclasses.fields(c) if not f.metadata.get('internal')]
        lines.append('')
    return HEAD + '\n'.join(lines)


if __name__ == '__main__':
    if '--check' not in sys.argv:
        PAGE.write_text(page(), encoding='utf-8')
    elif not PAGE.exists() or PAGE.read_text(encoding='utf-8') != page():
        sys.exit(f'{PAGE.name} is out of date: run node_reference.py')
