"""What a feed knows of one product, over all its connections: trade ids, open holes, counts. Builds its rows."""

from __future__ import annotations

import msgspec

from nodeagent.market.books.levels import Book
from nodeagent.market.model.decimals import to_decimal
from nodeagent.market.model.events import ASK, BID, SCALE, BookDelta, GapKind, Side, Ticker, Trade
from nodeagent.market.model.rows import BookChangeRow, BookRow, Depth, GapRow, HealthRow, TickerRow, TradeRow
from nodeagent.market.model.times import MS_NS
from nodeagent.market.pipeline.ledger import LedgerState, TradeLedger

_SIDE_NAMES = {BID: Side.BUY.value, ASK: Side.SELL.value}


class Counts(msgspec.Struct, gc=False):
    """Facts of one product over some time; see `HealthRow` for their meaning."""

    frames: int = 0
    trades: int = 0
    level_changes: int = 0
    duplicates: int = 0
    rejected: int = 0
    gaps: int = 0
    repaired: int = 0
    crossed: int = 0
    resyncs: int = 0
    absent_removals: int = 0
    unknown_types: int = 0
    lag_sum_ns: int = 0
    lag_count: int = 0

    def add(self, other: Counts) -> None:
        """Sum another stretch of time into this one."""
        for name in self.__struct_fields__:
            setattr(self, name, getattr(self, name) + getattr(other, name))


class ProductState(msgspec.Struct, frozen=True, omit_defaults=True):
    """A product as it stood at some record. A later pipeline continues from it."""

    ledger: LedgerState = LedgerState()
    open_holes: tuple[GapRow, ...] = ()
    counts: Counts | None = None
    """Of the running minute; None: all are zero."""


