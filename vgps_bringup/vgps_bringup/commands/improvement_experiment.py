"""Measure how many of its own episodes the simulated robot needs to improve. An interrupted call continues.

vgps-improvement-experiment --output experiment                             # all of it: many CPU hours
vgps-improvement-experiment --output small --policies flow --curve 100 --rounds 1 --trials 50 --shifts
"""

import argparse
import os
import sys
from pathlib import Path

from vgps_bringup.improvement.experiment import Experiment, Laboratory
from vgps_bringup.improvement.pipeline import ImproveError, Recipe


def main() -> None:
    """Run the command line."""
    os.environ.setdefault('OMP_NUM_THREADS', '1')
    parser = argparse.ArgumentParser(prog='vgps-improvement-experiment', description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--output', type=Path, default=Path('experiment'))
    parser.add_argument('--policies', nargs='+', default=Experiment.policies)
    parser.add_argument('--curve', nargs='+', type=int, default=Experiment.curve, help='numbers of own episodes')
    parser.add_argument('--rounds', type=int, default=Experiment.rounds)
    parser.add_argument('--per-round', type=int, default=Experiment.per_round, help='episodes')
    parser.add_argument('--trials', type=int, default=Experiment.trials, help='held-out, per task and condition')
    parser.add_argument('--shifts', nargs='*', default=Experiment.shifts, help='looks')
    parser.add_argument('--shift-trials', type=int, default=Experiment.shift_trials)
    parser.add_argument('--first-seed', type=int, default=Experiment.first_seed, help='of the held-out trials')
    parser.add_argument('--own-seed', type=int, default=Experiment.own_seed, help="of the robot's own episodes")
    parser.add_argument('--start', default='default', help='critic whose encoder is kept')
    options = vars(parser.parse_args())
    output, recipe = options.pop('output'), Recipe(options.pop('start'))
    experiment = Experiment(**{name: tuple(value) if isinstance(value, list) else value
                               for name, value in options.items()})
    try:
        print(Laboratory(experiment, recipe, output, say=lambda text: print(text, flush=True)).run().read_text())
    except (ImproveError, OSError, ValueError, RuntimeError) as error:
        sys.exit(f'vgps-improvement-experiment: {error}')
    except KeyboardInterrupt:
        sys.exit('\nstopped: the same command continues')


if __name__ == '__main__':
    main()
