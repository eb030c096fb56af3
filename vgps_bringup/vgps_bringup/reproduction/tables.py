"""The tables and the figure of ``vgps-study``, written from the trials' journals and from nothing else."""

import json
import os
from collections import Counter
from pathlib import Path

from vgps_bringup.trials.report import Results, markdown, rates_figure
from vgps_bringup.trials.trials import collect

TITLES = {
    'headline': 'Does steering help? Two policies of different kind, one critic file',
    'controls': 'Controls, and the critic\'s algorithm',
    'data': 'How many of the demonstrations the critic learns from',
    'seeds': 'Training seeds of the critic',
    'server': 'The same policy as a black box: in its own process, behind the policy server',
    'sweep': 'Number of candidates K and temperature β',
}
BEGIN, END = '<!-- study: written by vgps-study --publish -->', '<!-- /study -->'


def write(out: Path, publish: Path | None = None) -> str:
    """Write ``results.md``, ``results.json`` and ``headline.png`` and return the Markdown.

    Args:
        out: folder of the study; comparisons without finished trials are left out.
        publish: checkout whose ``vgps_bringup/doc`` receives a copy and whose README the headline.

    """
    text, data, headline = ['# Results of `vgps-study`', ''], {}, None
    for name, title in TITLES.items():
        if not list((out / f'trials-{name}').glob('journal-*.jsonl')):
            continue
        results = Results(*collect(out / f'trials-{name}'))
        text += [f'## {title}', '', markdown(results)]
        data[name] = results.as_dict()
        if name == 'headline':
            headline = results
    text += [*_cost(out / 'logs' / 'costs.jsonl'), 'Recipe and limits: [study.md](study.md).', '']
    # where somebody's study lay is nobody's business
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
    return ['## What it cost', '', f'On {os.cpu_count()} CPU cores; stages of one core run side by side.', '',
            '| Stage | minutes | CPU minutes |', '|---|---|---|', *rows,
            f'| **sum** | | **{cpu.total():.0f}** |', '']


def _write_readme(path: Path, headline: Results) -> None:
    """Replace what is between the markers; a README without them is left alone."""
    before, begin, rest = path.read_text(encoding='utf-8').partition(BEGIN)
    _, end, after = rest.partition(END)
    if begin and end:
        picture = '![success rates](vgps_bringup/doc/headline.png)'
        path.write_text(f'{before}{BEGIN}\n{picture}\n\n{markdown(headline)}{END}{after}', encoding='utf-8')
