"""``vgps-doctor``: looks at this workstation and a running system, and says what is wrong and what to do."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from vgps_bringup.system.doctor import workstation
from vgps_bringup.system.doctor.environment import STARTS
from vgps_bringup.system.doctor.findings import FAULT, UNKNOWN, Finding, summary, table, to_json
from vgps_msgs_py import command_line


@dataclass
class Doctor:
    """Check this workstation, and say line by line what is right and what to do about the rest.

    Before the first start: vgps-doctor

    Beside a running simulation: vgps-doctor --running

    Beside the robot: vgps-doctor --running --robot wx250s --camera-topic /blue/image_raw --critic /models/vgps

    For a support request: vgps-doctor --json > report.json

    Nothing is published, moved or changed. Exit status 1: something is wrong.
    """

    running: bool = False
    """also check the running system, by listening for a few seconds"""
    robot: str = ''
    """also check the real arm: the namespace of Interbotix's driver, for example wx250s"""
    namespace: str = 'vgps'
    """namespace of the running system"""
    camera_topic: str = 'image_raw'
    """image topic of the camera to check"""
    image_transport: Literal['auto', 'raw', 'compressed'] = 'auto'
    """which image topic is used: raw; compressed (topic + /compressed); auto: compressed only without a raw one"""
    critic: str = ''
    """also load this critic: folder, owner/name on the hub or 'default' (shipped)"""
    policy_server: str = ''
    """also connect to this policy server, for example ws://127.0.0.1:8765"""
    output: Path = Path('runs')
    """folder for recordings, whose disk is checked"""
    seconds: float = 5.0
    """how long to listen to the running system [s]"""
    quick: bool = False
    """leave out the slow checks: write speed and bag writer"""
    json: Annotated[bool, tyro.conf.arg(name='json')] = False
    """print JSON instead of the table"""


def examine(options: Doctor) -> list[Finding]:
    """Return every finding, the machine first."""
    found = list(
        workstation.examine(options.output, options.critic, options.policy_server, bool(options.robot), options.quick)
    )
    if options.running and any(f.subject == STARTS and f.status == FAULT for f in found):
        found.append(Finding('running system', UNKNOWN, 'no node starts here, so nothing was observed', 'see above'))
    elif options.running:
        try:
            found += _running(options)
        except Exception as error:  # the doctor must not fall ill, and what was found before must be said
            found.append(Finding('running system', UNKNOWN, f'{type(error).__name__}: {error}', 'please report this'))
    return found


def _running(options: Doctor) -> list[Finding]:
    from vgps_bringup.system.doctor.doctor_node import observe
    from vgps_bringup.system.doctor.running import judge

    joints = f'/{options.robot}/joint_states' if options.robot else 'joint_states'
    return list(judge(observe(options.namespace, options.camera_topic, joints, options.seconds,
                              options.image_transport)))


def main() -> None:
    """Command line."""
    options = command_line.read(Doctor, 'vgps-doctor')
    found = examine(options)
    if options.json:
        print(to_json(found))
    else:
        print(table(found, colour=sys.stdout.isatty()))
        print('\n' + summary(found))
    sys.exit(any(f.status == FAULT for f in found))


if __name__ == '__main__':
    main()
