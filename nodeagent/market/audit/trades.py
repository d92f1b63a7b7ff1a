"""Trades as captured beside trades as stored. Pure: rows in, findings out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Final, NamedTuple

import msgspec

from nodeagent.market.model.rows import TradeRow

NAMED_MAX: Final = 5
"""Differences listed one by one, per product; the rest are counted."""
RUN_HOLE_MAX: Final = 1_000
"""Ids further apart than this are asked for in two questions."""


class Seen(NamedTuple):
    """What two trades of one id must agree on. Times in microseconds, which is what the table keeps."""

    price: Decimal
    size: Decimal
    side: str
    ts_us: int


class Difference(msgspec.Struct, frozen=True):
    """One trade that is not as it should be; texts for people."""

    trade_id: int
    what: str
    """`lacking`, `differing` or `twice`."""
    captured: str
    stored: str


class Findings(msgspec.Struct):
    """What comparing the trades of a product has shown so far."""

    captured: int = 0
    stored: int = 0
    lacking: int = 0
    """Captured, and not stored."""
    differing: int = 0
    """Stored with another price, size, side or time."""
    twice: int = 0
    """Ids stored more than once."""
    differences: list[Difference] = []
    """The first few."""

    def compare(self, captured: Mapping[int, Seen], stored: Mapping[int, list[Seen]]) -> None:
        """Take the next trades. `stored` may hold ids that were not captured: these are no fault."""
        for trade_id, seen in captured.items():
            self.captured += 1
            rows = stored.get(trade_id, [])
            self.stored += len(rows)
            if not rows:
                self.lacking += 1
                self._name(trade_id, "lacking", seen, [])
            elif len(rows) > 1:
                self.twice += 1
                self._name(trade_id, "twice", seen, rows)
            elif rows[0] != seen:
                self.differing += 1
                self._name(trade_id, "differing", seen, rows)

    @property
    def is_good(self) -> bool:
        """Nothing to name."""
        return not (self.lacking or self.differing or self.twice)

    def _name(self, trade_id: int, what: str, seen: Seen, rows: list[Seen]) -> None:
        if len(self.differences) < NAMED_MAX:
            stored = "; ".join(in_words(one) for one in rows)
            self.differences.append(Difference(trade_id, what, in_words(seen), stored))


def seen_of(row: TradeRow) -> Seen:
    """A row as the table keeps it."""
    return Seen(row.price, row.size, row.aggressor_side, row.ts_ns // 1000)


def in_words(seen: Seen) -> str:
    """For people: `buy 0.5 at 100.25, 2026-07-07T00:00:00.000000Z`."""
    return f"{seen.side} {_plain(seen.size)} at {_plain(seen.price)}, {utc_text(seen.ts_us)}"


def utc_text(us: int) -> str:
    """Microseconds since the epoch as the farm writes times."""
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=us)
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")


def runs(ids: Iterable[int]) -> Iterator[tuple[int, int]]:
    """Ranges that cover these ids and little else, ascending."""
    first = last = -1
    for trade_id in sorted(ids):
        if first >= 0 and trade_id - last > RUN_HOLE_MAX:
            yield first, last
            first = -1
        if first < 0:
            first = trade_id
        last = trade_id
    if first >= 0:
        yield first, last


def _plain(number: Decimal) -> str:
    return f"{number.normalize():f}" if number else "0"
