"""The seam between the controller and an arm, simulated or real."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from vgps_bringup.arm.kinematics import JOINT_NAMES

# Distance of one finger from the centre [m] that BridgeData calls closed and open.
FINGER_CLOSED, FINGER_OPEN = 0.010, 0.035


@dataclass(frozen=True)
class Reading:
    """One frame of joint states."""

    positions: np.ndarray         # (6,) rad
    efforts: np.ndarray | None    # (6,) mA, None where the arm does not measure them
    finger: float                 # m, of one finger from the centre
    relocated: bool = False       # a simulation has put the arm here on purpose; never true of a real one

    @property
    def openness(self) -> float:
        """Gripper openness, 0 closed to 1 open."""
        return float(np.clip((self.finger - FINGER_CLOSED) / (FINGER_OPEN - FINGER_CLOSED), 0.0, 1.0))


@dataclass(frozen=True)
class MotorHealth:
    """Registers of the servos, polled at 1 Hz at most; empty where the arm has none."""

    names: tuple[str, ...] = ()
    errors: tuple[int, ...] = ()
    temperatures: tuple[float, ...] = ()


class Arm(Protocol):
    """What the controller asks of an arm. No call blocks; `on_reading` and `on_health` given at construction report."""

    @property
    def ready(self) -> bool:
        """Whether the arm is initialised and takes commands."""

    @property
    def message(self) -> str:
        """What it waits for or what went wrong, in words."""

    def command(self, joint_positions: np.ndarray, openness: float | None) -> None:
        """Go to (6,) joint positions [rad] and gripper openness (0 closed, 1 open); None leaves the fingers alone."""

    def hold(self) -> None:
        """Let the fingers stay where they are, pushing no harder than a held object needs, until the next command."""

    def tick(self, now: float) -> None:
        """Run what recurs, once per control period; `now` in monotonic seconds."""

    def recover(self) -> None:
        """Reboot servos that report an error and set their modes again; `ready` is false meanwhile."""

    def close(self) -> None:
        """Let go of threads and connections; the servos keep their pose."""


def reading_from_joint_state(names: Sequence[str], positions: Sequence[float], efforts: Sequence[float]
                             ) -> Reading | None:
    """Return the Reading of a JointState's three lists, or None where joints are missing.

    The driver's order may differ between robots, so joints are found by name. One that is there twice reads NaN: nobody
    knows which of the two is meant.
    """
    index = {name: i for i, name in enumerate(names)}
    if not all(name in index and index[name] < len(positions) for name in (*JOINT_NAMES, 'left_finger')):
        return None
    order = [index[name] for name in JOINT_NAMES]
    values, drawn = np.array(positions, float), np.asarray(efforts, float)
    if len(index) < len(names):
        values[[index[name] for name, n in Counter(names).items() if n > 1 and index[name] < values.size]] = np.nan
    return Reading(values[order], drawn[order] if drawn.size == len(names) else None, values[index['left_finger']])
