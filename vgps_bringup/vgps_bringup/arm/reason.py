"""Verdicts and states of the controller, by the names and numbers of ControllerState.msg (a test compares them)."""

from enum import IntEnum


class Reason(IntEnum):
    """Why a command was taken or refused, or why the arm holds still."""

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


class State(IntEnum):
    """What the controller is doing."""

    READY = 0
    MOVING = 1
    HOLDING = 2
    STOPPED = 3
    HOMING = 4
    STARTING = 5
