"""Rows for QuestDB, one type per table: the contract with `nodeagent/market/store/schema`.

Owns names and meaning of tables and columns. Rows are a deterministic function of captured frames: the same capture
gives equal rows, so that writing them twice stores them once.

| row type | table | DEDUP UPSERT KEYS |
| --- | --- | --- |
| `TradeRow` | trades | ts, venue, product, trade_id |
| `TickerRow` | ticker | ts, source, product |
| `BookRow` | book | ts, source, product |
| `BookChangeRow` | book_change | ts, source, product, capture_record, change_index |
| `HealthRow` | feed_health | ts, source, product |
| `GapRow` | feed_gap | ts, source, product, kind, first_id, last_id |
| `NowRow` | feed_now | ts, source, product |

**The columns of a table are the fields of its row type, in order**; a field ending in `_ns` holds nanoseconds since the
epoch and is the column without that suffix. Column types: `ts` the designated timestamp (nanoseconds where the table
keeps them; Advanced Trade tickers carry them); `venue`, `product`, `source`, `side`, `aggressor_side`, `kind`, `state`
SYMBOL; other text VARCHAR; int LONG, float DOUBLE, bool BOOLEAN; prices, sizes and volumes DECIMAL(38,12), here
`Decimal`, or None when the venue gave none; `bids`, `asks` DOUBLE[][] of shape (2, n), prices then sizes, best first;
`received_at`, `repaired_at` timestamps (None while open).
"""

from __future__ import annotations

from decimal import Decimal
from typing import ClassVar, TypeAlias

import msgspec

Depth: TypeAlias = tuple[tuple[float, ...], tuple[float, ...]]
"""(prices, sizes), best first, equally long. Doubles: QuestDB's arrays know nothing else."""


class TradeRow(msgspec.Struct, frozen=True, gc=False):
    """A trade, once. A venue's trade id is unique per product; one in two trades shares its time with another."""

    table: ClassVar[str] = "trades"
    dedup_keys: ClassVar[tuple[str, ...]] = ("ts", "venue", "product", "trade_id")

    ts_ns: int
    venue: str
    product: str
    source: str
    aggressor_side: str
    """`buy` or `sell`: the side that took liquidity."""
    trade_id: int
    price: Decimal
    size: Decimal
    received_at_ns: int


class TickerRow(msgspec.Struct, frozen=True, gc=False):
    """Last price and best quotes; ts is the venue's time (of the envelope where the ticker has none)."""

    table: ClassVar[str] = "ticker"
    dedup_keys: ClassVar[tuple[str, ...]] = ("ts", "source", "product")

    ts_ns: int
    venue: str
    product: str
    source: str
    price: Decimal
    best_bid: Decimal | None
    best_bid_size: Decimal | None
    best_ask: Decimal | None
    best_ask_size: Decimal | None
    volume_24h: Decimal | None


class BookRow(msgspec.Struct, frozen=True, gc=False):
    """The best levels of a book as it stood at `ts`, a whole second of receipt time; written if it changed."""

    table: ClassVar[str] = "book"
    dedup_keys: ClassVar[tuple[str, ...]] = ("ts", "source", "product")

    ts_ns: int
    venue: str
    product: str
    source: str
    best_bid: Decimal | None
    best_ask: Decimal | None
    bids: Depth
    asks: Depth
    bid_levels: int
    """Levels of the whole side, not of the array."""
    ask_levels: int
    is_crossed: bool


class BookChangeRow(msgspec.Struct, frozen=True, gc=False):
    """One level change, on request only. (capture_record, change_index) numbers it within its source's capture."""

    table: ClassVar[str] = "book_change"
    dedup_keys: ClassVar[tuple[str, ...]] = ("ts", "source", "product", "capture_record", "change_index")

    ts_ns: int
    venue: str
    product: str
    source: str
    side: str
    """`buy` (bid) or `sell` (ask)."""
    price: Decimal
    size: Decimal
    """Absolute size now resting; 0: the level went."""
    capture_record: int
    change_index: int


class HealthRow(msgspec.Struct, frozen=True, gc=False):
    """How good a product's data was in the minute beginning at `ts`. Counts are of that minute alone."""

    table: ClassVar[str] = "feed_health"
    dedup_keys: ClassVar[tuple[str, ...]] = ("ts", "source", "product")

    ts_ns: int
    venue: str
    product: str
    source: str
    frames: int
    trades: int
    level_changes: int
    duplicates: int
    """Trades that came a second time."""
    rejected: int
    gaps: int
    """Holes opened."""
    repaired: int
    """Holes closed."""
    missing_trades: int
    """Trade ids known to be missing at the end of the minute."""
    crossed: int
    resyncs: int
    """Times a snapshot replaced the book."""
    absent_removals: int
    """Removals of levels that were not there: normal, counted."""
    unknown_types: int
    """Frames of unknown type on the connection."""
    skew_ms: float
    """Estimate of venue clock minus ours, from the fastest frames."""
    lag_ms: float
    """Mean of receipt minus venue time, corrected for skew."""
    is_good: bool
    """Book synchronised, no trade missing, nothing rejected at the end of the minute."""


class GapRow(msgspec.Struct, frozen=True, gc=False):
    """A hole at its discovery, and under the same key once more at its repair."""

    table: ClassVar[str] = "feed_gap"
    dedup_keys: ClassVar[tuple[str, ...]] = ("ts", "source", "product", "kind", "first_id", "last_id")

    ts_ns: int
    """Receipt time of the frame that showed it."""
    venue: str
    product: str
    """Empty: the whole connection."""
    source: str
    kind: str
    first_id: int
    last_id: int
    repaired_at_ns: int | None
    connection_id: int

    def repaired(self, now_ns: int) -> GapRow:
        """The same hole, closed at `now_ns`."""
        return GapRow(
            self.ts_ns,
            self.venue,
            self.product,
            self.source,
            self.kind,
            self.first_id,
            self.last_id,
            now_ns,
            self.connection_id,
        )


class NowRow(msgspec.Struct, frozen=True, gc=False):
    """How a product's data is at `ts`, a whole second of receipt time: for agents that act on it now."""

    table: ClassVar[str] = "feed_now"
    dedup_keys: ClassVar[tuple[str, ...]] = ("ts", "source", "product")

    ts_ns: int
    venue: str
    product: str
    source: str
    state: str
    """starting, good, doubtful, failed; gone: the feed does not follow it any more."""
    reason: str
    """For people; empty while good."""
    missing_trades: int
    last_trade_id: int
    """The newest known; -1 before the first."""
    lag_ms: float
    """Mean age at receipt of the newest events, corrected for skew."""


Row: TypeAlias = TradeRow | TickerRow | BookRow | BookChangeRow | HealthRow | GapRow | NowRow
ROW_TYPES: tuple[type[Row], ...] = (TradeRow, TickerRow, BookRow, BookChangeRow, HealthRow, GapRow, NowRow)
