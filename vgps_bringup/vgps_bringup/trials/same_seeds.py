"""Two runs of the same conditions on the same seeds, side by side: does the live system act as the lockstep one?"""

import json
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from vgps_bringup.trials.plan import Condition, StudyError
from vgps_bringup.trials.report import ALL, percent
from vgps_bringup.trials.statistics import compare_paired, wilson
from vgps_bringup.trials.trials import collect


def _kind(condition: Condition) -> tuple:
    """What has to be alike; names and the paths of checkpoints may differ."""
    by_value = condition.selection == 'value'
    return condition.policy, condition.selection, condition.k, condition.beta if by_value else None


def compare(here: Path, there: Path) -> dict:
    """Return the rates of two studies' folders over the trials both have finished, and how many ended alike.

    Raises:
        StudyError: no journal, or a condition of ``here`` that is not exactly once among those of ``there``.

    """
    (study, rows), (other_study, other_rows) = collect(here), collect(there)
    names = {}
    for condition in study.conditions:
        same = [c.name for c in other_study.conditions if _kind(c) == _kind(condition)]
        if len(same) != 1:
            raise StudyError(f"'{condition.name}' has {len(same)} counterparts in {there}: there must be one")
        names[condition.name] = same[0]
    others = {(r['task'], r['condition'], r['seed']): r for r in other_rows}
    pairs = [(r, others[key]) for r in rows if (key := (r['task'], names[r['condition']], r['seed'])) in others]
    table = []
    for task in [*(t.name for t in study.tasks), *([ALL] if len(study.tasks) > 1 else [])]:
        for condition in study.conditions:
            ends = [(b['success'], a['success']) for a, b in pairs
                    if a['condition'] == condition.name and task in (ALL, a['task'])]
            paired = compare_paired([b for b, _ in ends], [a for _, a in ends])
            table.append({'task': task, 'condition': condition.name, 'trials': len(ends),
                          'successes': sum(a for _, a in ends), 'other_successes': sum(b for b, _ in ends),
                          'alike': sum(a == b for b, a in ends), 'p_value': paired.p_value})
    return {'study': study.as_dict(), 'table': table, 'pace': pace(rows), 'rows': [_short(a, b) for a, b in pairs]}


def write(here: Path, there: Path, say: Callable[[str], None]) -> None:
    """Write ``same_seeds.json`` into ``here`` and say the table."""
    comparison = compare(here, there)
    lines = json.dumps(comparison['rows'])[1:-1].replace('}, {', '},\n  {')  # one trial per line
    head = json.dumps({key: comparison[key] for key in ('study', 'table', 'pace')}, indent=1)
    (here / 'same_seeds.json').write_text(f'{head[:-2]},\n "rows": [\n  {lines}\n ]\n}}\n')
    say(markdown(comparison))


def _latencies(row: dict) -> list[float]:
    return row['details'].get('image_to_command_ms') or []


def pace(rows: Iterable[dict]) -> dict | None:
    """Return steps per second and image to command [ms] over all steps of live trials; None for others."""
    rows = [r for r in rows if _latencies(r)]
    if not rows:
        return None
    times = np.concatenate([_latencies(r) for r in rows])
    rates = [r['details']['steps_per_second'] for r in rows if r['details']['steps_per_second']]
    return {'trials': len(rows), 'steps': len(times), 'steps_per_second_median': float(np.median(rates)),
            'steps_per_second_lowest': min(rates),
            **{f'image_to_command_ms_p{q}': round(float(np.percentile(times, q)), 1) for q in (50, 95, 99)},
            'refused': sum(r['refused'] for r in rows), 'fallbacks': sum(r['fallbacks'] for r in rows)}


def _short(row: dict, other: dict) -> dict:
    short = {key: row[key] for key in ('task', 'condition', 'seed', 'success', 'failure', 'steps')}
    short |= {'other_success': other['success'], 'other_failure': other['failure'], 'other_steps': other['steps']}
    if _latencies(row):
        p50, p99 = np.percentile(_latencies(row), (50, 99))
        short |= {'steps_per_second': row['details']['steps_per_second'],
                  'image_to_command_ms': [round(float(p50), 1), round(float(p99), 1)]}
    return short


def markdown(comparison: dict) -> str:
    """Return the comparison as a table and a sentence on the pace."""
    lines = ['| Task | condition | this run | the other, same seeds | same outcome | p |', '|---|---|---|---|---|---|']
    for line in comparison['table']:
        rates = (percent(wilson(line[name], line['trials'])) for name in ('successes', 'other_successes'))
        lines.append(f'| {line["task"]} | {line["condition"]} | {" | ".join(rates)} | {line["alike"]} of '
                     f'{line["trials"]} | {line["p_value"]:.2g} |')
    lines += ['', 'Intervals: Wilson 95 %; p: exact McNemar test of this run against the other, two-sided.']
    if comparison['pace']:
        at = comparison['pace']
        lines[-1] += (f' Pace: {at["steps_per_second_median"]:.1f} steps/s (median of {at["trials"]} trials, lowest '
                      f'{at["steps_per_second_lowest"]:.1f}); image to joint command '
                      f'{at["image_to_command_ms_p50"]:.0f} ms (p50), {at["image_to_command_ms_p95"]:.0f} (p95), '
                      f'{at["image_to_command_ms_p99"]:.0f} (p99) over {at["steps"]} steps; {at["refused"]} refused, '
                      f'{at["fallbacks"]} fallbacks.')
    return '\n'.join(lines) + '\n'
