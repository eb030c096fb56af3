"""A recorded episode as a page to look at: ``vgps-report BAG``.

The report folder holds ``index.html`` (self-contained), ``video.mp4`` and ``summary.json``.
"""

import argparse
import json
import os
import sys
from pathlib import Path

import numpy as np

from vgps_bringup.episode_pages import page, plots, video
from vgps_bringup.episode_pages.latency import added_latency, image_to_command, latency_table
from vgps_msgs_py.bags.reader import Bag, EpisodeRecord
from vgps_msgs_py.bags.storage import BagError
from vgps_msgs_py.vocabulary import TaskFailure, words

# What a node says of itself in NodeConfiguration.model where a trained model is missing.
STAND_INS = ('stand-in', 'untrained', 'random-policy', 'scripted')


def stand_ins(bag: Bag) -> dict[str, str]:
    """Return node -> what it ran in place of a trained model."""
    return {node: message.model for node, message in bag.configurations.items()
            if any(word in message.model.lower() for word in STAND_INS)}


def summarize(bag: Bag, episode: EpisodeRecord) -> dict:
    """Return the facts of an episode as plain values."""
    decisions = [s.decision for s in episode.steps if s.decision is not None]
    periods = np.diff([s.stamp for s in episode.steps]) * 1e-9
    whole = [x for x in map(image_to_command, episode.steps) if x is not None]
    added = [x for x in map(added_latency, episode.steps) if x is not None]
    last_state = episode.task_states[-1] if episode.task_states else None
    return {
        'episode_id': episode.episode_id, 'instruction': episode.instruction, 'task': episode.task,
        'seed': episode.seed, 'outcome': episode.outcome, 'message': episode.message,
        'failure': words(TaskFailure, last_state.failure) if last_state is not None and last_state.failure
                   and not last_state.success else '',
        'steps': len(episode.steps), 'seconds': round(episode.duration, 3),
        'steps_per_second': float(1 / np.median(periods)) if len(periods) and np.median(periods) > 0 else None,
        'policy': next((s.candidates.policy for s in episode.steps if s.candidates is not None), ''),
        'critic_hash': next((d.critic_hash for d in decisions), ''),
        'candidates': int(np.median([d.num_candidates for d in decisions])) if decisions else 0,
        'beta': float(decisions[0].beta) if decisions else None,
        'reasons': plots.reason_counts(episode),
        'image_to_command_ms': _percentiles(whole), 'added_ros_latency_ms': _percentiles(added),
        'stand_ins': stand_ins(bag), 'problems': bag.problems,
    }


def _percentiles(values: list[float]) -> dict[str, float] | None:
    return {'p50': float(np.percentile(values, 50)), 'p95': float(np.percentile(values, 95))} if values else None


def pick_episode(bag: Bag, episode_id: str | None = None) -> EpisodeRecord:
    """Return the episode of that name, or the last with steps.

    Raises:
        BagError: there is none.

    """
    usable = [e for e in bag.episodes if e.steps and (episode_id is None or e.episode_id == episode_id)]
    if not usable:
        known = ', '.join(f'{e.episode_id} ({len(e.steps)} steps)' for e in bag.episodes) or 'none'
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
    episode = pick_episode(bag, episode_id)
    folder = Path(output) if output else (bag.path if bag.path.is_dir() else bag.path.parent) / 'report'
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
    facts = {'control steps': f'{len(episode.steps)}', 'duration': f'{episode.duration:.1f} s',
             'candidates K, β': f'{summary["candidates"]}, {summary["beta"]:g}' if summary['beta'] is not None else '–'}
    if summary['steps_per_second']:
        facts['steps per second'] = f'{summary["steps_per_second"]:.1f}'
    if summary['added_ros_latency_ms']:
        facts['added ROS latency, median'] = f'{summary["added_ros_latency_ms"]["p50"]:.1f} ms'
    notices = [f'Stand-in: {node} runs {what}' for node, what in summary['stand_ins'].items()]
    notices += [f'Partial recording: {problem}' for problem in summary['problems']]
    rows, film = latency_table(episode), folder / 'video.mp4'
    actions = plots.action_figure(episode)
    page.write(
        folder / 'index.html', 'episode', title=f'{episode.instruction}: {episode.outcome}', label=label,
        instruction=episode.instruction, outcome=episode.outcome, episode_id=episode.episode_id,
        failure=summary['failure'], message=episode.message, facts=facts, notices=notices,
        film=page.video(film) if film.exists() else None, values=plots.svg(plots.value_figure(episode)),
        health=plots.svg(plots.health_figure(episode)), actions=plots.svg(actions) if actions is not None else None,
        decisions=page.Table(('reason', 'steps'), list(summary['reasons'].items())),
        latency=page.Table(('part', 'stage', 'p50 [ms]', 'p95 [ms]', 'largest [ms]', 'n'),
                           [(r.part, r.name, r.p50, r.p95, r.largest, r.count) for r in rows],
                           tuple(i for i, r in enumerate(rows) if r.name.startswith(('image stamp', 'added')))),
        configurations=sorted(bag.configurations.items()))


