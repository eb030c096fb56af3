"""From bags to a candidate with a verdict: read, check, train on folds and on everything, calibrate, judge, report.

Training runs ``vgps-pretrain`` and ``vgps-train`` as commands: nothing here imports them, and a robot without them
steers, records and judges all the same. The working folder is named by what went in (recordings by content, recipe), so
the same call goes on where it was stopped, and another one does not find its leftovers.

The recipe is the shipped critic's (doc/study.md): an encoder that stays as it is, a readout of positions and two small
heads on top. Only readout and heads are learnt from the robot's own episodes; a hundred of them teach no encoder.
"""

import hashlib
import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np

from vgps_bringup.improvement import calibration, gate
from vgps_bringup.improvement.episodes import Recorded, find_bags, learnable, read, save_table
from vgps_bringup.improvement.gate import GateConfig, Verdict
from vgps_bringup.improvement.registry import Lineage, Registry
from vgps_bringup.improvement.scoring import Scored, score
from vgps_critic import checkpoint
from vgps_critic.critic import Critic
from vgps_critic.outlook import Outlook
from vgps_msgs_py import jobs
from vgps_msgs_py.jobs import Engine

NOTHING = 'nothing'
CONTINUED_RATE = '1e-4'
# Few units and many updates: 1,500 updates of the shipped critic's wide heads at 5e-4 learnt the episodes' outcomes and
# not yet the actions, and steered worse than the plain policy (doc/tutorial_learn_from_my_robot.md).
FRESH_HEADS = ('--network.hidden-dims', '64', '64', '--network.num-members', '4')
FRESH_RATE, FRESH_STEPS = '2e-3', 5000
FRESH_ENCODER = ('--network.stage-sizes', '1', '1', '1', '1', '--network.num-filters', '24', '--network.image-size',
                 '96')
HEADS = {'monte-carlo': ('--algorithm.target-rate', '0.02'),
         'iql': ('--algorithm.target-rate', '0.05', '--algorithm.negative-proportion', '0'),
         'cal-ql': ('--algorithm.target-rate', '0.02')}


class ImproveError(RuntimeError):
    """A stage failed; the text names its log."""


@dataclass(frozen=True)
class Recipe:
    """What a candidate is trained with; every field is part of its lineage."""

    start: str = ''                   # critic whose encoder is kept: folder, hub id, 'default' or 'nothing'
    heads: str = 'continue'           # from the start critic's; 'fresh' ones on a readout of its encoder; 'keep' them
    algorithm: str = 'monte-carlo'    # of vgps-train: monte-carlo, iql or cal-ql
    steps: int = 0                    # updates of the heads; 0: 5000 fresh ones, 400 to continue
    folds: int = 3                    # critics trained without a part of the episodes, to judge that part by; >= 2
    first_steps: int = 600            # from nothing: updates of the encoder until grasps are located
    encoder_steps: int = 1200         # from nothing: and after
    false_alarms: float = 0.05        # share of successes that may raise an alarm
    seed: int = 0


@dataclass
class Outcome:
    """What came of one run."""

    verdict: Verdict
    folder: Path                              # of everything that was made
    critic: Path | None = None                # candidate with its outlook; None where the data were refused
    lineage: Lineage | None = None
    facts: dict = field(default_factory=dict)  # of the outlook
    tracks: Sequence = ()                      # episodes followed out of fold, for the report
    series: Sequence = ()                      # chances along them


def improve(paths: Sequence[Path], registry: Registry, recipe: Recipe, work: Path, *, new_scene: bool = False,
            processes: int = 2, gate_config: GateConfig | None = None, say: Callable[[str], None] = print) -> Outcome:
    """Train a candidate from recordings and judge it; nothing is added to the registry.

    Args:
        paths: folders with recordings.
        registry: its current critic is the one in use.
        recipe: how to train; an empty ``start`` is the critic in use, or the shipped one.
        work: folder for what is made.
        new_scene: learn from another camera, table or light than the critic in use knows.
        processes: trainings side by side.
        gate_config: thresholds.
        say: told of progress.

    Raises:
        BagError: no recording. CheckpointError: the start critic does not load. ImproveError: a training failed.

    """
    gate_config, current = gate_config or GateConfig(), registry.current()
    start = recipe.start or (str(current.folder) if current else 'default')
    recipe = Recipe(**{**asdict(recipe), 'start': start if start == NOTHING else checkpoint.read(start)[2]})
    known = None if start == NOTHING else Critic.load(start)
    size = 96 if known is None else known.config.image_size
    recordings = read(find_bags(paths), size, work / 'read')
    episodes = recordings.episodes
    for reason, count in recordings.skipped.items():
        say(f'left out: {count} x {reason}')
    say(f'{len(episodes)} judged episodes, {sum(e.success for e in episodes)} successes')
    seen = None if known is None else score(known, episodes)
    outlook = None if known is None else Outlook.load(checkpoint.locate(start))
    verdict = gate.check_data(episodes, gate_config, None if new_scene else outlook, seen)
    key = hashlib.sha256(json.dumps([sorted(b['sha256'] for b in recordings.bags), asdict(recipe)]).encode())
    folder = work / key.hexdigest()[:12]
    folder.mkdir(parents=True, exist_ok=True)
    if not verdict.accepted:
        return Outcome(verdict, folder)
    fold = _folds(episodes, recipe.folds)
    critics = _train(episodes, fold, recipe, start, folder, processes, say)
    return _judge(episodes, recordings, fold, critics, recipe, verdict, folder, (current, known, seen), gate_config,
                  say)


