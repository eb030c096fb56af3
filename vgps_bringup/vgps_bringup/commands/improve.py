"""``vgps-improve``: from a robot's own judged recordings to a better critic, accepted or refused with the reasons."""

import os
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tyro.conf import Positional

from vgps_bringup.commands import checks
from vgps_bringup.improvement.episodes import find_bags
from vgps_bringup.improvement.pipeline import HEADS, NOTHING, ImproveError, Outcome, Recipe, improve
from vgps_bringup.improvement.registry import Registry, RegistryError
from vgps_bringup.improvement.report import write_report
from vgps_critic.checkpoint import CheckpointError
from vgps_msgs_py import command_line
from vgps_msgs_py.bags.storage import BagError
from vgps_msgs_py.jobs import JobError

QUIET = 60.0  # s without a new recording after which a session counts as over
REFUSED = 3   # exit status


@dataclass
class Improve:
    """Train a better critic on a robot's own judged recordings, and report whether it passes the gate.

    Example: vgps-improve runs/

    Plain and steered episodes, successes and failures all count; unjudged ones do not. An interrupted call continues
    where it stopped. Needs the package training/ on the machine that trains, not on the robot. Exit status 3: the gate
    refused the critic, which is in the registry all the same, marked as refused.

    Next: vgps-critics promote NAME, with --override 'WHY' for a refused one; no critic is promoted automatically.
    """

    bags: Positional[tuple[Path, ...]]
    """recordings, or folders that hold them"""
    registry: Path = Path('critics')
    """folder of critics, whose current one is the one to beat"""
    work: Path = Path('improvement')
    """folder for intermediate results and the report"""
    start: str = ''
    """critic whose encoder is kept: folder, owner/name on the hub or 'default' (shipped); 'nothing' trains an encoder
    as well, for which a hundred episodes are too few; by default the registry's current critic, or the shipped one"""
    heads: Literal['continue', 'fresh', 'keep'] = Recipe.heads
    """continue: train the start critic's heads further; fresh: train new ones; keep: only fit an outlook"""
    algorithm: Literal[tuple(HEADS)] = Recipe.algorithm
    """algorithm that trains the heads"""
    steps: int = Recipe.steps
    """updates of the critic's heads, at least 0; 0: as many as the recipe sets"""
    folds: int = Recipe.folds
    """number of critics trained on parts of the data to validate the recipe, at least 2"""
    false_alarms: float = Recipe.false_alarms
    """largest share of successful episodes in which the outlook may raise an alarm, 0 .. 1"""
    new_scene: bool = False
    """accept another camera, table or light than the critic in use was trained on"""
    seed: int = Recipe.seed
    """seed of weights, sampling and order, at least 0"""
    jobs: int = field(default_factory=lambda: len(os.sched_getaffinity(0)))
    """trainings that run at the same time, at least 1; by default as many as there are cores"""
    watch: bool = False
    """keep running, and improve again after each session"""


def _check(options: Improve) -> None:
    if not options.watch:  # which waits for the first
        checks.recording(*options.bags)
    if options.start and options.start != NOTHING:
        checks.critic(options.start)
    checks.whole('--steps', options.steps, 0, 10**9)
    checks.whole('--folds', options.folds, 2, 1000)
    checks.whole('--jobs', options.jobs, 1, 1024)
    checks.whole('--seed', options.seed, 0, checks.LARGEST_SEED)
    if not 0 <= options.false_alarms <= 1:
        raise checks.ArgumentError(f'--false-alarms must be 0 .. 1, not {options.false_alarms:g}')
    checks.new_folder(options.work)


def run_once(options: Improve, registry: Registry) -> int:
    """Improve once; return 0 for an offer, REFUSED otherwise. The candidate is in the registry either way."""
    recipe = Recipe(options.start, options.heads, options.algorithm, options.steps, options.folds,
                    false_alarms=options.false_alarms, seed=options.seed)
    outcome = improve(options.bags, registry, recipe, options.work, new_scene=options.new_scene, processes=options.jobs,
                      say=lambda text: print(text, flush=True))
    conflict = None
    try:
        next_step = _add(outcome, registry)
    except RegistryError as error:  # nothing there is overwritten; the report is written all the same
        conflict, next_step = error, f'Not added to the registry: {error}. The candidate itself: {outcome.critic}'
    page = write_report(outcome, next_step)
    for name, metric in outcome.verdict.metrics.items():
        print(f'  {name}: {metric if not isinstance(metric, float) else f"{metric:.3g}"}')
    for remark in outcome.verdict.remarks:
        print(f'note: {remark}')
    print(f'Report: {page}')
    for reason in outcome.verdict.reasons:
        print(f'REFUSED {reason}')
    if conflict and outcome.verdict.accepted:
        raise conflict
    print(next_step)
    return 0 if outcome.verdict.accepted else REFUSED


def _add(outcome: Outcome, registry: Registry) -> str:
    """Put the candidate into the registry, accepted or refused, and return what became of it and what comes next."""
    if outcome.critic is None:
        return 'No critic was trained on these recordings, so there is none to promote.'
    entry = registry.add(outcome.critic, outcome.lineage)
    told = ''.join(f'Judged before, {earlier["created"]}: {"; ".join(earlier["reasons"]) or "not accepted"}.\n'
                   for earlier in entry.lineage.earlier[-1:])
    promote = f'vgps-critics --registry {registry.root} promote {entry.name}'
    if outcome.verdict.accepted:
        return f'{told}ACCEPTED {entry.name}\nNext: {promote}'
    if entry.lineage.accepted:
        return (f'{entry.name} is in the registry as accepted since {entry.lineage.created}. It stays so, and is '
                'promoted without --override.')
    return (f"{told}{entry.name} is in the registry as refused. To let it steer all the same: {promote} --override "
            "'WHY'")


def watch(options: Improve, registry: Registry) -> None:
    """Improve whenever recordings were added and none has been for a while."""
    done = None
    while True:
        try:
            bags = find_bags(options.bags)
            newest = max(file.stat().st_mtime for bag in bags for file in bag.iterdir())
            if len(bags) != done and time.time() - newest > QUIET:
                print(f'{len(bags)} recordings', flush=True)
                run_once(options, registry)
                done = len(bags)
        except (BagError, OSError) as error:  # none yet, or one that is being moved
            print(f'waiting: {error}', flush=True)
        time.sleep(QUIET / 6)


def main() -> None:
    """Run the command line."""
    options = command_line.read(Improve, 'vgps-improve')
    checks.or_exit('vgps-improve', lambda: _check(options))
    registry = Registry(options.registry)
    with command_line.refusing('vgps-improve', BagError, CheckpointError, ImproveError, JobError, RegistryError,
                               OSError, ValueError, stopped='stopped: the same command continues'):
        if options.watch:
            watch(options, registry)
        sys.exit(run_once(options, registry))


if __name__ == '__main__':
    main()
