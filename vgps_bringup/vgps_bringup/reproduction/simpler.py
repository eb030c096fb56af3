"""``vgps-study simpler``: the paper's tables on SIMPLER's four WidowX tasks, from scratch.

Demonstrations in scenes that are none of SIMPLER's own (`trials.simpler.scenes`), base policies and critics trained on
them, then every row of the tables on SIMPLER's own configurations, the same for all rows.
"""

import dataclasses
import functools
import signal
import sys
from dataclasses import dataclass, field
from pathlib import Path

from vgps_bringup.reproduction import schedule
from vgps_bringup.reproduction.schedule import Stage
from vgps_bringup.reproduction.stages import (
    CRITICS,
    LESS_DATA,
    MAIN,
    PAPER_CRITICS,
    SHARES,
    Commands,
    actors,
    condition,
)
from vgps_bringup.trials.simpler.environments import MANISKILL
from vgps_msgs_py import command_line

DEVELOPMENT_SEED = 3_000_000  # of the drawn scenes to choose by; demonstrations have those from 1,000,000 on
LIMIT = 120           # steps; SIMPLER's own limit of a task, 60 or 120, ends an episode before
POLICIES = ('flow', 'binned')
LONGER, FILTERED = 'flow-longer', 'flow-successes'  # the fine-tuning table: twice as long, and on successes only
# without it, a policy of some hundred scenes learns them by heart, and hovers where it finds another
FEW_SCENES = ('--shift', '2', '--places-weight', '1')


@dataclass(frozen=True)
class Scale:
    """The size of the study; smaller values give a first look."""

    tasks: tuple[str, ...] = tuple(MANISKILL)
    """SIMPLER's names"""
    episodes: int = 150
    """demonstrations per task"""
    policy_steps: int = 5000
    """updates of each base policy"""
    locate_steps: int = 2000
    """updates of the critics' encoder before grasps are located"""
    encoder_steps: int = 3500
    """updates of the critics' encoder after that"""
    critic_steps: int = 6000
    """updates of each critic's heads"""
    end_to_end_steps: int = 12000
    """updates of the critic that is trained end to end"""
    trials: int = 24
    """configurations per task and row: 24 is the protocol; more repeat them with other random numbers"""

    def __post_init__(self):
        unknown = [task for task in self.tasks if task not in MANISKILL]
        if unknown or not self.tasks:
            raise ValueError(f'tasks must be among {", ".join(MANISKILL)}, not {", ".join(unknown) or "none"}')


SMOKE = Scale(tasks=('widowx_spoon_on_towel',), episodes=4, policy_steps=20, locate_steps=20, encoder_steps=20,
              critic_steps=20, end_to_end_steps=5, trials=1)


def stages(out: Path, scale: Scale) -> list[Stage]:
    """Return every stage in an order that can be run one after the other."""
    make = Commands(out, scale)
    collected = tuple(f'collect-{task}' for task in scale.tasks)

    def policy(kind: str, *options: str, **named) -> Stage:
        return make.policy(kind, *options, *FEW_SCENES, needs=collected, **named)

    def trials(name: str, *needs: str) -> Stage:
        return make.stage(f'trials-{name}', 'vgps-evaluate', 'simpler', '--study', '{out}/' + f'{name}.yaml',
                          '--output', '{out}/' + f'trials-{name}', *([] if name == 'headline' else ['--no-record']),
                          needs=needs)

    return [
        *(make.stage(f'collect-{task}', 'vgps-collect-simpler', '--output', '{out}/demonstrations/' + task, '--tasks',
                     task, '--episodes', '{episodes}', '--processes', '1') for task in scale.tasks),
        make.table('table', 'demonstrations', collected),
        policy('flow', '--horizon', '1'), make.encoder('encoder'), policy('binned'),
        *make.critics(CRITICS),
        trials('development', *POLICIES, MAIN), trials('headline', *POLICIES, MAIN),
        trials('algorithms', *POLICIES, *PAPER_CRITICS),
        trials('controls', 'flow', MAIN, *PAPER_CRITICS, 'monte-carlo-end-to-end', 'monte-carlo-paper-labels'),
        policy('flow', '--horizon', '1', name=LONGER, steps=str(2 * scale.policy_steps)),
        policy('flow', '--horizon', '1', '--successes-only', name=FILTERED),
        trials('fine-tuning', 'flow', LONGER, FILTERED, MAIN),
        trials('candidates', 'flow', *PAPER_CRITICS), trials('actors', 'flow', *PAPER_CRITICS),
        *(make.table(f'table-{percent}', 'table', ('table',), '--share', share) for percent, share in SHARES.items()),
        *(make.encoder(f'encoder-{percent}', f'table-{percent}') for percent in SHARES),
        *make.critics(LESS_DATA), trials('data', 'flow', MAIN, *LESS_DATA),
    ]


