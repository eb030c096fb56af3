"""What a check found, as a table for people and as JSON for a support request."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass

OK, WARNING, FAULT, UNKNOWN = 'ok', 'warning', 'FAULT', 'not checked'
_COLOURS = {OK: '32', WARNING: '33', FAULT: '31', UNKNOWN: '90'}


@dataclass(frozen=True)
class Finding:
    """One line of the table."""

    subject: str  # what was looked at
    status: str  # OK, WARNING, FAULT, or UNKNOWN where it could not be looked at
    found: str  # what is there, with units
    remedy: str = ''  # what to do; empty where all is well


def table(findings: Iterable[Finding], colour: bool) -> str:
    """Return the findings as text, a line each, remedies below their line. The status is a word, not a colour alone."""
    findings = list(findings)
    width = max((len(f.subject) for f in findings), default=0)
    lines = []
    for f in findings:
        status = f'{f.status:<11}'
        status = f'\033[{_COLOURS[f.status]}m{status}\033[0m' if colour else status
        lines.append(f'{f.subject:<{width}}  {status}  {f.found}')
        if f.remedy:
            lines.append(f'{"":<{width}}  {"":<11}  -> {f.remedy}')
    return '\n'.join(lines)


def summary(findings: Iterable[Finding]) -> str:
    """Return one sentence about all of them."""
    counts = {status: sum(f.status == status for f in findings) for status in _COLOURS}
    said = ', '.join(f'{count} {status}' for status, count in counts.items() if count)
    return f'{said}. ' + ('Fix these faults before you power an arm.' if counts[FAULT] else 'No fault was found.')


def to_json(findings: Iterable[Finding]) -> str:
    """Return the findings with the machine they were made on, for a support request."""
    machine = {
        'system': platform.platform(),
        'processor': platform.machine(),
        'python': platform.python_version(),
        'time': time.strftime('%Y-%m-%dT%H:%M:%S%z'),
    }
    return json.dumps({'machine': machine, 'findings': [asdict(f) for f in findings]}, indent=2)
