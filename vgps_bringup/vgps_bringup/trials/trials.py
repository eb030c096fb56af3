"""``vgps-evaluate trials``: does steering help? Interleaved, blind, resumable trials with intervals.

The loop knows neither simulation nor robot: a runner plays one trial (``lockstep.py``: the embedded simulation as fast
as it goes; ``robot.py``: the live system through its action).
"""

import functools
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Protocol

from vgps_bringup.trials.journal import Journal, JournalError, read_lines
from vgps_bringup.trials.plan import Study, StudyError, Trial, plan
from vgps_bringup.trials.sequential import Verdict, so_far
from vgps_msgs_py import jobs
from vgps_msgs_py.jobs import HERE, Engine


@dataclass(frozen=True)
class TrialResult:
    """What became of one trial."""

    success: bool
    failure: str = ''                    # failure mode in words, empty for a success
    steps: int = 0
    seconds: float = 0.0                 # wall clock
    mean_value: float | None = None      # of the executed candidates, where values were computed
    fallbacks: int = 0                   # steps in which the critic did not decide though it should have
    refused: int = 0                     # actions the controller refused
    bag: str = ''                        # relative to the study's folder
    details: dict = field(default_factory=dict)


class TrialRunner(Protocol):
    """Plays trials."""

    def run(self, trial: Trial, bag: Path | None) -> TrialResult:
        """Play one trial; record it into the folder ``bag`` if given."""

    def close(self) -> None:
        """Release simulator or connection."""


class AbandonedError(RuntimeError):
    """A trial could not be played to its end (a node was lost, the operator cancelled): it has no result."""


@dataclass(frozen=True)
class InEachProcess:
    """A runner that is made where trials are played, once in every process: it can be sent to another one."""

    make: Callable[..., TrialRunner]  # of a module
    arguments: tuple                  # hashable

    def run(self, trial: Trial, bag: Path | None) -> TrialResult:
        """Play one trial."""
        return _made(self.make, self.arguments).run(trial, bag)

    def close(self) -> None:
        """Release what was made in this process."""
        if _made.cache_info().currsize:
            _made(self.make, self.arguments).close()
            _made.cache_clear()


@functools.lru_cache(maxsize=1)
def _made(make: Callable[..., TrialRunner], arguments: tuple) -> TrialRunner:
    return make(*arguments)


class _Known(Exception):  # noqa: N818  nothing is wrong
    """Enough is known: the trials that are left need not be played."""


