"""What to give up when room runs out. Pure.

The order, from the first to go: level changes on request, tickers, books, then segments of the capture that are stored
already. Trades, quality and segments not yet stored are never given up.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from nodeagent.market.capture.reader import Segment

DROP_ORDER: Final = ("book_change", "ticker", "book")
"""Tables, the first to be left out first."""
FULL_SHARE: Final = 64
"""With less than this part of low, anything may be refused at any moment."""


class Disk(StrEnum):
    """How much room there is, in a word."""

    OK = "ok"
    LOW = "low"
    """Something is left out."""
    FULL = "full"
    """Trades alone are stored, if QuestDB finds room for them; the capture may take nothing."""


@dataclass(frozen=True, slots=True)
class Room:
    """What the fullest of the disks in question has."""

    free_bytes: int
    total_bytes: int


def disk_state(room: Room, low_bytes: int) -> Disk:
    """The word for it."""
    low = _low(room, low_bytes)
    if room.free_bytes < low // FULL_SHARE:
        return Disk.FULL
    return Disk.LOW if room.free_bytes < low else Disk.OK


def disk_words(disk: Disk, room: Room, without: Set[str]) -> str:
    """A sentence for an operator; empty when there is room."""
    if disk is Disk.OK:
        return ""
    missing = ", ".join(table for table in DROP_ORDER if table in without)
    return f"the disk is {disk}: {room.free_bytes // 2**20} MiB free; left out: {missing}"


def left_out(room: Room, low_bytes: int) -> frozenset[str]:
    """Tables to leave out: one at `low_bytes` free, two at half, three at a quarter of that."""
    low = _low(room, low_bytes)
    count = sum(room.free_bytes < low // share for share in (1, 2, 4))
    return frozenset(DROP_ORDER[:count])


def expendable(
    segments: Sequence[Segment], keep_from: int, max_bytes: int, room: Room, low_bytes: int
) -> list[Segment]:
    """Segments to delete, oldest first: beyond `max_bytes` in all, or while the disk is lower than a quarter of low.

    keep_from: the number of the first segment that a restart would still read. Never the newest.
    """
    low = _low(room, low_bytes) // 4
    total, free = sum(segment.size_bytes for segment in segments), room.free_bytes
    chosen = []
    for segment in segments[:-1]:
        if segment.number >= keep_from or (total <= max_bytes and free >= low):
            break
        chosen.append(segment)
        total -= segment.size_bytes
        free += segment.size_bytes
    return chosen


def _low(room: Room, low_bytes: int) -> int:
    """Where low begins: an amount, or a fifth of a small disk, which is not low from the start."""
    return min(low_bytes, room.total_bytes // 5)
