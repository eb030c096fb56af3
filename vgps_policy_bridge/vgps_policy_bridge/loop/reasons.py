"""Reasons of the controller and of the critic, by name: as in ControllerState.msg and SteeringDecision.msg."""

from __future__ import annotations

from enum import IntEnum


class ControllerReason(IntEnum):
    """ControllerState.reason."""

    ACCEPTED, NOT_FINITE, OUT_OF_ORDER, TOO_SOON, UNREACHABLE, JOINT_LIMIT, JOINT_STEP, STALE_IMAGE, STALE_COMMAND, \
        STALE_JOINT_STATES, BAD_JOINT_STATES, JOINT_JUMP, EFFORT, MOTOR_ERROR, TEMPERATURE, DRIVER_LOST, \
        STOP_REQUESTED, HOLD_REQUESTED, NOT_READY, POLICY_LOST, CRITIC_LOST, WRONG_FRAME, FAULT, \
        NO_EPISODE, TWO_PUBLISHERS, TABLE, SELF_COLLISION, BAD_FINGER, NO_EFFORT, CONTROLLER_LOST = range(30)


class SteeringReason(IntEnum):
    """SteeringDecision.reason."""

    STEERED, CONTROL_FIRST, CONTROL_RANDOM, FRAME_MISSING, DEADLINE_MISSED, VALUES_NOT_FINITE, FLAT_VALUES, \
        MEMBERS_DISAGREE, INSTRUCTION_UNKNOWN, ACTION_SPACE_MISMATCH, CANDIDATES_INVALID, CRITIC_FAILED = range(12)


def name(kind: type[IntEnum], value: int) -> str:
    """Return the constant's name; a number we do not know stays a number (a newer peer may send it)."""
    try:
        return kind(value).name
    except ValueError:
        return f'{kind.__name__}_{value}'
