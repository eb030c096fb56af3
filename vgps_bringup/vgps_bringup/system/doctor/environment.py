"""What this shell tells ROS, and whether ROS starts under it. No ROS import: the middleware may end the process."""

from __future__ import annotations

import locale
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from vgps_bringup.system.doctor.findings import FAULT, OK, UNKNOWN, WARNING, Finding
from vgps_bringup.system.doctor.software import distribution
from vgps_msgs_py import discovery as limits

STARTS = 'ROS starts'
RANGES = ('SUBNET', 'LOCALHOST', 'OFF', 'SYSTEM_DEFAULT')
# a node of its own context, and a message through its compiled half: built for another Python it is not found
PROBE = """
import rclpy
rclpy.init(args=[])
node = rclpy.create_node('doctor_probe', start_parameter_services=False, enable_rosout=False)
from vgps_msgs.msg import Episode
node.create_publisher(Episode, '~/probe', 1)
node.destroy_node()
"""
PROBE_PATIENCE = 60.0  # [s] on a machine that is busy


def discovery(environment: Mapping[str, str] = os.environ, name: str | None = None) -> Finding:
    """Who can command this arm?"""
    subject = 'DDS discovery'
    name = distribution(environment) if name is None else name
    if complaint := limits.wrong_domain(environment):
        return Finding(subject, FAULT, complaint, 'export ROS_DOMAIN_ID=0, the same for all terminals')
    domain = environment.get('ROS_DOMAIN_ID') or '0'
    reach = environment.get('ROS_AUTOMATIC_DISCOVERY_RANGE', '')
    alone, remedy = environment.get('ROS_LOCALHOST_ONLY') == '1', 'export ROS_LOCALHOST_ONLY=1'
    if name != 'humble':
        remedy = 'export ROS_AUTOMATIC_DISCOVERY_RANGE=LOCALHOST'
        if reach and reach.upper() not in RANGES:
            return Finding(
                subject, WARNING, f'ROS_AUTOMATIC_DISCOVERY_RANGE is {reach}, taken for LOCALHOST',
                f'one of {", ".join(RANGES)}',
            )
        if alone and (reach.upper() == 'SUBNET' or environment.get('ROS_STATIC_PEERS')):
            return Finding(
                subject, WARNING, 'ROS_LOCALHOST_ONLY=1 overrides the range and the peers: this machine only',
                'unset ROS_LOCALHOST_ONLY',
            )
        alone = alone or reach.upper() in ('LOCALHOST', 'OFF')
    secure = environment.get('ROS_SECURITY_ENABLE', '').lower() == 'true'
    if alone or secure:
        peers = environment.get('ROS_STATIC_PEERS', '')
        return Finding(
            subject,
            OK,
            f'domain {domain}, ' + ('the whole network, SROS2 on' if not alone else
                                    f'this machine and {peers}' if peers else 'this machine only'),
        )
    return Finding(
        subject,
        WARNING,
        f'domain {domain}, the whole network: any machine on it can command the arm',
        f'{remedy}, unless the robot needs several machines (lab guide)',
    )


def shared_memory(environment: Mapping[str, str] = os.environ, folder: Path = Path('/dev/shm')) -> Finding:
    """Do camera images fit through the middleware's shared memory?"""
    subject = 'shared memory'
    middleware = environment.get('RMW_IMPLEMENTATION', 'rmw_fastrtps_cpp')
    if 'fastrtps' not in middleware:
        return Finding(subject, UNKNOWN, f'{middleware}: the shipped profile is for Fast DDS only')
    profile = environment.get('FASTDDS_DEFAULT_PROFILES_FILE') or environment.get('FASTRTPS_DEFAULT_PROFILES_FILE')
    if not profile or not Path(profile).is_file():
        return Finding(
            subject,
            WARNING,
            "Fast DDS's default shared memory: half of the 640x480 frames are lost",
            'source vgps_bringup/workspace/activate.sh, or set FASTDDS_DEFAULT_PROFILES_FILE to config/fastdds_shm.xml',
        )
    try:
        free = shutil.disk_usage(folder).free
    except OSError as error:
        return Finding(subject, FAULT, f'{folder}: {error}', 'mount a tmpfs there')
    if free < 256e6:
        return Finding(
            subject,
            FAULT,
            f'{free / 1e6:.0f} MB free in {folder}, one node takes 16 MB',
            'docker run --shm-size 1g, or, while no node runs, remove /dev/shm/fast*',
        )
    return Finding(subject, OK, f'profile {Path(profile).name}, {free / 1e9:.1f} GB free')


