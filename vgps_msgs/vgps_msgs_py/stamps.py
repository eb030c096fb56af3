"""Times in message headers."""

from typing import Any


def nanoseconds(stamp: Any) -> int:
    """Return a ``builtin_interfaces/Time`` as integer nanoseconds: exact, so it identifies a frame."""
    return int(stamp.sec) * 1_000_000_000 + int(stamp.nanosec)


def seconds(stamp: Any) -> float:
    """Return a ``builtin_interfaces/Time`` as float seconds."""
    return float(stamp.sec + stamp.nanosec * 1e-9)
