"""``vgps-study``: does steering raise success? From scratch: data, policies, critics, trials, tables.

Each stage is one of the project's own commands, so every number can be made again by hand. Stages that do not need
each other run side by side, one per core.
"""

import dataclasses
import functools
import shlex
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from vgps_bringup.reproduction import schedule
from vgps_bringup.reproduction.schedule import Stage
from vgps_msgs_py import command_line

TASKS = ('put_eggplant_in_basket', 'put_carrot_on_plate')
# Demonstrations have seeds from 1,000,000 on; recipes, K and beta were chosen below 140; these are for the report.
FIRST_SEED = 10_000
NETWORK = ('--network.stage-sizes', '1', '1', '1', '1', '--network.num-filters', '24', '--network.image-size', '96')
HEADS = ('--data.action-space', 'bridge', *NETWORK, '--batch-size', '256', '--optimiser.learning-rate', '5e-4',
         '--threads', '1', '--validate-every', '0')
MONTE_CARLO = ('monte-carlo', '--algorithm.target-rate', '0.02')


@dataclass(frozen=True)
class CriticRecipe:
    """A critic that is trained."""

    arguments: tuple[str, ...]             # of vgps-train, beside HEADS
    steps: str = 'critic_steps'            # which field of Scale
    encoder: str | None = 'encoder'        # stage that pre-trained it; None: learnt with the value, as in the paper
    table: str = 'table'                   # stage that made its data


CRITICS = {
    'monte-carlo': CriticRecipe(MONTE_CARLO),
    'iql': CriticRecipe(('iql', '--algorithm.target-rate', '0.05', '--algorithm.negative-proportion', '0',
                         '--algorithm.train-actor')),
    # the paper takes every demonstration for a success
    'monte-carlo-paper-labels': CriticRecipe((*MONTE_CARLO, '--data.labels.failures', 'successes')),
    'cal-ql': CriticRecipe(('cal-ql', '--algorithm.target-rate', '0.02')),
    'monte-carlo-end-to-end': CriticRecipe((*MONTE_CARLO, '--batch-size', '64'), 'end_to_end_steps', None),
}
MAIN = next(iter(CRITICS))
PAPER_CRITICS = ('iql', 'cal-ql')    # of CRITICS; both train an actor, too
SHIPPED = 'calibrated'   # MAIN with its values kept within the range of a return
HELD_OUT_SEED = 2000     # of the plain episodes by which it is calibrated
SHARES = {'10': '0.1', '50': '0.5'}  # of the demonstrations, percent and share
SEEDS = ('1', '2')                   # beside seed 0, the shipped one: other draws, other starting weights
# the shipped recipe with less data, or with another seed, in encoder and heads
LESS_DATA = {f'data-{share}-percent': CriticRecipe(MONTE_CARLO, encoder=f'encoder-{share}', table=f'table-{share}')
             for share in SHARES}
OTHER_SEEDS = {f'seed-{seed}': CriticRecipe((*MONTE_CARLO, '--seed', seed), encoder=f'encoder-seed-{seed}')
               for seed in SEEDS}
SERVER_PORT = '8791'


@dataclass(frozen=True)
class Scale:
    """How much of everything; the defaults are what the published numbers were made with."""

    episodes: int = 900        # demonstrations per task
    policy_steps: int = 5000   # updates of each base policy
    locate_steps: int = 2000   # updates of the critics' encoder until grasps are located
    encoder_steps: int = 3500  # and after
    critic_steps: int = 6000   # updates of each critic's heads
    end_to_end_steps: int = 12000  # updates of the critic whose encoder learns from the value alone
    trials: int = 200          # per task and headline row
    control_trials: int = 50   # per task and row of controls and algorithms
    sweep_trials: int = 20     # per task and row of the sweep over K and beta
    videos: int = 8            # recorded trials per task, for the page with videos and value curves


SMOKE = Scale(episodes=12, policy_steps=20, locate_steps=20, encoder_steps=20, critic_steps=20, end_to_end_steps=5,
              trials=2, control_trials=1, sweep_trials=1, videos=1)


