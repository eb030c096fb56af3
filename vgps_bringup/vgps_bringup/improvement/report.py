"""What `vgps-improve` found, as one page: verdict, metrics with intervals, data, the outlook's curves."""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from vgps_bringup.episode_pages import page, plots
from vgps_bringup.improvement.pipeline import Outcome

SHOWN = 40  # episodes per outcome in the picture


def write_report(outcome: Outcome, next_step: str) -> Path:
    """Write ``index.html`` with a sentence on what comes next into the outcome's folder and return its path."""
    verdict, lineage, path = outcome.verdict, outcome.lineage, outcome.folder / 'index.html'
    made = {} if lineage is None else {'parent': lineage.parent or 'nothing', 'judged by': ', '.join(lineage.judged_by),
                                       'code': lineage.code, **lineage.recipe}
    page.write(
        path, 'improvement',
        title='Accepted: this critic may be promoted' if verdict.accepted else 'Refused by the gate',
        reasons=verdict.reasons, remarks=verdict.remarks, next_step=next_step,
        metrics=page.Table(('metric', 'on held-out episodes'), [
            (name.replace('auroc', 'auc').replace('_', ' '), _words(value))
            for name, value in {**outcome.facts, **verdict.metrics}.items()]),
        curves=plots.svg(_curves(outcome)) if len(outcome.series) else '',
        recipe=page.Table(('what', 'of this candidate'), [(name, _words(value)) for name, value in made.items()])
        if made else None,
        bags=page.Table(('recording', 'episodes', 'successes', 'SHA-256'), [
            (bag['name'], bag['episodes'], bag['successes'], bag['sha256'][:16]) for bag in lineage.bags])
        if lineage else None)
    return path


def _words(value) -> str:
    return f'{value:.3g}' if isinstance(value, float) else str(value)  # an Interval says itself


def _curves(outcome: Outcome) -> Figure:
    """Return chance over steps, successes and failures, and the threshold."""
    figure = Figure(figsize=(8.6, 3.2), layout='constrained')
    axes = figure.subplots()
    for success, colour, dashes in ((False, plots.ORANGE, ':'), (True, plots.BLUE, '-')):
        mine = [s for s, track in zip(outcome.series, outcome.tracks) if track.success == success]
        for number in np.linspace(0, len(mine) - 1, min(SHOWN, len(mine))).astype(int):
            axes.plot(mine[number], dashes, color=colour, alpha=0.35, linewidth=0.8)
        axes.plot([], [], dashes, color=colour, label='success' if success else 'failure')
    axes.axhline(outcome.facts['threshold'], color='k', linestyle='--', linewidth=1, label='alarm below')
    axes.set(xlabel='control step', ylabel='chance of success', ylim=(0, 1))
    axes.legend(fontsize=8)
    return figure
