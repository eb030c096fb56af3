"""What a study compares, on which tasks, in which order: conditions, trials and the seeded interleaving."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib import resources
from itertools import product

import numpy as np
import yaml


class StudyError(ValueError):
    """A study is not well defined; the text says what to change."""


@dataclass(frozen=True)
class Condition:
    """One way to act: a row of the result table."""

    name: str
    policy: str                                   # entry-point name (group vgps.policies)
    critic: str = ''                              # checkpoint; empty where values play no role
    selection: str = 'value'                      # value, first (the plain policy) or random (the paper's control)
    k: int = 10                                   # candidates per step
    beta: float = 0.0                             # temperature of the selection; 0: argmax
    policy_options: Mapping[str, object] = field(default_factory=dict)
    steering: Mapping[str, object] = field(default_factory=dict)  # further settings of SteeringConfig
    outlook: str = ''                             # folder of a critic whose outlook is used; empty: the critic's own

    def __post_init__(self):
        if self.selection not in ('value', 'first', 'random'):
            raise StudyError(f"{self.name}: selection '{self.selection}' must be value, first or random")
        if self.selection == 'value' and not self.critic:
            raise StudyError(f'{self.name}: choosing by value needs a critic (--critic CHECKPOINT)')
        if self.k < 1 or self.beta < 0:
            raise StudyError(f'{self.name}: k is {self.k}, beta {self.beta}; need k >= 1 and beta >= 0')


@dataclass(frozen=True)
class TaskItem:
    """One task of a list."""

    name: str            # of the simulated task, or a label on the robot
    instruction: str = ''  # empty: the simulated task's own
    group: str = ''      # heading in the tables, e.g. the paper's Scene A


@dataclass(frozen=True)
class Study:
    """Tasks x conditions x trials; every condition sees the same seeds."""

    tasks: tuple[TaskItem, ...]
    conditions: tuple[Condition, ...]
    trials: int = 20         # per task and condition (paper: 20 on the robot)
    first_seed: int = 10000  # seeds first_seed .. first_seed + trials - 1, the same for every condition
    max_steps: int = 60      # control steps of 0.2 s
    order_seed: int = 0      # of the interleaving

    def __post_init__(self):
        names = [c.name for c in self.conditions]
        if not names or not self.tasks or self.trials < 1:
            raise StudyError('a study needs at least one task, one condition and one trial')
        doubled = {n for n in names if names.count(n) > 1}
        if doubled:
            raise StudyError(f'conditions of the same name: {", ".join(sorted(doubled))}')

    def as_dict(self) -> dict:
        """Return plain values, for the journal."""
        values = json.loads(json.dumps(asdict(self)))
        for condition in values['conditions']:  # what an older version did not know is said only where it is used
            for name in ('steering', 'outlook'):
                condition[name] or condition.pop(name)
        return values


@dataclass(frozen=True)
class Trial:
    """One episode to run."""

    identity: str        # opaque on purpose: the operator who judges must not see the condition
    number: int          # place in the order, from 0
    task: TaskItem
    condition: Condition
    seed: int


def plan(study: Study) -> list[Trial]:
    """Return every trial in the order it is run.

    Randomised blocks: each block holds one seed of one task under every condition, in random order, so that drift of
    lamps, motors or operator falls on all conditions alike.
    """
    rng = np.random.default_rng(study.order_seed)
    trials = []
    for repetition in range(study.trials):
        for task in rng.permutation(len(study.tasks)):
            for condition in rng.permutation(len(study.conditions)):
                item, chosen = study.tasks[task], study.conditions[condition]
                key = f'{study.order_seed}/{item.name}/{item.instruction}/{chosen.name}/{repetition}'
                code = hashlib.sha256(key.encode()).hexdigest()[:6]
                number = len(trials)
                trials.append(Trial(f't{number:04d}-{code}', number, item, chosen, study.first_seed + repetition))
    return trials


def named_conditions(names: list[str], policies: list[str], critics: list[str], ks: tuple[int, ...],
                     betas: tuple[float, ...], policy_options: Sequence[str] = ()) -> list[Condition]:
    """Expand the command line's condition names over policies, critics, K and beta.

    ``baseline`` the plain policy; ``steered`` by value, one condition per critic, K and beta; ``random-select`` a
    uniform choice among K; ``random-policy`` uniform actions. ``policy_options``: YAML, one for each policy, or none.

    Raises:
        StudyError: unknown name, no critic where one is needed, or options that are no mapping or not one per policy.

    """
    conditions = []
    for name, (policy, chosen) in product(names, zip(policies, _options(policies, policy_options))):
        prefix = f'{policy} ' if len(policies) > 1 else ''
        if name == 'baseline':
            conditions.append(Condition(f'{prefix}baseline', policy, selection='first', k=1, policy_options=chosen))
        elif name == 'steered':
            if not critics:
                raise StudyError('condition steered needs --critic CHECKPOINT')
            short = [_short(critic) for critic in critics]
            if len(set(short)) < len(short):  # runs/a/critic and runs/b/critic, as vgps-train leaves them
                short = critics
            for (critic, label), k, beta in product(zip(critics, short), ks, betas):
                label = f'{prefix}steered' + (f' {label}' if len(critics) > 1 else '') + f' K={k} β={beta:g}'
                conditions.append(Condition(label, policy, critic, 'value', k, beta, chosen))
        elif name == 'random-select':
            conditions += [Condition(f'{prefix}random-select K={k}', policy, selection='random', k=k,
                                     policy_options=chosen) for k in ks]
        elif name == 'random-policy':
            if policy == policies[0]:
                conditions.append(Condition('random-policy', 'random-policy', selection='first', k=1))
        else:
            raise StudyError(f"unknown condition '{name}': baseline, steered, random-select, random-policy")
    return conditions


def _options(policies: list[str], texts: Sequence[str]) -> list[dict]:
    if texts and len(texts) != len(policies):
        raise StudyError(f'{len(policies)} policies and {len(texts)} times --policy-options: give one for each, {{}} '
                         'where there are none')
    try:
        options = [yaml.safe_load(text) for text in texts or ['{}'] * len(policies)]
    except yaml.YAMLError as error:
        raise StudyError(f'--policy-options is not YAML: {error}') from error
    for text, given in zip(texts, options):
        if not isinstance(given, dict):
            raise StudyError(f"--policy-options must be a mapping such as '{{checkpoint: FILE}}', not {text!r}")
    return options


def _short(critic: str) -> str:
    return critic.rstrip('/').rpartition('/')[2]


def task_list(names: list[str]) -> tuple[TaskItem, ...]:
    """Return tasks by the name of a shipped list (see ``task_lists``), or single simulated tasks by their own names."""
    items = []
    shipped = task_lists()
    for name in names:
        items += shipped.get(name, [TaskItem(name)])
    return tuple(items)


def task_lists() -> dict[str, list[TaskItem]]:
    """Return the task lists that come with the package."""
    folder = resources.files(__package__) / 'task_lists'
    lists = {}
    for file in folder.iterdir():
        if file.name.endswith('.yaml'):
            content = yaml.safe_load(file.read_text(encoding='utf-8'))
            lists[file.name.removesuffix('.yaml')] = [TaskItem(**item) for item in content['tasks']]
    return lists


def load_study(text: str) -> Study:
    """Return a study from YAML: the fields of Study, Condition and TaskItem by name.

    Raises:
        StudyError: unknown or missing fields.

    """
    try:
        content = yaml.safe_load(text)
        tasks = []
        for item in content.pop('tasks'):
            tasks += task_list([item]) if isinstance(item, str) else [TaskItem(**item)]
        conditions = tuple(Condition(**item) for item in content.pop('conditions'))
        return Study(tuple(tasks), conditions, **content)
    except (KeyError, TypeError, AttributeError, yaml.YAMLError) as error:
        raise StudyError(f'the study cannot be read: {error}') from error
