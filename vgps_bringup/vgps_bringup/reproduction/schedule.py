"""Stages of a study: commands with what they need, run side by side, resumable, with the cost of each."""

import dataclasses
import json
import os
import shlex
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import yaml

from vgps_msgs_py import jobs
from vgps_msgs_py.jobs import Engine, JobError


@dataclass(frozen=True)
class Stage:
    """One command and the stages whose results it reads."""

    name: str
    command: tuple[str, ...]
    needs: tuple[str, ...] = ()


def needed(plan: list[Stage], names: Iterable[str]) -> list[Stage]:
    """Return the named stages and all that they need, in order. Raises SystemExit for a name that is not there."""
    by_name = {stage.name: stage for stage in plan}
    wanted, waiting = set(), list(names)
    while waiting:
        name = waiting.pop()
        if name not in by_name:
            sys.exit(f'vgps-study: there is no stage {name}; there are: {", ".join(by_name)}')
        if name not in wanted:
            wanted.add(name)
            waiting += by_name[name].needs
    return [stage for stage in plan if stage.name in wanted]


def show(plan: list[Stage]) -> None:
    """Print the commands."""
    for stage in plan:
        print(f'{stage.name}: {shlex.join(stage.command)}')


def run(plan: list[Stage], out: Path, scale, studies: dict[str, dict], cores: int = 2) -> None:
    """Run every stage that is not done.

    Args:
        plan: the stages, in an order in which they can be run one after the other.
        out: folder of the study.
        scale: dataclass of what decides its size; another one is refused.
        studies: the comparisons by name, as ``vgps-evaluate --study`` reads them; written as ``NAME.yaml``.
        cores: stages run side by side.

    Raises:
        SystemExit: a stage failed; the text names its log. Or the folder was begun at another scale.

    """
    logs, began = out / 'logs', time.monotonic()
    logs.mkdir(parents=True, exist_ok=True)
    _check_same(out, scale)
    for name, content in studies.items():
        (out / f'{name}.yaml').write_text(yaml.safe_dump(content, sort_keys=False, allow_unicode=True))
    left = {stage.name: (stage, logs) for stage in plan if not (logs / f'{stage.name}.done').exists()}
    undone = set(left)

    def record(name: str, code: int) -> None:
        if code:
            sys.exit(f'vgps-study: stage {name} failed ({code}): see {logs / name}.log')
        (logs / f'{name}.done').touch()
        undone.discard(name)
        _say(began, f'{len(plan) - len(undone)} of {len(plan)} done: {name}')

    _say(began, f'{len(left)} of {len(plan)} stages are left; what each says: {logs}')
    try:
        jobs.run(_run, left, engine=Engine(cores), record=record, needs={stage.name: stage.needs for stage in plan})
    except (JobError, FileNotFoundError) as error:  # killed again and again; a command that is not installed
        sys.exit(f'vgps-study: {error}')


def _run(job: tuple[Stage, Path]) -> int:
    """Run a stage and return its exit status; its cost goes to ``costs.jsonl``, also where it is stopped."""
    stage, logs = job

    def keep(cost: jobs.Cost) -> None:
        with (logs / 'costs.jsonl').open('a') as ledger:
            ledger.write(json.dumps({'stage': stage.name, 'minutes': cost.minutes, 'cpu_minutes': cost.cpu_minutes})
                         + '\n')

    # one thread per process, for drawing too (Mesa): as many processes as cores are running
    return jobs.command(stage.command, logs / f'{stage.name}.log',
                        {**os.environ, 'OMP_NUM_THREADS': '1', 'LP_NUM_THREADS': '0'}, keep)


def _say(began: float, text: str) -> None:
    print(f'[{(time.monotonic() - began) / 60:5.1f} min] {text}', flush=True)


def _check_same(out: Path, scale) -> None:
    path, wanted = out / 'scale.json', json.dumps(dataclasses.asdict(scale), indent=2)
    if path.exists() and path.read_text() != wanted:
        sys.exit(f'vgps-study: {out} was begun at another scale (see {path}): choose another --output or remove it')
    path.write_text(wanted)
