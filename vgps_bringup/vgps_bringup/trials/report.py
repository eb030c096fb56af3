"""Tables of a study: success rates with intervals, paired comparison, failure modes; Markdown, JSON and a page."""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np

from vgps_bringup.episode_pages import page, plots, video
from vgps_bringup.episode_pages.report import pick_episode
from vgps_bringup.rejudging.rejudge import Rejudge
from vgps_bringup.trials.plan import Condition, Study
from vgps_bringup.trials.statistics import PairedComparison, Rate, compare_paired, wilson
from vgps_bringup.trials.trials import collect
from vgps_msgs_py.bags.reader import Bag, EpisodeRecord
from vgps_msgs_py.bags.storage import BagError

ALL = 'all tasks'
MOST_VIDEOS = 4  # a win and a loss of two conditions


class Results:
    """The results of a study, arranged for tables."""

    def __init__(self, study: Study, rows: list[dict]):
        self.study = study
        self.rows = rows
        self.tasks = [task.name for task in study.tasks]
        self._index = {(r['task'], r['condition'], r['seed']): r for r in rows}

    def reference(self, condition: Condition) -> Condition | None:
        """Return what a condition is compared with: the plain policy of the same kind; None for itself."""
        plain = [c for c in self.study.conditions if c.selection == 'first' and c.policy != 'random-policy']
        same = [c for c in plain if (c.policy, c.policy_options) == (condition.policy, condition.policy_options)]
        chosen = (same or plain or list(self.study.conditions))[0]
        return None if chosen == condition else chosen

    def of(self, condition: str, task: str = ALL) -> list[dict]:
        """Return the finished trials of a condition."""
        return [r for r in self.rows if r['condition'] == condition and task in (ALL, r['task'])]

    def rate(self, condition: str, task: str = ALL) -> Rate:
        """Return a success rate with its interval."""
        trials = self.of(condition, task)
        return wilson(sum(r['success'] for r in trials), len(trials))

    def compare(self, condition: Condition, task: str = ALL) -> PairedComparison | None:
        """Return the paired comparison with the reference, over the trials both have finished."""
        reference = self.reference(condition)
        if reference is None:
            return None
        pairs = [(self._index.get((r['task'], reference.name, r['seed'])), r) for r in self.of(condition.name, task)]
        pairs = [(a['success'], b['success']) for a, b in pairs if a is not None]
        return compare_paired([a for a, _ in pairs], [b for _, b in pairs])

    def failures(self) -> tuple[list[str], dict[str, list[int]]]:
        """Return failure modes and how often each condition showed them."""
        modes = sorted({r['failure'] for r in self.rows if not r['success']})
        return modes, {c.name: [sum(r['failure'] == m and not r['success'] for r in self.of(c.name)) for m in modes]
                       for c in self.study.conditions}

    def as_dict(self) -> dict:
        """Return every table as plain values."""
        tasks = [*self.tasks, *([ALL] if len(self.tasks) > 1 else [])]
        table = []
        for task in tasks:
            for condition in self.study.conditions:
                rate, paired = self.rate(condition.name, task), self.compare(condition, task)
                trials = self.of(condition.name, task)
                reference = self.reference(condition)
                table.append({
                    'task': task, 'condition': condition.name, **asdict(rate), 'rate': rate.rate,
                    'mean_steps_of_successes': float(np.mean([r['steps'] for r in trials if r['success']]))
                    if rate.successes else None,
                    'fallback_steps': sum(r['fallbacks'] for r in trials),
                    'against': reference.name if reference else None,
                    'paired': asdict(paired) if paired else None})
        modes, counts = self.failures()
        planned = len(self.tasks) * len(self.study.conditions) * self.study.trials
        return {'study': self.study.as_dict(), 'finished': len(self.rows), 'planned': planned, 'table': table,
                'failure_modes': {name: dict(zip(modes, values)) for name, values in counts.items()}}


def percent(rate: Rate) -> str:
    """Return a rate as ``62 % [48, 74]``."""
    if rate.trials == 0:
        return '–'
    return f'{100 * rate.rate:.0f} % [{100 * rate.low:.0f}, {100 * rate.high:.0f}]'


