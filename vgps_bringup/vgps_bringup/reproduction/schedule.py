"""Stages of a study: commands with what they need, run side by side, resumable; each one's cost is written down."""

import dataclasses
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import yaml

POLL = 0.5  # s


@dataclass(frozen=True)
class Stage:
    """One command and the stages whose results it reads."""

    name: str
    command: tuple[str, ...]
    needs: tuple[str, ...] = ()
    cores: int = 1


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
    (out / 'logs').mkdir(parents=True, exist_ok=True)
    _check_same(out, scale)
    for name, content in studies.items():
        (out / f'{name}.yaml').write_text(yaml.safe_dump(content, sort_keys=False, allow_unicode=True))
    running, began = {}, time.monotonic()
    # one thread per process, for drawing too (Mesa): as many processes as cores are running
    environment = {**os.environ, 'OMP_NUM_THREADS': '1', 'LP_NUM_THREADS': '0'}
    try:
        while True:
            done = {stage.name for stage in plan if _marker(out, stage).exists()}
            for name, (stage, process, started) in list(running.items()):
                code = _reap(out, name, process, started, os.WNOHANG)
                if code is None:
                    continue
                del running[name]
                if code:
                    sys.exit(f'vgps-study: stage {name} failed ({code}): see {out / "logs" / name}.log')
                _marker(out, stage).touch()
                done.add(name)
                _say(began, f'{len(done)} of {len(plan)} done: {name}')
            if len(done) == len(plan):
                return
            free = cores - sum(min(stage.cores, cores) for stage, *_ in running.values())
            for stage in plan:
                if stage.name in done or stage.name in running or not done.issuperset(stage.needs):
                    continue
                if min(stage.cores, cores) > free:
                    break  # in order: a stage for all cores is not overtaken for ever
                _say(began, f'{stage.name}: {out / "logs" / stage.name}.log')
                log = (out / 'logs' / f'{stage.name}.log').open('a')
                process = subprocess.Popen(stage.command, stdout=log, stderr=log, env=environment)
                running[stage.name] = stage, process, time.monotonic()
                free -= min(stage.cores, cores)
            time.sleep(POLL)
    finally:
        for _, process, _ in running.values():
            os.kill(process.pid, signal.SIGTERM)  # terminate() would reap one that has just ended, and lose its cost
        for stage, process, started in running.values():
            _reap(out, stage.name, process, started)


def _reap(out: Path, name: str, process: subprocess.Popen, started: float, flags: int = 0) -> int | None:
    """Return the exit code of an ended stage, None while it runs; its cost goes to ``logs/costs.jsonl``."""
    pid, status, usage = os.wait4(process.pid, flags)  # poll() does not tell the CPU time
    if not pid:
        return None
    process.returncode = os.waitstatus_to_exitcode(status)
    cost = {'stage': name, 'minutes': (time.monotonic() - started) / 60,
            'cpu_minutes': (usage.ru_utime + usage.ru_stime) / 60}
    with (out / 'logs' / 'costs.jsonl').open('a') as ledger:
        ledger.write(json.dumps(cost) + '\n')
    return process.returncode


def _say(began: float, text: str) -> None:
    print(f'[{(time.monotonic() - began) / 60:5.1f} min] {text}', flush=True)


def _marker(out: Path, stage: Stage) -> Path:
    return out / 'logs' / f'{stage.name}.done'


def _check_same(out: Path, scale) -> None:
    path, wanted = out / 'scale.json', json.dumps(dataclasses.asdict(scale), indent=2)
    if path.exists() and path.read_text() != wanted:
        sys.exit(f'vgps-study: {out} was begun at another scale (see {path}): choose another --output or remove it')
    path.write_text(wanted)
