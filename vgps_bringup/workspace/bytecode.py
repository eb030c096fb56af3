"""Compile what nodes and pages import, once after an installation; ``make setup`` runs this.

Installers leave that to the first import. The first start would do it in several nodes at once, and where
PYTHONDONTWRITEBYTECODE is set (containers) every start would: 7 s of processor time more, most of it torch's.
"""

import importlib
import sys
from pathlib import Path

MODULES = ('vgps_critic.critic_node', 'vgps_policy_bridge.policy_node', 'vgps_policy_bridge.policies.small.policy',
           'vgps_bringup.simulation.simulation_node', 'vgps_bringup.arm.widowx_node',
           'vgps_bringup.arm.heartbeat_node', 'vgps_bringup.recording.recorder_node',
           'vgps_bringup.episode_pages.report', 'vgps_bringup.commands.demo', 'vgps_bringup.system.episode_client')
INSTALLED, COMPILED = Path(sys.prefix, '.installed'), Path(sys.prefix, '.compiled')


def main() -> None:
    """Import each module with bytecode written, unless this was done for what is installed."""
    if COMPILED.exists() and COMPILED.stat().st_mtime >= INSTALLED.stat().st_mtime:
        return
    sys.dont_write_bytecode = False
    for name in MODULES:
        importlib.import_module(name)
    COMPILED.touch()


if __name__ == '__main__':
    main()
