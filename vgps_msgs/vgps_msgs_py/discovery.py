"""Which machines see a robot's nodes: this one, unless told otherwise. No ROS import.

Anybody who can send `command` moves the arm, so a laptop in the same network must not be able to by default. One
setting says otherwise, the launch argument ``machines`` or the variable VGPS_MACHINES, with the same values:

    this                  only this machine (default)
    all                   every machine of the network
    192.168.1.7,camera    this machine and these; each of them must name the others
"""

import os
from collections.abc import Mapping, MutableMapping

SETTING = 'VGPS_MACHINES'
LARGEST_DOMAIN = 232  # the ports of a larger one do not exist


def environment(machines: str, distribution: str | None = None) -> dict[str, str]:
    """Return the variables that make ROS look no further; ``distribution`` is $ROS_DISTRO unless given.

    Raises:
        ValueError: Humble was asked for single machines, which it cannot do.

    """
    distribution = os.environ.get('ROS_DISTRO', '') if distribution is None else distribution
    machines = machines.strip() or 'this'
    if distribution == 'humble':
        if machines not in ('this', 'all'):
            raise ValueError(f"machines is '{machines}', but ROS Humble supports only 'this' and 'all'")
        return {'ROS_LOCALHOST_ONLY': '1' if machines == 'this' else '0'}
    if machines == 'all':
        return {'ROS_AUTOMATIC_DISCOVERY_RANGE': 'SUBNET'}
    peers = [] if machines == 'this' else [name.strip() for name in machines.split(',') if name.strip()]
    return {'ROS_AUTOMATIC_DISCOVERY_RANGE': 'LOCALHOST', **({'ROS_STATIC_PEERS': ';'.join(peers)} if peers else {})}


def wrong_domain(variables: Mapping[str, str]) -> str:
    """Return what is wrong with ROS_DOMAIN_ID, '' for nothing: DDS itself would end the process."""
    text = variables.get('ROS_DOMAIN_ID', '').strip()
    if not text or (text.isascii() and text.isdigit() and int(text) <= LARGEST_DOMAIN):
        return ''
    return f"ROS_DOMAIN_ID is '{text}', must be a whole number from 0 to {LARGEST_DOMAIN}; 0 to 101 work everywhere"


def limit(variables: MutableMapping[str, str], machines: str = '') -> None:
    """Put the limit into an environment.

    ``machines`` counts if given, then what the environment says already in ROS' own words, then VGPS_MACHINES.

    Raises:
        ValueError: as ``environment``, or ROS_DOMAIN_ID is none.

    """
    if complaint := wrong_domain(variables):
        raise ValueError(complaint)
    wanted = environment(machines or variables.get(SETTING, ''), variables.get('ROS_DISTRO', ''))
    for name, value in wanted.items():
        if machines:
            variables[name] = value
        else:
            variables.setdefault(name, value)
