"""``vgps-evaluate bag``: score recordings again, and write Parquet, JSON and one self-contained page."""

import heapq
import json
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from math import isfinite
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from matplotlib.figure import Figure
from tqdm import tqdm

from vgps_bringup.episode_pages import page, plots
from vgps_bringup.rejudging import foreign
from vgps_bringup.rejudging.rejudge import JudgedStep, Judgement, Rejudge, agreement, summarize
from vgps_bringup.rejudging.verdict import sentences
from vgps_msgs_py.bags.reader import Bag
from vgps_msgs_py.bags.storage import BagError

SHEET_FRAMES, SHEET_WIDTH = 18, 160   # contact sheet: pictures per recording, their width in pixels
GALLERY, GALLERY_WIDTH = 6, 320       # worst decisions shown
MOST_CURVES = 8                       # episodes with a figure of their values


@dataclass
class Collected:
    """What is kept of all recordings: rows, and a few small pictures."""

    rows: list[Judgement] = field(default_factory=list)
    sheet: dict[str, list[np.ndarray]] = field(default_factory=dict)
    worst: list[tuple] = field(default_factory=list)              # heap of (regret, number, picture, caption)
    curves: dict[str, list] = field(default_factory=dict)         # recordings without candidates: name -> ValuePoints
    problems: list[str] = field(default_factory=list)
    outcomes: dict[tuple[str, str], str] = field(default_factory=dict)  # (bag, episode) -> in words
    cameras: Counter = field(default_factory=Counter)             # image topic -> recordings
    recorded_seconds: float = 0.0
    judging_seconds: float = 0.0

    def add(self, judged: JudgedStep, every: int, position: int, name: str) -> None:
        """Take a step's rows, and its picture for sheet and gallery where it earns one."""
        self.rows += judged.judgements
        if judged.image is None:
            return
        if position % every == 0:
            self.sheet.setdefault(name, []).append(_thumbnail(judged.image, SHEET_WIDTH))
        row = max((r for r in judged.judgements if isfinite(r.regret)), key=lambda r: r.regret, default=None)
        if row is None or row.regret <= (self.worst[0][0] if len(self.worst) >= GALLERY else 0.0):
            return
        best = f'best of {row.k} is worth {row.executed_value + row.regret:.2f}'
        caption = (f'{row.episode_id}, step {row.step}: executed #{row.executed} is worth {row.executed_value:.2f} to '
                   f'{row.critic}, the {best}; regret {row.regret:.2f}')
        item = (row.regret, len(self.rows), _thumbnail(judged.image, GALLERY_WIDTH), caption)
        (heapq.heappush if len(self.worst) < GALLERY else heapq.heapreplace)(self.worst, item)


def judge_bags(paths: list[Path], rejudge: Rejudge, instruction: str = '', camera: str | None = None,
               joints: str | None = None) -> Collected:
    """Re-judge every episode of every recording; recordings without candidates get value curves.

    A recording that cannot be used is named in ``problems`` and the others go on.

    Raises:
        BagError: none of them could be used.

    """
    collected = Collected()
    for path in tqdm(paths, desc='judging', unit='recording', disable=None if len(paths) > 1 else True):
        try:
            began = time.perf_counter()
            bag = Bag(path)
            try:
                if bag.image_stamps:
                    collected.cameras[bag.image_topic(camera)] += 1
                _judge_bag(bag, rejudge, collected, instruction, camera, joints)
            finally:  # reading its frames may add some
                collected.problems += [f'{path}: {problem}' for problem in bag.problems]
            collected.judging_seconds += time.perf_counter() - began
        except BagError as error:
            collected.problems.append(f'not judged: {error}')
    if not collected.rows and not collected.curves:
        raise BagError('; '.join(collected.problems) or 'no recording was given')
    return collected


