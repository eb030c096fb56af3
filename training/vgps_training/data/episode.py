"""Episodes: what every data reader yields."""
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vgps_msgs_py.robot_state import TO_OPENNESS


class DataError(ValueError):
    """A data set or a part of it cannot be used; the text says what is wrong and what to do."""


class CameraChoiceError(DataError):
    """A data set has several cameras and nothing says which one the robot is steered through."""

    def __init__(self, text: str, path: Path, cameras: list[str]):
        super().__init__(text)
        self.path, self.cameras = path, cameras


class Frames(Sequence):
    """Pictures of one episode that stay encoded until asked for."""

    @abstractmethod
    def since(self, step: int) -> 'Frames':
        """Return the frames from a step on, still encoded."""

    def same(self) -> list[bool]:
        """Tell of each frame but the first whether it is the one before, to the last bit; [] where that costs much."""
        return []


@dataclass(frozen=True)
class Episode:
    """T control steps of one robot following one instruction."""

    frames: Sequence[np.ndarray]  # T images, each (H, W, 3) uint8 RGB; may decode on access
    actions: np.ndarray           # (T, 7) float32: dx dy dz [m], droll dpitch dyaw [rad], gripper openness 0..1
    instruction: str              # unmodified UTF-8, may be empty
    success: bool | None          # None: the data does not say
    source: str                   # file and position in it, for messages
    states: np.ndarray | None = None  # (T, 7) float32 before each step: x y z [m], roll pitch yaw [rad], openness 0..1
    camera: str = ''              # whose pictures these are
    rate: float | None = None     # steps a second, None where the data does not say
    notes: tuple[str, ...] = ()   # what a person should know about how it was read
    extras: tuple[tuple[str, np.ndarray], ...] = ()  # (name, (T,) or (T, n)) that an export passes on
    beside: tuple[tuple[str, Sequence[np.ndarray]], ...] = ()  # (camera, T images) of further cameras, likewise


@dataclass(frozen=True)
class Malformed:
    """An episode that cannot be used, and why."""

    source: str
    reason: str


@dataclass(frozen=True)
class Reading:
    """How data of other people are read; the defaults change nothing that is in this project's convention."""

    camera: str = ''               # name as listed by `vgps-data inspect`; needed if there are several cameras
    # what to do with a first step whose action is all zero, gripper included: 'drop' or 'keep'. In BridgeData as
    # published it is a placeholder, and as an action it would mean "close the gripper"
    first_zero_step: str = 'drop'
    # meaning of the gripper's number: 'openness' (0 closed, 1 open), 'closedness' (0 open, 1 closed),
    # 'minus-one-open' (-1 open, 1 closed: LIBERO, robosuite), 'minus-one-closed' (-1 closed, 1 open)
    gripper: str = 'openness'
    translation_unit: float = 1.0  # metres per unit of the data: 0.05 for LIBERO, 0.001 for millimetres
    rotation_unit: float = 1.0     # radians per unit of the data: 0.5 for LIBERO, 0.0174533 for degrees
    # LeRobot: which table of the set says how episodes ended: 'sarm_progress' (success: a progress of 0.9 or more at
    # the end) or 'returns_TAG' (success: a last reward of 0); empty: the column `next.success`
    outcomes: str = ''

    def __post_init__(self):
        if self.first_zero_step not in ('drop', 'keep'):
            raise ValueError(f"first_zero_step is 'drop' or 'keep', not '{self.first_zero_step}'")
        if self.gripper not in TO_OPENNESS:
            raise ValueError(f"gripper is one of {', '.join(TO_OPENNESS)}, not '{self.gripper}'")
        if not (self.translation_unit > 0 and self.rotation_unit > 0):
            raise ValueError('translation_unit and rotation_unit must be above 0')


PLAIN = Reading()
