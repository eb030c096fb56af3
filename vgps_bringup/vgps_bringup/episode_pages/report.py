"""A recorded episode as a page to look at: ``vgps-report BAG``.

The report folder holds ``index.html`` (self-contained), ``video.mp4`` and ``summary.json``.
"""

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from vgps_bringup.episode_pages import page, plots, video
from vgps_bringup.episode_pages.facts import describe, provenance, summarize
from vgps_bringup.episode_pages.latency import latency_table
from vgps_msgs_py.bags.reader import Bag, EpisodeRecord
from vgps_msgs_py.bags.storage import BagError


def pick_episode(bag: Bag, episode_id: str | None = None) -> EpisodeRecord:
    """Return the episode of that name, or the last with steps.

    Raises:
        BagError: there is none.

    """
    usable = [e for e in bag.episodes if e.steps and (episode_id is None or e.episode_id == episode_id)]
    if not usable:
        known = ', '.join(f'{e.episode_id} ({e.control_steps} steps)' for e in bag.episodes) or 'none'
        wanted = f'episode {episode_id}' if episode_id else 'an episode with control steps'
        raise BagError(f'{bag.path} does not hold {wanted}; episodes: {known}; topics: {", ".join(sorted(bag.counts))}'
                       + ''.join(f'; {p}' for p in bag.problems))
    return usable[-1]


def episode_report(path: Path | str, output: Path | str | None = None, label: str = '',
                   episode_id: str | None = None, camera: str | None = None) -> dict:
    """Write the report folder of one episode (default: ``BAG/report``) and return its summary.

    Raises:
        BagError: the bag holds no episode.

    """
    bag = Bag(path)
    return _report(bag, pick_episode(bag, episode_id), Path(output) if output else _beside(bag), label, camera)


def _beside(bag: Bag) -> Path:
    return (bag.path if bag.path.is_dir() else bag.path.parent) / 'report'


def _report(bag: Bag, episode: EpisodeRecord, folder: Path, label: str, camera: str | None = None) -> dict:
    folder.mkdir(parents=True, exist_ok=True)
    summary = summarize(bag, episode)
    summary['problems'] = [*bag.problems, *_video(bag, episode, folder / 'video.mp4', label, camera)]
    (folder / 'summary.json').write_text(json.dumps(summary, indent=2))
    _write_episode_page(bag, episode, summary, folder, label)
    return summary


def _video(bag: Bag, episode: EpisodeRecord, path: Path, label: str, camera: str | None) -> list[str]:
    """Write the video; return what kept it from being whole. The camera's trouble never costs the report."""
    if not bag.image_stamps:
        return ['no camera images were recorded: no video']
    try:
        broken = video.write_episode(bag, episode, path, label, camera)
    except BagError as error:
        return [f'no video: {error}']
    if not broken:
        return [] if path.exists() else ['no camera frame falls into the episode: no video']
    count = f'{len(broken)} camera frame{"s" if len(broken) > 1 else ""} could not be drawn ({broken[0]})'
    return [count if path.exists() else f'{count}: no video']


def _write_episode_page(bag: Bag, episode: EpisodeRecord, summary: dict, folder: Path, label: str) -> None:
    facts = {'control steps': f'{summary["steps"]}', 'duration': f'{summary["seconds"]:.1f} s',
             'candidates K, β': f'{summary["candidates"]}, {summary["beta"]:g}' if summary['beta'] is not None else '–'}
    if summary['steps_per_second']:
        facts['steps per second'] = f'{summary["steps_per_second"]:.1f}'
    if summary['added_ros_latency_ms']:
        facts['added ROS latency, median'] = f'{summary["added_ros_latency_ms"]["p50"]:.1f} ms'
    notices = [f'Stand-in: {node} runs {what}' for node, what in summary['stand_ins'].items()]
    notices += [f'{remark}.' for remark in summary['remarks']]
    notices += [f'Partial recording: {problem}' for problem in summary['problems']]
    rows, film = latency_table(episode), folder / 'video.mp4'
    actions, scored = plots.action_figure(episode), any(step.q_values is not None for step in episode.steps)
    page.write(
        folder / 'index.html', 'episode', title=f'{episode.instruction}: {episode.outcome}', label=label,
        instruction=episode.instruction, outcome=episode.outcome, episode_id=episode.episode_id,
        failure=summary['failure'], message=episode.message, facts=facts, notices=notices,
        film=page.video(film) if film.exists() else None,
        values=plots.svg(plots.value_figure(episode)) if scored else '',
        health=plots.svg(plots.health_figure(episode)) if scored else '',
        actions=plots.svg(actions) if actions is not None else None,
        decisions=page.Table(('reason', 'steps'), list(summary['reasons'].items())),
        latency=page.Table(('part', 'stage', 'p50 [ms]', 'p95 [ms]', 'largest [ms]', 'n'),
                           [(r.part, r.name, r.p50, r.p95, r.largest, r.count) for r in rows],
                           tuple(i for i, r in enumerate(rows) if r.name.startswith(('image stamp', 'added')))),
        under_way=summary['under_way'],
        configurations=sorted(bag.configurations.items()), uncommanded=_without_command(summary),
        provenance=provenance(bag, summary))


