"""What `vgps-improve` found, as one page: verdict, metrics with intervals, data, the outlook's curves."""

import base64
import io
from pathlib import Path

import numpy as np
from jinja2 import Environment, StrictUndefined
from matplotlib.figure import Figure

from vgps_bringup.improvement.gate import Interval
from vgps_bringup.improvement.pipeline import Outcome

SHOWN = 40  # episodes per outcome in the picture

PAGE = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True).from_string("""\
<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{{ title }}</title>
<style>body { font: 15px/1.5 sans-serif; max-width: 60em; margin: 2em auto; padding: 0 1em }
table { border-collapse: collapse } td, th { padding: .2em .8em; border-bottom: 1px solid #ddd; text-align: left }
.refused { color: #a11 } .offered { color: #161 } img { max-width: 100% }</style></head><body>
<h1 class="{{ 'offered' if accepted else 'refused' }}">{{ title }}</h1>
{% for reason in reasons %}<p class="refused">{{ reason }}</p>{% endfor %}
{% for remark in remarks %}<p>Note: {{ remark }}.</p>{% endfor %}
<h2>Metrics</h2>
<p>Each episode is judged by critics that were not trained on it. AUC: 0.5 is chance, 1 is perfect. Intervals:
bootstrap over episodes, 90 %.</p>
<table><tr><th>metric</th><th>value</th></tr>
{% for name, value in metrics %}<tr><td>{{ name }}</td><td>{{ value }}</td></tr>
{% endfor %}</table>
{% if picture %}<h2>Chance of success along held-out episodes</h2>
<p>An alarm is raised below the dashed line. Thresholds are conformal, from held-out successes.</p>
<img alt="chance of success over steps, successes and failures" src="data:image/png;base64,{{ picture }}">{% endif %}
{% if lineage %}<h2>Lineage</h2>
<table><tr><th>parent</th><td>{{ lineage.parent or 'nothing' }}</td></tr>
<tr><th>judged by</th><td>{{ lineage.judged_by | join(', ') }}</td></tr>
<tr><th>code</th><td>{{ lineage.code }}</td></tr>
{% for name, value in lineage.recipe.items() %}<tr><th>{{ name }}</th><td>{{ value }}</td></tr>
{% endfor %}</table>
<table><tr><th>recording</th><th>episodes</th><th>successes</th><th>SHA-256</th></tr>
{% for bag in lineage.bags %}<tr><td>{{ bag.name }}</td><td>{{ bag.episodes }}</td><td>{{ bag.successes }}</td>
<td><code>{{ bag.sha256[:16] }}</code></td></tr>
{% endfor %}</table>{% endif %}
</body></html>
""")


def write_report(outcome: Outcome) -> Path:
    """Write ``index.html`` into the outcome's folder and return its path."""
    verdict = outcome.verdict
    text = PAGE.render(
        title='Offered: a candidate that may be promoted' if verdict.accepted else 'Refused', accepted=verdict.accepted,
        reasons=verdict.reasons, remarks=verdict.remarks, lineage=outcome.lineage,
        metrics=[(name, _words(value)) for name, value in {**outcome.facts, **verdict.metrics}.items()],
        picture=_curves(outcome) if outcome.series else '')
    path = outcome.folder / 'index.html'
    path.write_text(text, encoding='utf-8')
    return path


def _words(value) -> str:
    return str(value) if isinstance(value, Interval) else f'{value:.3g}' if isinstance(value, float) else str(value)


def _curves(outcome: Outcome) -> str:
    """Return a PNG as base64: chance over steps, successes and failures, and the threshold."""
    figure = Figure(figsize=(8, 3.2), layout='constrained')
    axes = figure.subplots()
    for success, colour in ((False, '#c0392b'), (True, '#1e8449')):
        mine = [s for s, track in zip(outcome.series, outcome.tracks) if track.success == success]
        for number in np.linspace(0, len(mine) - 1, min(SHOWN, len(mine))).astype(int):
            axes.plot(mine[number], color=colour, alpha=0.35, linewidth=0.8)
        axes.plot([], [], color=colour, label='success' if success else 'failure')
    axes.axhline(outcome.facts['threshold'], color='k', linestyle='--', linewidth=1)
    axes.set(xlabel='step', ylabel='chance of success', ylim=(0, 1))
    axes.legend(fontsize=8)
    buffer = io.BytesIO()
    figure.savefig(buffer, format='png', dpi=110)
    return base64.b64encode(buffer.getvalue()).decode()
