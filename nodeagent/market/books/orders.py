"""Level 3 order books: every resting order, and the L2 book they add up to.

Rule of the full channel (Coinbase Exchange documentation): queue messages, fetch the level 3 book over REST, drop
messages whose `sequence` is not above the book's, replay the rest; from then on every message is one more than the
last. `received` and `activate` rest nothing; `done` and `change` for unknown orders are normal and ignored.
"""

from __future__ import annotations

from typing import Final, TypeAlias

from nodeagent.market.books.levels import Book
from nodeagent.market.model.events import ASK, BID, BookSnapshot, OrderBook, OrderEvent, Side, Trade

PENDING_MAX: Final = 100_000
"""Messages kept while the REST book is awaited; beyond it we start over."""

FullEvent: TypeAlias = OrderEvent | Trade
"""What the full channel brings; a `Trade` fills its maker order."""


class OrdersBook:
    """One product's L3 book. `levels` is the L2 book of the same orders."""

    __slots__ = ("_orders", "_pending", "is_synced", "levels", "sequence", "unknown_orders")

    def __init__(self) -> None:
        self.levels = Book()
        self.is_synced = False
        self.sequence = -1
        self.unknown_orders = 0
        self._orders: dict[str, tuple[int, int, int]] = {}
        self._pending: list[FullEvent] = []

    def __len__(self) -> int:
        return len(self._orders)

    def replace(self, book: OrderBook) -> tuple[int, int] | None:
        """Start from a REST book and replay what waited. Returns the hole (first, last sequence) met, if any."""
        self._orders = {order_id: (side, price, size) for order_id, side, price, size in book.orders if size}
        bids: dict[int, int] = {}
        asks: dict[int, int] = {}
        for side, price, size in self._orders.values():
            levels = bids if side == BID else asks
            levels[price] = levels.get(price, 0) + size
        self.levels.replace(BookSnapshot(book.product, bids, asks, 0, book.sequence))
        self.sequence = book.sequence
        self.is_synced = True
        pending, self._pending = self._pending, []
        for event in pending:
            hole = self.apply(event)
            if hole is not None:
                return hole
        return None

    def apply(self, event: FullEvent) -> tuple[int, int] | None:
        """Take the next message. Returns the hole (first, last sequence) if it does not follow the last one."""
        if not self.is_synced:
            if len(self._pending) >= PENDING_MAX:
                self._pending.clear()
            self._pending.append(event)
            return None
        if event.sequence <= self.sequence:
            return None
        if event.sequence > self.sequence + 1:
            self.doubt()
            self._pending.append(event)
            return (self.sequence + 1, event.sequence - 1)
        self.sequence = event.sequence
        self._carry_out(event)
        return None

    def doubt(self) -> None:
        """The book may be wrong: wait for a new one, keeping the messages from here on."""
        self.is_synced = False

    def _carry_out(self, event: FullEvent) -> None:
        if isinstance(event, Trade):
            maker_side = BID if event.aggressor_side is Side.SELL else ASK
            self._reduce(event.maker_order_id, event.size, maker_side)
        elif event.kind == "open":
            self._rest(event.order_id, event.side, event.price, event.size)
        elif event.kind == "done":
            self._take_out(event.order_id)
        elif event.kind == "change":
            self._change(event)

    def _rest(self, order_id: str, side: int, price: int, size: int) -> None:
        self._take_out(order_id, is_known=False)
        if size:
            self._orders[order_id] = (side, price, size)
            self._add_to_level(side, price, size)

    def _take_out(self, order_id: str, *, is_known: bool = True) -> None:
        order = self._orders.pop(order_id, None)
        if order is not None:
            side, price, size = order
            self._add_to_level(side, price, -size)
        elif is_known:
            self.unknown_orders += 1

    def _reduce(self, order_id: str, size: int, side: int) -> None:
        order = self._orders.get(order_id)
        if order is None or order[0] != side:
            self.unknown_orders += 1
            return
        _, price, resting = order
        taken = min(size, resting)
        self._add_to_level(side, price, -taken)
        if taken == resting:
            del self._orders[order_id]
        else:
            self._orders[order_id] = (side, price, resting - taken)

    def _change(self, event: OrderEvent) -> None:
        order = self._orders.get(event.order_id)
        if order is None:
            self.unknown_orders += 1
            return
        self._rest(event.order_id, order[0], event.price or order[1], event.size)

    def _add_to_level(self, side: int, price: int, size: int) -> None:
        levels = self.levels.bids if side == BID else self.levels.asks
        self.levels.apply([(side, price, levels.get(price, 0) + size)])
