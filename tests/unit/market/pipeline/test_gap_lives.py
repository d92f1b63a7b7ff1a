"""A gap has one row from its beginning to its end, whatever happens to the feed in between."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from nodeagent.market.model.events import GapKind
from nodeagent.market.model.records import Record, RecordKind
from nodeagent.market.model.rows import GapRow, HealthRow, Row
from nodeagent.market.model.times import NS
from nodeagent.market.pipeline.ledger import RESUME_HOLE_MAX
from nodeagent.market.pipeline.pipeline import Pipeline
from nodeagent.market.pipeline.state import Memory
from nodeagent.market.venues.coinbase_advanced.source import CoinbaseAdvanced
from nodeagent.market.venues.coinbase_exchange.source import CoinbaseExchange
from tests.unit.market.line import Line, exchange, page
from tests.unit.market.pipeline.test_following import follow
from tests.unit.market.pipeline.test_pipeline_advanced import advanced

PRODUCTS = ("BTC-USD", "ETH-USD")


def as_saved(memory: Memory) -> Memory:
    """Through a file and back."""
    return msgspec.json.decode(msgspec.json.encode(memory), type=Memory)


def begun_again(line: Line) -> Line:
    """Another process goes on where this one was killed, without a place near enough to know its connection."""
    memory = as_saved(line.pipeline.state.memory())
    again = Line(line.source, memory.products, memory=memory)
    again.now_ns = line.now_ns + 60 * NS
    return again


def lives(rows: list[Row]) -> dict[tuple[Any, ...], int | None]:
    """When each gap was repaired, as the table tells it: the last row of a key counts."""
    gaps = [row for row in rows if isinstance(row, GapRow)]
    return {(row.ts_ns, row.product, row.kind, row.first_id, row.last_id): row.repaired_at_ns for row in gaps}


class _Recorder(Line):
    """Keeps the records of its story."""

    records: list[Record]

    def take(self, kind: RecordKind, payload: bytes, connection: int) -> Any:
        out = super().take(kind, payload, connection)
        self.records.append(Record(kind, connection, self.now_ns + 20_000_000, self.now_ns, payload))
        return out


def story() -> list[Record]:
    """Holes that open, close in part, are left, come back, and close."""
    line = _Recorder(CoinbaseExchange(), PRODUCTS)
    line.records = []
    line.connect(channels=("trades",))
    for product in PRODUCTS:
        line.send(line.match(100, product, type="last_match"))
    line.send(line.match(104, "ETH-USD"))
    line.send(line.match(110))
    eth, btc = sorted((asked for asked in line.due(after_s=1)), key=lambda asked: asked.last_id)
    line.answer(eth, page(line, 102))
    line.send(line.heartbeat(112))
    line.now_ns += 61 * NS
    line.send(line.heartbeat(112))
    follow(line, "BTC-USD")
    line.answer(btc, page(line, *range(90, 110)))
    line.send(line.match(113))
    follow(line, *PRODUCTS)
    line.send(line.match(109, "ETH-USD"))
    for asked in line.due(after_s=1):
        line.answer(asked, page(line, *range(asked.first_id, asked.last_id + 1)))
    line.send(line.match(114))
    return line.records


@pytest.mark.parametrize("cut", range(len(story())))
def test_one_who_goes_on_from_any_record_tells_the_same_gaps(cut: int) -> None:
    records = story()
    whole = Pipeline(CoinbaseExchange(), PRODUCTS)
    expected = lives([row for record in records for row in whole.feed(record).rows])
    first = Pipeline(CoinbaseExchange(), PRODUCTS)
    rows = [row for record in records[:cut] for row in first.feed(record).rows]
    memory = as_saved(first.state.memory())
    second = Pipeline(CoinbaseExchange(), memory.products, memory=memory)
    rows += [row for record in records[cut:] for row in second.feed(record).rows]
    assert len(expected) == 4
    assert None not in expected.values()
    assert lives(rows) == expected
    assert second.state.missing_trades() == 0


def counts_of(rows: list[Row]) -> list[tuple[int, str, int, int]]:
    minutes = [row for row in rows if isinstance(row, HealthRow)]
    return sorted((row.ts_ns, row.product, row.trades, row.gaps) for row in minutes)


def test_minutes_are_counted_whole_across_a_restart() -> None:
    records = story()
    whole = Pipeline(CoinbaseExchange(), PRODUCTS)
    minutes = counts_of([row for record in records for row in whole.feed(record).rows])
    assert len(minutes) == 3
    for cut in range(len(records)):
        first = Pipeline(CoinbaseExchange(), PRODUCTS)
        rows = [row for record in records[:cut] for row in first.feed(record).rows]
        second = Pipeline(CoinbaseExchange(), PRODUCTS, memory=as_saved(first.state.memory()))
        rows += [row for record in records[cut:] for row in second.feed(record).rows]
        assert counts_of(rows) == minutes


def test_a_hole_is_looked_for_again_after_a_restart_and_closes_its_own_row() -> None:
    line = exchange()
    line.send(line.match(104))
    (opened,) = line.gaps(GapKind.TRADE_ID)
    again = begun_again(line)
    (asked,) = again.due()
    assert (asked.first_id, asked.last_id) == (101, 103)
    again.answer(asked, page(again, 101, 102, 103))
    (closed,) = again.gaps(GapKind.TRADE_ID)
    assert closed.repaired_at_ns is not None
    assert lives([opened]).keys() == lives([closed]).keys()


def test_a_book_in_doubt_that_leaves_and_returns_closes_its_own_row() -> None:
    line = exchange()
    line.send(line.update(("buy", "150.00", "1"), product="ETH-USD"))
    follow(line, "BTC-USD")
    assert list(lives(line.rows).values()) == [None]
    line.send(line.snapshot("BTC-USD"))
    assert list(lives(line.rows).values()) == [None], "another product's book says nothing about it"
    follow(line, *PRODUCTS)
    line.send(line.snapshot("ETH-USD"))
    (repaired_at_ns,) = lives(line.rows).values()
    assert repaired_at_ns is not None


@pytest.mark.parametrize("returns_after_a_restart", [False, True])
def test_a_book_in_doubt_when_the_feed_was_killed_closes_its_own_row(returns_after_a_restart: bool) -> None:
    line = exchange()
    line.send(line.update(("buy", "150.00", "1"), product="ETH-USD"))
    if returns_after_a_restart:
        follow(line, "BTC-USD")
    again = begun_again(line)
    again.take(RecordKind.DISCONNECT, b"the process ended", 1)
    if returns_after_a_restart:
        follow(again, *PRODUCTS)
    again.connect(2)
    for product in PRODUCTS:
        again.send(again.snapshot(product), 2)
    ((key, repaired_at_ns),) = lives(line.rows + again.rows).items()
    assert key[1:3] == ("ETH-USD", "crossed_book")
    assert repaired_at_ns is not None


def test_lost_frames_of_a_killed_feed_are_one_row_until_all_books_are_trusted() -> None:
    line, venue = advanced()
    venue.next_frame()
    line.send(venue.next_frame())
    (opened,) = line.gaps(GapKind.CONNECTION_SEQUENCE)
    again = begun_again(line)
    again.connect(2)
    venue.sequence = 0
    for frame in venue.opening():
        again.send(frame, 2)
    (closed,) = again.gaps(GapKind.CONNECTION_SEQUENCE)
    assert (closed.ts_ns, closed.first_id, closed.last_id) == (opened.ts_ns, opened.first_id, opened.last_id)
    assert all(state.is_synced for state in again.pipeline.state.connections[2].books.values())


def test_a_product_that_the_venue_refuses_keeps_no_gap_of_the_connection_open() -> None:
    line, _ = advanced()
    state = line.pipeline.state.connections[1]
    state.subscriptions.asked(["ETH-USD"], line.now_ns)
    state.subscriptions.refused("ETH-USD is not a valid product", line.now_ns)
    state.books["ETH-USD"].doubt(line.now_ns)
    assert state.is_synced()
    state.books["BTC-USD"].doubt(line.now_ns)
    assert not state.is_synced()


def test_a_hole_too_far_back_stays_a_fact_and_is_not_called_repaired() -> None:
    line = exchange()
    line.send(line.match(105))
    line.send(line.match(103))
    line.pipeline.state.products["BTC-USD"].ledger.observe(105 + RESUME_HOLE_MAX, line.now_ns, line.now_ns)
    again = begun_again(line)
    product = again.pipeline.state.product("BTC-USD")
    assert product is not None
    assert list(product.ledger.missing) == [(106, 104 + RESUME_HOLE_MAX)]
    again.send(again.match(106))
    assert not [row for row in again.gaps(GapKind.TRADE_ID) if row.repaired_at_ns is not None]
    assert again.send(again.match(104)).rows == []


def test_what_no_capture_holds_any_more_is_an_open_gap_and_no_doubt() -> None:
    line = exchange()
    line.send(line.match(101))
    memory = as_saved(line.pipeline.state.memory_of_start())
    whole = Line(line.source, PRODUCTS, memory=memory)
    whole.connect()
    whole.send(whole.match(100))
    assert not whole.gaps(GapKind.TRADE_ID)
    cut = Line(line.source, PRODUCTS, memory=memory)
    cut.connect()
    for product in PRODUCTS:
        cut.send(cut.snapshot(product))
    cut.send(cut.match(150))
    (gone,) = cut.gaps(GapKind.TRADE_ID)
    assert (gone.first_id, gone.last_id, gone.repaired_at_ns) == (100, 149, None)
    assert cut.is_synced("BTC-USD")
    assert cut.pipeline.state.missing_trades() == 0
    assert cut.due(after_s=1) == []
    again = Line(line.source, PRODUCTS, memory=as_saved(cut.pipeline.state.memory_of_start()))
    again.connect()
    again.send(again.match(150))
    assert [(row.first_id, row.last_id) for row in again.gaps(GapKind.TRADE_ID)] == [(100, 149)], "however often"


def test_advanced_goes_on_from_a_file_of_its_knowledge() -> None:
    line, _ = advanced()
    assert as_saved(line.pipeline.state.memory()) == line.pipeline.state.memory()
    assert isinstance(line.source, CoinbaseAdvanced)
