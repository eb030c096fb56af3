"""Figures of the reports, as inline SVG or PNG: no display, no network."""

import io
import re
from base64 import b64encode

import matplotlib
import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL import Image

from vgps_bringup.episode_pages.facts import VALUE_BAND, refusal
from vgps_msgs_py.bags.reader import EpisodeRecord

matplotlib.rcParams.update({'font.size': 9, 'axes.spines.top': False, 'axes.spines.right': False,
                            'text.parse_math': False,  # an episode may be called anything, also $\\frac
                            'svg.fonttype': 'path', 'axes.grid': True, 'grid.color': '#e3e7ee', 'axes.axisbelow': True,
                            'axes.edgecolor': '#8a94a6', 'xtick.color': '#4a5365', 'ytick.color': '#4a5365'})
ORANGE, BLUE, GREY, RED = '#f08c00', '#3b6fb6', '#9aa5b8', '#b3261e'
LONGEST_LABEL = 60
CYCLE = ('#3b6fb6', '#f08c00', '#2f9e5b', '#c2417c', '#7a5cc4', '#1a9aa8', '#8c6d31', '#5c6675')
DASHES = ('-', '--', '-.', ':')  # so that curves are told apart without colour


def svg(figure: Figure) -> Markup:
    """Return a figure as an ``<svg>`` element that a page takes as it is: its texts are drawn as outlines."""
    buffer = io.StringIO()
    figure.savefig(buffer, format='svg')  # cut to size by its constrained layout
    text = buffer.getvalue()
    # matplotlib repeats every text in a comment; that and who made the file when are of no use
    return Markup(re.sub(r'<metadata>.*?</metadata>|<!--.*?-->', '', text[text.index('<svg'):], flags=re.DOTALL))


def readable(name: str) -> str:
    """Return a name that fits into a legend and can be drawn."""
    name = name.encode(errors='replace').decode()
    return name if len(name) <= LONGEST_LABEL else name[:LONGEST_LABEL - 1] + '…'


def _over_steps(axes) -> None:
    axes.set_xlabel('control step')
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def png_uri(image: np.ndarray) -> str:
    """Return an RGB array as a data URI."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, 'PNG', optimize=True)
    return 'data:image/png;base64,' + b64encode(buffer.getvalue()).decode()


def jpeg_uri(image: np.ndarray) -> str:
    """Return an RGB array as a data URI, small."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, 'JPEG', quality=82)
    return 'data:image/jpeg;base64,' + b64encode(buffer.getvalue()).decode()


def value_figure(episode: EpisodeRecord) -> Figure:
    """Q-values over the episode: every candidate a dot, the executed one the line, fallbacks marked."""
    figure = Figure(figsize=(8.6, 3.4), layout='constrained')
    axes = figure.subplots()
    chosen_x, chosen_y = [], []
    candidates = []  # (step, value)
    for step in episode.steps:
        q_values = step.q_values
        if q_values is None:
            axes.axvline(step.index, color='#e8b04a', linewidth=1, alpha=0.6, zorder=0)
            continue
        minimum = q_values.min(axis=0)
        candidates += [(step.index, value) for value in minimum]
        if step.decision.chosen >= 0:
            chosen_x.append(step.index)
            chosen_y.append(minimum[step.decision.chosen])
    if candidates:
        axes.scatter(*zip(*candidates), s=12, color=BLUE, alpha=0.4, linewidths=0, zorder=1)
    axes.plot(chosen_x, chosen_y, color=ORANGE, linewidth=1.8, marker='o', markersize=3.5, zorder=2,
              label='executed candidate')
    axes.scatter([], [], s=12, color=BLUE, alpha=0.5, label='candidates (ensemble minimum)')
    if any(step.q_values is None for step in episode.steps):
        axes.axvline(np.nan, color='#e8b04a', label='nothing was scored')
    _mark_refused(axes, episode, dict(zip(chosen_x, chosen_y)))
    _mark_band(axes)
    axes.set_ylabel('Q (discounted return)')
    _over_steps(axes)
    axes.legend(loc='best', frameon=False)
    return figure


