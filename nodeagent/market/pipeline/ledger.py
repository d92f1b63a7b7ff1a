"""The gap ledger: what was received, what is missing, which question would bring it.

Two kinds of numbers are watched. `SequenceLedger`: every frame of one connection bears the next number.
`TradeLedger`: every trade of one product bears the next id; a heartbeat may say which was the last. A number counts
once: it is new, it fills a hole, or it is a duplicate. Holes stay until filled or given up, and each knows when to
ask again. Pure: receipt times are arguments, requests are answers.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

import msgspec

from agentfarm.backoff import longest_s
from nodeagent.market.model.intervals import Intervals
from nodeagent.market.model.source import TradeHole
from nodeagent.market.model.times import NS

HOLES_MAX: Final = 10_000
"""Holes remembered per ledger; beyond it the oldest is given up, and counted."""
ID_JUMP_MAX: Final = 50_000_000
"""A trade id further ahead than this is damage, not a gap: the busiest product needs a month for so many."""
REPAIR_DELAY_NS: Final = NS // 2
"""A snapshot or late frame often fills a hole at once; ask the venue only after this."""
REPAIR_BACKOFF_NS: Final = 2 * NS
REPAIR_BACKOFF_MAX_NS: Final = 120 * NS
RESUME_HOLE_MAX: Final = 50_000
"""An open hole further back than so many trades is a fact in feed_gap: no later ledger looks for it."""
REPAIR_ATTEMPTS_MAX: Final = 40
"""Then the hole stays as a fact in feed_gap: the venue does not have those trades."""


class Seen(Enum):
    """What a number turned out to be."""

    NEW = "new"
    FILLS = "fills"
    """It was missing."""
    DUPLICATE = "duplicate"
    OLDER = "older"
    """From before the first one we ever saw: not missed, not wanted."""
    IMPLAUSIBLE = "implausible"


class SequenceLedger:
    """The frame numbers of one connection. `expected` is the next number, or None when the start was not seen."""

    __slots__ = ("expected", "missing")

    def __init__(self, expected: int | None = 0) -> None:
        self.expected = expected
        self.missing = Intervals()

    def observe(self, sequence: int) -> tuple[Seen, tuple[int, int] | None]:
        """Take the next frame's number. Returns what it is, and the hole [first, last] it opened, if any."""
        if self.expected is None or sequence == self.expected:
            self.expected = sequence + 1
            return Seen.NEW, None
        if sequence > self.expected:
            hole = (self.expected, sequence - 1)
            if len(self.missing) >= HOLES_MAX:
                self.missing.drop_oldest()
            self.missing.append(*hole)
            self.expected = sequence + 1
            return Seen.NEW, hole
        return (Seen.FILLS if self.missing.remove(sequence) else Seen.DUPLICATE), None


class _Repair(msgspec.Struct):
    """One hole's progress."""

    hole: TradeHole
    next_ask_ns: int
    attempts: int = 0


class LedgerState(msgspec.Struct, frozen=True, omit_defaults=True):
    """A trade ledger as it stood at some record. A later ledger continues from it."""

    first_id: int = -1
    last_id: int = -1
    last_ns: int = 0
    missing: tuple[tuple[int, int], ...] = ()
    holes: tuple[TradeHole, ...] = ()
    """Those with a repair under way."""
    given_up_to: int = -1
    announced_id: int = -1
    announced_ns: int = 0
    floor_id: int = -1
    """The oldest trade ever seen. Where the first trade of a later reading is newer, what lies between is gone."""