def run_study(study: Study, runner: TrialRunner, output: Path, record: bool = True, engine: Engine = HERE,
              say: Callable[[str], None] = print, setting: dict | None = None,
              stop_early: float = 0.0) -> None:
    """Run what is not in the journal yet.

    A trial counts when its line is in the journal, and is played again otherwise; a half-written bag is removed.

    Args:
        study: what to run.
        runner: plays it; anywhere but in this process it must be one that can be sent (``InEachProcess``).
        output: folder of journal and bags, which every machine of a cluster sees.
        record: write a bag per trial.
        engine: where trials are played; each shard has a journal of its own.
        say: progress, without naming the condition (the operator is blind).
        setting: what else decides the results (runner, camera, looks); resuming under another one is refused.
        stop_early: with two conditions and one process: end when they are known to differ, or can no longer be shown
            to, with at most this chance of calling equal ones different; 0: play everything.

    Raises:
        StudyError: ``stop_early`` with other than two conditions, or several processes.
        JournalError: the folder belongs to another study, setting or number of shards, or is in use.
        AbandonedError: a trial could not be finished; call again to resume.
        JobError: a trial killed every process it was given to.

    """
    index, count = engine.part()
    if stop_early and (len(study.conditions) != 2 or count != 1 or not engine.here):
        raise StudyError('stopping early compares two conditions, one trial after the other: give two conditions, and '
                         'neither several processes nor a shard nor a cluster')
    mine = [trial for trial in plan(study) if trial.number % count == index]
    for path in output.glob('journal-*.jsonl'):  # under another division trials would be played, and counted, twice
        for begun in read_lines(path)[:1]:
            if begun.get('shards', count) != count:
                raise JournalError(f'{output} was begun in {begun["shards"]} shards: continue with as many (--shard '
                                   f'0/{begun["shards"]} and so on), or choose another --output')
    header = {**study.as_dict(), **(setting or {}), 'shards': count, 'stop_early': stop_early}
    with Journal(output / f'journal-{index}.jsonl', header) as journal:
        left = [trial for trial in mine if trial.identity not in journal.results]
        if len(left) < len(mine):
            say(f'resuming: {len(mine) - len(left)} of {len(mine)} trials are done')
        by_identity, began = {trial.identity: trial for trial in left}, time.monotonic()
        total = study.trials * len(study.tasks) * len(study.conditions)

        def stop_if_known() -> None:
            if stop_early and (known := so_far(
                    mine, journal.results, stop_early, study.conditions[0].name)).verdict is not Verdict.OPEN:
                say(known.words())
                raise _Known

        def tell(trial: Trial) -> None:
            done = len(journal.results) - len(mine) + len(left)
            say(f'trial {trial.number + 1} of {total}: {trial.task.instruction or trial.task.name}, '
                f'seed {trial.seed}{_remaining(began, done, len(left))}')

        def play_here(job: tuple[TrialRunner, Trial, Path | None]) -> TrialResult:
            tell(job[1])
            return _play(job)

        def keep(identity: str, result: TrialResult) -> None:
            trial = by_identity[identity]
            journal.record(identity, {
                'number': trial.number, 'task': trial.task.name, 'instruction': trial.task.instruction,
                'condition': trial.condition.name, 'seed': trial.seed, **asdict(result)})
            if not engine.here:
                tell(trial)
            stop_if_known()

        try:
            stop_if_known()
            jobs.run(play_here if engine.here else _play,
                     {trial.identity: (runner, trial, (output / 'bags' / trial.identity).resolve() if record else None)
                      for trial in left}, engine=Engine(engine.processes, cluster=engine.cluster), record=keep)
        except _Known:
            pass


def _play(job: tuple[TrialRunner, Trial, Path | None]) -> TrialResult:
    runner, trial, bag = job
    if bag is not None:
        shutil.rmtree(bag, ignore_errors=True)  # left behind by a kill
        bag.parent.mkdir(parents=True, exist_ok=True)
    return runner.run(trial, bag)


def _remaining(began: float, done: int, trials: int) -> str:
    """Say how long the trials that are left will take, by those since this call began; nothing before the first."""
    if not done:
        return ''
    minutes = (time.monotonic() - began) / done * (trials - done) / 60
    return f', about {minutes:.0f} min left' if minutes >= 1 else ', less than a minute left'


def collect(output: Path) -> tuple[Study, list[dict]]:
    """Return a study and all its results, from every journal in the folder, in planned order.

    Raises:
        StudyError: no journal, or journals of different studies.

    """
    from vgps_bringup.trials.plan import Condition, TaskItem
    rows, study = [], None
    names = {'shards', *(f.name for f in fields(Study))}  # under two divisions some trials would count twice
    for path in sorted(output.glob('journal-*.jsonl')):
        lines = read_lines(path)
        if not lines:
            continue  # its worker was killed before the first
        first = {key: value for key, value in lines[0].items() if key in names}
        if study is not None and first != study:
            raise StudyError(f'{output} holds journals of different studies, or of different numbers of shards')
        study, rows = first, rows + lines[1:]
    if study is None:
        raise StudyError(f'{output} holds no journal of a study')
    study.pop('shards', None)
    study['tasks'] = tuple(TaskItem(**item) for item in study['tasks'])
    study['conditions'] = tuple(Condition(**item) for item in study['conditions'])
    return Study(**study), sorted(rows, key=lambda row: row['number'])