class Commands:
    """Makes the stages of one study; a command may name its folder {out} and every field of its scale."""

    def __init__(self, out: Path, scale):
        self._values = {'out': str(out), **dataclasses.asdict(scale)}

    def stage(self, name: str, *command: str, needs: tuple[str, ...] = ()) -> Stage:
        """Return a command with this study's values in it."""
        return Stage(name, tuple(part.format(**self._values) for part in command), needs)

    def table(self, name: str, source: str, needs: tuple[str, ...], *share: str) -> Stage:
        """Return the stage that decodes and resizes recordings, or a `share` of a table, once."""
        return self.stage(name, 'vgps-data', 'save', '{out}/' + source, '--out', '{out}/' + name, '--image-size', '96',
                          *share, needs=needs)

    def policy(self, kind: str, *options: str, name: str = '', steps: str = '{policy_steps}',
               needs: tuple[str, ...] = ('collect',)) -> Stage:
        """Return the training of a base policy, named after its kind unless it has a `name`."""
        name = name or kind
        return self.stage(name, 'vgps-train-policy', '--kind', kind, '--data', '{out}/demonstrations', '--output',
                          '{out}/' + f'{name}.safetensors', '--image-size', '96', *options, '--batch-size', '64',
                          '--steps', steps, '--threads', '1', needs=needs)

    def encoder(self, name: str, table: str = 'table', seed: str = '0') -> Stage:
        """Return the pre-training of a critic's encoder."""
        return self.stage(name, 'vgps-pretrain', '--data', '{out}/' + table, '--out', '{out}/' + name, '--first-steps',
                          '{locate_steps}', '--steps', '{encoder_steps}', '--seed', seed, needs=(table,))

    def critics(self, recipes: dict[str, CriticRecipe]) -> list[Stage]:
        """Return the training of critics by their recipes."""
        return [self.critic(name, recipe) for name, recipe in recipes.items()]

    def critic(self, name: str, recipe: CriticRecipe) -> Stage:
        """Return the training of one critic."""
        encoded = ('--encoder', '{out}/' + recipe.encoder) if recipe.encoder else ()
        return self.stage(name, 'vgps-train', recipe.arguments[0], *encoded, '--data.paths', '{out}/' + recipe.table,
                          *HEADS, *recipe.arguments[1:], '--steps', '{' + recipe.steps + '}', '--out', '{out}/' + name,
                          needs=(recipe.encoder or recipe.table,))

    def trials(self, name: str, *critics: str, record: bool = False, server: tuple[str, ...] = ()) -> Stage:
        """Return the trials of the comparison of this name."""
        # one process each, so that no core waits for a stage that wants them all
        command = ('vgps-evaluate', 'trials', '--study', '{out}/' + f'{name}.yaml',
                   *(() if record else ('--no-record',)), '--output', '{out}/' + f'trials-{name}')
        if server:
            command = ('sh', '-c', f'{" ".join(server)} & trap "kill $!" EXIT; ' + shlex.join(command))
        return self.stage(f'trials-{name}', *command, needs=('flow', 'binned', *critics))


def stages(out: Path, scale: Scale) -> list[Stage]:
    """Return every stage in an order that can be run one after the other."""
    make = Commands(out, scale)
    # a calibration needs both outcomes, and policies of twenty updates never succeed
    held_out = 'demonstrations' if scale == SMOKE else 'trials-held-out/bags'
    return [
        # on two cores: all others need it
        make.stage('collect', 'vgps-collect', '--output', '{out}/demonstrations', '--tasks', *TASKS, '--episodes',
                   '{episodes}', '--looks', 'light', '--image-size', '256', '--max-steps', '60', '--processes', '2'),
        make.table('table', 'demonstrations', ('collect',)),
        make.policy('flow', '--horizon', '1'), make.encoder('encoder'), make.policy('binned'),
        *make.critics(CRITICS),
        make.trials('held-out', record=True),
        make.stage(SHIPPED, 'vgps-train', 'calibrate', '{out}/' + f'{MAIN}/critic', '--data',
                   '{out}/' + held_out, '--out', '{out}/' + f'{SHIPPED}/critic',
                   needs=(MAIN, 'trials-held-out')),
        make.trials('headline', SHIPPED), make.trials('controls', *CRITICS), make.trials('actors', *PAPER_CRITICS),
        make.trials('videos', SHIPPED, record=True),
        make.trials('server', SHIPPED, server=(
            'vgps-policy-server', 'flow', '--options', '"{{checkpoint: {out}/flow.safetensors}}"', '--episodes', '2',
            '--port', SERVER_PORT)),
        make.trials('sweep', SHIPPED),
        *(make.table(f'table-{percent}', 'table', ('table',), '--share', share) for percent, share in SHARES.items()),
        *(make.encoder(f'encoder-{percent}', f'table-{percent}') for percent in SHARES),
        *make.critics(LESS_DATA), make.trials('data', MAIN, *LESS_DATA),
        *(make.encoder(f'encoder-seed-{seed}', seed=seed) for seed in SEEDS),
        *make.critics(OTHER_SEEDS), make.trials('seeds', MAIN, *OTHER_SEEDS),
    ]


