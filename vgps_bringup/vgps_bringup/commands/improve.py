"""Train a better critic on a robot's own judged recordings; it is offered with a report, or refused with the reasons.

    vgps-improve runs/                        # everything recorded so far, against the critic in ./critics
    vgps-critics promote NAME                 # what it offers; nothing is promoted by itself
    vgps-improve runs/ --watch                # again after every session

Plain and steered episodes, successes and failures all count; unjudged ones do not. An interrupted
call continues where it stopped. Needs the package training/ on the machine that trains, not on the robot.
"""

import argparse
import os
import sys
import time
from pathlib import Path

from vgps_bringup.improvement.episodes import find_bags
from vgps_bringup.improvement.pipeline import HEADS, NOTHING, ImproveError, Recipe, improve
from vgps_bringup.improvement.registry import Registry, RegistryError
from vgps_bringup.improvement.report import write_report
from vgps_critic.checkpoint import CheckpointError
from vgps_msgs_py.bags.storage import BagError

QUIET = 60.0  # s without a new recording after which a session counts as over
REFUSED = 3   # exit status


def run_once(options, registry: Registry) -> int:
    """Improve once; return 0 for an offer, REFUSED otherwise."""
    recipe = Recipe(options.start, options.heads, options.algorithm, options.steps, options.folds,
                    false_alarms=options.false_alarms, seed=options.seed)
    outcome = improve(options.bags, registry, recipe, options.work, new_scene=options.new_scene, jobs=options.jobs,
                      say=lambda text: print(text, flush=True))
    page = write_report(outcome)
    for name, metric in outcome.verdict.metrics.items():
        print(f'  {name}: {metric if not isinstance(metric, float) else f"{metric:.3g}"}')
    for remark in outcome.verdict.remarks:
        print(f'note: {remark}')
    print(f'report: {page}')
    if not outcome.verdict.accepted:
        for reason in outcome.verdict.reasons:
            print(f'REFUSED {reason}')
        return REFUSED
    entry = registry.add(outcome.critic, outcome.lineage)
    print(f'OFFERED {entry.name}: vgps-critics --registry {registry.root} promote {entry.name}')
    return 0


def watch(options, registry: Registry) -> None:
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
    parser = argparse.ArgumentParser(prog='vgps-improve', description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('bags', nargs='+', type=Path, help='recordings, or folders that hold them')
    parser.add_argument('--registry', type=Path, default=Path('critics'), help='folder of critics')
    parser.add_argument('--work', type=Path, default=Path('improvement'), help='folder for what is made on the way')
    parser.add_argument('--start', default='', help='critic whose encoder is kept: folder, hub id, default (shipped); '
                        f"'{NOTHING}' trains an encoder as well, for which a hundred episodes are too few; default: "
                        'the current critic of the registry, or the shipped one')
    parser.add_argument('--heads', choices=('continue', 'fresh', 'keep'), default=Recipe.heads,
                        help="go on from the start critic's heads, learn fresh ones, or keep them and calibrate an "
                        'outlook alone')
    parser.add_argument('--algorithm', choices=tuple(HEADS), default='monte-carlo')
    parser.add_argument('--steps', type=int, default=Recipe.steps, help="updates of the critic's heads; 0: as many as "
                        'the recipe says')
    parser.add_argument('--folds', type=int, default=Recipe.folds, help='critics trained to judge the recipe by, >= 2')
    parser.add_argument('--false-alarms', type=float, default=Recipe.false_alarms,
                        help='largest share of successful episodes in which the outlook may raise an alarm, 0 .. 1')
    parser.add_argument('--new-scene', action='store_true', help='learn from another camera, table or light than the '
                        'critic in use was trained on')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--jobs', type=int, default=len(os.sched_getaffinity(0)), help='trainings side by side')
    parser.add_argument('--watch', action='store_true', help='stay, and improve again after each session')
    options = parser.parse_args()
    registry = Registry(options.registry)
    try:
        if options.watch:
            watch(options, registry)
        sys.exit(run_once(options, registry))
    except (BagError, CheckpointError, ImproveError, RegistryError, OSError, ValueError) as error:
        sys.exit(f'vgps-improve: {error}')
    except KeyboardInterrupt:
        sys.exit('\nstopped: the same command continues')


if __name__ == '__main__':
    main()
