"""Which offline figure of a critic foretells how well it steers?

    python -m vgps_bringup.benchmarks.validation --bags lab/flow-own/bags --out validation

Critics of every quality, good and broken on purpose, are trained on the same recordings of the plain policy; each is
judged by episodes none of them has seen and steers trials in the simulation on the same seeds. Printed: every critic's
steered success and figures, and the rank correlation of each figure with it over the critics. Everything is kept in the
folder: the same call goes on where it was stopped, or with more --rounds.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
from scipy.stats import spearmanr

from vgps_bringup.improvement import gate, pipeline
from vgps_bringup.improvement.episodes import Recorded, find_bags, learnable, read, save_table
from vgps_bringup.improvement.scoring import score
from vgps_bringup.system.defaults import BETA, K
from vgps_bringup.trials.plan import Condition, Study, task_list
from vgps_bringup.trials.statistics import Rate, wilson
from vgps_bringup.trials.trials import collect, run_study
from vgps_critic import checkpoint
from vgps_critic.config import CheckpointError
from vgps_critic.critic import Critic
from vgps_msgs_py import command_line
from vgps_msgs_py.bags.storage import BagError

TASKS = ('put_eggplant_in_basket', 'put_carrot_on_plate')
ROUND = 10          # seeds that every critic plays before the next ones
BOOTSTRAPS = 2000   # over critics
SEED = 0            # of what is broken at random


Broken = Callable[[Sequence[Recorded], np.random.Generator], list[Recorded]]


def fewer(episodes: Sequence[Recorded], random: np.random.Generator, count: int) -> list[Recorded]:
    """Return the first so many episodes."""
    return list(episodes[:count])


def wrong_outcomes(episodes: Sequence[Recorded], random: np.random.Generator, share: float) -> list[Recorded]:
    """Return the episodes, a random share of them with the other outcome."""
    wrong = random.permutation(len(episodes)) < round(share * len(episodes))
    return [replace(e, success=e.success != bool(w)) for e, w in zip(episodes, wrong)]


def all_successes(episodes: Sequence[Recorded], random: np.random.Generator) -> list[Recorded]:
    """Return the episodes as the paper labels its data."""
    return [replace(e, success=True) for e in episodes]


def actions_in_time(episodes: Sequence[Recorded], random: np.random.Generator) -> list[Recorded]:
    """Return the episodes with each one's actions in random order."""
    return [replace(e, actions=random.permutation(e.actions)) for e in episodes]


def actions_of_others(episodes: Sequence[Recorded], random: np.random.Generator) -> list[Recorded]:
    """Return the episodes with the actions of all in random order."""
    pool = random.permutation(np.concatenate([e.actions for e in episodes]))
    return [replace(e, actions=part) for e, part in
            zip(episodes, np.split(pool, np.cumsum([len(e) for e in episodes])[:-1]))]


@dataclass(frozen=True)
class Variant:
    """How a critic is trained."""

    data: Broken | None = None  # what is done to the episodes
    algorithm: str = 'monte-carlo'
    steps: int = pipeline.FRESH_STEPS
    options: tuple[str, ...] = ()

    @property
    def least(self) -> int:
        """Return how many episodes it is trained on where it takes the first only; with as many it is the good one."""
        return self.data.keywords['count'] if isinstance(self.data, partial) and self.data.func is fewer else 0


PLAIN, MAX_STEPS = 'plain', 60
NEGATED = 'negated'  # the good one's values with the other sign
START = 'the start critic'  # as it is: trained on none of these recordings
VARIANTS = {
    'good': Variant(),
    '100 updates': Variant(steps=100),
    '500 updates': Variant(steps=500),
    '1500 updates': Variant(steps=1500),
    '50 episodes': Variant(partial(fewer, count=50)),
    '100 episodes': Variant(partial(fewer, count=100)),
    '200 episodes': Variant(partial(fewer, count=200)),
    '30 % wrong outcomes': Variant(partial(wrong_outcomes, share=0.3)),
    '50 % wrong outcomes': Variant(partial(wrong_outcomes, share=0.5)),
    'all called successes': Variant(all_successes),
    'actions shuffled in time': Variant(actions_in_time),
    'actions of other episodes': Variant(actions_of_others),
    'discount 0.9': Variant(options=('--algorithm.discount', '0.9')),
    'IQL': Variant(algorithm='iql'),
    'Cal-QL': Variant(algorithm='cal-ql'),
}