def _judge(episodes, recordings, fold, critics, recipe, verdict, folder, in_use, gate_config, say) -> Outcome:
    """Calibrate and judge the candidate by the critics that were trained without each episode."""
    say('judging')
    current, known, seen = in_use
    # the heads differ, the encoder is the start critic's
    encoded = None if seen is None else [s.features for s in seen]
    scored: list[Scored] = [None] * len(episodes)
    bases, words = {}, sorted({e.instruction for e in episodes})
    index = np.array([words.index(e.instruction) for e in episodes])
    for number in range(recipe.folds):
        critic, mine = Critic.load(critics[number]), np.flatnonzero(fold == number)
        others = np.flatnonzero(fold != number)
        everything = score(critic, episodes, encoded)
        for i in mine:
            scored[i] = everything[i]
        bases[number] = _base(critic, words, [everything[i].features for i in others], index[others])
    tracks = [calibration.follow(bases[f], e, s) for f, e, s in zip(fold, episodes, scored)]
    final = Critic.load(critics[-1])
    base = _base(final, words, encoded or [s.features for s in score(final, episodes)], index)
    untouched = np.array([not e.corrected.any() for e in episodes])
    usable = np.flatnonzero(untouched)
    outlook, facts = calibration.calibrated(base, [tracks[i] for i in usable], fold[usable], recipe.false_alarms)
    outlook = Outlook(**{**vars(outlook), 'probes': calibration.probes([episodes[i] for i in usable], words)})
    outlook.save(critics[-1])
    taught = {bag['sha256'] for bag in current.lineage.bags} if current else set()
    new = [i for i in usable if episodes[i].bag not in taught]
    judged = gate.judge([episodes[i] for i in usable], [scored[i] for i in usable], None, facts['calibration_error'],
                        gate_config)
    if known is not None and len(new) >= gate_config.episodes:
        # the critic in use has seen the others: only these are held out for both
        compared = gate.judge([episodes[i] for i in new], [scored[i] for i in new], [seen[i] for i in new],
                              facts['calibration_error'], gate_config)
        judged.reasons += [reason for reason in compared.reasons if reason.startswith('WORSE')]
        judged.metrics |= {name: value for name, value in compared.metrics.items()
                           if name.endswith(('_in_use', '_difference', 'differ'))}
    elif known is not None:
        judged.remarks.append(f'not compared with the critic in use: {len(new)} episodes are new to it, '
                              f'{gate_config.episodes} are needed')
    verdict.reasons += judged.reasons
    verdict.remarks += judged.remarks
    verdict.metrics |= judged.metrics
    lineage = Lineage(
        parent='' if recipe.start == NOTHING else recipe.start, code=_version(), bags=tuple(recordings.bags),
        judged_by=tuple(sorted(recordings.judged_by)), recipe=asdict(recipe), accepted=verdict.accepted,
        reasons=tuple(verdict.reasons), metrics={**facts, **_plain(verdict.metrics)})
    return Outcome(verdict, folder, critics[-1], lineage, facts, tracks, calibration.crossed(tracks, fold))


def _base(critic: Critic, words: Sequence[str], features: Sequence[np.ndarray], index: np.ndarray) -> Outlook:
    """Return an outlook that knows distances only."""
    means, whitening = calibration.distances(features, index, len(words))
    embeddings = np.stack([critic.instructions.encode(text) for text in words]).astype(np.float32)
    return Outlook(critic.hash, tuple(words), embeddings, means, whitening, np.zeros(9, np.float32),
                   -1 / (1 - critic.config.discount))


