"""In simulation: how many of its own episodes does a robot need, and does it go on improving?

Everything is the machinery of the lab itself: trials record the robot's own episodes, `improve` makes critics of them,
trials on held-out seeds compare plain and steered. Every part can be stopped; the same call goes on.

The robot's own episodes have seeds from ``own_seed`` on, the held-out ones from ``first_seed``; they never meet.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from vgps_bringup.improvement.pipeline import ImproveError, Recipe, improve
from vgps_bringup.improvement.registry import Registry
from vgps_bringup.system.defaults import BETA, K
from vgps_bringup.trials.lockstep import LockstepRunner
from vgps_bringup.trials.plan import Condition, Study, task_list
from vgps_bringup.trials.statistics import compare_paired, wilson
from vgps_bringup.trials.trials import collect, run_study
from vgps_critic import checkpoint
from vgps_critic.critic import Critic
from vgps_critic.outlook import auc

CRITIC = 'critic'  # of a part: a link to what its improvement offered or refused


@dataclass(frozen=True)
class Experiment:
    """How much of everything."""

    policies: tuple[str, ...] = ('flow', 'binned')     # entry-point names of the policies
    tasks: tuple[str, ...] = ('put_eggplant_in_basket', 'put_carrot_on_plate')   # simulated tasks
    curve: tuple[int, ...] = (25, 50, 100, 200, 400)   # numbers of own plain episodes to train on, over all tasks
    rounds: int = 3              # rounds of own episodes: the first is plain, the others are steered
    per_round: int = 100         # own episodes per round
    trials: int = 100            # held-out trials per task and condition
    shifts: tuple[str, ...] = ('camera', 'lighting', 'colours')   # appearances of the scene that were not trained on
    shift_trials: int = 50       # held-out trials per task, condition and shift
    k: int = K                   # candidates per frame, 1 .. 1000
    beta: float = BETA           # temperature of the choice, at least 0
    own_seed: int = 20_000       # seed of the robot's first own episode; the others count up from it
    first_seed: int = 10_000     # seed of the first held-out trial; the others count up from it
    max_steps: int = 60          # control steps per episode, of 0.2 s each
    image_size: int = 256        # side of the camera image [pixels]


class Laboratory:
    """Runs an experiment in a folder."""

    def __init__(self, experiment: Experiment, recipe: Recipe, folder: Path, say: Callable[[str], None] = print):
        self.setting, self.recipe, self.folder, self.say = experiment, recipe, folder, say
        self._runners: dict[str, LockstepRunner] = {}

    def run(self) -> Path:
        """Run what is not done and return the path of the tables, written after every part.

        Raises ImproveError where the folder's critics were made by another recipe.
        """
        path, wanted = self.folder / 'recipe.json', json.dumps(asdict(self.recipe), indent=1)
        if path.exists() and path.read_text() != wanted:
            raise ImproveError(f'{self.folder} was begun with other critics (see {path}): choose another --output')
        self.folder.mkdir(parents=True, exist_ok=True)
        path.write_text(wanted)
        for policy in self.setting.policies:
            self._curve(policy)
            self._rounds(policy)
            self._shifts(policy)
        for runner in self._runners.values():
            runner.close()
        return self._tables()

    def _plain(self, policy: str) -> Condition:
        return Condition('plain', policy, selection='first', k=self.setting.k, beta=self.setting.beta)

    def _steered(self, policy: str, critic: Path, name: str = 'steered', **steering) -> Condition:
        return Condition(name, policy, str(critic.resolve()), 'value', self.setting.k, self.setting.beta,
                         steering=steering)

    def _record(self, name: str, condition: Condition, count: int, seed: int) -> list[Path]:
        """Let the robot play ``count`` own episodes and return their recordings in order."""
        out = self.folder / name
        self._play(out, (condition,), -(-count // len(self.setting.tasks)), seed, 'plain', record=True)
        return [out / row['bag'] for row in collect(out)[1]][:count]

    def _play(self, out: Path, conditions: Sequence[Condition], trials: int, seed: int, looks: str,
              record: bool = False) -> None:
        setting = self.setting
        if looks not in self._runners:
            self._runners[looks] = LockstepRunner(setting.max_steps, setting.image_size, looks=looks,
                                                  load_critic=Critic.load)
        study = Study(task_list(list(setting.tasks)), tuple(conditions), trials, seed, setting.max_steps)
        run_study(study, self._runners[looks], out, record, say=self.say, setting={'looks': looks})

    def _improve(self, name: str, bags: Sequence[Path]) -> Path:
        """Train on recordings and return the folder of the candidate, whatever the gate says; its verdict is kept."""
        out = self.folder / name
        out.mkdir(parents=True, exist_ok=True)
        link = out / CRITIC
        if not link.exists():
            outcome = improve(bags, Registry(out / 'registry'), self.recipe, self.folder / 'work', say=self.say)
            (out / 'gate.json').write_text(json.dumps({
                'episodes': len(bags), 'accepted': outcome.verdict.accepted, 'reasons': outcome.verdict.reasons,
                'metrics': {k: str(v) for k, v in outcome.verdict.metrics.items()}, 'outlook': outcome.facts},
                indent=1))
            if outcome.critic is None:
                return link
            link.symlink_to(outcome.critic.resolve())
        return link

    def _curve(self, policy: str) -> None:
        plain = self._plain(policy)
        bags = self._record(f'{policy}-own', plain, max([*self.setting.curve, self.setting.per_round]),
                            self.setting.own_seed)
        self._play(self.folder / f'{policy}-plain', (plain,), self.setting.trials, self.setting.first_seed, 'plain')
        for count in self.setting.curve:
            critic = self._improve(f'{policy}-curve-{count}', bags[:count])
            self._judge(f'{policy}-curve-{count}', policy, critic)

    def _judge(self, name: str, policy: str, critic: Path) -> None:
        if critic.exists():
            self._play(self.folder / name / 'trials', (self._steered(policy, critic),), self.setting.trials,
                       self.setting.first_seed, 'plain')
        self._tables()

    def _rounds(self, policy: str) -> None:
        setting = self.setting
        bags = self._record(f'{policy}-own', self._plain(policy), max([*setting.curve, setting.per_round]),
                            setting.own_seed)[:setting.per_round]
        critic = self._improve(f'{policy}-round-1', bags)
        self._judge(f'{policy}-round-1', policy, critic)
        for number in range(2, setting.rounds + 1):
            if not critic.exists():
                return
            bags = bags + self._record(f'{policy}-own-{number}', self._steered(policy, critic), setting.per_round,
                                       setting.own_seed + 10_000 * (number - 1))
            critic = self._improve(f'{policy}-round-{number}', bags)
            self._judge(f'{policy}-round-{number}', policy, critic)

    def _shifts(self, policy: str) -> None:
        """What a retry on alarm gains, and what steering costs or gains where the scene or the critic is a bad one."""
        setting, critic = self.setting, self.folder / f'{policy}-round-1' / CRITIC
        if not critic.exists():
            return
        retry = dict(on_alarm='retry', max_retries=2)
        told = replace(self._plain(policy), critic=str(critic.resolve()))  # the plain policy, with an outlook
        self._play(self.folder / f'{policy}-retry', (
            told, replace(told, name='plain, retry', steering=retry),
            self._steered(policy, critic, 'steered, retry', **retry)), setting.trials, setting.first_seed, 'plain')
        harmful = self.folder / f'{policy}-harmful'
        conditions = self._with_and_without_switch(policy, negate(critic, harmful / CRITIC), str(critic.resolve()))
        self._play(harmful, conditions, setting.shift_trials, setting.first_seed, 'plain')
        for looks in setting.shifts:
            self._play(self.folder / f'{policy}-shift-{looks}', self._with_and_without_switch(policy, critic),
                       setting.shift_trials, setting.first_seed, looks)
        self._tables()

    def _with_and_without_switch(self, policy: str, critic: Path, outlook: str = '') -> tuple[Condition, ...]:
        steered = replace(self._steered(policy, critic), outlook=outlook)
        never_off = replace(steered, name='steered, never off', steering={'switch_off': 'never'})
        return self._plain(policy), steered, never_off

    def _tables(self) -> Path:
        """Write ``experiment.md``: every part that has results, against the plain policy on the same seeds."""
        lines = ['| part | condition | success | against plain | p | AUC at half time | false alarms | retries |',
                 '|---|---|---|---|---|---|---|---|']
        for policy in self.setting.policies:
            base = self.folder / f'{policy}-plain'
            if not base.exists():
                continue
            plain = _by_seed(collect(base)[1])
            lines.append(_row(f'{policy}-plain', 'plain', collect(base)[1], None))
            for journal in sorted(self.folder.glob(f'{policy}-*/**/journal-0.jsonl')):
                part = journal.parent.relative_to(self.folder)
                if '-own' in str(part) or part.name == f'{policy}-plain':
                    continue
                rows = collect(journal.parent)[1]
                names = list(dict.fromkeys(row['condition'] for row in rows))
                reference = _by_seed([r for r in rows if r['condition'] == 'plain']) or plain
                for name in sorted(names):
                    mine = [row for row in rows if row['condition'] == name]
                    lines.append(_row(str(part).removesuffix('/trials'), name, mine,
                                      None if name == 'plain' else reference))
        path = self.folder / 'experiment.md'
        path.write_text('\n'.join(lines) + '\n')
        return path


def negate(critic: Path, folder: Path) -> Path:
    """Write a critic that prefers what ``critic`` likes least: the worst return minus its values; return its folder."""
    state, config, _ = checkpoint.read(critic)
    worst = -1 / (1 - config.discount)
    state |= {'last.weight': -state['last.weight'], 'last.bias': worst - state['last.bias']}
    checkpoint.write(folder, state, config)
    return folder


def _by_seed(rows: Sequence[dict]) -> dict:
    return {(row['task'], row['seed']): row['success'] for row in rows}


def _row(part: str, name: str, rows: Sequence[dict], plain: dict | None) -> str:
    rate = wilson(sum(row['success'] for row in rows), len(rows))
    cells = [part, name, f'{rate.rate:.0%} [{rate.low:.0%}, {rate.high:.0%}] of {len(rows)}', '', '', '', '', '']
    if plain is not None:
        pairs = [(plain[key], row['success']) for row in rows if (key := (row['task'], row['seed'])) in plain]
        paired = compare_paired([a for a, _ in pairs], [b for _, b in pairs])
        cells[3] = f'{100 * paired.difference:+.0f} [{100 * paired.low:+.0f}, {100 * paired.high:+.0f}]'
        cells[4] = f'{paired.p_value:.1g}'
    told = [row for row in rows if row['details'].get('chances')]
    if told:
        half = np.array([row['details']['chances'][min(29, row['steps'] - 1)] for row in told])
        success = np.array([row['success'] for row in told])
        alarms = np.array([row['details']['alarms'] > 0 for row in told])
        cells[5] = f'{auc(half[success], half[~success]):.2f}'
        false = wilson(int(alarms[success].sum()), int(success.sum()))
        cells[6] = f'{false.rate:.1%} [{false.low:.1%}, {false.high:.1%}] of {false.trials}'
        cells[7] = str(sum(row['details']['retries'] for row in told))
    return '| ' + ' | '.join(cells) + ' |'
