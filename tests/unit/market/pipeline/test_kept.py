"""A replay that begins where books were kept builds the rows that one from the connection's beginning builds."""

from __future__ import annotations

import json
from typing import Any

from nodeagent.market.books.kept import read
from nodeagent.market.model.records import Record, RecordKind
from nodeagent.market.model.rows import BookRow, Row
from nodeagent.market.model.source import Source
from nodeagent.market.model.times import NS
from nodeagent.market.pipeline.pipeline import Pipeline
from nodeagent.market.venues.coinbase_advanced.source import CoinbaseAdvanced
from nodeagent.market.venues.coinbase_exchange.source import CoinbaseExchange
from tests.unit.market.line import exchange
from tests.unit.market.pipeline.test_pipeline_advanced import advanced


def books(rows: list[Row]) -> list[BookRow]:
    return [row for row in rows if isinstance(row, BookRow)]


def kept_records(pipeline: Pipeline, at_ns: int) -> list[Record]:
    payloads = list(pipeline.state.connections[1].kept_books())
    said = [read(payload) for payload in payloads]
    assert [(each.is_first, each.is_last) for each in said if each] == [(True, False), (False, True)]
    return [Record(RecordKind.KEPT, 1, at_ns, at_ns, payload) for payload in payloads]


def rows_of(source: Source, records: list[Record]) -> list[Row]:
    pipeline = Pipeline(source, ("BTC-USD", "ETH-USD"))
    return [row for record in records for row in pipeline.feed(record).rows]


def after(now_ns: int, frames: list[bytes]) -> list[Record]:
    return [
        Record(RecordKind.RECEIVED, 1, now_ns + count * NS // 3, now_ns + count * NS // 3, frame)
        for count, frame in enumerate(frames)
    ]


def test_advanced_trade_goes_on_with_its_frame_numbers() -> None:
    line, venue = advanced()
    for _ in range(20):
        line.send(venue.next_frame())
    kept = kept_records(line.pipeline, line.now_ns)
    following = after(line.now_ns + NS, [_bytes(venue.next_frame()) for _ in range(60)])
    whole = [row for record in [*kept, *following] for row in line.pipeline.feed(record).rows]
    begun_here = rows_of(CoinbaseAdvanced(), [*kept, *following])
    # The second of the keeping itself ends with what came in it before.
    assert len(books(whole)) > 10
    assert books(begun_here)[-len(books(whole)) :] == books(whole)
    assert not [row for row in begun_here if row.table == "feed_gap"]


def test_exchange_goes_on_with_its_book() -> None:
    line = exchange()
    kept = kept_records(line.pipeline, line.now_ns)
    changes = [line.update(("buy", f"9{count % 8}.00", str(count + 1))) for count in range(12)]
    following = after(line.now_ns + NS, [json.dumps(change).encode() for change in changes])
    whole = [row for record in [*kept, *following] for row in line.pipeline.feed(record).rows]
    begun_here = rows_of(CoinbaseExchange(), [*kept, *following])
    assert books(whole)
    assert books(begun_here)[-len(books(whole)) :] == books(whole)
    without = rows_of(CoinbaseExchange(), following)
    assert not books(without), "this is what it was like before books were kept"


def test_a_book_in_doubt_is_not_kept_and_a_known_one_not_replaced() -> None:
    line = exchange()
    kept = kept_records(line.pipeline, line.now_ns)
    line.send(line.update(("buy", "98.00", "7")))
    before = dict(line.pipeline.state.connections[1].books["BTC-USD"].book.bids)
    for record in kept:
        assert line.pipeline.feed(record).rows == []
    assert line.pipeline.state.connections[1].books["BTC-USD"].book.bids == before
    line.send(line.update(("buy", "150.00", "1")))
    assert [each.product for payload in line.pipeline.state.connections[1].kept_books() if (each := read(payload))] == [
        "ETH-USD"
    ]


def test_a_damaged_payload_means_nothing() -> None:
    line = exchange()
    assert line.take(RecordKind.KEPT, b"{", 1).rows == []


def _bytes(frame: Any) -> bytes:
    return frame if isinstance(frame, bytes) else json.dumps(frame).encode()
