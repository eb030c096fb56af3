"""`vgps-data`: see what a data set holds, and prepare one for training.

vgps-data inspect PATH ... --out report/     # print figures; write a contact sheet and histograms
vgps-data save PATH ... --out table/ --image-size 64    # decode and resize once, for `vgps-train --data table/`
vgps-data pack PATH ... --out packed/    # the same in shards: for large data, many processes, object stores
vgps-data export PATH ... --out set/ --format lerobot   # write a LeRobot v3.0 data set
vgps-data convert BAG ... --out bags/ --instruction 'put the carrot on the plate' --outcome ask   # from teleoperation

Options of each: vgps-data COMMAND --help
"""
import logging
import sys
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro
from matplotlib.figure import Figure
from PIL import Image, ImageDraw

from vgps_critic.model_card import DIMENSIONS
from vgps_msgs_py import command_line
from vgps_training.data import normalisation
from vgps_training.data.checks import unverified
from vgps_training.data.convert import ConvertConfig, convert
from vgps_training.data.episode import CameraChoiceError, DataError, Episode, Reading
from vgps_training.data.export import ExportConfig, export
from vgps_training.data.labels import LabelConfig
from vgps_training.data.pack import PackConfig, pack
from vgps_training.data.sources import read_episodes
from vgps_training.data.splits import thin
from vgps_training.data.table import Report, StepTable, read_table, save

ROWS, COLUMNS = 8, 8  # of the contact sheet: episodes x frames


@dataclass(frozen=True)
class InspectConfig:
    """Print what data sets hold and what is left out, and draw a contact sheet and histograms of the actions.

    Example: vgps-data inspect bags/ --out report

    Next: vgps-train iql --preset small --data bags/ --out runs/iql
    """

    paths: Annotated[tuple[Path, ...], tyro.conf.Positional]  # data sets, or folders that hold them
    out: Path = Path('data_report')  # folder for the images
    image_size: int = 128            # side of a frame in the contact sheet [pixels]
    split: str = 'train'             # which split of RLDS data sets
    reading: Annotated[Reading, tyro.conf.arg(name='')] = field(default_factory=Reading)  # which camera, which units
    unjudged: str = 'skip'           # what to do with episodes without an outcome: 'skip', or count as 'successes'
    discount: float = 0.98           # gamma of the returns shown, (0, 1)
    action_space: str = 'quantiles'  # bounds drawn in the histograms: 'quantiles', 'bridge', 'fractal'


@dataclass(frozen=True)
class SaveConfig:
    """Decode and resize data sets once into a table, so that every training starts quickly.

    Example: vgps-data save bags/ --out table --image-size 64

    Next: vgps-train iql --preset small --data table --out runs/iql
    """

    paths: Annotated[tuple[Path, ...], tyro.conf.Positional]  # data sets, or folders that hold them
    out: Path                  # folder of the table
    image_size: int = 256      # side of the critic's input [pixels]
    split: str = 'train'       # which split of RLDS data sets
    reading: Annotated[Reading, tyro.conf.arg(name='')] = field(default_factory=Reading)  # which camera, which units
    unjudged: str = 'skip'     # what to do with episodes without an outcome: 'skip', or count as 'successes'
    share: float = 1.0         # share of the episodes to keep, chosen by a hash of their names: (0, 1]


def describe(table: StepTable, report: Report, discount: float, action_space: str) -> str:
    """Return the figures of a data set for a person."""
    lengths = table.lengths
    lines = [report.text(), f'steps per episode: {lengths.min()} to {lengths.max()}, median {np.median(lengths):g}',
             f'successes: {int(table.success.sum())}, failures: {int((1 - table.success).sum())}']
    counts = Counter(table.instructions[i] or '(empty)' for i in table.instruction)
    lines += [f'{len(counts)} instructions:'] + [f'  {n:6d} x {text}' for text, n in counts.most_common(20)]
    returns = table.labels(discount, LabelConfig())[2]
    lines.append('returns: ' + ', '.join(f'{q:g} % {v:.1f}' for q, v in
                                         zip((0, 25, 50, 75, 100), np.percentile(returns, (0, 25, 50, 75, 100)))))
    space = normalisation.fit(action_space, table.actions, 'this data')
    outside = ((table.actions < np.array(space.low)) | (table.actions > np.array(space.high))).mean(0)
    lines.append(f'actions (bounds: {action_space}): dimension, unit, min, low bound, mean, high bound, max, outside')
    for i, name in enumerate(DIMENSIONS):
        a = table.actions[:, i]
        lines.append(f'  {name:8s} {space.units[i]:5s} {a.min():9.4f} {space.low[i]:9.4f} {a.mean():9.4f} '
                     f'{space.high[i]:9.4f} {a.max():9.4f} {outside[i]:8.2%}')
    return '\n'.join(lines)


