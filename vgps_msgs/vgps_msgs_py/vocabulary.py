"""Every outcome, reason, state and failure of the system, once: the constants of the messages, by name and number.

A test holds each of them to its ``.msg`` file. The numbers are on the wire and in bags for good: new ones are added,
old ones keep their meaning.
"""

from enum import IntEnum


class Outcome(IntEnum):
    """How an episode ended: Episode.outcome, ExecuteInstruction.outcome."""

    RUNNING = 0
    SUCCESS = 1
    FAILURE = 2
    TIMEOUT = 3
    CANCELLED = 4
    ABORTED = 5


class CommandKind(IntEnum):
    """What the arm is asked for: EndEffectorCommand.kind."""

    ACTION = 0
    HOLD = 1


class Verdict(IntEnum):
    """Which candidate was sent: SteeringDecision.verdict."""

    CHOSEN = 0
    FIRST_CANDIDATE = 1
    HOLD = 2
    OPERATOR = 3
    RETREAT = 4


class SteeringReason(IntEnum):
    """Why that candidate: SteeringDecision.reason."""

    STEERED = 0
    CONTROL_FIRST = 1
    CONTROL_RANDOM = 2
    FRAME_MISSING = 3
    DEADLINE_MISSED = 4
    VALUES_NOT_FINITE = 5
    FLAT_VALUES = 6
    MEMBERS_DISAGREE = 7
    INSTRUCTION_UNKNOWN = 8
    ACTION_SPACE_MISMATCH = 9
    CANDIDATES_INVALID = 10
    CRITIC_FAILED = 11
    OUT_OF_DATA = 12
    CRITIC_HARMFUL = 13
    INSTRUCTION_UNFAMILIAR = 14
    OUTLOOK_ALARM = 15
    OPERATOR_CORRECTED = 16


class ArmState(IntEnum):
    """What the arm's controller is doing: ControllerState.state."""

    READY = 0
    MOVING = 1
    HOLDING = 2
    STOPPED = 3
    HOMING = 4
    STARTING = 5


class ControllerReason(IntEnum):
    """Why a command was taken or refused, or why the arm holds still: ControllerState.reason."""

    ACCEPTED = 0
    NOT_FINITE = 1
    OUT_OF_ORDER = 2
    TOO_SOON = 3
    UNREACHABLE = 4
    JOINT_LIMIT = 5
    JOINT_STEP = 6
    STALE_IMAGE = 7
    STALE_COMMAND = 8
    STALE_JOINT_STATES = 9
    BAD_JOINT_STATES = 10
    JOINT_JUMP = 11
    EFFORT = 12
    MOTOR_ERROR = 13
    TEMPERATURE = 14
    DRIVER_LOST = 15
    STOP_REQUESTED = 16
    HOLD_REQUESTED = 17
    NOT_READY = 18
    POLICY_LOST = 19
    CRITIC_LOST = 20
    WRONG_FRAME = 21
    FAULT = 22
    NO_EPISODE = 23
    TWO_PUBLISHERS = 24
    TABLE = 25
    SELF_COLLISION = 26
    BAD_FINGER = 27
    NO_EFFORT = 28
    CONTROLLER_LOST = 29


class TaskFailure(IntEnum):
    """What the simulator would call an episode that ended now: TaskState.failure."""

    NONE = 0
    NEVER_GRASPED = 1
    DROPPED_OUTSIDE = 2
    STILL_HOLDING = 3
    MISPLACED = 4


# The critic, or an operator in its place, did what it was asked to do; every other reason is a fallback
HEALTHY = frozenset({SteeringReason.STEERED, SteeringReason.CONTROL_FIRST, SteeringReason.CONTROL_RANDOM,
                     SteeringReason.OPERATOR_CORRECTED})
# May happen to a working system now and then; whatever is neither healthy nor passing needs someone to look
PASSING = frozenset({SteeringReason.FRAME_MISSING, SteeringReason.DEADLINE_MISSED, SteeringReason.FLAT_VALUES,
                     SteeringReason.MEMBERS_DISAGREE, SteeringReason.OUT_OF_DATA,
                     SteeringReason.INSTRUCTION_UNFAMILIAR, SteeringReason.OUTLOOK_ALARM})
# The paper's names (its section 4) for what the simulator's oracle or the operator saw
FAILURE_MODES = {TaskFailure.NONE: 'other', TaskFailure.NEVER_GRASPED: 'missed grasp',
                 TaskFailure.DROPPED_OUTSIDE: 'early drop', TaskFailure.STILL_HOLDING: 'late drop',
                 TaskFailure.MISPLACED: 'misplaced'}


def name(kind: type[IntEnum], value: int) -> str:
    """Return the constant's name; a number we do not know keeps its number (a newer peer may send it)."""
    try:
        return kind(value).name
    except ValueError:
        return f'{kind.__name__}_{value}'


def words(kind: type[IntEnum], value: int) -> str:
    """Return the constant as people read it: ``FRAME_MISSING`` is 'frame missing'."""
    return name(kind, value).lower().replace('_', ' ')
