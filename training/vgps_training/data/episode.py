"""Episodes: what every data reader yields, and what makes one unusable."""
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

MIN_STEPS = 2  # a shorter episode holds no transition


@dataclass(frozen=True)
class Episode:
    """T control steps of one robot following one instruction."""

    frames: Sequence[np.ndarray]  # T images, each (H, W, 3) uint8 RGB; may decode on access
    actions: np.ndarray           # (T, 7) float32: dx dy dz [m], droll dpitch dyaw [rad], gripper openness 0..1
    instruction: str              # unmodified UTF-8, may be empty
    success: bool | None          # None: the data does not say
    source: str                   # file and position in it, for messages
    states: np.ndarray | None = None  # (T, 7) float32 before each step: x y z [m], roll pitch yaw [rad], openness 0..1


@dataclass(frozen=True)
class Malformed:
    """An episode that cannot be used, and why."""

    source: str
    reason: str


def check(episode: Episode) -> Episode | Malformed:
    """Return the episode if it can be trained on, else the reason why not. Looks at the first frame only."""
    actions = np.asarray(episode.actions)

    def malformed(reason: str) -> Malformed:
        return Malformed(episode.source, reason)

    if actions.ndim != 2 or actions.shape[1] != 7:
        return malformed(f'actions of shape {actions.shape}, not (T, 7)')
    if len(actions) < MIN_STEPS:
        return malformed(f'fewer than {MIN_STEPS} steps')
    if not np.isfinite(actions).all():
        return malformed('NaN or infinity in the actions')
    if episode.states is not None and np.shape(episode.states) != actions.shape:
        return malformed('states and actions differ in shape')
    if len(episode.frames) != len(actions):
        return malformed('frames and actions differ in number')
    try:
        frame = np.asarray(episode.frames[0])
    except Exception as error:  # a decoder raises whatever its library has; the data set goes on without this episode
        return malformed(f'frame cannot be decoded: {type(error).__name__}')
    if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8:
        return malformed(f'frame is {frame.dtype} {frame.shape}, not uint8 (H, W, 3)')
    return episode
