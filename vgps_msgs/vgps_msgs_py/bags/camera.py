"""Check that the camera shows the motion: a step whose frame is from another moment would teach something false."""

from collections import Counter
from collections.abc import Sequence
from itertools import groupby

import numpy as np

FRAMES, WAY = 5, 0.04  # [m]: no camera that sees the hand move as far sends as many frames alike


def one_frame(moments: Sequence[int]) -> str:
    """Say why these stamps of the frames behind an episode's steps [ns] cannot each show a step, or nothing."""
    if not all(moments):
        return 'commands are stamped 0, so the frame they were chosen for is unknown'
    (_, count), = Counter(moments).most_common(1)
    return f'{count} of its {len(moments)} steps have the same frame: the camera stood still' if (
        count > max(2, len(moments) // 4)) else ''


def stood_still(same: Sequence[bool], places: np.ndarray) -> str:
    """Say why the camera cannot have seen the motion, or nothing.

    Args:
        same: of T - 1 frames after the first: is it the one before to the last bit, whatever its stamp?
        places: (T, 3) where the hand was at each frame [m], NaN where that is not known.

    """
    first = 0
    for alike, run in groupby(same):
        count = len(list(run))
        here = places[first:first + count + 1]
        known = here[np.isfinite(here).all(1)]
        if alike and count + 1 >= FRAMES and len(known) >= FRAMES:
            way = float(np.linalg.norm(np.ptp(known, axis=0)))
            if way > WAY:
                return (f'{count + 1} frames from step {first} on are identical to the bit while the hand moves '
                        f'{way:.2f} m: the camera stood still, or is a simulated one that does not see the hand')
        first += count
    return ''