class Product:
    """One product. `counts` are those of the running minute; `totals` holds the closed minutes."""

    __slots__ = (
        "_lag_before",
        "_lag_ms",
        "_last_frame",
        "counts",
        "ledger",
        "name",
        "open_holes",
        "source",
        "totals",
        "venue",
    )

    def __init__(self, name: str, venue: str, source: str, earlier: ProductState | None = None) -> None:
        """`earlier`: where to continue; None: from nothing."""
        earlier = earlier or ProductState()
        self.name = name
        self.venue = venue
        self.source = source
        self.ledger = TradeLedger(name, earlier.ledger)
        self.counts = msgspec.structs.replace(earlier.counts) if earlier.counts is not None else Counts()
        self.totals = Counts()
        self.open_holes = list(earlier.open_holes)
        self._last_frame = -1
        self._lag_before = (0, 0)
        self._lag_ms = 0.0

    def state(self) -> ProductState:
        """The product as it stands. A later pipeline can continue from it."""
        counts = msgspec.structs.replace(self.counts) if self.counts != Counts() else None
        return ProductState(self.ledger.state(), tuple(self.open_holes), counts)

    def saw_frame(self, frame_number: int) -> None:
        """Count a frame once, however many of its events are about this product."""
        if frame_number != self._last_frame:
            self._last_frame = frame_number
            self.counts.frames += 1

    def saw_lag(self, lag_ns: int) -> None:
        """Take a live event's age at receipt into the mean."""
        self.counts.lag_sum_ns += lag_ns
        self.counts.lag_count += 1

    @property
    def has_frames(self) -> bool:
        """Whether any frame was about it."""
        return self._last_frame >= 0

    def recent_lag_ms(self) -> float:
        """Mean age at receipt of the live events since the last call; the earlier mean where there were none."""
        total = (
            self.totals.lag_sum_ns + self.counts.lag_sum_ns,
            self.totals.lag_count + self.counts.lag_count,
        )
        count = total[1] - self._lag_before[1]
        if count > 0:
            self._lag_ms = (total[0] - self._lag_before[0]) / count / MS_NS
        self._lag_before = total
        return self._lag_ms

    def all_counts(self) -> Counts:
        """Closed minutes and the running one together."""
        counts = Counts()
        counts.add(self.totals)
        counts.add(self.counts)
        return counts

    def close_minute(self, minute_ns: int, skew_ns: int, *, is_synced: bool) -> HealthRow:
        """End the running minute. Returns its row; counting begins again at zero."""
        counts = self.counts
        self.totals.add(counts)
        self.counts = Counts()
        missing_trades = self.ledger.missing.total()
        return HealthRow(
            ts_ns=minute_ns,
            venue=self.venue,
            product=self.name,
            source=self.source,
            frames=counts.frames,
            trades=counts.trades,
            level_changes=counts.level_changes,
            duplicates=counts.duplicates,
            rejected=counts.rejected,
            gaps=counts.gaps,
            repaired=counts.repaired,
            missing_trades=missing_trades,
            crossed=counts.crossed,
            resyncs=counts.resyncs,
            absent_removals=counts.absent_removals,
            unknown_types=counts.unknown_types,
            skew_ms=skew_ns / MS_NS,
            lag_ms=counts.lag_sum_ns / counts.lag_count / MS_NS if counts.lag_count else 0.0,
            is_good=is_synced and not missing_trades and not counts.rejected and bool(counts.frames),
        )

    def trade_row(self, trade: Trade, now_ns: int) -> TradeRow:
        """The row of a trade received at `now_ns`."""
        return TradeRow(
            trade.time_ns,
            self.venue,
            self.name,
            self.source,
            trade.aggressor_side.value,
            trade.trade_id,
            to_decimal(trade.price),
            to_decimal(trade.size),
            now_ns,
        )

    def ticker_row(self, ticker: Ticker, ts_ns: int) -> TickerRow:
        """The row of a ticker."""
        numbers = (ticker.best_bid, ticker.best_bid_size, ticker.best_ask, ticker.best_ask_size, ticker.volume_24h)
        bid, bid_size, ask, ask_size, volume = [to_decimal(n) if n >= 0 else None for n in numbers]
        price = to_decimal(ticker.price)
        return TickerRow(ts_ns, self.venue, self.name, self.source, price, bid, bid_size, ask, ask_size, volume)

    def book_row(self, book: Book, ts_ns: int, depth: int) -> BookRow:
        """The row of the best `depth` levels as they stand."""
        best_bid = book.best_bid()
        best_ask = book.best_ask()
        return BookRow(
            ts_ns,
            self.venue,
            self.name,
            self.source,
            to_decimal(best_bid) if best_bid is not None else None,
            to_decimal(best_ask) if best_ask is not None else None,
            _doubles(book, BID, depth),
            _doubles(book, ASK, depth),
            len(book.bids),
            len(book.asks),
            book.is_crossed(),
        )

    def change_rows(self, delta: BookDelta, now_ns: int, position: int) -> list[BookChangeRow]:
        """A row per level change, numbered by the record it came in."""
        ts_ns = delta.time_ns or now_ns
        return [
            BookChangeRow(
                ts_ns,
                self.venue,
                self.name,
                self.source,
                _SIDE_NAMES[side],
                to_decimal(price),
                to_decimal(size),
                position,
                index,
            )
            for index, (side, price, size) in enumerate(delta.changes)
        ]

    def open_trade_hole(self, first_id: int, last_id: int, connection_id: int, now_ns: int) -> GapRow:
        """Note missing trades. Returns their row."""
        self.counts.gaps += 1
        row = GapRow(
            now_ns,
            self.venue,
            self.name,
            self.source,
            GapKind.TRADE_ID.value,
            first_id,
            last_id,
            None,
            connection_id,
        )
        self.open_holes.append(row)
        return row

    def close_filled_holes(self, now_ns: int) -> list[GapRow]:
        """The rows of the holes that are filled now, with their time of repair."""
        missing = self.ledger.missing
        still_open, filled = [], []
        for row in self.open_holes:
            if missing.overlaps(row.first_id, row.last_id):
                still_open.append(row)
            elif row.first_id > self.ledger.given_up_to:
                filled.append(row.repaired(now_ns))
        self.open_holes = still_open
        self.counts.repaired += len(filled)
        return filled


def _doubles(book: Book, side: int, depth: int) -> Depth:
    """The best levels as doubles, which is all that QuestDB's arrays hold; the nearest double of each number."""
    levels = book.top(side, depth)
    return tuple(price / SCALE for price, _ in levels), tuple(size / SCALE for _, size in levels)
