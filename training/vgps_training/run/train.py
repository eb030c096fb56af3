"""`vgps-train`: train a value function, calibrate or publish one.

vgps-train iql --preset small --data bags/ --out runs/iql
vgps-train cal-ql --data bridge_dataset/1.0.0 fractal20220817_data/0.1.0 --data.weights 1.0 0.54087
vgps-train iql --config runs/iql/config.json        # again, or on: a killed run continues where it was saved
torchrun --nproc-per-node 8 -m vgps_training.run.train cal-ql ...
vgps-train push runs/iql owner/name --dry-run
vgps-train calibrate runs/iql/critic --data heldout/ --out calibrated
"""
import argparse
import logging
import sys
from pathlib import Path

import tyro

from vgps_training.run.config import ALGORITHMS, PRESETS, TrainConfig, from_json, preset
from vgps_training.run.loop import Run
from vgps_training.run.storage import RunError


def parse(arguments: list[str]) -> TrainConfig:
    """Return the configuration of a command line: a preset or a config file, changed by the options after it."""
    first = argparse.ArgumentParser(prog='vgps-train', add_help=False)
    first.add_argument('algorithm', choices=list(ALGORITHMS))
    first.add_argument('--preset', choices=list(PRESETS), default='paper')
    first.add_argument('--config', type=Path)
    chosen, rest = first.parse_known_args(arguments)
    default = from_json(chosen.config.read_text()) if chosen.config else preset(chosen.algorithm, chosen.preset)
    if default.algorithm_name != chosen.algorithm:
        raise SystemExit(f'{chosen.config} is a configuration of {default.algorithm_name}, not of {chosen.algorithm}')
    presets = '; '.join(f'{name}: {p.description}' for name, p in PRESETS.items())
    # the algorithm is chosen already: without this, tyro would ask for it again as a sub-command
    return tyro.cli(tyro.conf.AvoidSubcommands[TrainConfig], default=default, args=rest,
                    prog=f'vgps-train {chosen.algorithm}',
                    description=f'Defaults are those of --preset {chosen.preset} ({presets}) or of --config FILE.')


def main() -> None:
    """Run the command line."""
    logging.basicConfig(level=logging.WARNING, format='%(message)s')
    arguments = sys.argv[1:]
    if arguments and arguments[0] == 'push':
        from vgps_training.run.push import main as push
        push(arguments[1:])
        return
    if arguments and arguments[0] == 'calibrate':
        from vgps_training.run.calibrate import main as calibrate
        calibrate(arguments[1:])
        return
    if not arguments or arguments[0] in ('-h', '--help'):
        print(__doc__)
        return
    config = parse(arguments)
    try:
        run = Run(config)
    except (OSError, ValueError, RunError) as error:  # the data cannot be used: the reason says more than a traceback
        raise SystemExit(f'error: {error}') from None
    try:
        run.train()
    except RunError as error:
        raise SystemExit(f'error: {error}') from None


if __name__ == '__main__':
    main()
