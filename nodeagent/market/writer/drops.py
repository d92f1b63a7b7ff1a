"""Rows left out for want of room, counted until their minute is over and the count is a row itself.

The counts travel with what is acknowledged: a feed that is killed continues there, and counts each row once, because
those that it had counted since are made, and left out, again.
"""

from __future__ import annotations

from collections import Counter
from typing import ClassVar, TypeAlias

import msgspec

from nodeagent.market.model.times import MINUTE_NS

Drops: TypeAlias = tuple[tuple[int, str, int], ...]
"""Rows left out and not yet in a table: minute, table, count."""


class DropRow(msgspec.Struct, frozen=True, gc=False):
    """Rows left out for want of room on the disk, counted per minute and table (`what`)."""

    table: ClassVar[str] = "feed_drop"

    ts_ns: int
    source: str
    what: str
    rows: int


class DropCounts:
    """The counts of one writer."""

    def __init__(self, source: str, drops: Drops) -> None:
        self._source = source
        self._counts: Counter[tuple[int, str]] = Counter({(minute, what): rows for minute, what, rows in drops})

    def __bool__(self) -> bool:
        return bool(self._counts)

    def add(self, table: str, now_ns: int) -> None:
        """A row of this table was left out now."""
        self._counts[now_ns // MINUTE_NS, table] += 1

    def now(self) -> Drops:
        """What is counted and not yet in a table."""
        return tuple((minute, what, rows) for (minute, what), rows in self._counts.items())

    def take(self, now_ns: int | None) -> list[DropRow]:
        """Rows about minutes that are over (None: all); they are not counted any more."""
        over = [key for key in self._counts if now_ns is None or key[0] < now_ns // MINUTE_NS]
        return [DropRow(key[0] * MINUTE_NS, self._source, key[1], self._counts.pop(key)) for key in over]