def _judge_bag(bag: Bag, rejudge: Rejudge, collected: Collected, instruction: str, camera: str | None,
               joints: str | None) -> None:
    episodes = [e for e in bag.episodes if any(s.candidates is not None for s in e.finished_steps)
                or (rejudge.policy is not None and e.finished_steps)]
    if not episodes:
        spoken = instruction or next((e.instruction for e in bag.episodes), '')
        if rejudge.policy is not None:
            if not rejudge.ks:
                raise BagError('give --k, the number of candidates that the policy shall propose')
            k = max(rejudge.ks)
            found = foreign.proposal_curves(bag, rejudge.critics, rejudge.policy, k, spoken, camera)
            curves = {f'{name}, best of {k} proposals': points for name, points in found.items()}
        else:
            curves = {name: foreign.value_curve(bag, critic, spoken, camera, joints)
                      for name, critic in rejudge.critics.items()}
        for name, points in curves.items():
            collected.curves[f'{bag.path.name}, {name}'] = points
        collected.recorded_seconds += points[-1].seconds
        return
    for episode in episodes:
        collected.recorded_seconds += episode.duration
        collected.outcomes[str(bag.path), episode.episode_id] = episode.outcome
        every = max(1, episode.control_steps // SHEET_FRAMES)
        for position, judged in enumerate(rejudge.run(bag, episode, camera)):
            collected.add(judged, every, position, episode.episode_id)


def write(collected: Collected, output: Path) -> dict:
    """Write ``steps.parquet``, ``summary.json`` and ``index.html``; return the summary."""
    output.mkdir(parents=True, exist_ok=True)
    lines = summarize(collected.rows)
    same, comparable = agreement(collected.rows)
    summary = {
        'verdicts': sentences(collected.rows, collected.outcomes),
        'settings': lines, 'problems': collected.problems, 'cameras': dict(collected.cameras),
        'recorded_seconds': collected.recorded_seconds,
        'judging_seconds': collected.judging_seconds,
        'times_real_time': collected.recorded_seconds / max(collected.judging_seconds, 1e-9),
        'live_and_offline_agree': {'same': same, 'of': comparable},
        'curves': {name: [asdict(p) for p in points] for name, points in collected.curves.items()}}
    if collected.rows:
        pq.write_table(pa.Table.from_pylist([row._asdict() for row in collected.rows]), output / 'steps.parquet')
    (output / 'summary.json').write_text(json.dumps(_plain(summary), indent=2, allow_nan=False))
    _write_page(output / 'index.html', collected, summary)
    return summary


def _plain(value):
    """Return the value for JSON, which has no NaN: what is not known is null."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not isfinite(value) else value


def _write_page(path: Path, collected: Collected, summary: dict) -> None:
    lines = summary['settings']
    head = ('critic', 'K', 'β', 'steps', 'differs [%]', 'value', 'regret', 'regret p95', 'spread', 'disagreement',
            'ESS', 'fallbacks')
    choices = page.Table(head, [
        (x['critic'], x['k'], f'{x["beta"]:g}', x['steps'], round(100 * x['differs']), x['value'], x['regret'],
         x['regret_p95'], x['spread'], x['disagreement'], x['effective_sample_size'], x['fallbacks']) for x in lines])
    grids = [_grid([x for x in lines if x['critic'] == critic], critic)
             for critic in dict.fromkeys(x['critic'] for x in lines)]
    episodes = {row.episode_id for row in collected.rows}
    page.write(
        path, 'rejudged', title='Re-judged recordings',
        recordings=len({row.bag for row in collected.rows}) + len(collected.curves),
        episodes=len({(r.bag, r.episode_id) for r in collected.rows}), settings=len(lines),
        times_real_time=summary['times_real_time'], agreement=summary['live_and_offline_agree'],
        problems=collected.problems, verdicts=summary['verdicts'], choices=choices if lines else None,
        grids=[plots.svg(grid) for grid in grids if grid is not None],
        episode_curves=_value_curves(collected.rows) if lines else [], more_curves=max(0, len(episodes) - MOST_CURVES),
        done=_done(collected.curves) if collected.curves else None,
        worst=[(plots.png_uri(image), caption)
               for _, _, image, caption in sorted(collected.worst, key=lambda item: -item[0])],
        sheets=[(plots.png_uri(_sheet(images)), name) for name, images in collected.sheet.items()])


def _done(points_by_name: dict[str, list]):
    """The value of what was done, or of the best proposal, for recordings without candidates."""
    curves = {name: (np.array([p.seconds for p in points]), np.array([p.value for p in points]))
              for name, points in points_by_name.items()}
    figure = plots.curves_figure(curves, 'Q (discounted return)', band=True)
    figure.axes[0].set_xlabel('time [s]')
    return plots.svg(figure)


def _grid(lines: list[dict], critic: str) -> Figure | None:
    """Percentage of differing choices over K and beta; None for a single setting."""
    ks, betas = sorted({x['k'] for x in lines}), sorted({x['beta'] for x in lines})
    if len(lines) < 2:
        return None
    values = np.full((len(ks), len(betas)), np.nan)
    for x in lines:
        values[ks.index(x['k']), betas.index(x['beta'])] = 100 * x['differs']
    figure = Figure(figsize=(8.6, 0.8 + 0.36 * len(ks)), layout='constrained')
    axes = figure.subplots()
    axes.grid(False)
    axes.imshow(values, cmap='Blues', vmin=0, vmax=100, aspect='auto')
    axes.set(yticks=range(len(ks)), yticklabels=ks, xlabel='β', ylabel='K')
    axes.set_title(f'{plots.readable(critic)}: differs [%]')
    axes.set_xticks(range(len(betas)), [f'{b:g}' for b in betas])
    for i, j in np.ndindex(values.shape):
        axes.text(j, i, f'{values[i, j]:.0f}', ha='center', va='center', color='w' if values[i, j] > 60 else 'k')
    return figure


def _value_curves(rows: list[Judgement]) -> list[tuple[str, object]]:
    """Per episode a figure: value of the executed candidate and of the best, by each critic, for the largest K."""
    largest = max(row.k for row in rows)
    episodes: dict[str, dict[str, dict[int, Judgement]]] = {}
    for row in rows:  # executed and best value do not depend on beta
        if row.k == largest:
            episodes.setdefault(row.episode_id, {}).setdefault(row.critic, {}).setdefault(row.step, row)
    parts = []
    for episode, critics in list(episodes.items())[:MOST_CURVES]:
        curves = {}
        for critic, steps in critics.items():
            x = np.array(sorted(steps))
            executed = np.array([steps[i].executed_value for i in x])
            curves[f'{critic}: executed'] = (x, executed)
            curves[f'{critic}: best of {largest}'] = (x, executed + np.array([steps[i].regret for i in x]))
        parts.append((episode, plots.svg(plots.curves_figure(curves, 'Q (discounted return)', band=True))))
    return parts


def _thumbnail(image: np.ndarray, width: int) -> np.ndarray:
    return cv2.resize(image, (width, round(image.shape[0] * width / image.shape[1])), interpolation=cv2.INTER_AREA)


def _sheet(images: list[np.ndarray]) -> np.ndarray:
    columns, blank = 6, np.full_like(images[0], 255)
    filled = [*images, *[blank] * (-len(images) % columns)]
    return np.vstack([np.hstack(filled[i:i + columns]) for i in range(0, len(filled), columns)])