def _folds(episodes: Sequence[Recorded], count: int) -> np.ndarray:
    """Return (M,) the fold of each episode: both outcomes spread evenly, stable under the episodes' order."""
    order = sorted(range(len(episodes)), key=lambda i: (episodes[i].success, hashlib.sha256(
        episodes[i].name.encode()).hexdigest()))
    fold = np.empty(len(episodes), int)
    fold[order] = np.arange(len(episodes)) % count
    return fold


def _train(episodes, fold, recipe, start: str, folder: Path, processes: int, say) -> list[Path]:
    """Return the critics trained without each fold, and last the one trained on everything."""
    outs = [folder / f'fold-{number}' for number in range(recipe.folds)] + [folder / 'all']
    left = [out for out in outs if not (out / 'done').exists()]
    for number, out in enumerate(outs):
        if out in left and recipe.heads != 'keep' and not (out / 'table' / 'table.json').exists():
            save_table(out / 'table', learnable([e for e, f in zip(episodes, fold) if f != number]))
    began, finished = time.monotonic(), []

    def record(name: str, _) -> None:
        finished.append(name)
        minutes = (len(left) - len(finished)) * (time.monotonic() - began) / len(finished) / 60
        say(f'trained {name}; about {minutes:.0f} min left')

    jobs.run(_train_one, {out.name: (recipe, start, out) for out in left}, engine=Engine(processes), record=record)
    return [out / 'heads' / 'critic' for out in outs]


def _train_one(job: tuple[Recipe, str, Path]) -> None:
    recipe, start, out = job
    if recipe.heads == 'keep':  # an outlook alone: the critic stays as it is
        checkpoint.copy(start, out / 'heads' / 'critic')
    else:
        _train_heads(recipe, start, out)
    (out / 'done').touch()


def _train_heads(recipe: Recipe, start: str, out: Path) -> None:
    fresh = start == NOTHING or recipe.heads == 'fresh'
    if start == NOTHING:
        sizes = FRESH_ENCODER
        encoder = ('--first-steps', str(recipe.first_steps), '--steps', str(recipe.encoder_steps))
    else:
        network = checkpoint.read(start)[1].network
        sizes = ('--network.stage-sizes', *map(str, network.stage_sizes), '--network.num-filters',
                 str(network.num_filters), '--network.image-size', str(network.image_size))
        encoder = ('--critic', start)
    if fresh:
        sizes += FRESH_HEADS
    else:
        sizes += ('--network.hidden-dims', *map(str, network.hidden_dims), '--network.num-members',
                  str(network.num_members))
        if network.value_range:
            sizes += ('--network.value-range', *map(str, network.value_range))
    data = ('--data.paths', str(out / 'table'))
    if fresh and not (out / 'encoder' / 'encoder.pt').exists():
        _run(('vgps-pretrain', '--data', str(out / 'table'), '--out', str(out / 'encoder'), '--seed', str(recipe.seed),
              *encoder), out / 'encoder.log')
    begin, rate, steps = (('--encoder', str(out / 'encoder')), FRESH_RATE, FRESH_STEPS) if fresh else (
        ('--critic', start), CONTINUED_RATE, 400)
    _run(('vgps-train', recipe.algorithm, *begin, *data, '--data.action-space', 'bridge',
          '--data.validation-share', '0', *sizes, *HEADS[recipe.algorithm], '--batch-size', '256',
          '--optimiser.learning-rate', rate, '--threads', '1', '--validate-every', '0', '--steps',
          str(recipe.steps or steps),
          '--seed', str(recipe.seed), '--out', str(out / 'heads')), out / 'heads.log')


def _run(command: tuple[str, ...], log: Path) -> None:
    try:
        code = jobs.command(command, log, {**os.environ, 'OMP_NUM_THREADS': '1', 'OPENBLAS_NUM_THREADS': '1'})
    except FileNotFoundError as error:
        raise ImproveError(f'{command[0]} is not installed: pip install ./training (on the machine that trains)') \
            from error
    if code:
        last = log.read_text(errors='replace').strip().splitlines()[-1:]
        raise ImproveError(f'{command[0]} ended with {code}: {"".join(last)} (see {log})')


def _plain(metrics: dict) -> dict:
    return {name: [m.value, m.low, m.high] if isinstance(m, gate.Interval) else m for name, m in metrics.items()}


def _version() -> str:
    try:
        return f'vgps_bringup {version("vgps_bringup")}'
    except PackageNotFoundError:
        return 'vgps_bringup, not installed'
