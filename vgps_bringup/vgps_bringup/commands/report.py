"""``vgps-report``: a recorded episode as a page to look at."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import tyro
from tyro.conf import Positional

from vgps_bringup.commands import checks


@dataclass
class Report:
    """Write a page about a recorded episode: index.html (self-contained), video.mp4 and summary.json.

    Example: vgps-report runs/20260102T030405678_put_carrot_on_plate_s7

    Next: open REPORT/index.html in a browser, or judge the bag anew with vgps-evaluate bag.
    """

    bag: Positional[Path]
    """rosbag2 folder or file (MCAP, sqlite3)"""
    output: Path | None = None
    """report folder; by default the folder report in the bag"""
    camera: str = ''
    """image topic, or its end, where several cameras were recorded"""
    episode: str = ''
    """name of the episode; by default the last of the bag"""
    overwrite: bool = False
    """replace a report that is there"""


def main() -> None:
    """Command line."""
    options = tyro.cli(Report, prog='vgps-report')
    folder = options.output or (options.bag if options.bag.is_dir() else options.bag.parent) / 'report'
    checks.or_exit('vgps-report', lambda: checks.recording(options.bag), lambda: checks.new_folder(folder),
                   lambda: checks.unused(folder / 'index.html', options.overwrite))
    from vgps_bringup.episode_pages.facts import describe
    from vgps_bringup.episode_pages.report import episode_report
    from vgps_msgs_py.bags.storage import BagError
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


if __name__ == '__main__':
    main()
