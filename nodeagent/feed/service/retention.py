"""What to give up when room runs out. Pure.

The order, from the first to go: level changes on request, tickers, books, then segments of the capture that are stored
already. Trades, quality and segments not yet stored are never given up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from nodeagent.feed.capture_reader import Segment

DROP_ORDER: Final = ("book_change", "ticker", "book")
"""Tables, the first to be left out first."""


@dataclass(frozen=True, slots=True)
class Room:
    """What the fullest of the disks in question has."""

    free_bytes: int
    total_bytes: int


def left_out(room: Room, low_bytes: int) -> frozenset[str]:
    """Tables to leave out: one at `low_bytes` free, two at half, three at a quarter of that."""
    low = min(low_bytes, room.total_bytes // 5)
    count = sum(room.free_bytes < low // share for share in (1, 2, 4))
    return frozenset(DROP_ORDER[:count])


def expendable(
    segments: Sequence[Segment], keep_from: int, max_bytes: int, room: Room, low_bytes: int
) -> list[Segment]:
    """Segments to delete, oldest first: beyond `max_bytes` in all, or while the disk is lower than a quarter of low.

    keep_from: the number of the first segment that a restart would still read. Never the newest.
    """
    low = min(low_bytes, room.total_bytes // 5) // 4
    total, free = sum(segment.size_bytes for segment in segments), room.free_bytes
    chosen = []
    for segment in segments[:-1]:
        if segment.number >= keep_from or (total <= max_bytes and free >= low):
            break
        chosen.append(segment)
        total -= segment.size_bytes
        free += segment.size_bytes
    return chosen
