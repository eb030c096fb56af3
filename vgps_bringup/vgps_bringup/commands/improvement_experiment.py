"""``vgps-improvement-experiment``: how many of its own episodes does the simulated robot need to improve?"""

import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from vgps_bringup.improvement.experiment import Experiment, Laboratory
from vgps_bringup.improvement.pipeline import ImproveError, Recipe
from vgps_msgs_py import command_line


@dataclass(frozen=True)
class Options(Experiment):
    """Measure how many of its own episodes the simulated robot needs to improve. An interrupted call continues.

    Example: vgps-improvement-experiment --output small --policies flow --curve 100 --rounds 1 --trials 50 --shifts

    With the defaults it takes many CPU hours. Next: read OUTPUT/experiment.md, which is rewritten after every part.
    """

    output: Path = Path('experiment')  # folder for everything that is written
    start: str = 'default'             # critic whose encoder is kept: folder, owner/name on the hub or 'default'
    # fresh: train new heads on these episodes alone; continue: train the start critic's further; keep: use them as is
    heads: Literal['fresh', 'continue', 'keep'] = 'fresh'


def main() -> None:
    """Run the command line."""
    os.environ.setdefault('OMP_NUM_THREADS', '1')
    options = command_line.read(Options, 'vgps-improvement-experiment')
    with command_line.refusing('vgps-improvement-experiment', ImproveError, OSError, ValueError, RuntimeError,
                               stopped='stopped: the same command continues'):
        recipe = Recipe(options.start, options.heads)
        page = Laboratory(options, recipe, options.output, partial(print, flush=True)).run()
        print(f'{page.read_text()}\nTables: {page}')


if __name__ == '__main__':
    main()