def contact_sheet(table: StepTable) -> Image.Image:
    """Return frames of up to 8 episodes, one per row, failures marked by a red edge and successes by a green one."""
    episodes = np.unique(np.linspace(0, len(table.starts) - 1, ROWS).astype(int))
    rows = []
    for e in episodes:
        steps = table.starts[e] + np.linspace(0, table.lengths[e] - 1, COLUMNS).astype(int)
        row = np.concatenate([table.frames[s] for s in steps], 1)
        row[:, :4] = (0, 160, 0) if table.success[e] else (200, 0, 0)
        rows.append(row)
    return Image.fromarray(np.concatenate(rows))


def histograms(table: StepTable, discount: float, action_space: str) -> Figure:
    """Return histograms of the seven action dimensions against the bounds, and of the returns."""
    space = normalisation.fit(action_space, table.actions, 'this data')
    figure = Figure(figsize=(14, 6), layout='constrained')
    axes = np.ravel(figure.subplots(2, 4))
    for i, name in enumerate(DIMENSIONS):
        axes[i].hist(table.actions[:, i], bins=60, log=True, color='0.5')
        axes[i].set(title=name, xlabel=space.units[i])
        for bound in (space.low[i], space.high[i]):
            axes[i].axvline(bound, color='C3')
    axes[7].hist(table.labels(discount, LabelConfig())[2], bins=60, log=True, color='C0')
    axes[7].set(title='returns', xlabel='discounted steps')
    return figure


def camera_sheet(path: Path, cameras: list[str], config: InspectConfig) -> Image.Image:
    """Return what each camera of a data set sees, the middle of its first usable episode, with their names."""
    size, pictures = 2 * config.image_size, []
    for name in cameras:
        reading = replace(config.reading, camera=name)
        episode = next((e for e in read_episodes(path, config.split, reading) if isinstance(e, Episode)), None)
        picture = Image.new('RGB', (size, size + 16))
        if episode is not None:
            picture.paste(Image.fromarray(episode.frames[len(episode.frames) // 2]).resize((size, size)), (0, 16))
        ImageDraw.Draw(picture).text((4, 2), name)
        pictures.append(np.asarray(picture))
    return Image.fromarray(np.concatenate(pictures, 1))


def inspect(config: InspectConfig) -> None:
    """Print the figures and write the pictures."""
    try:
        _inspect(config)
    except CameraChoiceError as error:
        config.out.mkdir(parents=True, exist_ok=True)
        sheet = config.out / 'cameras.png'
        camera_sheet(error.path, error.cameras, config).save(sheet)
        raise DataError(f'{error}; what they see: {sheet}') from error


def _inspect(config: InspectConfig) -> None:
    table, report = read_table(config.paths, config.image_size, split=config.split,
                               unjudged=config.unjudged, reading=config.reading)
    videos = any(next(path.rglob('*.mp4'), None) for path in config.paths)
    text = '\n'.join(filter(None, (
        describe(table, report, config.discount, config.action_space),
        unverified(table.actions, table.starts, table.states is not None, videos))))
    config.out.mkdir(parents=True, exist_ok=True)
    (config.out / 'report.txt').write_text(text + '\n')
    contact_sheet(table).save(config.out / 'contact_sheet.png')
    histograms(table, config.discount, config.action_space).savefig(config.out / 'histograms.png', dpi=90)
    print(text)
    print(f'images: {config.out}/contact_sheet.png, {config.out}/histograms.png')


def prepare(config: SaveConfig) -> None:
    """Write a table."""
    table, report = read_table(config.paths, config.image_size, split=config.split,
                               unjudged=config.unjudged, reading=config.reading)
    table = thin(table, config.share)
    save(table, config.out)
    print(report.text())
    if config.share < 1:
        print(f'kept: {len(table.starts)} episodes, {len(table)} steps')
    print(f'saved: {config.out}; train with --data {config.out}')


def main() -> None:
    """Run the command line."""
    logging.basicConfig(level=logging.WARNING, format='%(message)s')
    commands = {'inspect': (InspectConfig, inspect), 'save': (SaveConfig, prepare), 'pack': (PackConfig, pack),
                'export': (ExportConfig, export), 'convert': (ConvertConfig, convert)}
    if len(sys.argv) < 2 or sys.argv[1] not in commands:
        print(__doc__)
        if sys.argv[1:2] in ([], ['-h'], ['--help']):
            return
        command_line.refuse('vgps-data', f"there is no command '{sys.argv[1]}'")
    kind, run = commands[sys.argv[1]]
    command = f'vgps-data {sys.argv[1]}'
    config = command_line.read(kind, command, sys.argv[2:])
    with command_line.refusing(command, OSError, ValueError):  # the reason says more than a traceback
        run(config)


if __name__ == '__main__':
    main()