def text_encoding(stream: str | None = None, preferred: str | None = None) -> Finding:
    """Can names and instructions of any language be read, written and printed?"""
    stream = getattr(sys.stdout, 'encoding', None) or '' if stream is None else stream
    preferred = locale.getpreferredencoding(False) if preferred is None else preferred
    other = [name for name in (stream, preferred) if name.lower().replace('-', '').replace('_', '') != 'utf8']
    if other:
        return Finding(
            'text encoding',
            WARNING,
            f'{other[0] or "none"}: non-ASCII letters are printed as codes, and files that hold them are misread',
            'export LANG=C.UTF-8, and unset LC_ALL and PYTHONIOENCODING',
        )
    return Finding('text encoding', OK, 'UTF-8')


def middleware(environment: Mapping[str, str] = os.environ) -> Finding:
    """Is the chosen ROS middleware installed?"""
    prefixes = [p for p in environment.get('AMENT_PREFIX_PATH', '').split(os.pathsep) if p]
    index = 'share/ament_index/resource_index/rmw_typesupport'
    there = sorted({p.name for prefix in prefixes for p in Path(prefix, index).glob('rmw_*')} - {'rmw_implementation'})
    chosen = environment.get('RMW_IMPLEMENTATION', '')
    if chosen and chosen not in there:
        return Finding(
            'middleware',
            FAULT,
            f'RMW_IMPLEMENTATION is {chosen}, installed are {", ".join(there) or "none"}',
            f'unset RMW_IMPLEMENTATION, or sudo apt-get install ros-$ROS_DISTRO-{chosen.replace("_", "-")}',
        )
    if not there:
        return Finding('middleware', FAULT, 'none is installed', 'source ROS 2, or run make setup')
    return Finding('middleware', OK, chosen or ', '.join(there))


def ros_starts(code: str = PROBE, environment: Mapping[str, str] | None = None) -> Finding:
    """Does a node start here, with the packages' compiled messages? Looked at in a process of its own."""
    try:
        probe = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, errors='replace',
                               timeout=PROBE_PATIENCE, env=None if environment is None else dict(environment))
    except subprocess.TimeoutExpired:
        return Finding(STARTS, FAULT, f'a node did not start within {PROBE_PATIENCE:.0f} s', 'please report this')
    if probe.returncode == 0:
        return Finding(STARTS, OK, 'a node starts, and the messages of this workspace are built for this Python')
    said = [line.strip() for line in (probe.stdout + probe.stderr).splitlines() if line.strip()]
    why = said[-1] if said else f'exit status {probe.returncode}'
    return Finding(STARTS, FAULT, f'no node starts: {why}', _remedy(why))


def _remedy(why: str) -> str:
    if 'domain' in why.lower():
        return f'export ROS_DOMAIN_ID= a number from 0 to 101 (at most {limits.LARGEST_DOMAIN})'
    if 'RMW' in why or 'rmw' in why:
        return 'unset RMW_IMPLEMENTATION, or install the package of that name'
    if any(word in why for word in ('_rclpy', 'typesupport', 'TypeSupport', 'undefined symbol', 'GLIBCXX')):
        return ('built for another Python or C++ library than this one: make clean setup, with the same ROS sourced '
                'and no conda environment active')
    return 'make setup, then . vgps_bringup/workspace/activate.sh in a new shell'