def split(episodes: Sequence[Recorded], count: int) -> tuple[list[Recorded], list[Recorded]]:
    """Return (training, held out) episodes, ``count`` of the latter, drawn by their names."""
    order = sorted(episodes, key=lambda e: hashlib.sha256(e.name.encode()).hexdigest())
    held = {e.name for e in order[:count]}
    return [e for e in episodes if e.name not in held], [e for e in episodes if e.name in held]


def train(name: str, episodes: Sequence[Recorded], encoder: Path, sizes: tuple[str, ...], out: Path) -> None:
    """Train the critic of a variant into ``out``, unless it is there."""
    if (out / 'critic' / 'config.json').exists():
        return
    out.mkdir(parents=True, exist_ok=True)
    variant, table, run = VARIANTS[name], out / 'table', out / 'run'
    save_table(table, variant.data(episodes, np.random.default_rng(SEED)) if variant.data else list(episodes))
    recipe = pipeline.Recipe(algorithm=variant.algorithm, steps=variant.steps)
    pipeline.command((*pipeline.heads_command(recipe, table, run, sizes, ('--encoder', str(encoder))),
                      *variant.options), out / 'train.log')
    checkpoint.copy(str(run / 'critic'), out / 'copied')
    (out / 'copied').rename(out / 'critic')
    for made in (table, run):
        shutil.rmtree(made)


def negate(critic: Path, out: Path) -> None:
    """Write a critic with the other sign."""
    state, config, _ = checkpoint.read(critic)
    for part in ('weight', 'bias'):
        state[f'last.{part}'] = -state[f'last.{part}']
    checkpoint.write(out, state, config)


def train_all(episodes: Sequence[Recorded], names: Sequence[str], start: str, folder: Path) -> dict[str, Path]:
    """Return the critics by name, trained where they are not there yet."""
    encoder, table = folder / 'encoder', folder / 'encoder-table'
    if not (encoder / 'encoder.pt').exists():
        save_table(table, episodes)
        pipeline.command(('vgps-pretrain', '--data', str(table), '--out', str(encoder), '--critic', start),
                         folder / 'encoder.log')
        shutil.rmtree(table)
    sizes = (*pipeline.encoder_sizes(checkpoint.read(start)[1].network), *pipeline.FRESH_HEADS)
    critics = {START: folder / 'critics' / _folder(START) / 'critic'}
    if not (critics[START] / 'config.json').exists():
        checkpoint.copy(start, critics[START])
    for name in names:
        if VARIANTS[name].least >= len(episodes):
            print(f'left out: {name}: there are {len(episodes)} to train on', flush=True)
            continue
        print(f'critic: {name}', flush=True)
        train(name, episodes, encoder, sizes, folder / 'critics' / _folder(name))
        critics[name] = folder / 'critics' / _folder(name) / 'critic'
    if 'good' in critics:
        critics[NEGATED] = folder / 'critics' / NEGATED / 'critic'
        negate(critics['good'], critics[NEGATED])
    return critics


def play(critics: dict[str, Path], folder: Path, rounds: int, first_seed: int) -> dict[str, list[bool]]:
    """Return the outcomes of the trials of every critic, and of the plain policy, on the same seeds."""
    from vgps_bringup.trials.lockstep import LockstepRunner  # the simulation: not for those who only ask for --help
    runner, tasks = LockstepRunner(MAX_STEPS, load_critic=Critic.load), task_list(list(TASKS))
    outcomes: dict[str, list[bool]] = {}
    try:
        for seed in range(first_seed, first_seed + ROUND * rounds, ROUND):
            for name in (PLAIN, *critics):
                condition = Condition(name, 'flow', selection='first', k=K, beta=BETA) if name == PLAIN else Condition(
                    name, 'flow', str(critics[name].resolve()), 'value', K, BETA)
                out = folder / 'trials' / _folder(name) / str(seed)
                run_study(Study(tasks, (condition,), ROUND, seed, MAX_STEPS), runner, out, record=False,
                          say=lambda text: None)
                outcomes.setdefault(name, []).extend(row['success'] for row in collect(out)[1])
            print(f'seeds {seed} to {seed + ROUND - 1} played', flush=True)
    finally:
        runner.close()
    return outcomes