def _without_command(summary: dict) -> str:
    """Say which images the latencies leave out: a refused step has none."""
    timed = (summary['image_to_command_ms'] or {'n': 0})['n']
    missing = summary['commands'] - timed
    return f'{missing} of {summary["commands"]} images led to no joint command and have no latency.' if missing else ''


def comparison_report(bags: dict[str, Path], output: Path | str, note: str = '',
                      summary_of: Callable[[str], dict] | None = None) -> str:
    """Report the same scene under several conditions (name -> bag) side by side; return the summary as text.

    ``note`` is shown with the outcomes: what one pair of episodes cannot say. ``summary_of`` returns what
    ``episode_report`` did for a name, where somebody else writes those reports; it is asked last.
    """
    folder = Path(output)
    folder.mkdir(parents=True, exist_ok=True)
    opened = {name: Bag(path) for name, path in bags.items()}
    episodes = {name: pick_episode(bag) for name, bag in opened.items()}
    parts = [(opened[name], episodes[name], name) for name in bags if opened[name].image_stamps]
    notices = set()
    if parts:
        try:
            video.write_side_by_side(parts, folder / 'video.mp4', folder / 'filmstrip.jpg')
        except BagError as error:  # the camera's trouble never costs the report
            parts = []
            notices.add(f'no video: {error}')
    summaries = {name: summary_of(name) if summary_of is not None else
                 _report(bag, episodes[name], _beside(bag), name) for name, bag in opened.items()}
    first = next(iter(summaries.values()))
    notices |= {f'Stand-in: {node} runs {what}' for s in summaries.values() for node, what in s['stand_ins'].items()}
    notices |= {f'{name}: {remark}.' for name, s in summaries.items() for remark in s['remarks']}
    links = {name: os.path.relpath(_beside(bag) / 'index.html', folder) for name, bag in opened.items()}
    outcomes = page.Table(
        ('condition', 'outcome', 'failure', 'steps', 'seconds', 'steps / s', 'image → command p50 [ms]',
         'added by ROS p50 [ms]', 'report'),
        [(name, page.Outcome(s['outcome']), s['failure'] or '–', s['steps'], s['seconds'], s['steps_per_second'],
          (s['image_to_command_ms'] or {}).get('p50'), (s['added_ros_latency_ms'] or {}).get('p50'),
          page.Link(links[name], 'details')) for name, s in summaries.items()])
    curves = {name: (np.array([s.index for s in e.steps]),
                     np.array([s.decision.value if s.decision is not None else np.nan for s in e.steps]))
              for name, e in episodes.items()}
    strip = folder / 'filmstrip.jpg'
    page.write(folder / 'index.html', 'comparison', title=first['instruction'], task=first['task'] or '–',
               seed=first['seed'], conditions=len(bags), notices=sorted(notices), note=note, outcomes=outcomes,
               film=page.video(folder / 'video.mp4') if parts else None,
               strip=page.jpeg(strip) if parts and strip.exists() else None,  # a video cannot be printed
               curves=plots.svg(plots.curves_figure(curves, 'Q (discounted return)', band=True)),
               provenance=provenance(opened[next(iter(bags))], first))
    return '\n'.join([*(describe(name, s) for name, s in summaries.items()), *filter(None, [note]),
                      *(text for text in sorted(notices) if text.startswith('Stand-in'))])