def comparison_report(bags: dict[str, Path], output: Path | str, note: str = '') -> str:
    """Report the same scene under several conditions (name -> bag) side by side; return the summary as text.

    ``note`` is shown with the outcomes: what one pair of episodes cannot say.
    """
    folder = Path(output)
    folder.mkdir(parents=True, exist_ok=True)
    opened = {name: Bag(path) for name, path in bags.items()}
    episodes = {name: pick_episode(bag) for name, bag in opened.items()}
    summaries = {name: episode_report(path, label=name) for name, path in bags.items()}
    parts = [(opened[name], episodes[name], name) for name in bags if opened[name].image_stamps]
    first = next(iter(summaries.values()))
    notices = {f'Stand-in: {node} runs {what}' for s in summaries.values() for node, what in s['stand_ins'].items()}
    if parts:
        try:
            video.write_side_by_side(parts, folder / 'video.mp4')
            video.write_filmstrip(parts, folder / 'filmstrip.jpg')
        except BagError as error:  # the camera's trouble never costs the report
            parts = []
            notices.add(f'no video: {error}')
    links = {name: os.path.relpath(Path(path) / 'report/index.html', folder) for name, path in bags.items()}
    outcomes = page.Table(
        ('condition', 'outcome', 'failure', 'steps', 'seconds', 'steps / s', 'image → command p50 [ms]',
         'added by ROS p50 [ms]', 'report'),
        [(name, page.Outcome(s['outcome']), s['failure'] or '–', s['steps'], s['seconds'], s['steps_per_second'],
          (s['image_to_command_ms'] or {}).get('p50'), (s['added_ros_latency_ms'] or {}).get('p50'),
          page.Link(links[name], 'details')) for name, s in summaries.items()])
    curves = {name: (np.array([s.index for s in e.steps]),
                     np.array([s.decision.value if s.decision is not None else np.nan for s in e.steps]))
              for name, e in episodes.items()}
    page.write(folder / 'index.html', 'comparison', title=first['instruction'], task=first['task'] or '–',
               seed=first['seed'], conditions=len(bags), notices=sorted(notices), note=note, outcomes=outcomes,
               film=page.video(folder / 'video.mp4') if parts else None,
               curves=plots.svg(plots.curves_figure(curves, 'Q (discounted return)')))
    return '\n'.join([*(describe(name, s) for name, s in summaries.items()), *filter(None, [note]), *sorted(notices)])


def describe(name: str, summary: dict) -> str:
    """Return one line for the terminal."""
    text = (f'{name}: {summary["outcome"].upper()}{" (" + summary["failure"] + ")" if summary["failure"] else ""}, '
            f'{summary["steps"]} steps, {summary["seconds"]:.1f} s')
    if summary['steps_per_second']:
        text += f', {summary["steps_per_second"]:.1f} steps/s'
    if summary['added_ros_latency_ms']:
        text += (f', image to command {summary["image_to_command_ms"]["p50"]:.0f} ms, of which ROS adds '
                 f'{summary["added_ros_latency_ms"]["p50"]:.1f} ms (p95 {summary["added_ros_latency_ms"]["p95"]:.1f})')
    return text


def main() -> None:
    """Write the report of a bag."""
    parser = argparse.ArgumentParser(prog='vgps-report', description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('bag', type=Path, help='rosbag2 folder or file (MCAP, sqlite3)')
    parser.add_argument('--output', type=Path, help='report folder; default: BAG/report')
    parser.add_argument('--camera', help='image topic, or its end, where several cameras were recorded')
    parser.add_argument('--episode', help='episode_id; default: the last in the bag')
    options = parser.parse_args()
    try:
        summary = episode_report(options.bag, options.output, episode_id=options.episode, camera=options.camera)
    except BagError as error:
        sys.exit(f'vgps-report: {error}')
    for problem in summary['problems']:
        print(f'partial: {problem}', file=sys.stderr)
    folder = options.output or (options.bag if options.bag.is_dir() else options.bag.parent) / 'report'
    print(describe(summary['episode_id'], summary))
    print(f'Report: {folder / "index.html"}')