def figures_of(critics: dict[str, Path], held: Sequence[Recorded], folder: Path) -> dict[str, dict[str, float]]:
    """Return what `vgps-train judge` and the gate say of every critic, by name and figure."""
    table, told, kept = folder / 'held-out', folder / 'judged.json', folder / 'judge.log'
    if not (table / 'table.json').exists():
        save_table(table, held)
    kept.unlink(missing_ok=True)
    pipeline.command(('vgps-train', 'judge', *map(str, critics.values()), '--data', str(table), '--out', str(told)),
                     kept)
    judged, encoded, result = json.loads(told.read_text()), None, {}
    for name, path in critics.items():
        scored = score(Critic.load(str(path)), held, encoded)
        encoded = [s.features for s in scored]  # the encoder is the same for all
        verdict = gate.judge(held, scored, None, 0.0).metrics
        result[name] = {**judged[str(path)], **{f'gate: {figure}': float(getattr(value, 'value', value))
                                                for figure, value in verdict.items() if figure != 'calibration_error'}}
    return result


def correlations(figures: dict[str, dict[str, float]], success: dict[str, float]) -> dict[str, tuple]:
    """Return Spearman's correlation with success of every figure over the critics, with its 95 % bootstrap interval."""
    names, random, result = list(figures), np.random.default_rng(SEED), {}
    steered = np.array([success[name] for name in names])
    draws = random.integers(0, len(names), (BOOTSTRAPS, len(names)))
    for figure in figures[names[0]]:
        values = np.array([figures[name][figure] for name in names])
        if np.isfinite(values).all() and np.ptp(values) > 0 and np.ptp(steered) > 0:
            samples = [spearmanr(values[d], steered[d]).statistic for d in draws
                       if np.ptp(values[d]) > 0 and np.ptp(steered[d]) > 0]
            result[figure] = (float(spearmanr(values, steered).statistic), *np.quantile(samples, (0.025, 0.975)))
    return dict(sorted(result.items(), key=lambda item: -abs(item[1][0])))


def tell(figures: dict[str, dict[str, float]], outcomes: dict[str, list[bool]]) -> str:
    """Return the two tables."""
    rates = {name: wilson(sum(played), len(played)) for name, played in outcomes.items()}
    found = correlations(figures, {name: rate.rate for name, rate in rates.items()})
    lines = [f'{len(figures)} critics, {rates[PLAIN].trials} trials each; the plain policy: {_words(rates[PLAIN])}', '',
             '| figure | rank correlation with steered success |', '|---|---|']
    lines += [f'| {figure} | {rho:+.2f} [{low:+.2f}, {high:+.2f}] |' for figure, (rho, low, high) in found.items()]
    lines += ['', f'| critic | steered success [95 %] | {" | ".join(found)} |', '|---' * (len(found) + 2) + '|']
    lines += [f'| {name} | {_words(rates[name])} | {" | ".join(f"{figures[name][f]:.3g}" for f in found)} |'
              for name in sorted(figures, key=lambda name: -rates[name].rate)]
    return '\n'.join(lines)


def _folder(name: str) -> str:
    return name.replace(' ', '-').replace('%', 'percent')


def _words(rate: Rate) -> str:
    return f'{rate.rate:.0%} [{rate.low:.0%}, {rate.high:.0%}]'


def main(*, bags: tuple[Path, ...], out: Path, critic: str = 'default',
         variants: tuple[Literal[tuple(VARIANTS)], ...] = (), held_out: int = 100, rounds: int = 3,
         first_seed: int = 30_000) -> None:
    """Train, judge, play and print.

    Args:
        bags: recordings of the plain policy with several candidates a step, as `vgps-improvement-experiment` leaves
        out: folder for all that is made
        critic: whose encoder all critics have
        variants: which critics are trained; by default all
        held_out: episodes to judge by
        rounds: of 10 seeds per task
        first_seed: of the trials

    """
    os.environ.setdefault('OPENBLAS_NUM_THREADS', '1')
    with command_line.refusing('validation', BagError, pipeline.ImproveError, CheckpointError):
        episodes = learnable(read(find_bags(bags), checkpoint.read(critic)[1].image_size, out / 'read').episodes)
        training, held = split(episodes, held_out)
        critics = train_all(training, variants or tuple(VARIANTS), critic, out)
        table = tell(figures_of(critics, held, out), play(critics, out, rounds, first_seed))
    (out / 'validation.md').write_text(table + '\n')
    print(table)


if __name__ == '__main__':
    command_line.read(main, 'validation', description=__doc__)
