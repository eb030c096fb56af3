"""Times in message headers."""


def nanoseconds(stamp) -> int:
    """Return a ``builtin_interfaces/Time`` as integer nanoseconds: exact, so it identifies a frame."""
    return stamp.sec * 1_000_000_000 + stamp.nanosec


def seconds(stamp) -> float:
    """Return a ``builtin_interfaces/Time`` as float seconds."""
    return stamp.sec + stamp.nanosec * 1e-9