def difference(paired: PairedComparison | None) -> str:
    """Return a difference as ``+22 points [+10, +33], 15 won, 4 lost, p = 0.019``."""
    if paired is None or paired.pairs == 0:
        return '–'
    p = f'{paired.p_value:.2g}' if paired.p_value >= 1e-4 else f'{paired.p_value:.0e}'
    return (f'{100 * paired.difference:+.0f} points [{100 * paired.low:+.0f}, {100 * paired.high:+.0f}], '
            f'{paired.wins} won, {paired.losses} lost, p = {p}')


def markdown(results: Results) -> str:
    """Return the tables as Markdown: tasks by rows and conditions by columns, as in the paper's Tables 1 and 2."""
    names = [c.name for c in results.study.conditions]
    lines = [f'| Task | {" | ".join(names)} |', '|---|' + '---|' * len(names)]
    groups = {task.name: task.group for task in results.study.tasks}
    for group in dict.fromkeys(groups.values()):
        tasks = [task for task in results.tasks if groups[task] == group]
        for task in tasks:
            label = f'{group}: {task}' if group else task
            lines.append(f'| {label} | ' + ' | '.join(percent(results.rate(n, task)) for n in names) + ' |')
        if group and 1 < len(tasks) < len(results.tasks):
            averages = [wilson(sum(results.rate(n, t).successes for t in tasks),
                               sum(results.rate(n, t).trials for t in tasks)) for n in names]
            lines.append(f'| *{group}, average* | ' + ' | '.join(map(percent, averages)) + ' |')
    if len(results.tasks) > 1:
        lines.append(f'| **{ALL}** | ' + ' | '.join(f'**{percent(results.rate(n))}**' for n in names) + ' |')
    compared = [c for c in results.study.conditions if results.reference(c) is not None]
    if compared:
        lines += ['', '| Condition | against | paired difference |', '|---|---|---|']
        lines += [f'| {c.name} | {results.reference(c).name} | {difference(results.compare(c))} |' for c in compared]
    modes, counts = results.failures()
    if modes:
        lines += ['', f'| Failures | {" | ".join(modes)} |', '|---|' + '---|' * len(modes)]
        lines += [f'| {name} | {" | ".join(map(str, values))} |' for name, values in counts.items()]
    data = results.as_dict()
    lines += ['', f'{data["finished"]} of {data["planned"]} trials, {results.study.trials} seeds per task from '
              f'{results.study.first_seed}, the same for every condition. Intervals: Wilson 95 %; paired differences: '
              'Agresti-Min 95 %; p: exact McNemar test, two-sided, not corrected for the number of comparisons.']
    return '\n'.join(lines) + '\n'


def rates_figure(results: Results):
    """Success rates with their intervals, one dot per condition and task."""
    figure = plots.Figure(figsize=(8.6, 0.9 + 0.34 * len(results.study.conditions) * len(results.tasks)),
                          layout='constrained')
    panels = figure.subplots(len(results.tasks), 1, sharex=True, squeeze=False)[:, 0]
    for axes, task in zip(panels, results.tasks):
        for i, condition in enumerate(results.study.conditions):
            rate = results.rate(condition.name, task)
            if rate.trials:
                colour = plots.GREY if results.reference(condition) is None else plots.CYCLE[i % len(plots.CYCLE)]
                axes.plot([100 * rate.low, 100 * rate.high], [i, i], color=colour, linewidth=2)
                axes.plot(100 * rate.rate, i, 'o', color=colour)
        axes.set_yticks(range(len(results.study.conditions)), [c.name for c in results.study.conditions])
        axes.set(xlim=(-2, 102), xticks=range(0, 101, 20), ylim=(len(results.study.conditions) - 0.5, -0.5))
        axes.set_title(task, fontsize=9, loc='left', color='#4a5365')
    panels[-1].set_xlabel('success [%], Wilson 95 % interval')
    return figure