def studies(out: Path, scale: Scale) -> dict[str, dict]:
    """Return the comparisons by name, as ``vgps-evaluate simpler --study`` reads them."""
    row = functools.partial(condition, out)
    base = row('base', selection='first', k=1)

    def study(*rows: dict) -> dict:
        return {'tasks': list(scale.tasks), 'conditions': list(rows), 'trials': scale.trials, 'first_seed': 0,
                'max_steps': LIMIT}

    def per_policy(critics: dict[str, str]) -> list[dict]:
        return [line for policy in POLICIES for line in (
            row(f'{policy}: base', policy, 'first', 1),
            *(row(f'{policy}: {label}', policy, critic=critic) for critic, label in critics.items()))]

    headline = study(*per_policy({MAIN: 'steered'}))
    return {
        'development': {**headline, 'first_seed': DEVELOPMENT_SEED}, 'headline': headline,
        'algorithms': study(*per_policy({name: f'steered, {name}' for name in PAPER_CRITICS})),
        'controls': study(base, row('random-select', selection='random'),
                          row('random-policy', 'random-policy', 'first', 1),
                          *(row(f'steered, {name}', critic=name) for name in CRITICS)),
        'fine-tuning': study(base, row('base, trained twice as long', selection='first', k=1, checkpoint=LONGER),
                             row('base of successes only', selection='first', k=1, checkpoint=FILTERED),
                             row('steered')),
        'candidates': study(base, *(row(f'{name}, K={k}', k=k, critic=name)
                                    for name in PAPER_CRITICS for k in (10, 30, 50, 100))),
        'actors': study(*actors(row)),
        'data': study(base, *(row(name.replace('-', ' '), critic=name) for name in LESS_DATA), row('all data')),
    }


@dataclass
class Study:
    """The paper's tables on SIMPLER's four WidowX tasks: demonstrations, policies, critics, trials, tables.

    Example: vgps-study simpler --output simpler

    Needs ManiSkill 3 (vgps_bringup/doc/simpler.md). An interrupted call continues where it stopped. Next: read
    OUTPUT/results.md.
    """

    output: Path = Path('simpler')
    """folder for everything that is made"""
    stages: tuple[str, ...] = ()
    """only these and what they need, by the names that --list prints"""
    list: bool = False
    """print the commands and run nothing"""
    smoke: bool = False
    """every stage in miniature: does it run here?"""
    cores: int = 2
    """stages that run at the same time, at least 1"""
    report_only: bool = False
    """tables of the trials finished so far"""
    scale: Scale = field(default_factory=Scale)


def main(arguments: list[str]) -> None:
    """Run the command line."""
    options = command_line.read(Study, 'vgps-study simpler', arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that no stage outlives this
    scale, out = SMOKE if options.smoke else options.scale, options.output.resolve()
    plan = stages(out, scale)
    if options.stages:
        plan = schedule.needed(plan, options.stages)
    if options.list:
        schedule.show(plan)
        return
    if options.cores < 1:
        sys.exit(f'vgps-study simpler: --cores must be at least 1, not {options.cores}')
    if not options.report_only:
        schedule.run(plan, out, scale, studies(out, scale), options.cores)
    from vgps_bringup.reproduction.tables import write_simpler
    print(write_simpler(out))


def shortfalls(scale: Scale) -> list[str]:
    """Say in which ways a run is smaller than the study, as it stands above its tables."""
    return [f'{f.name.replace("_", " ")} {_words(getattr(scale, f.name))} of {_words(getattr(Scale(), f.name))}'
            for f in dataclasses.fields(Scale) if getattr(scale, f.name) != getattr(Scale(), f.name)]


def _words(value) -> str:
    return ', '.join(value) if isinstance(value, tuple) else str(value)
