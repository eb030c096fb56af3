"""`vgps-train`: train, judge, calibrate or publish a value function.

vgps-train iql --preset small --data bags/ --out runs/iql
vgps-train cal-ql --data bridge_dataset/1.0.0 fractal20220817_data/0.1.0 --data.weights 1.0 0.54087
vgps-train iql --config runs/iql/config.json        # the same settings again; a killed run continues
torchrun --nproc-per-node 8 -m vgps_training.run.train cal-ql ...
vgps-train push runs/iql owner/name --dry-run
vgps-train calibrate runs/iql/critic --data heldout/ --out calibrated
vgps-train judge runs/iql/critic runs/cal-ql/critic --data heldout/
"""
import logging
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from vgps_msgs_py import command_line
from vgps_policy_bridge.policies.actor.checkpoint import FILE
from vgps_training.data.remote import StoreError
from vgps_training.run.config import ALGORITHMS, PRESETS, TrainConfig, from_json, preset
from vgps_training.run.loop import Run
from vgps_training.run.storage import CRITIC, RunError
from vgps_training.run.validation import BEST_BY

HELP = ('-h', '--help')
ACTOR = {'cal-ql': f'Beside each lies its actor, {FILE}, which --policy actor plays.',
         'iql': f'With --algorithm.train-actor, its actor lies beside each: {FILE}, which --policy actor plays.'}


@dataclass
class Chosen:
    """What decides the defaults of everything else."""

    algorithm: tyro.conf.Positional[Literal[tuple(ALGORITHMS)]]
    preset: Literal[tuple(PRESETS)] = 'paper'
    config: Path | None = None


def parse(arguments: list[str]) -> TrainConfig:
    """Return the configuration of a command line: a preset or a config file, changed by the options after it."""
    # --help is for the options that follow from this choice
    chosen, rest = tyro.cli(Chosen, prog='vgps-train', args=[word for word in arguments if word not in HELP],
                            return_unknown_args=True)
    default = from_json(chosen.config.read_text()) if chosen.config else preset(chosen.algorithm, chosen.preset)
    if default.algorithm_name != chosen.algorithm:
        raise ValueError(f'{chosen.config} is a configuration of {default.algorithm_name}, not of {chosen.algorithm}')
    presets = '; '.join(f'{name}: {p.description}' for name, p in PRESETS.items())
    rest += [word for word in arguments if word in HELP]
    decides, otherwise = BEST_BY
    # the algorithm is chosen already: without this, tyro would ask for it again as a sub-command
    return tyro.cli(tyro.conf.AvoidSubcommands[TrainConfig], default=default, args=rest,
                    prog=f'vgps-train {chosen.algorithm}',
                    description='Train a value function; a killed run continues where it was saved.\n\nExample: '
                                f'vgps-train {chosen.algorithm} --preset small --data demonstrations/ --out runs/'
                                f'{chosen.algorithm}\n\nDefaults are those of --preset {chosen.preset} ({presets}) or '
                                f'of --config FILE.\n\nOUT/critic is the newest critic, OUT/best the best by {decides} '
                                f'of held-out episodes or, where all of them succeeded, by {otherwise}. '
                                f'{ACTOR.get(chosen.algorithm, "")}\n\n'
                                'Next: vgps-run simulation critic:=OUT/critic')


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
    if arguments and arguments[0] == 'judge':
        from vgps_training.run.judge import main as judge
        judge(arguments[1:])
        return
    if not arguments or arguments[0] in HELP:
        print(f'{__doc__}\nalgorithms: {", ".join(ALGORITHMS)}; options of each: vgps-train ALGORITHM --help')
        return
    with command_line.refusing('vgps-train', RunError, StoreError, stopped='stopped: the same command continues'):
        with command_line.refusing('vgps-train', OSError, ValueError):  # the reason says more than a traceback
            run = Run(parse(arguments))
        run.train()
    if run.shard.rank == 0:
        critic = run.config.out / CRITIC
        print(f'Critic: {critic}\nNext: vgps-run simulation critic:={critic}, or vgps-evaluate bag runs --critic '
              f'{critic}')
        if run.actors:
            print(f'Actor: {critic / FILE}\nNext: vgps-run simulation policy:=actor policy_options:='
                  f'"{{checkpoint: {(critic / FILE).absolute()}}}"')


if __name__ == '__main__':
    main()
