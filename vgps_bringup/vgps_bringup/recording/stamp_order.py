"""Messages in the order of their stamps: a bag holds them in the order in which its recorder got them.

Across topics the two differ by hundreds of milliseconds on a busy machine; candidates may lie before their own frame.
"""

import heapq
import struct
from collections.abc import Iterable, Iterator

from vgps_msgs_py.bags.reader import IMAGE_TYPES
from vgps_msgs_py.bags.storage import RawMessage

HORIZON = 5_000_000_000  # [ns] furthest that two messages may lie in the wrong order; frames of that time are in memory
# what has the same stamp: the frame, then what was said about it
RANKS = {**dict.fromkeys(IMAGE_TYPES, 0), 'vgps_msgs/msg/StepStarted': 1, 'vgps_msgs/msg/ActionCandidates': 2}


def stamp(raw: RawMessage) -> int:
    """Return the stamp [ns] of a message that begins with a header."""
    seconds, nanoseconds = struct.unpack_from('<iI' if raw.data[1] & 1 else '>iI', raw.data, 4)
    return seconds * 1_000_000_000 + nanoseconds


def by_stamp(messages: Iterable[RawMessage]) -> Iterator[tuple[int, RawMessage]]:
    """Yield (stamp [ns], message) of stamped messages, sorted; those of one stamp: image, step, candidates."""
    waiting: list[tuple[int, int, int, RawMessage]] = []
    for number, raw in enumerate(messages):
        heapq.heappush(waiting, (stamp(raw), RANKS.get(raw.type, 0), number, raw))
        while waiting[0][3].received < raw.received - HORIZON:
            earliest = heapq.heappop(waiting)
            yield earliest[0], earliest[3]
    while waiting:
        earliest = heapq.heappop(waiting)
        yield earliest[0], earliest[3]
