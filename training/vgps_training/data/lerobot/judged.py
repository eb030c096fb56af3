"""Outcomes from the tables that reward models and return scripts leave in a LeRobot data set.

`sarm_progress.parquet` (lerobot's reward models: `progress_sparse`, `progress_dense`, 0 to 1 per frame) and
`meta/returns_TAG.parquet` (`reward`: -1 a step, 0 in the last one of a success, something else in that of a failure)
say how every episode ended. Rewards and returns are then made of the outcomes as of any other data: theirs were summed
with a discount that is not ours.
"""
from pathlib import Path

import numpy as np

from vgps_training.data.episode import DataError
from vgps_training.data.lerobot.columns import vector
from vgps_training.data.lerobot.meta import read_parquet

REACHED = 0.9  # progress of the last frame from which on the episode has succeeded
PLACES = ('{}.parquet', 'meta/{}.parquet')


def outcomes(folder: Path, name: str) -> dict[int, tuple[bool | None, int]]:
    """Return (success or None where the last frame has no number, frames) by episode, from the table called `name`.

    Raises DataError where there is no such table, or it is none of the two kinds.
    """
    path = next((folder / place.format(name) for place in PLACES if (folder / place.format(name)).is_file()), None)
    if path is None or Path(name).name != name:
        found = sorted({p.stem for pattern in ('*progress*.parquet', 'meta/returns*.parquet')
                        for p in folder.glob(pattern)})
        raise DataError(f"{folder} has no table of labels '{name}'; it has {', '.join(found) or 'none'}")
    table = read_parquet(path)
    column = next((c for c in ('progress_sparse', 'progress_dense', 'reward') if c in table.column_names), None)
    if column is None or not {'episode_index', 'frame_index'} <= set(table.column_names):
        raise DataError(f'{path} has the columns {", ".join(table.column_names[:10])}; needed are episode_index, '
                        'frame_index and progress_sparse, progress_dense or reward')
    episode, frame, value = (vector(table.column(c)) for c in ('episode_index', 'frame_index', column))
    if not (np.isfinite(episode).all() and np.isfinite(frame).all()):
        raise DataError(f'{path}: an episode_index or frame_index is missing')
    if len(np.unique(np.stack([episode, frame]), axis=1).T) != len(episode):
        raise DataError(f'{path} has two labels for a frame')
    if column != 'reward' and (np.nanmin(value, initial=0) < -0.01 or np.nanmax(value, initial=0) > 1.01):
        raise DataError(f'{path}: {column} from {np.nanmin(value):.3g} to {np.nanmax(value):.3g} is not a progress '
                        '0..1')
    order = np.lexsort((frame, episode))
    ends = np.flatnonzero(np.diff(episode[order], append=np.inf))
    counts = np.diff(ends, prepend=-1)
    found = {}
    for last, count in zip(order[ends], counts.tolist()):
        success = value[last] >= REACHED if column != 'reward' else value[last] == 0
        found[int(episode[last])] = (None if np.isnan(value[last]) else bool(success), count)
    return found
