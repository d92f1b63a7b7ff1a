"""The state of the venue: books, trades and the last ticker of each product. No protocol, no clock, no socket."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

from nodeagent.market.exchange.events import (
    Batch,
    BookBatch,
    Opening,
    Product,
    Side,
    TickerBatch,
    TradeBatch,
    VenueTrade,
    is_zero,
)


class Market:
    """One product."""

    def __init__(self, opening: Opening) -> None:
        self.product = opening.product
        self.sides: dict[Side, dict[str, str]] = {"bid": dict(opening.bids), "offer": dict(opening.asks)}
        self.trades = list(opening.trades)
        self.ticker = dict(opening.ticker)
        self.book_time_ns = opening.time_ns
        self.sequence = 1_000_000
        """The counter of Exchange's full feed: grows with everything, by more than one between what we show."""
        self.update_id = 5_000_000
        """Counts the changes of the book, as Binance does; that of the last one."""

    def levels(self, side: Side) -> list[tuple[str, str]]:
        """(price, size), best first."""
        return sorted(self.sides[side].items(), key=lambda level: Decimal(level[0]), reverse=side == "bid")

    def best(self, side: Side) -> tuple[str, str]:
        """The best level, or two zeros when the side is empty."""
        pick = max if side == "bid" else min
        if not self.sides[side]:
            return "0", "0"
        price = pick(self.sides[side], key=Decimal)
        return price, self.sides[side][price]

    def trades_before(self, trade_id: int | None, limit: int) -> list[VenueTrade]:
        """Up to `limit` trades with ids below `trade_id` (None: the newest), newest first."""
        older = self.trades if trade_id is None else [trade for trade in self.trades if trade.trade_id < trade_id]
        return older[-limit:][::-1]

    @property
    def last_trade_id(self) -> int:
        """0 before the first trade."""
        return self.trades[-1].trade_id if self.trades else 0

    def next_sequence(self) -> int:
        """A number of the full feed, of which this feed shows only some."""
        self.sequence += 3
        return self.sequence


class Venue:
    """All products."""

    def __init__(self, openings: Sequence[Opening]) -> None:
        self.markets = {opening.product.id: Market(opening) for opening in openings}

    @property
    def products(self) -> list[Product]:
        """In the order of opening."""
        return [market.product for market in self.markets.values()]

    def apply(self, batch: Batch) -> None:
        """Let it happen."""
        market = self.markets[batch.product]
        if isinstance(batch, BookBatch):
            market.book_time_ns = batch.time_ns or market.book_time_ns
            market.update_id += len(batch.changes)
            for side, price, size in batch.changes:
                if is_zero(size):
                    market.sides[side].pop(price, None)
                else:
                    market.sides[side][price] = size
        elif isinstance(batch, TradeBatch):
            market.trades.extend(batch.trades)
        else:
            assert isinstance(batch, TickerBatch)
            market.ticker = batch.fields
