"""``vgps-report``: a recorded episode, or a folder of them, as a page to look at."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from vgps_bringup.commands import checks
from vgps_msgs_py import command_line

RERUN_FILE = 'episode.rrd'


@dataclass
class Report:
    """Write a page about a recorded episode: index.html (self-contained), video.mp4 and summary.json.

    Example: vgps-report runs/20260102T030405678_put_carrot_on_plate_s7

    For a folder of recordings, e.g. vgps-report runs, write episodes.html: every episode with its last image, to be
    filtered by task, condition, outcome and reason.

    Next: open the page in a browser, or score the recordings again with vgps-evaluate bag.
    """

    bag: Positional[Path]
    """rosbag2 folder or file (MCAP, sqlite3), or a folder with such recordings in it"""
    output: Path | None = None
    """folder of the report; by default the folder report in the bag"""
    camera: str = ''
    """image topic, or whole names of it; needed if several cameras were recorded"""
    episode: str = ''
    """id of the episode; by default the last one of the bag"""
    overwrite: bool = False
    """replace an existing report"""
    rerun: bool = False
    """write REPORT/episode.rrd for the Rerun viewer instead: images, arm and candidates in 3-D, values, reasons (needs
    pip install rerun-sdk)"""
    each: bool = False
    """for a folder: first write the page of every recording that has none"""


def main() -> None:
    """Command line."""
    options = command_line.read(Report, 'vgps-report')
    checks.or_exit('vgps-report', lambda: checks.recording(options.bag))
    if options.bag.is_dir() and not checks.is_bag(options.bag):
        _folder(options)
    else:
        _episode(options)


def _episode(options: Report) -> None:
    folder = options.output or (options.bag if options.bag.is_dir() else options.bag.parent) / 'report'
    name = RERUN_FILE if options.rerun else 'index.html'
    checks.or_exit('vgps-report', lambda: checks.new_folder(folder),
                   lambda: checks.unused(folder / name, options.overwrite))
    from vgps_bringup.episode_pages.facts import describe
    from vgps_bringup.episode_pages.report import episode_report
    from vgps_msgs_py.bags.storage import BagError
    if options.rerun:
        _rerun(options, folder)
        return
    try:
        summary = episode_report(options.bag, options.output, episode_id=options.episode or None,
                                 camera=options.camera or None)
    except (BagError, OSError) as error:
        sys.exit(f'vgps-report: {error}')
    for problem in summary['problems']:
        print(f'partial: {problem}', file=sys.stderr)
    print(describe(summary['episode_id'], summary))
    print(f'Report: {folder / "index.html"}\nNext, what other critics say of it: vgps-evaluate bag {options.bag} '
          '--critic default')


def _rerun(options: Report, folder: Path) -> None:
    from vgps_bringup.episode_pages import rerun_file
    from vgps_bringup.episode_pages.report import pick_episode
    from vgps_msgs_py.bags.reader import Bag
    from vgps_msgs_py.bags.storage import BagError
    try:
        bag = Bag(options.bag)
        episode = pick_episode(bag, options.episode or None)
        folder.mkdir(parents=True, exist_ok=True)
        counts = rerun_file.write(bag, episode, folder / RERUN_FILE, options.camera or None)
    except (BagError, OSError, rerun_file.RerunMissingError) as error:
        sys.exit(f'vgps-report: {error}')
    print(f'{episode.episode_id}: {counts["images"]} images, {counts["poses"]} poses of the arm, '
          f'{counts["candidates"]} steps with candidates, {counts["reasons"]} reasons\n'
          f'File: {folder / RERUN_FILE}\nNext, look at it: rerun {folder / RERUN_FILE}')


def _folder(options: Report) -> None:
    """Write the page over a folder of recordings."""
    bags = []

    def check() -> None:
        if options.output or options.episode or options.rerun:
            raise checks.ArgumentError(f'{options.bag} is a folder of recordings: --output, --episode and --rerun are '
                                       'for one of them')
        bags.extend(checks.recordings([options.bag]))

    checks.or_exit('vgps-report', check)
    from tqdm import tqdm

    from vgps_bringup.episode_pages import overview
    from vgps_bringup.episode_pages.report import episode_report
    from vgps_msgs_py.bags.storage import BagError
    page = options.bag / overview.NAME  # of nothing but what is there: written anew without asking
    for bag in tqdm(bags, desc='pages', unit='recording', disable=not options.each):
        if options.each and (options.overwrite or not (bag / 'report' / 'index.html').exists()):
            try:
                episode_report(bag, camera=options.camera or None)
            except BagError as error:
                tqdm.write(f'no page: {error}', file=sys.stderr)
    try:
        page, cards, problems = overview.write(options.bag, tqdm(bags, desc='reading', unit='recording'),
                                               options.camera or None)
    except OSError as error:
        sys.exit(f'vgps-report: {error}')
    for problem in problems:
        print(f'not shown: {problem}', file=sys.stderr)
    successes = sum(card.summary['outcome'] == 'success' for card in cards)
    print(f'{len(cards)} episodes, {successes} successes\nPage: {page}\nNext, what a critic says of all of them: '
          f'vgps-evaluate bag {options.bag} --critic default')
    if not cards:
        sys.exit('vgps-report: no episode could be shown')


if __name__ == '__main__':
    main()
