"""When, where and by which version a page was made."""

import datetime
import os
import platform
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

UNKNOWN = 'unknown'


@cache
def commit() -> str:
    """Return the commit that this code runs from, '+' where it was changed since; 'unknown' in an installed package."""
    def git(*words: str) -> str:
        return subprocess.run(['git', '-C', str(Path(__file__).parent), *words], capture_output=True, text=True,
                              check=True, timeout=5).stdout.strip()
    try:
        git('ls-files', '--error-unmatch', Path(__file__).name)  # or a repository around an installation answers
        return git('rev-parse', '--short=10', 'HEAD') + ('+' if git('status', '--porcelain', '-uno') else '')
    except (OSError, subprocess.SubprocessError):
        return UNKNOWN


def release() -> str:
    """Return the installed version."""
    try:
        return version('vgps_bringup')
    except PackageNotFoundError:
        return UNKNOWN


@cache
def processor() -> str:
    """Return what the machine calls its processor."""
    try:
        lines = Path('/proc/cpuinfo').read_text().splitlines()
    except OSError:
        lines = []
    return next((line.partition(':')[2].strip() for line in lines if line.startswith('model name')),
                platform.machine() or UNKNOWN)


def made() -> dict[str, str]:
    """Return the facts of this moment: name -> text."""
    now = datetime.datetime.now(datetime.timezone.utc)
    load = os.getloadavg()[0]
    return {'page made': f'{now:%Y-%m-%d %H:%M} UTC', 'by': f'vgps_bringup {release()}, commit {commit()}',
            'on': f'{os.cpu_count()} × {processor()}, load {load:.1f}'}
