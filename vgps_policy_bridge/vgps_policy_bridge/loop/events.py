"""What goes into the episode machine and what comes out: goal, reports, effects."""

from __future__ import annotations

import math
from dataclasses import dataclass

from vgps_msgs_py.vocabulary import ArmState, Outcome


@dataclass(frozen=True)
class Goal:
    """What ExecuteInstruction asked for, defaults filled in."""

    episode_id: str
    instruction: str
    task: str = ''
    seed: int = 0
    max_steps: int = 120
    reset: bool = False


@dataclass(frozen=True)
class ArmReport:
    """What the machine needs of ControllerState."""

    stamp: int  # [ns]
    episode_id: str
    step: int  # of the last command taken
    state: ArmState
    reason: str = 'ACCEPTED'  # name of the constant
    message: str = ''
    accepted: int = 0  # commands accepted since the controller started
    refused: int = 0  # commands refused since the controller started
    code: int = 0  # number of the reason's constant

    def last_command(self) -> tuple:
        """Return what changes when a command has been dealt with, and not when a report is merely repeated."""
        return self.episode_id, self.step, self.accepted, self.refused, self.reason

    def words(self) -> str:
        """Return state and reason as one phrase."""
        reason = '' if self.reason == 'ACCEPTED' else f' {self.reason}'
        return f'{self.state.name}{reason}{": " if self.message else ""}{self.message}'


@dataclass(frozen=True)
class DecisionReport:
    """What the machine needs of SteeringDecision."""

    episode_id: str
    step: int
    chosen: int
    value: float = math.nan
    words: str = ''
    code: int = 0  # SteeringDecision.reason


@dataclass(frozen=True)
class ResetScene:
    """Effect: ask the simulation for the goal's task and seed."""


@dataclass(frozen=True)
class ResetArm:
    """Effect: ask for the arm's start pose, or say that it is still wanted."""


@dataclass(frozen=True)
class WithdrawReset:
    """Effect: say that the start pose is wanted no more; the arm stays where it is."""


@dataclass(frozen=True)
class Announce:
    """Effect: publish Episode with this outcome."""

    outcome: Outcome
    message: str = ''


@dataclass(frozen=True)
class Sample:
    """Effect: show the newest frame to the policy."""

    step: int


@dataclass(frozen=True)
class StepDone:
    """Effect: one control step is over."""

    decision: DecisionReport
    arm: ArmReport


@dataclass(frozen=True)
class Finish:
    """Effect: answer the action goal."""

    outcome: Outcome
    message: str
    steps: int
