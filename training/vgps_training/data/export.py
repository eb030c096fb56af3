"""`vgps-data export`: recordings and data sets as a LeRobot v3.0 data set.

Pictures become video, the outcome `next.success`; of steered episodes the candidates' values and the choice go along.
"""
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Literal

import tyro

from vgps_training.data.episode import DataError, Malformed, Reading
from vgps_training.data.lerobot.writer import Writer
from vgps_training.data.sources import read_episodes


@dataclass(frozen=True)
class ExportConfig:
    """Write recordings or data sets as a LeRobot v3.0 data set.

    Example: vgps-data export runs/ --out lerobot_set
    """

    paths: Annotated[tuple[Path, ...], tyro.conf.Positional]  # recordings, data sets, or folders that hold them
    out: Path                                # folder of the new data set; must not exist
    format: Literal['lerobot'] = 'lerobot'   # LeRobot v3.0
    fps: float = 5.0                         # control steps per second of the source, frames per second of the video
    name: str = ''                           # name of the camera's feature; empty: that of the topic
    # topic of a second camera (or whole names of it), written as a feature of its own; empty: the wrist camera that a
    # recording names, if any; 'none': one camera only
    wrist: str = ''
    robot: str = 'widowx'                    # robot_type in the metadata
    split: str = 'train'                     # which split of RLDS data sets
    reading: Annotated[Reading, tyro.conf.arg(name='')] = field(default_factory=Reading)  # which camera, which units
    unjudged: str = 'skip'  # what to do with episodes without an outcome: 'skip', or count as 'successes'
    failures: Literal['keep', 'skip'] = 'keep'  # 'skip' leaves failed episodes out, which a policy would imitate


def export(config: ExportConfig) -> None:
    """Write the data set and say what is in it. Raises DataError, FileExistsError."""
    writer, skipped, steps, cameras = Writer(config.out, config.fps, config.name, config.robot), Counter(), 0, Counter()
    wrist = None if config.wrist == 'none' else config.wrist
    for path in config.paths:
        for episode in read_episodes(path, config.split, config.reading, wrist):
            if isinstance(episode, Malformed):
                skipped[episode.reason] += 1
                continue
            if episode.success is None and config.unjudged == 'successes':
                episode = replace(episode, success=True)
            if episode.success is False and config.failures == 'skip':
                skipped['failure, left out on request'] += 1
                continue
            try:
                if episode.rate is not None and abs(episode.rate - config.fps) > 0.01 * config.fps:
                    raise DataError(f'it has {episode.rate:g} steps per second: give --fps {episode.rate:g}')
                writer.add(episode)
            except ValueError as error:  # a frame that cannot be decoded among them
                skipped[str(error)] += 1
                continue
            steps += len(episode.actions)
            cameras.update(zip((episode.camera, *dict(episode.beside)), writer.features))
    for reason, count in skipped.most_common():
        print(f'left out: {count} x {reason}')
    writer.close()
    for (camera, feature), count in cameras.items():
        print(f'camera {camera}: {count} episodes as {feature}')
    print(f'{writer.episodes} episodes, {steps} steps: {config.out} (LeRobot v3.0)')
