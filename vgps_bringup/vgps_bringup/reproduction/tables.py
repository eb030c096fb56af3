"""The tables and the figure of ``vgps-study``, written from the trials' journals and from nothing else."""

import json
import math
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from vgps_bringup.trials.report import Results, markdown, rates_figure
from vgps_bringup.trials.trials import collect
from vgps_msgs_py.safetensors_header import read_header

TITLES = {
    'headline': 'Does steering help? Two kinds of policy, one critic',
    'controls': 'Controls and training algorithms',
    'actors': 'The actors of IQL and Cal-QL as policies',
    'data': 'How many of the demonstrations the critic learns from',
    'seeds': 'Training seeds of the critic',
    'server': 'The same policy in its own process, behind the policy server',
    'sweep': 'Number of candidates K and temperature β',
}
SIMPLER_TITLES = {  # in the order and the layout of the paper's tables
    'headline': 'Two policies, one critic (the paper\'s Table 2)',
    'algorithms': 'The critic\'s algorithm: IQL and Cal-QL (Table 3)',
    'fine-tuning': 'Against training the policy on successes only, and for longer (Table 7)',
    'data': 'How many of the demonstrations the critic learns from (Table 8)',
    'candidates': 'Number of candidates K (Table 10)',
    'actors': 'The actors of IQL and Cal-QL as policies (Table 11)',
    'controls': 'Controls and further critics (Table 12)',
    'development': 'Two policies, one critic, in random scenes (for tuning; not the benchmark)',
}
SIMPLER_MISSING = (
    'the Google Robot\'s tasks, which ManiSkill 3 does not have',
    'the paper\'s own policies and numbers: its policies and demonstrations differ, so do not compare them with these',
)
INTRODUCTION = 'Every table of the study. How they were made, and what they do not show: [study.md](study.md).'
BEGIN, END = '<!-- study: written by vgps-study --publish -->', '<!-- /study -->'


def write(out: Path, publish: Path | None = None) -> str:
    """Write ``results.md``, ``results.json`` and ``headline.png`` and return the Markdown.

    Args:
        out: folder of the study; comparisons without finished trials are left out.
        publish: checkout whose ``vgps_bringup/doc`` receives a copy and whose README the headline.

    """
    text, data, headline = ['# Results of `vgps-study`', '', INTRODUCTION, ''], {}, None
    for name, title, results in _finished(out, TITLES):
        text += [f'## {title}', '', markdown(results)]
        data[name] = results.as_dict()
        if name == 'headline':
            headline = results
    text += _cost(out / 'logs' / 'costs.jsonl')
    # the folder it lay in is private
    plain = json.dumps(data, indent=1, ensure_ascii=False).replace(f'{out.resolve()}/', '')
    for folder in (out, *([publish / 'vgps_bringup/doc'] if publish else [])):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / 'results.md').write_text('\n'.join(text), encoding='utf-8')
        (folder / 'results.json').write_text(plain + '\n', encoding='utf-8')
        if headline is not None:
            rates_figure(headline).savefig(folder / 'headline.png', dpi=130)
    if publish and headline is not None:
        _write_readme(publish / 'README.md', headline)
    return '\n'.join(text)


def write_simpler(out: Path) -> str:
    """Write ``results.md`` and ``results.json`` of a study in SIMPLER and return the Markdown; says what is missing."""
    from vgps_bringup.reproduction.simpler import Scale, shortfalls
    kept = json.loads((out / 'scale.json').read_text()) if (out / 'scale.json').exists() else {}
    scale = Scale(**{**kept, 'tasks': tuple(kept['tasks'])}) if kept else Scale()
    less = '; '.join(shortfalls(scale))
    text, data = ['# Results of `vgps-study simpler`', ''], {}
    text += [f'Smaller than the study: {less}.', ''] if less else []
    for name, title, results in _finished(out, SIMPLER_TITLES):
        text += [f'## {title}', '', markdown(results)]
        data[name] = results.as_dict()
    text += _sizes(out)
    missing = [f'{title}: `vgps-study simpler --stages trials-{name}`' for name, title in SIMPLER_TITLES.items()
               if name not in data] + list(SIMPLER_MISSING)
    text += ['## Not run', '', *(f'- {line}' for line in missing), '', *_cost(out / 'logs' / 'costs.jsonl')]
    plain = json.dumps(data, indent=1, ensure_ascii=False).replace(f'{out.resolve()}/', '')
    (out / 'results.md').write_text('\n'.join(text), encoding='utf-8')
    (out / 'results.json').write_text(plain + '\n', encoding='utf-8')
    return '\n'.join(text)


def _sizes(out: Path) -> list[str]:
    """Return the sizes of the networks that were trained, counted in their files; nothing where there are none."""
    files = {path.stem: path for path in sorted(out.glob('*.safetensors'))}
    files |= {path.parents[1].name: path for path in sorted(out.glob('*/critic/model.safetensors'))}
    files |= {f'actor of {path.parents[1].name}': path for path in sorted(out.glob('*/critic/actor.safetensors'))}
    if not files:
        return []
    rows = [f'| {name} | {sum(map(math.prod, read_header(path).shapes.values())) / 1e6:.2f} |'
            for name, path in files.items()]
    return ['## Sizes of the networks (Table 13)', '', '| Network | million parameters |', '|---|---|', *rows, '']


def _finished(out: Path, titles: dict[str, str]) -> Iterator[tuple[str, str, Results]]:
    """Yield name, title and results of the comparisons that have finished trials."""
    for name, title in titles.items():
        if list((out / f'trials-{name}').glob('journal-*.jsonl')):
            yield name, title, Results(*collect(out / f'trials-{name}'))


def _cost(ledger: Path) -> list[str]:
    """Return what each stage took, interrupted attempts included; nothing where no stage was run."""
    if not ledger.exists():
        return []
    wall, cpu = Counter(), Counter()
    for line in ledger.read_text().splitlines():
        entry = json.loads(line)
        wall[entry['stage']] += entry['minutes']
        cpu[entry['stage']] += entry['cpu_minutes']
    rows = [f'| {name} | {wall[name]:.1f} | {cpu[name]:.1f} |' for name in wall]
    return ['## What it cost', '', f'On {os.cpu_count()} CPU cores; single-core stages ran side by side.', '',
            '| Stage | minutes | CPU minutes |', '|---|---|---|', *rows,
            f'| **sum** | | **{cpu.total():.0f}** |', '']


def _write_readme(path: Path, headline: Results) -> None:
    """Replace what is between the markers; a README without them is left alone."""
    before, begin, rest = path.read_text(encoding='utf-8').partition(BEGIN)
    _, end, after = rest.partition(END)
    if begin and end:
        picture = '![success rates](vgps_bringup/doc/headline.png)'
        path.write_text(f'{before}{BEGIN}\n{picture}\n\n{markdown(headline)}{END}{after}', encoding='utf-8')
