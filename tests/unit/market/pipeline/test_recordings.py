"""Every recording: the books and trades of the real path equal those of a plain Decimal replay."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from decimal import Decimal
from pathlib import Path

import pytest

from nodeagent.market.audit.inspect import inspect_file
from nodeagent.market.books.levels import Book, compare, is_mismatch
from nodeagent.market.capture.formats import open_recording
from nodeagent.market.model.decimals import scaled, to_decimal
from nodeagent.market.model.events import BookDelta, BookSnapshot, Heartbeat, Subscribed, Ticker, Trade
from nodeagent.market.model.records import RecordKind
from nodeagent.market.model.rows import BookRow, GapRow, HealthRow, Row, TickerRow, TradeRow
from nodeagent.market.model.slices import SLICE_BYTES
from nodeagent.market.model.source import Purpose, RestRequest
from nodeagent.market.model.times import to_iso
from nodeagent.market.pipeline.pipeline import Pipeline
from nodeagent.market.venues.coinbase_advanced.source import CoinbaseAdvanced
from nodeagent.market.venues.coinbase_exchange.source import CoinbaseExchange
from tests.unit.market import recordings as rec
from tests.unit.market.recordings import Plain, plain_frames, replay


def book_of(pipeline: Pipeline, product: str) -> Book:
    (connection,) = pipeline.state.connections.values()
    return connection.books[product].levels


def in_decimals(book: Book) -> rec.Book:
    return {
        "bids": {to_decimal(price): to_decimal(size) for price, size in book.bids.items()},
        "asks": {to_decimal(price): to_decimal(size) for price, size in book.asks.items()},
    }


def trades_of(rows: list[Row], product: str) -> dict[int, tuple[int, Decimal, Decimal, str, str]]:
    found = [row for row in rows if isinstance(row, TradeRow) and row.product == product]
    trades = {r.trade_id: (r.trade_id, r.price, r.size, r.aggressor_side, to_iso(r.ts_ns)[:26] + "Z") for r in found}
    assert len(trades) == len(found), "a trade came out twice"
    return trades


def micros(text: str) -> str:
    """`2026-08-09T21:05:38.50436Z` with all six digits."""
    whole, _, fraction = text.rstrip("Z").partition(".")
    return f"{whole}.{fraction:0<6}Z"


@pytest.mark.parametrize("name", [rec.ADVANCED, rec.EXCHANGE_2021, rec.EXCHANGE_2026])
def test_books_and_trades_equal_a_plain_decimal_replay(recordings: Path, name: str) -> None:
    plain = Plain()
    read = plain.advanced if name == rec.ADVANCED else plain.exchange
    for frame in plain_frames(recordings / name):
        read(frame)
    pipeline, rows = replay(recordings / name)

    assert plain.books.keys() == {p for p in pipeline.state.products if p in plain.books}
    for product, expected in plain.books.items():
        book = book_of(pipeline, product)
        assert in_decimals(book) == expected
        assert [to_decimal(p) for p, _ in book.top(0, 50)] == sorted(expected["bids"], reverse=True)[:50]
        assert [to_decimal(p) for p, _ in book.top(1, 50)] == sorted(expected["asks"])[:50]
    for product, expected_trades in plain.trades.items():
        wanted = {n: (*trade[:4], micros(trade[4])) for n, trade in expected_trades.items()}
        assert trades_of(rows, product) == wanted


@pytest.mark.parametrize(
    "name", [rec.ADVANCED, rec.ADVANCED_TICKER, rec.EXCHANGE_2021, rec.EXCHANGE_2026, rec.EXCHANGE_L3]
)
def test_clean_recording_raises_no_alarm(recordings: Path, name: str) -> None:
    pipeline, rows = replay(recordings / name)
    assert not [row for row in rows if isinstance(row, GapRow)]
    assert pipeline.state.sequence_gaps == pipeline.state.out_of_order == pipeline.state.duplicate_frames == 0
    assert pipeline.state.unreadable == 0
    assert not pipeline.state.unknown_types
    for product in pipeline.state.products.values():
        counts = product.all_counts()
        assert (counts.rejected, counts.crossed, counts.duplicates, counts.gaps) == (0, 0, 0, 0)
        assert product.ledger.missing.total() == 0


def test_l3_book_equals_the_recorded_expectation(recordings: Path) -> None:
    expected = json.loads((recordings / rec.EXCHANGE_L3_EXPECTED).read_text())
    pipeline, _ = replay(recordings / rec.EXCHANGE_L3)
    book = book_of(pipeline, "BTC-USD")
    for side, name in ((0, "bids"), (1, "asks")):
        ours = [[float(to_decimal(price)), float(to_decimal(size))] for price, size in book.top(side, 50)]
        assert ours == expected[name]
    (connection,) = pipeline.state.connections.values()
    orders = connection.books["BTC-USD"].orders
    assert orders is not None
    assert orders.is_synced
    assert orders.sequence == 760639339


def test_advanced_trade_facts(recordings: Path) -> None:
    """What the recording's description promises, seen through our parser."""
    source = CoinbaseAdvanced()
    frames = [r for r in open_recording(recordings / rec.ADVANCED).records if r.kind is RecordKind.RECEIVED]
    parsed = [source.parse(r.payload, r.received_at_ns) for r in frames]
    assert [p.sequence for p in parsed] == list(range(730))
    assert not any(p.rejects for p in parsed)
    kinds = Counter(type(event) for p in parsed for event in p.events)
    assert kinds[BookSnapshot] == 2
    assert kinds[BookDelta] == 544
    assert kinds[Trade] == 260
    assert kinds[Ticker] == 113
    assert kinds[Heartbeat] == 17
    assert kinds[Subscribed] == 5
    snapshots = [e for p in parsed for e in p.events if isinstance(e, BookSnapshot)]
    assert [len(s.bids) + len(s.asks) for s in snapshots] == [46_000, 23_334]
    first_snapshot = next(i for i, p in enumerate(parsed) if any(isinstance(e, Trade) for e in p.events))
    first_ack = next(i for i, p in enumerate(parsed) if any(isinstance(e, Subscribed) for e in p.events))
    assert first_snapshot < first_ack
    for p in parsed:
        ids = [e.trade_id for e in p.events if isinstance(e, Trade)]
        assert ids == sorted(ids), "trades leave the parser oldest first"


