"""``vgps-evaluate trials``: does steering help? Interleaved, blind, resumable trials with intervals.

The loop knows neither simulation nor robot: a runner plays one trial (``lockstep.py``: the embedded simulation as fast
as it goes; ``robot.py``: the live system through its action).
"""

import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Protocol

from vgps_bringup.trials.journal import Journal, JournalError, read_lines
from vgps_bringup.trials.plan import Study, StudyError, Trial, plan
from vgps_bringup.trials.sequential import Verdict, so_far


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


def run_study(study: Study, runner: TrialRunner, output: Path, record: bool = True, shard: tuple[int, int] = (0, 1),
              say: Callable[[str], None] = print, setting: dict | None = None,
              stop_early: float = 0.0) -> None:
    """Run what is not in the journal yet.

    A trial counts when its line is in the journal, and is played again otherwise; a half-written bag is removed.

    Args:
        study: what to run.
        runner: plays it.
        output: folder of journal and bags.
        record: write a bag per trial.
        shard: (index, count) for several processes on one study; each has a journal of its own.
        say: progress, without naming the condition (the operator is blind).
        setting: what else decides the results (runner, camera, looks); resuming under another one is refused.
        stop_early: with two conditions and one process: end when they are known to differ, or can no longer be shown
            to, with at most this chance of calling equal ones different; 0: play everything.

    Raises:
        StudyError: ``stop_early`` with other than two conditions, or several processes.
        JournalError: the folder belongs to another study, setting, number of processes or process.
        AbandonedError: a trial could not be finished; call again to resume.

    """
    index, count = shard
    if stop_early and (len(study.conditions) != 2 or count != 1):
        raise StudyError(f'stopping early compares two conditions in one process, not {len(study.conditions)} in '
                         f'{count}')
    mine = [trial for trial in plan(study) if trial.number % count == index]
    for path in output.glob('journal-*.jsonl'):  # under another division trials would be played, and counted, twice
        for begun in read_lines(path)[:1]:
            if begun.get('shards', count) != count:
                raise JournalError(f'{output} was begun with --workers {begun["shards"]}: resume it with as many, or '
                                   'choose another --output')
    header = {**study.as_dict(), **(setting or {}), 'shards': count, 'stop_early': stop_early}
    with Journal(output / f'journal-{index}.jsonl', header) as journal:
        left = [trial for trial in mine if trial.identity not in journal.results]
        if len(left) < len(mine):
            say(f'resuming: {len(mine) - len(left)} of {len(mine)} trials are done')
        began = time.monotonic()
        for done, trial in enumerate(left):
            if stop_early and (known := so_far(
                    mine, journal.results, stop_early, study.conditions[0].name)).verdict is not Verdict.OPEN:
                say(known.words())
                break
            say(f'trial {trial.number + 1} of {study.trials * len(study.tasks) * len(study.conditions)}: '
                f'{trial.task.instruction or trial.task.name}, seed {trial.seed}{_remaining(began, done, len(left))}')
            bag = output / 'bags' / trial.identity if record else None
            if bag is not None:
                shutil.rmtree(bag, ignore_errors=True)  # left behind by a kill
                bag.parent.mkdir(parents=True, exist_ok=True)
            result = runner.run(trial, bag)
            journal.record(trial.identity, {
                'number': trial.number, 'task': trial.task.name, 'instruction': trial.task.instruction,
                'condition': trial.condition.name, 'seed': trial.seed, **asdict(result)})


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
            raise StudyError(f'{output} holds journals of different studies, or of different numbers of workers')
        study, rows = first, rows + lines[1:]
    if study is None:
        raise StudyError(f'{output} holds no journal of a study')
    study.pop('shards', None)
    study['tasks'] = tuple(TaskItem(**item) for item in study['tasks'])
    study['conditions'] = tuple(Condition(**item) for item in study['conditions'])
    return Study(**study), sorted(rows, key=lambda row: row['number'])
