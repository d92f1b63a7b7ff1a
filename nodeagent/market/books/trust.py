"""One product's book on one connection, and whether it can be trusted.

A book is *synced* from a snapshot on, until something makes it doubtful: a lost or late frame, an unreadable level, a
crossed best price, a difference from the venue's own answer. Then it waits for a new snapshot. The feed asks for that
snapshot with backoff.
"""

from __future__ import annotations

from typing import Final

import msgspec

from agentfarm.backoff import longest_s
from nodeagent.market.books.levels import Applied, Book
from nodeagent.market.books.orders import OrdersBook
from nodeagent.market.model.events import BookDelta, BookSnapshot, GapKind
from nodeagent.market.model.rows import GapRow
from nodeagent.market.model.times import NS

FIRST_SNAPSHOT_WITHIN_NS: Final = 15 * NS
RESYNC_BACKOFF_NS: Final = 5 * NS
RESYNC_BACKOFF_MAX_NS: Final = 300 * NS
STEADY_NS: Final = 60 * NS
"""A book that stayed synced this long starts again with the shortest backoff."""
PENDING_MAX: Final = 20_000
"""Deltas kept while a REST snapshot is awaited (venues with numbered deltas)."""


class Fault(msgspec.Struct, frozen=True):
    """Why a book is in doubt. [first_id, last_id] are the missing numbers where `kind` has any."""

    kind: GapKind
    first_id: int = 0
    last_id: int = 0


class BookState:
    """The book, its numbers, and when to ask for a snapshot."""

    __slots__ = (
        "_attempts",
        "_synced_at_ns",
        "book",
        "connection_id",
        "is_changed",
        "is_synced",
        "mismatches",
        "next_ask_ns",
        "next_check_ns",
        "open_gap",
        "orders",
        "pending",
        "product",
        "update_id",
    )

    def __init__(self, product: str, connection_id: int, opened_at_ns: int) -> None:
        self.product = product
        self.connection_id = connection_id
        self.book = Book()
        self.orders: OrdersBook | None = None
        self.is_synced = False
        self.is_changed = False
        """Since its last row."""
        self.update_id = -1
        self.pending: list[BookDelta] = []
        self.open_gap: GapRow | None = None
        self.mismatches = 0
        self.next_ask_ns = opened_at_ns + FIRST_SNAPSHOT_WITHIN_NS
        self.next_check_ns = 0
        self._attempts = 0
        self._synced_at_ns = 0

    @property
    def levels(self) -> Book:
        """The L2 book, whether kept as such or added up from orders."""
        return self.book if self.orders is None else self.orders.levels

    def follow_orders(self) -> OrdersBook:
        """Keep an L3 book from now on, and return it."""
        if self.orders is None:
            self.orders = OrdersBook()
        return self.orders

    def doubt(self, now_ns: int) -> None:
        """Stop trusting the book. The feed asks for a snapshot, at once if it was steady, else after a backoff."""
        if self.is_synced and now_ns - self._synced_at_ns >= STEADY_NS:
            self._attempts = 0
        if self.is_synced:
            self.next_ask_ns = now_ns + self._backoff_ns()
        self.is_synced = False
        if self.orders is not None:
            self.orders.doubt()

    @property
    def was_synced(self) -> bool:
        """Whether the book was trusted at any time."""
        return self._synced_at_ns > 0

    def asked(self, now_ns: int) -> None:
        """The feed has asked for a snapshot."""
        self._attempts += 1
        self.next_ask_ns = now_ns + self._backoff_ns()

    def is_ask_due(self, now_ns: int) -> bool:
        """Whether to ask for a snapshot now. (A wait beyond the longest means that the clock went back.)"""
        wait_ns = self.next_ask_ns - now_ns
        return not self.is_synced and (wait_ns <= 0 or wait_ns > RESYNC_BACKOFF_MAX_NS)

    def synced(self, now_ns: int) -> None:
        """The book is a snapshot's now, and trusted."""
        self.is_synced = True
        self.is_changed = True
        self.mismatches = 0
        self._synced_at_ns = now_ns

    def replace(self, snapshot: BookSnapshot, now_ns: int) -> Fault | None:
        """Take a snapshot, then the numbered deltas that waited for it. Returns what puts the book in doubt, if any.

        A snapshot that the deltas do not follow is too old: the book ignores it, and the deltas wait for the next one.
        """
        if hole := self._hole_after(snapshot.last_update_id):
            return Fault(GapKind.BOOK_SEQUENCE, *hole)
        self.book.replace(snapshot)
        self.update_id = snapshot.last_update_id
        self.synced(now_ns)
        if self.book.is_crossed():
            return Fault(GapKind.CROSSED_BOOK)
        pending, self.pending = self.pending, []
        for delta in pending:
            fault = self.apply(delta)
            if fault is not None:
                return fault
        return None

    def apply(self, delta: BookDelta) -> Fault | None:
        """Take a delta. Returns what puts the book in doubt, if anything."""
        if delta.last_update_id >= 0:
            is_next, fault = self._is_next(delta)
            if not is_next:
                return fault
        applied = self.book.apply(delta.changes)
        self.is_changed = True
        if applied is Applied.FINE:
            return None
        return Fault(GapKind.CROSSED_BOOK if applied is Applied.CROSSED else GapKind.REJECTED_LEVEL)

    def _is_next(self, delta: BookDelta) -> tuple[bool, Fault | None]:
        """Whether to apply a numbered delta now, and the hole before it, if there is one.

        Numbered deltas wait for their REST snapshot and then join without overlap (rule of Binance: drop `u` <= the
        snapshot's id; the first taken has `U` <= id + 1 <= `u`; each next `U` is the last `u` + 1).
        """
        if not self.is_synced:
            if len(self.pending) >= PENDING_MAX:
                self.pending.clear()
            self.pending.append(delta)
            return False, None
        if delta.last_update_id <= self.update_id:
            return False, None
        if delta.first_update_id > self.update_id + 1:
            self.pending.append(delta)
            return False, Fault(GapKind.BOOK_SEQUENCE, self.update_id + 1, delta.first_update_id - 1)
        self.update_id = delta.last_update_id
        return True, None

    def _hole_after(self, update_id: int) -> tuple[int, int] | None:
        """Forget the waiting deltas up to that number, and put the others in order. Returns the first hole before or
        among them, if any; the deltas before the hole are of no use and go too."""
        waiting = [delta for delta in self.pending if delta.last_update_id > update_id]
        waiting.sort(key=lambda delta: delta.first_update_id)
        self.pending = waiting
        for number, delta in enumerate(waiting):
            if delta.first_update_id > update_id + 1:
                self.pending = waiting[number:]
                return update_id + 1, delta.first_update_id - 1
            update_id = max(update_id, delta.last_update_id)
        return None

    def _backoff_ns(self) -> int:
        """No wait before the first question, then a doubling one."""
        return int(longest_s(self._attempts, RESYNC_BACKOFF_NS, RESYNC_BACKOFF_MAX_NS))