def test_exchange_facts(recordings: Path) -> None:
    pipeline, rows = replay(recordings / rec.EXCHANGE_2021)
    assert pipeline.state.frames == 9_946
    assert sum(p.all_counts().trades for p in pipeline.state.products.values()) == 97 + 10
    assert sum(isinstance(row, TickerRow) for row in rows) == 107
    pipeline, _ = replay(recordings / rec.EXCHANGE_2026)
    assert pipeline.state.frames == 86
    absent = {name: p.all_counts().absent_removals for name, p in pipeline.state.products.items()}
    assert min(absent.values()) > 0, "removing an absent level is normal, and counted"


def test_half_of_the_trades_share_their_time(recordings: Path) -> None:
    """So (ts, product) is no key, and (ts, venue, product, trade_id) is."""
    _, rows = replay(recordings / rec.ADVANCED)
    trades = [row for row in rows if isinstance(row, TradeRow)]
    times = Counter((row.ts_ns, row.product) for row in trades)
    assert any(count > 1 for count in times.values())
    keys = Counter((row.ts_ns, row.venue, row.product, row.trade_id) for row in trades)
    assert max(keys.values()) == 1


@pytest.mark.parametrize("name", [rec.ADVANCED, rec.EXCHANGE_2021])
def test_replaying_twice_gives_equal_rows_with_unique_keys(recordings: Path, name: str) -> None:
    _, first = replay(recordings / name)
    _, second = replay(recordings / name)
    assert first == second
    for row_type in (BookRow, HealthRow, TradeRow):
        rows = [row for row in first if isinstance(row, row_type)]
        fields = [field if field != "ts" else "ts_ns" for field in row_type.dedup_keys]
        keys = [tuple(getattr(row, field) for field in fields) for row in rows]
        assert rows
        assert len(set(keys)) == len(keys)


def test_big_snapshot_is_taken_in_slices(recordings: Path) -> None:
    record = max(
        (r for r in open_recording(recordings / rec.ADVANCED).records if r.kind is RecordKind.RECEIVED),
        key=lambda r: len(r.payload),
    )
    assert len(record.payload) > 5_000_000
    pipeline, slices = Pipeline(CoinbaseAdvanced(), ["BTC-USD"]), 0
    for _ in pipeline.steps(record):
        slices += 1
    assert slices > len(record.payload) // SLICE_BYTES - 1
    whole = Pipeline(CoinbaseAdvanced(), ["BTC-USD"])
    whole.feed(record)
    assert book_of(pipeline, "BTC-USD").bids == book_of(whole, "BTC-USD").bids
    assert book_of(pipeline, "BTC-USD").asks == book_of(whole, "BTC-USD").asks
    assert len(book_of(pipeline, "BTC-USD").bids) == 18_764


def test_rest_book_reads_and_compares(recordings: Path) -> None:
    body = gzip.decompress((recordings / rec.REST_BOOK).read_bytes())
    source = CoinbaseExchange()
    request = RestRequest(Purpose.BOOK_CHECK, "", "BTC-USD")
    answer = source.parse_book(request, body)
    assert (len(answer.bids), len(answer.asks)) == (15_221, 27_106)
    assert answer.last_update_id == 132236333487
    book = Book()
    book.replace(source.parse_book(request, body))
    assert compare(book, answer).differing == 0
    stale = [(0, price, 0) for price, _ in book.top(0, 2000)] + [(1, price, 0) for price, _ in book.top(1, 2000)]
    book.apply(stale)
    assert compare(book, answer).differing == 4000
    assert is_mismatch(compare(book, answer))


def test_product_rules_of_the_recordings(recordings: Path) -> None:
    with gzip.open(recordings / rec.PRODUCTS_2021, "rb") as file:
        body = file.readline().split(b": ", 1)[1]
    instruments = {i.product: i for i in CoinbaseExchange().parse_instruments(body)}
    assert instruments["SKL-EUR"].price_increment == scaled("0.0001")
    assert instruments["SKL-EUR"].size_increment == scaled("0.1")
    pipeline, _ = replay(recordings / rec.ADVANCED)
    assert pipeline.state.rules.tick("BTC-USD") == scaled("0.01")


def test_inspect_prints_what_the_recording_holds(recordings: Path) -> None:
    report = inspect_file(recordings / rec.ADVANCED)
    bitcoin, ether = report.products
    assert (bitcoin.trades, bitcoin.first_trade_id, bitcoin.last_trade_id) == (139, 1068571991, 1068572129)
    assert (ether.trades, ether.first_trade_id, ether.last_trade_id) == (121, 833140679, 833140799)
    assert (bitcoin.best_bid, bitcoin.best_ask) == ("65083.66", "65083.67")
    assert (bitcoin.bid_levels, bitcoin.ask_levels) == (18_768, 27_243)