class TradeLedger:
    """The trade ids of one product, over all connections and REST pages of a feed."""

    __slots__ = (
        "_announced_id",
        "_announced_ns",
        "_floor_id",
        "_repairs",
        "first_id",
        "given_up_to",
        "last_id",
        "last_ns",
        "missing",
        "product",
    )

    def __init__(self, product: str, earlier: LedgerState | None = None) -> None:
        """`earlier`: where to continue. It then notices what passed meanwhile and still looks for old holes."""
        earlier = earlier or LedgerState()
        self.product = product
        self.first_id = earlier.first_id
        self.last_id = earlier.last_id
        self.last_ns = earlier.last_ns
        """Venue time of the newest trade."""
        self.missing = Intervals()
        self.given_up_to = earlier.given_up_to
        """The ledger looks for no hole up to this id: they are neither missing nor repaired."""
        for first, last in earlier.missing:
            if first > self.last_id - RESUME_HOLE_MAX:
                self.missing.append(first, last)
            else:
                self.given_up_to = last
        self._repairs = [_Repair(hole, 0) for hole in earlier.holes]
        self._announced_id = earlier.announced_id
        self._announced_ns = earlier.announced_ns
        self._floor_id = earlier.floor_id

    def observe(self, trade_id: int, time_ns: int, now_ns: int) -> tuple[Seen, TradeHole | None]:
        """Take a trade's id. Returns what it is, and the hole it showed, if any."""
        if self.last_id < 0:
            self.first_id = self.last_id = trade_id
            self.last_ns = time_ns
            return Seen.NEW, self._gone_before(trade_id)
        if trade_id == self.last_id + 1:
            self.last_id = trade_id
            self.last_ns = time_ns
            return Seen.NEW, None
        if trade_id <= self.last_id:
            if trade_id < self.first_id:
                return Seen.OLDER, None
            return (Seen.FILLS if self.missing.remove(trade_id) else Seen.DUPLICATE), None
        if trade_id - self.last_id > ID_JUMP_MAX:
            return Seen.IMPLAUSIBLE, None
        hole = self._open(trade_id - 1, time_ns, now_ns)
        self.last_id = trade_id
        self.last_ns = time_ns
        return Seen.NEW, hole

    def announce(self, last_trade_id: int, time_ns: int, now_ns: int) -> TradeHole | None:
        """Take the newest trade that a heartbeat names. Returns the hole that is now certain, if any.

        The trade itself may still be under way when the beat arrives, so a hole is certain only at a later beat. (Two
        connections bring each beat twice: the same time is the same beat.)
        """
        if time_ns <= self._announced_ns:
            return None
        hole = None
        if 0 <= self.last_id < self._announced_id <= self.last_id + ID_JUMP_MAX:
            hole = self._open(self._announced_id, self._announced_ns, now_ns)
            self.last_id = self._announced_id
            self.last_ns = self._announced_ns
        self._announced_id = last_trade_id
        self._announced_ns = time_ns
        return hole

    def state(self) -> LedgerState:
        """The ledger as it stands. A later ledger can continue from it."""
        return LedgerState(
            first_id=self.first_id,
            last_id=self.last_id,
            last_ns=self.last_ns,
            missing=tuple(self.missing),
            holes=tuple(repair.hole for repair in self._repairs if self.is_missing(repair.hole)),
            given_up_to=self.given_up_to,
            announced_id=self._announced_id,
            announced_ns=self._announced_ns,
            floor_id=self._floor_id,
        )

    def start_state(self) -> LedgerState:
        """For a ledger that reads the whole capture again: with the oldest trade, so that it notices what is gone."""
        ids = [trade_id for trade_id in (self.first_id, self._floor_id) if trade_id >= 0]
        return LedgerState(floor_id=min(ids, default=-1))

    def is_missing(self, hole: TradeHole) -> bool:
        """Whether any trade of the hole is still missing."""
        return self.missing.overlaps(hole.first_id, hole.last_id)

    def due(self, now_ns: int) -> list[TradeHole]:
        """The holes to ask the venue about now; asking counts as an attempt and moves the next one back."""
        holes = []
        self._repairs = [repair for repair in self._repairs if self.is_missing(repair.hole)]
        for repair in self._repairs:
            wait_left_ns = repair.next_ask_ns - now_ns
            is_due = wait_left_ns <= 0 or wait_left_ns > REPAIR_BACKOFF_MAX_NS  # the latter: the clock went back
            if is_due and repair.attempts < REPAIR_ATTEMPTS_MAX:
                holes.append(repair.hole)
                repair.attempts += 1
                wait_ns = int(longest_s(repair.attempts, REPAIR_BACKOFF_NS, REPAIR_BACKOFF_MAX_NS))
                repair.next_ask_ns = now_ns + wait_ns
        return holes

    def _open(self, last_missing_id: int, before_ns: int, now_ns: int) -> TradeHole:
        hole = TradeHole(self.product, self.last_id + 1, last_missing_id, self.last_ns, before_ns)
        if len(self.missing) >= HOLES_MAX:
            _, self.given_up_to = self.missing.drop_oldest()
        self.missing.append(hole.first_id, hole.last_id)
        self._repairs.append(_Repair(hole, now_ns + REPAIR_DELAY_NS))
        return hole

    def _gone_before(self, trade_id: int) -> TradeHole | None:
        """What lies before the first trade that is left of a recording. A fact: no question can bring it back."""
        if not 0 <= self._floor_id < trade_id:
            return None
        self.given_up_to = trade_id - 1
        return TradeHole(self.product, self._floor_id, trade_id - 1)
