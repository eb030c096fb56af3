"""Which episodes are held out and which are kept, drawn by their names: stable when data are added."""
import hashlib
from dataclasses import replace

import numpy as np

from vgps_training.data.table import StepTable, path_parts


def _draw(table: StepTable, salt: str) -> np.ndarray:
    """Return a number (M,) in [0, 1) for each episode that depends on its name alone."""
    names = (salt + '/'.join(path_parts(source)[-2:]) for source in table.sources)
    return np.array([int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], 'big') / 2**64 for name in names])


def held_out(table: StepTable, share: float) -> tuple[np.ndarray, np.ndarray]:
    """Return (training, validation) episode indices, chosen by the episode's name: stable when data are added."""
    order = _draw(table, '')
    validation = order < share
    if share > 0 and not validation.any() and len(order) > 1:
        validation[order.argmin()] = True
    if validation.all():
        validation[order.argmax()] = False
    return np.flatnonzero(~validation), np.flatnonzero(validation)


def thin(table: StepTable, share: float) -> StepTable:
    """Return a table with a share of the episodes, at least one; a smaller share is part of a larger one.

    Which are kept is independent of `held_out`. Raises ValueError for a share outside (0, 1].
    """
    if not 0 < share <= 1:
        raise ValueError(f'share is {share:g}; it must be above 0 and at most 1')
    if share == 1:
        return table
    count = max(1, round(share * len(table.starts)))
    kept = np.sort(np.argsort(_draw(table, 'share '), kind='stable')[:count])
    selection = table.select(kept)
    steps, lengths = selection.steps(), table.lengths[kept]
    return replace(table, frames=table.frames[steps], actions=table.actions[steps],
                   starts=np.concatenate([[0], np.cumsum(lengths)[:-1]]), instruction=table.instruction[kept],
                   success=table.success[kept], dataset=table.dataset[kept],
                   sources=tuple(table.sources[i] for i in kept),
                   states=None if table.states is None else table.states[steps])