def condition(out: Path, name: str, policy: str = 'flow', selection: str = 'value', k: int = 10, beta: float = 1.0,
              critic: str = MAIN, checkpoint: str = '') -> dict:
    """Return a row of a study in the folder `out`; `checkpoint`: stage that trained the policy, if not its name."""
    options = {'random-policy': {}, 'server': {'url': f'ws://127.0.0.1:{SERVER_PORT}', 'connect_timeout': 120},
               'actor': {'checkpoint': str(out / checkpoint / 'critic' / 'actor.safetensors')}
               }.get(policy, {'checkpoint': str(out / f'{checkpoint or policy}.safetensors')})
    return {'name': name, 'policy': policy, 'critic': str(out / critic / 'critic') if selection == 'value' else '',
            'selection': selection, 'k': k, 'beta': beta, 'policy_options': options}


def actors(row: Callable[..., dict]) -> list[dict]:
    """Return the rows of the paper's Table 11 by `condition`: a policy alone, steered, and the critics' own actors."""
    rows = [row('base', selection='first', k=1)]
    for name in PAPER_CRITICS:
        rows += [row(f'steered, {name}', critic=name),
                 row(f'actor of {name}', 'actor', selection='first', k=1, checkpoint=name),
                 row(f'actor of {name}, steered by {name}', 'actor', critic=name, checkpoint=name)]
    return rows


def studies(out: Path, scale: Scale) -> dict[str, dict]:
    """Return the comparisons by name, as ``vgps-evaluate trials --study`` reads them."""
    row = functools.partial(condition, out, critic=SHIPPED)

    def study(rows: list[dict], trials: int) -> dict:
        return {'tasks': list(TASKS), 'conditions': rows, 'trials': trials, 'first_seed': FIRST_SEED, 'max_steps': 60}

    headline = []
    for policy in ('flow', 'binned'):
        headline += [row(f'{policy}: base', policy, 'first', 1), row(f'{policy}: steered', policy)]
    base = row('base', selection='first', k=1)
    controls = [base, row('random-select', selection='random'), row('random-policy', 'random-policy', 'first', 1)]
    controls += [row(f'steered, {name}', critic=name) for name in CRITICS]
    less_data, seeds = ([row(name.replace('-', ' '), critic=name) for name in critics]
                        for critics in (LESS_DATA, OTHER_SEEDS))
    sweep = [row(f'K={k} β={beta:g}', k=k, beta=beta) for k in (10, 30, 50, 100) for beta in (0.0, 0.1, 1.0)]
    server = [row('in process'), row('through the policy server', 'server')]
    return {'headline': study(headline, scale.trials), 'controls': study(controls, scale.control_trials),
            'actors': study(actors(functools.partial(condition, out)), scale.control_trials),
            'server': study(server, scale.sweep_trials), 'sweep': study([base, *sweep], scale.sweep_trials),
            'data': study([base, *less_data, row('all data', critic=MAIN)], scale.control_trials),
            'held-out': {**study([base], scale.sweep_trials), 'first_seed': HELD_OUT_SEED},
            'seeds': study([base, row('seed 0', critic=MAIN), *seeds], scale.control_trials),
            'videos': study(headline[:2], scale.videos)}


@dataclass
class Study:
    """Measure from scratch whether steering raises success: data, policies, critics, trials, tables.

    Example: vgps-study --output study

    Takes about 3 hours on 2 CPU cores. An interrupted call continues where it stopped. Next: read OUTPUT/results.md.

    The same on the SIMPLER benchmark's four WidowX tasks: vgps-study simpler --help
    """

    output: Path = Path('study')
    """folder for everything that is written"""
    list: bool = False
    """print the commands and run nothing"""
    smoke: bool = False
    """run every stage in miniature, in minutes, to see whether it works here"""
    cores: int = 2
    """stages that run at the same time, at least 1"""
    publish: Path | None = None
    """checkout whose documentation and README receive the tables, too"""
    report_only: bool = False
    """run nothing; write the tables of the trials finished so far"""


def main() -> None:
    """Run the command line."""
    if sys.argv[1:2] == ['simpler']:
        from vgps_bringup.reproduction import simpler
        simpler.main(sys.argv[2:])
        return
    options = command_line.read(Study, 'vgps-study')
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that no stage outlives this
    scale, out = SMOKE if options.smoke else Scale(), options.output.resolve()
    if options.list:
        schedule.show(stages(out, scale))
        return
    if options.cores < 1:
        command_line.refuse('vgps-study', f'--cores must be at least 1, not {options.cores}')
    if not options.report_only:
        schedule.run(stages(out, scale), out, scale, studies(out, scale), options.cores)
    from vgps_bringup.reproduction.tables import write
    print(write(out, options.publish))


if __name__ == '__main__':
    main()