def _mark_refused(axes, episode: EpisodeRecord, values: dict[int, float]) -> None:
    """Cross out the steps whose command the arm did not carry out, by reason; shape and word, not colour alone."""
    by_reason: dict[str, list[int]] = {}
    for step in episode.steps:
        if reason := refusal(step):
            by_reason.setdefault(reason, []).append(step.index)
    low, _ = axes.get_ylim()
    for (reason, steps), shape in zip(by_reason.items(), 'X' 'P' 'D' 's' 'v' '^' 'p' 'h' * 4):
        axes.scatter(steps, [values.get(i, low) for i in steps], marker=shape, s=52, color=RED, edgecolors='white',
                     linewidths=0.6, zorder=4, label=f'refused: {reason}')


def _mark_band(axes) -> None:
    """Shade where no discounted return can lie; the view stays on the values."""
    (low, high), (least, most) = axes.get_ylim(), VALUE_BAND
    outside = [(a, b) for a, b in ((low, min(least, high)), (max(most, low), high)) if a < b]
    for (a, b), label in zip(outside, ('outside the range of a return', None)):
        axes.axhspan(a, b, facecolor='#f6e4e4', hatch='//', edgecolor='#e4bcbc', linewidth=0, zorder=-1, label=label)
    axes.set_ylim(low, high)


def health_figure(episode: EpisodeRecord) -> Figure:
    """How sure the critic was, and what it expected: spread, disagreement, effective sample size, chance of success."""
    figure = Figure(figsize=(8.6, 2.2), layout='constrained')
    decisions = [s.decision for s in episode.steps if s.decision is not None]
    shown = [('spread', 'spread over candidates'), ('disagreement', 'disagreement of members'),
             ('effective_sample_size', 'effective sample size')]
    if any(np.isfinite(getattr(d, 'success_chance', np.nan)) for d in decisions):  # not without an outlook
        shown.append(('success_chance', 'chance of success'))
    panels = figure.subplots(1, len(shown))
    for axes, (name, title) in zip(panels, shown):
        axes.plot([d.step for d in decisions], [getattr(d, name, np.nan) for d in decisions], color=BLUE, linewidth=1.4)
        if name == 'success_chance':
            thresholds = [getattr(d, 'chance_threshold', np.nan) for d in decisions]
            axes.plot([d.step for d in decisions], thresholds, color='#c0392b', linewidth=1, linestyle='--')
            axes.set_ylim(0, 1)
        axes.set_title(title, fontsize=9, color='#4a5365')
        _over_steps(axes)
    return figure


def action_figure(episode: EpisodeRecord) -> Figure | None:
    """The candidates' first actions against what was executed; None where no candidates were recorded."""
    steps = [s for s in episode.steps if s.actions is not None]
    if not steps:
        return None
    figure = Figure(figsize=(8.6, 3.8), layout='constrained')
    names = ('Δx [mm]', 'Δy [mm]', 'Δz [mm]', 'Δyaw [deg]', 'gripper openness')
    panels = figure.subplot_mosaic([names[:3], [names[3], names[4], names[4]]])
    for name, column, scale in zip(names, (0, 1, 2, 5, 6), (1e3, 1e3, 1e3, 180 / np.pi, 1.0)):
        axes = panels[name]
        candidates = [(s.index, value) for s in steps for value in s.actions[:, 0, column] * scale]
        axes.scatter(*zip(*candidates), s=9, color=BLUE, alpha=0.3, linewidths=0)
        executed = [(s.index, s.decision.action[column] * scale) for s in steps if s.decision is not None]
        if executed:
            axes.plot(*zip(*executed), color=ORANGE, linewidth=1.3)
        axes.set_title(name, fontsize=9, color='#4a5365')
        _over_steps(axes)
    return figure


def curves_figure(curves: dict[str, tuple[np.ndarray, np.ndarray]], ylabel: str, band: bool = False) -> Figure:
    """Several named curves ``label -> (x, y)`` over the control steps; ``band``: shade where no value can lie."""
    figure = Figure(figsize=(8.6, 3.2), layout='constrained')
    axes = figure.subplots()
    for number, (label, (x, y)) in enumerate(curves.items()):
        axes.plot(x, y, color=CYCLE[number % len(CYCLE)], linestyle=DASHES[number % len(DASHES)], linewidth=1.5,
                  label=readable(label))
    if band:
        _mark_band(axes)
    axes.set_ylabel(readable(ylabel))
    _over_steps(axes)
    if len(curves) <= 12:
        figure.legend(loc='outside upper left', ncols=2, frameon=False)
    return figure
