"""The tables and the figure of ``vgps-study``, written from the trials' journals and from nothing else."""

import json
from pathlib import Path

from vgps_bringup.evaluation.trial_report import Results, markdown, rates_figure
from vgps_bringup.evaluation.trials import collect

TITLES = {
    'headline': 'Does steering help? Two policies of different kind, one critic file',
    'controls': 'Controls, and the critic\'s algorithm',
    'sweep': 'Number of candidates K and temperature β',
}


def write(out: Path, publish: Path | None = None) -> str:
    """Write ``results.md``, ``results.json`` and ``headline.png`` and return the Markdown.

    Args:
        out: folder of the study; comparisons without finished trials are left out.
        publish: folder that receives a second copy, as the documentation's.

    """
    text, data, figure = ['# Results of `vgps-study`', ''], {}, None
    for name, title in TITLES.items():
        if not list((out / f'trials-{name}').glob('journal-*.jsonl')):
            continue
        results = Results(*collect(out / f'trials-{name}'))
        text += [f'## {title}', '', markdown(results)]
        data[name] = results.as_dict()
        if name == 'headline':
            figure = rates_figure(results)
    text += ['Made by `vgps-study`; recipe and limits: `study.md` beside this file.', '']
    for folder in (out, *([publish] if publish else [])):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / 'results.md').write_text('\n'.join(text), encoding='utf-8')
        (folder / 'results.json').write_text(json.dumps(data, indent=1, ensure_ascii=False) + '\n', encoding='utf-8')
        if figure is not None:
            figure.savefig(folder / 'headline.png', dpi=130)
    return '\n'.join(text)