def _video_pairs(results: Results) -> list[tuple[str, dict, dict]]:
    """Return (kind, reference, other) trials of one seed with recordings: per condition a win, and beside it a loss."""
    pairs = []
    for condition in results.study.conditions:
        reference = results.reference(condition)
        if reference is None or condition.selection != 'value':
            continue
        found = {}
        for r in results.of(condition.name):
            other = next((x for x in results.of(reference.name, r['task']) if x['seed'] == r['seed']), None)
            if other is not None and r['success'] != other['success'] and r['bag'] and other['bag']:
                found.setdefault(r['success'], (other, r))
        paired = results.compare(condition)
        pairs += [(f'{kind}, {count} of {paired.pairs} seeds', *found[success]) for success, kind, count in (
            (True, 'won', paired.wins), (False, 'lost', paired.losses)) if success in found]
    return pairs[:MOST_VIDEOS]


def write_pairs(results: Results, output: Path, load_critic: Callable[[str], object] | None) -> list[dict]:
    """Write side-by-side videos of seeds that were won and lost; return what the page shows of them."""
    pairs = []
    for number, (kind, *pair) in enumerate(_video_pairs(results)):
        parts = []
        try:
            for row in pair:
                bag = Bag(output / row['bag'])
                parts.append((bag, pick_episode(bag), row['condition']))
            plain, steered = pair
            condition = next(c for c in results.study.conditions if c.name == steered['condition'])
            critic = load_critic(condition.critic) if load_critic is not None else None
            curves = {f'{name}: {"success" if row["success"] else row["failure"] or "failure"}':
                      executed_values(bag, episode, critic) for row, (bag, episode, name) in zip(pair, parts)}
        except BagError:
            continue  # removed by the user to save space
        path = output / f'side_by_side_{number}.mp4'
        video.write_side_by_side(parts, path)
        curves = {name: curve for name, curve in curves.items() if len(curve[0])}
        pairs.append({
            'kind': kind, 'title': f'{kind.partition(",")[0].capitalize()}: {plain["task"]}, seed {plain["seed"]}: '
                                   f'{plain["condition"]} (left), {steered["condition"]} (right)',
            'film': page.video(path), 'curves': plots.svg(plots.curves_figure(
                curves, f"Q of critic '{condition.critic}'")) if curves else None})
    return pairs


def executed_values(bag: Bag, episode: EpisodeRecord, critic) -> tuple[np.ndarray, np.ndarray]:
    """Return steps and the values of what was executed: as recorded, or else by ``critic`` (None: there are none)."""
    points = {s.index: s.decision.value for s in episode.steps if s.decision is not None}
    if critic is not None and not np.isfinite(list(points.values())).any():
        rejudge = Rejudge({'critic': critic})
        points = {row.step: row.executed_value for judged in rejudge.run(bag, episode) for row in judged.judgements}
    points = {step: value for step, value in sorted(points.items()) if np.isfinite(value)}
    return np.array([*points]), np.array([*points.values()])


def write_report(output: Path, load_critic: Callable[[str], object] | None = None) -> Results:
    """Write ``results.md``, ``results.json`` and ``index.html`` of the study in a folder, finished or not.

    ``load_critic(name)`` serves to judge plain episodes beside steered ones; without it they have no value curve.
    """
    results = Results(*collect(output))
    text, data = markdown(results), results.as_dict()
    (output / 'results.md').write_text(text, encoding='utf-8')
    (output / 'results.json').write_text(json.dumps(data, indent=2))
    success = page.Table(
        ('task', 'condition', 'successes', 'trials', 'rate [95 %]', 'paired difference'),
        [(x['task'], x['condition'], x['successes'], x['trials'], percent(results.rate(x['condition'], x['task'])),
          difference(results.compare(next(c for c in results.study.conditions if c.name == x['condition']), x['task'])))
         for x in data['table']], strong=tuple(i for i, x in enumerate(data['table']) if x['task'] == ALL))
    modes, counts = results.failures()
    failures = page.Table(('condition', *modes), [(name, *values) for name, values in counts.items()])
    page.write(output / 'index.html', 'trials', title='Trials', finished=data['finished'], planned=data['planned'],
               rates=plots.svg(rates_figure(results)), success=success, failures=failures if modes else None,
               pairs=write_pairs(results, output, load_critic), method=text.rstrip().splitlines()[-1])
    return results
