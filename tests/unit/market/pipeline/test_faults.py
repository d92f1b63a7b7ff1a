"""Faults in ten thousand frames: each one found and named, none imagined, everything whole again at the end."""

from __future__ import annotations

import random
from collections.abc import Iterator
from decimal import Decimal

import pytest

from nodeagent.market.model.decimals import to_decimal
from nodeagent.market.model.events import GapKind, Reject
from nodeagent.market.model.records import Record
from nodeagent.market.model.rows import GapRow, HealthRow, Row, TradeRow
from nodeagent.market.pipeline.pipeline import Pipeline
from nodeagent.market.pipeline.state import PipelineSettings
from nodeagent.market.venues.coinbase_advanced.source import CoinbaseAdvanced
from tests.unit.market.venue import PRODUCTS, Venue

FRAMES = 10_000
FAULTS = ("drop", "duplicate", "reorder", "corrupt", "truncate")


class Run:
    """A venue, a line that may lose and damage frames, and a feed that asks for what it misses."""

    def __init__(self, seed: int, fault_every: int) -> None:
        self.venue = Venue(seed)
        self.chance = random.Random(seed + 1)
        self.pipeline = Pipeline(CoinbaseAdvanced(), PRODUCTS, settings=PipelineSettings(book_check_interval_s=0))
        self.rows: list[Row] = []
        self.rejects: list[Reject] = []
        self.injected: list[tuple[str, int]] = []
        """(fault, sequence number of the frame it struck)"""
        self._fault_every = fault_every
        self._feed(self.venue.connected())
        for frame in self.venue.opening():
            self._feed(self.venue.received(frame))

    def go(self, frames: int) -> None:
        """Let the venue speak, and answer the feed's questions between frames."""
        for count in range(frames // 2):
            for record in self._line(count):
                self._feed(record)
            if count % 20 == 19:
                self.repair()

    def repair(self) -> None:
        """Put the feed's questions to the venue, undisturbed."""
        for question in self.pipeline.due(self.venue.now_ns + 1):
            for record in self.venue.answer(question):
                self._feed(record)

    def _line(self, count: int) -> Iterator[Record]:
        """Two frames, perhaps with a fault in the first."""
        sequence = self.venue.sequence
        first = self.venue.received(self.venue.next_frame())
        second = self.venue.received(self.venue.next_frame())
        fault = self.chance.choice(FAULTS) if self._fault_every and count % self._fault_every == 1 else ""
        if fault:
            self.injected.append((fault, sequence))
        if fault == "reorder":
            return iter((second, _with(first, first.payload, second)))
        if fault == "drop":
            return iter((second,))
        if fault == "duplicate":
            return iter((first, first, second))
        if fault == "corrupt":
            payload = bytearray(first.payload)
            payload[self.chance.randrange(len(payload))] = self.chance.choice((0, 7, 0xFF))
            return iter((_with(first, bytes(payload)), second))
        if fault == "truncate":
            return iter((_with(first, first.payload[: self.chance.randrange(len(first.payload))]), second))
        return iter((first, second))

    def _feed(self, record: Record) -> None:
        out = self.pipeline.feed(record)
        self.rows += out.rows
        self.rejects += out.rejects


def _with(record: Record, payload: bytes, later: Record | None = None) -> Record:
    at_ns = later.received_at_ns if later else record.received_at_ns
    return Record(record.kind, record.connection_id, at_ns, at_ns, payload)


def gaps_of(rows: list[Row], kind: GapKind) -> list[GapRow]:
    """The rows that report a gap of this kind when found (not when repaired), duplicates and late frames included."""
    by_key = {(r.ts_ns, r.product, r.first_id, r.last_id): r for r in rows if isinstance(r, GapRow) and r.kind == kind}
    return list(by_key.values())


@pytest.mark.parametrize("seed", [1, 2])
def test_every_injected_fault_is_found_and_none_imagined(seed: int) -> None:
    run = Run(seed, fault_every=25)
    run.go(FRAMES)
    assert len(run.injected) == FRAMES // 50
    assert {fault for fault, _ in run.injected} == set(FAULTS)

    holes = {row.first_id for row in gaps_of(run.rows, GapKind.CONNECTION_SEQUENCE)}
    duplicates = {row.first_id for row in gaps_of(run.rows, GapKind.DUPLICATE)}
    late = {row.first_id for row in gaps_of(run.rows, GapKind.OUT_OF_ORDER)}
    struck = {fault: {sequence for f, sequence in run.injected if f == fault} for fault in FAULTS}

    assert duplicates == struck["duplicate"]
    assert late == struck["reorder"]
    damaged = struck["corrupt"] | struck["truncate"]
    assert len(run.rejects) == len(damaged)
    assert struck["drop"] | struck["reorder"] <= holes <= struck["drop"] | struck["reorder"] | damaged


@pytest.mark.parametrize("seed", [4])
def test_holes_are_repaired_until_trades_and_books_are_true(seed: int) -> None:
    run = Run(seed, fault_every=25)
    run.go(FRAMES)
    for _ in range(40):  # no more faults: the open questions are answered, their backoff passed
        run.venue.now_ns += 30_000_000_000
        run._feed(run.venue.received(run.venue.next_frame()))
        run.repair()

    for product in PRODUCTS:
        stored = [row for row in run.rows if isinstance(row, TradeRow) and row.product == product]
        sent = {int(t["trade_id"]): (Decimal(t["price"]), Decimal(t["size"])) for t in run.venue.trades[product]}
        assert len(stored) == len({row.trade_id for row in stored}), "no trade twice"
        assert {row.trade_id: (row.price, row.size) for row in stored} == sent
        assert run.pipeline.state.products[product].ledger.missing.total() == 0
        state = run.pipeline.state.connections[1].books[product]
        assert state.is_synced
        assert {to_decimal(p): to_decimal(s) for p, s in state.book.bids.items()} == run.venue.books[product]["bid"]
        assert {to_decimal(p): to_decimal(s) for p, s in state.book.asks.items()} == run.venue.books[product]["offer"]
    gaps = [row for row in run.rows if isinstance(row, GapRow)]
    last = {(g.ts_ns, g.kind, g.product, g.first_id, g.last_id): g for g in gaps}
    assert gaps
    assert all(gap.repaired_at_ns is not None for gap in last.values())


def test_clean_stream_raises_no_alarm() -> None:
    run = Run(6, fault_every=0)
    run.go(FRAMES)
    assert not run.rejects
    assert not [row for row in run.rows if isinstance(row, GapRow)]
    health = [row for row in run.rows if isinstance(row, HealthRow)]
    assert health
    assert all(row.is_good for row in health)
