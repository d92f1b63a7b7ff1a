"""Stories of the pipeline: what happened on the line, what came out, what is asked of the venue."""

from __future__ import annotations

import json
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import pytest

from nodeagent.feed.decimals import scaled
from nodeagent.feed.events import GapKind, Instrument, RejectReason
from nodeagent.feed.pipeline import Pipeline
from nodeagent.feed.records import Record, RecordKind, RestAnswer
from nodeagent.feed.rows import BookChangeRow, BookRow, GapRow, HealthRow, Row, TradeRow
from nodeagent.feed.source import Channel, Purpose, RestRequest, Source, TradeHole
from nodeagent.feed.sources.binance import Binance
from nodeagent.feed.sources.coinbase_advanced import CoinbaseAdvanced
from nodeagent.feed.sources.coinbase_exchange import CoinbaseExchange
from nodeagent.feed.state import Output, PipelineSettings, Resubscribe
from nodeagent.feed.times import MINUTE_NS, MS_NS, NS, to_iso
from tests.unit.feed.venue import START_NS, Venue

RULES = {"BTC-USD": Instrument("BTC-USD", scaled("0.01"), scaled("0.00000001"))}


class Line:
    """A pipeline and a clock; what is sent arrives 20 ms later."""

    def __init__(self, source: Source, products: Sequence[str] | None = ("BTC-USD", "ETH-USD"), **options: Any) -> None:
        self.pipeline = Pipeline(source, products, **options)
        self.source = source
        self.now_ns = START_NS
        self.rows: list[Row] = []

    def connect(self, connection: int = 1, channels: tuple[str, ...] = ("trades", "book")) -> Output:
        products = sorted(self.pipeline.state.rules.products or ())
        opened = {"source": self.source.name, "url": "", "products": products, "channels": channels}
        return self.take(RecordKind.CONNECT, json.dumps(opened).encode(), connection)

    def send(self, message: dict[str, Any] | bytes, connection: int = 1) -> Output:
        payload = message if isinstance(message, bytes) else json.dumps(message).encode()
        return self.take(RecordKind.RECEIVED, payload, connection)

    def answer(self, request: RestRequest, body: Any, status: int = 200) -> Output:
        return self.take(RecordKind.REST, RestAnswer(request, status, json.dumps(body).encode()).encode(), 0)

    def take(self, kind: RecordKind, payload: bytes, connection: int) -> Output:
        self.now_ns += 10 * MS_NS
        out = self.pipeline.feed(Record(kind, connection, self.now_ns + 20 * MS_NS, self.now_ns, payload))
        self.rows += out.rows
        return out

    def due(self, after_s: float = 0.0) -> list[Any]:
        """Questions now, without the one for the product rules."""
        self.now_ns += int(after_s * NS)
        asked = self.pipeline.due(self.now_ns + 30 * MS_NS)
        return [a for a in asked if not (isinstance(a, RestRequest) and a.purpose is Purpose.INSTRUMENTS)]

    def gaps(self, kind: GapKind) -> list[GapRow]:
        return [row for row in self.rows if isinstance(row, GapRow) and row.kind == kind]

    def trade_ids(self, product: str = "BTC-USD") -> list[int]:
        return [row.trade_id for row in self.rows if isinstance(row, TradeRow) and row.product == product]

    def is_synced(self, product: str) -> bool:
        return self.pipeline.state.connections[1].books[product].is_synced

    # Exchange messages

    def match(self, trade_id: int, product: str = "BTC-USD", **fields: Any) -> dict[str, Any]:
        message = {"type": "match", "trade_id": trade_id, "side": "sell", "size": "0.5", "price": "100.00"}
        return message | {"product_id": product, "sequence": 1, "time": self.time()} | fields

    def snapshot(self, product: str = "BTC-USD") -> dict[str, Any]:
        book = {"bids": [["99.00", "1"], ["98.00", "2"]], "asks": [["101.00", "1"], ["102.00", "2"]]}
        return {"type": "snapshot", "product_id": product, "time": self.time(), **book}

    def update(self, *changes: tuple[str, str, str], product: str = "BTC-USD", **fields: Any) -> dict[str, Any]:
        return {"type": "l2update", "product_id": product, "changes": changes, "time": self.time()} | fields

    def heartbeat(self, last_trade_id: int) -> dict[str, Any]:
        message = {"type": "heartbeat", "last_trade_id": last_trade_id, "product_id": "BTC-USD", "sequence": 1}
        return message | {"time": self.time()}

    def time(self) -> str:
        return to_iso(self.now_ns)[:26] + "Z"


def exchange(**options: Any) -> Line:
    """Connected to Exchange, with a book of two products and a trade."""
    line = Line(CoinbaseExchange(), **options)
    line.connect()
    for product in ("BTC-USD", "ETH-USD"):
        line.send(line.snapshot(product))
        line.send(line.match(100, product, type="last_match"))
    return line


def page(line: Line, *ids: int) -> list[dict[str, Any]]:
    """A REST page of trades, newest first."""
    return [
        {"trade_id": n, "side": "buy", "size": "1", "price": "100.00", "time": line.time()}
        for n in sorted(ids, reverse=True)
    ]


def test_a_lost_trade_is_asked_for_filled_and_costs_only_its_own_book() -> None:
    line = exchange()
    line.send(line.match(104))
    assert [(g.first_id, g.last_id, g.repaired_at_ns) for g in line.gaps(GapKind.TRADE_ID)] == [(101, 103, None)]
    books = line.pipeline.state.connections[1].books
    assert not books["BTC-USD"].is_synced
    assert books["ETH-USD"].is_synced

    asked = line.due(after_s=1)
    (request,) = [a for a in asked if isinstance(a, RestRequest)]
    (again,) = [a for a in asked if isinstance(a, Resubscribe)]
    assert request.url == "https://api.exchange.coinbase.com/products/BTC-USD/trades?limit=1000&after=104"
    assert again == Resubscribe(1, ("BTC-USD",), (Channel.BOOK,))
    assert line.due() == [], "each question is put once"

    line.answer(request, page(line, *range(90, 104)))
    line.send(line.snapshot())
    assert line.trade_ids() == [100, 104, 101, 102, 103]
    assert line.pipeline.state.missing_trades() == 0
    assert line.gaps(GapKind.TRADE_ID)[-1].repaired_at_ns is not None
    assert line.is_synced("BTC-USD")
    assert not [a for a in line.due(after_s=600) if a.product == "BTC-USD" and a.purpose is not Purpose.BOOK_CHECK]


def test_a_hole_larger_than_a_page_is_followed_page_by_page() -> None:
    line = exchange()
    line.send(line.match(2_500))
    (request,) = [a for a in line.due(after_s=1) if isinstance(a, RestRequest)]
    pages = 0
    following: RestRequest | None = request
    while following is not None:
        after = int(following.url.rsplit("=", 1)[1])
        body = page(line, *range(max(1, after - 1000), after))
        line.answer(following, body)
        following = line.source.parse_trades(following, json.dumps(body).encode()).next_request
        pages += 1
    assert pages == 3
    assert sorted(line.trade_ids()) == list(range(100, 2_501))
    assert line.pipeline.state.missing_trades() == 0


def test_a_failed_answer_is_asked_again_later() -> None:
    line = exchange()
    line.send(line.match(103))
    (request,) = [a for a in line.due(after_s=1) if isinstance(a, RestRequest)]
    line.answer(request, {"message": "slow down"}, status=429)
    line.answer(request, [{"what": "is this"}])
    assert line.pipeline.state.missing_trades() == 2
    assert request in line.due(after_s=3)


def test_a_heartbeat_reveals_the_last_trade_was_lost() -> None:
    line = exchange()
    line.send(line.heartbeat(100))
    line.now_ns += NS
    line.send(line.heartbeat(101))
    assert not line.gaps(GapKind.TRADE_ID)
    line.now_ns += NS
    line.send(line.heartbeat(101))
    assert [(g.first_id, g.last_id) for g in line.gaps(GapKind.TRADE_ID)] == [(101, 101)]


def test_an_outage_is_a_trade_hole_but_no_doubt_about_the_new_book() -> None:
    line = exchange()
    line.take(RecordKind.DISCONNECT, b"closed", 1)
    line.now_ns += 60 * NS
    line.connect(2)
    line.send(line.snapshot(), 2)
    line.send(line.match(150, type="last_match"), 2)
    assert [(g.first_id, g.last_id) for g in line.gaps(GapKind.TRADE_ID)] == [(101, 149)]
    assert line.pipeline.state.connections[2].books["BTC-USD"].is_synced


def test_a_restart_asks_for_what_passed_since_the_last_stored_trade() -> None:
    line = exchange(last_trade_ids={"BTC-USD": 97})
    assert [(g.first_id, g.last_id) for g in line.gaps(GapKind.TRADE_ID)] == [(98, 99)]
    assert line.trade_ids() == [100]


def test_a_hot_spare_doubles_nothing() -> None:
    line = exchange()
    line.connect(2)
    line.send(line.snapshot(), 2)
    for trade_id in (101, 102, 103):
        match = line.match(trade_id)
        line.send(match, 1)
        line.send(match, 2)
        line.send(line.update(("buy", "99.50", "1")), 1)
        line.send(line.update(("buy", "99.50", "1")), 2)
    line.now_ns += 2 * NS
    line.take(RecordKind.TICK, b"", 0)
    assert line.trade_ids() == [100, 101, 102, 103]
    assert line.pipeline.state.products["BTC-USD"].counts.duplicates == 3
    books = [row for row in line.rows if isinstance(row, BookRow) and row.product == "BTC-USD"]
    assert len({row.ts_ns for row in books}) == len(books)
    line.take(RecordKind.DISCONNECT, b"", 1)
    line.send(line.update(("buy", "99.60", "1")), 2)
    line.now_ns += NS
    line.take(RecordKind.TICK, b"", 0)
    last = [row for row in line.rows if isinstance(row, BookRow)][-1]
    assert str(last.best_bid).startswith("99.6"), "the spare's book takes over"


def test_a_crossed_book_is_doubted_and_replaced() -> None:
    line = exchange()
    line.send(line.update(("buy", "101.50", "1")))
    assert [g.product for g in line.gaps(GapKind.CROSSED_BOOK)] == ["BTC-USD"]
    line.send(line.update(("buy", "101.60", "1")))
    assert len(line.gaps(GapKind.CROSSED_BOOK)) == 1, "news once"
    assert Resubscribe(1, ("BTC-USD",), (Channel.BOOK,)) in line.due()
    line.send(line.snapshot())
    assert line.gaps(GapKind.CROSSED_BOOK)[-1].repaired_at_ns is not None
    assert line.pipeline.state.products["BTC-USD"].counts.crossed == 1


def test_a_book_that_breaks_again_and_again_is_asked_for_ever_less_often() -> None:
    line = exchange()
    waits = []
    for _ in range(8):
        line.send(line.update(("buy", "101.50", "1")))
        waited = 0
        while not any(isinstance(a, Resubscribe) for a in line.due(after_s=1)):
            waited += 1
        waits.append(waited)
        line.send(line.snapshot())
    assert waits == sorted(waits)
    assert waits[0] == 0
    assert 200 < waits[-1] <= 300


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ({"price": "100.001"}, RejectReason.OFF_TICK),
        ({"price": "0"}, RejectReason.PRICE_NOT_POSITIVE),
        ({"size": "0.0"}, RejectReason.SIZE_NOT_POSITIVE),
        ({"price": "-5"}, RejectReason.BAD_NUMBER),
        ({"size": "0.0000000000001"}, RejectReason.TOO_PRECISE),
        ({"side": "both"}, RejectReason.UNKNOWN_SIDE),
        ({"product_id": "DOGE-USD"}, RejectReason.UNKNOWN_PRODUCT),
        ({"time": "yesterday"}, RejectReason.BAD_TIME),
        ({"time": "2026-08-09T21:15:48.1Z"}, RejectReason.OUTSIDE_TIME_WINDOW),
        ({"time": "2026-08-09T20:55:48.1Z"}, RejectReason.OUTSIDE_TIME_WINDOW),
        ({"trade_id": 10**12}, RejectReason.IMPLAUSIBLE_ID),
        ({"trade_id": "one"}, RejectReason.MALFORMED),
    ],
)
def test_a_wrong_trade_is_refused_with_its_reason_and_asked_for(message: dict[str, Any], reason: RejectReason) -> None:
    line = exchange(instruments=RULES)
    out = line.send(line.match(101) | message)
    assert [reject.reason for reject in out.rejects] == [reason]
    assert line.trade_ids() == [100]
    line.send(line.match(102))
    assert [(g.first_id, g.last_id) for g in line.gaps(GapKind.TRADE_ID)] == [(101, 101)]


@pytest.mark.parametrize(
    "message",
    [
        {"changes": [["buy", "99.005", "1"]]},
        {"changes": [["buy", "0", "1"]]},
        {"changes": [["buy", "97.123", "0"]]},
        {"changes": [["buy", "99.50", "1"], ["sell", "x", "1"]]},
        {"changes": [["bid", "99.50", "1"]]},
        {"time": "2026-08-09T21:25:48.1Z"},
    ],
)
def test_a_delta_that_cannot_be_right_puts_its_book_in_doubt(message: dict[str, Any]) -> None:
    line = exchange(instruments=RULES)
    out = line.send(line.update() | message)
    assert len(out.rejects) == 1
    books = line.pipeline.state.connections[1].books
    assert not books["BTC-USD"].is_synced
    assert books["ETH-USD"].is_synced
    assert len(line.gaps(GapKind.REJECTED_LEVEL)) == 1


def test_old_orders_off_the_grid_are_left_out_of_a_snapshot_without_doubting_it() -> None:
    line = exchange(instruments=RULES)
    snapshot = line.snapshot()
    snapshot["bids"].append(["50.001", "3"])
    out = line.send(snapshot)
    assert [reject.reason for reject in out.rejects] == [RejectReason.OFF_TICK]
    state = line.pipeline.state.connections[1].books["BTC-USD"]
    assert state.is_synced
    assert scaled("50.001") not in state.book.bids


def test_an_unreadable_frame_doubts_every_book_where_frames_have_no_numbers() -> None:
    line = exchange()
    out = line.send(b'{"type":"l2update","product_id":')
    assert [reject.reason for reject in out.rejects] == [RejectReason.NOT_JSON]
    assert not any(state.is_synced for state in line.pipeline.state.connections[1].books.values())


def test_changes_of_a_product_nobody_asked_for_doubt_every_book() -> None:
    """Its name is damaged: they were meant for one of ours."""
    line = exchange()
    out = line.send(line.update(("buy", "99.50", "1"), product="BTC-USE"))
    assert [reject.reason for reject in out.rejects] == [RejectReason.UNKNOWN_PRODUCT]
    assert not any(state.is_synced for state in line.pipeline.state.connections[1].books.values())


def test_unknown_types_are_ignored_and_counted() -> None:
    line = exchange()
    out = line.send({"type": "rfq_match", "product_id": "BTC-USD"})
    assert (out.rows, out.rejects) == ([], [])
    assert line.pipeline.state.unknown_types == {"rfq_match": 1}


def test_a_refusal_of_the_venue_is_passed_on() -> None:
    line = exchange()
    out = line.send({"type": "error", "message": "Failed to subscribe", "reason": "BTC-XXX is not valid"})
    assert [error.message for error in out.venue_errors] == ["Failed to subscribe BTC-XXX is not valid"]


def test_a_step_of_our_clock_refuses_nothing() -> None:
    line = exchange()
    line.send(line.match(101))
    wall_ns = line.now_ns + 3600 * NS  # our wall clock jumps an hour; the monotonic one and the venue's do not
    frame = json.dumps(line.match(102)).encode()
    out = line.pipeline.feed(Record(RecordKind.RECEIVED, 1, wall_ns, line.now_ns + 10 * MS_NS, frame))
    assert not out.rejects
    assert [row.trade_id for row in out.rows if isinstance(row, TradeRow)] == [102]


def test_the_ticker_of_a_quiet_product_is_old_without_being_wrong() -> None:
    """On subscribing the venue sends the last one it has; and before anything live came, its clock is not known."""
    for line in (Line(CoinbaseExchange()), exchange()):
        ticker = {"type": "ticker", "product_id": "BTC-USD", "price": "100.00", "time": "2026-08-01T00:00:00.1Z"}
        out = line.send(ticker)
        assert (len(out.rows), out.rejects) == (1, [])
    line = exchange()
    out = line.send({"type": "ticker", "product_id": "BTC-USD", "price": "100.00", "time": "2026-08-19T00:00:00.1Z"})
    assert [reject.reason for reject in out.rejects] == [RejectReason.OUTSIDE_TIME_WINDOW]


def test_without_a_monotonic_clock_a_step_is_believed_after_a_few_frames() -> None:
    line = exchange()
    rejected = 0
    for trade_id in range(101, 130):
        line.now_ns += 100 * MS_NS
        frame = json.dumps(line.match(trade_id)).encode()
        out = line.pipeline.feed(Record(RecordKind.RECEIVED, 1, line.now_ns - 7200 * NS, 0, frame))
        rejected += len(out.rejects)
    assert 0 < rejected < 10


def test_a_book_that_differs_from_the_venue_twice_is_doubted() -> None:
    line = exchange(settings=PipelineSettings(book_check_interval_s=60))
    levels = [("buy", f"{90 - n / 100:.2f}", "1") for n in range(100)]
    line.send(line.update(*levels))
    assert line.due() == [], "a fresh book is not compared at once"
    (request,) = [a for a in line.due(after_s=61) if isinstance(a, RestRequest) and a.product == "BTC-USD"]
    assert request.purpose is Purpose.BOOK_CHECK
    stale = {"bids": [["99.00", "1", 1]], "asks": [["101.00", "1", 1]], "sequence": 5, "time": line.time()}
    wide = stale | {"bids": [["99.00", "1", 1], ["50.00", "1", 1]]}
    line.answer(request, wide)
    assert not line.gaps(GapKind.BOOK_MISMATCH)
    (request,) = [a for a in line.due(after_s=1) if isinstance(a, RestRequest) and a.product == "BTC-USD"]
    line.answer(request, wide)
    assert len(line.gaps(GapKind.BOOK_MISMATCH)) == 1
    assert Resubscribe(1, ("BTC-USD",), (Channel.BOOK,)) in line.due()


def test_every_change_is_written_on_request() -> None:
    line = exchange(settings=PipelineSettings(every_change=True))
    out = line.send(line.update(("buy", "99.50", "1"), ("sell", "101.00", "0")))
    changes = [row for row in out.rows if isinstance(row, BookChangeRow)]
    assert [(row.side, row.price, row.size, row.change_index) for row in changes] == [
        ("buy", Decimal("99.5"), Decimal(1), 0),
        ("sell", Decimal(101), Decimal(0), 1),
    ]


def test_each_minute_closes_with_a_health_row_that_tells_good_from_bad() -> None:
    line = exchange()
    line.send(line.match(103))
    line.now_ns += MINUTE_NS
    line.take(RecordKind.TICK, b"", 0)
    bad, good = (row for row in line.rows if isinstance(row, HealthRow))
    assert (bad.product, bad.trades, bad.gaps, bad.missing_trades, bad.is_good) == ("BTC-USD", 2, 2, 2, False)
    assert (good.product, good.trades, good.gaps, good.missing_trades, good.is_good) == ("ETH-USD", 1, 0, 0, True)
    assert bad.ts_ns % MINUTE_NS == 0


# Advanced Trade


def advanced() -> tuple[Line, Venue]:
    venue = Venue(3)
    line = Line(CoinbaseAdvanced())
    line.connect()
    for frame in venue.opening():
        line.send(frame)
    return line, venue


def test_a_reconnect_counts_frames_from_zero_again_without_a_gap() -> None:
    line, venue = advanced()
    line.take(RecordKind.DISCONNECT, b"", 1)
    line.connect(2)
    venue.sequence = 0
    for frame in venue.opening():
        line.send(frame, 2)
    assert not line.gaps(GapKind.CONNECTION_SEQUENCE)
    assert line.pipeline.state.products["BTC-USD"].counts.duplicates == 0, "old trades in a snapshot are no duplicates"


def test_a_lost_frame_doubts_all_books_of_its_connection_until_fresh_snapshots() -> None:
    line, venue = advanced()
    venue.next_frame()
    line.send(venue.next_frame())
    books = line.pipeline.state.connections[1].books
    assert not any(state.is_synced for state in books.values())
    assert [(g.first_id, g.last_id) for g in line.gaps(GapKind.CONNECTION_SEQUENCE)] == [(5, 5)]
    (again,) = (a for a in line.due() if isinstance(a, Resubscribe))
    assert again.channels == (Channel.TRADES, Channel.BOOK)
    assert set(again.products) == set(venue.products)
    for product in venue.products:
        line.send(venue.trades_snapshot(product))
        line.send(venue.book_snapshot(product))
    assert line.gaps(GapKind.CONNECTION_SEQUENCE)[-1].repaired_at_ns is not None
    assert all(state.is_synced for state in books.values())


def test_gaps_of_a_connection_that_died_are_closed_by_its_successor() -> None:
    line, venue = advanced()
    venue.next_frame()
    line.send(venue.next_frame())
    line.take(RecordKind.DISCONNECT, b"", 1)
    line.connect(2)
    venue.sequence = 0
    for frame in venue.opening():
        line.send(frame, 2)
    assert line.gaps(GapKind.CONNECTION_SEQUENCE)[-1].repaired_at_ns is not None


def test_an_empty_update_counts_as_a_frame() -> None:
    line, venue = advanced()
    empty = venue._frame("l2_data", [{"type": "update", "product_id": "BTC-USD", "updates": []}])
    out = line.send(empty)
    assert not out.rejects
    line.send(venue.next_frame())
    assert not line.gaps(GapKind.CONNECTION_SEQUENCE)


def test_missing_trades_are_asked_for_by_time() -> None:
    line, venue = advanced()
    venue.trades["BTC-USD"].extend({} for _ in range(3))  # lost before they reached us
    venue.now_ns += NS
    line.now_ns += NS
    new = venue._trade("BTC-USD")
    line.send(venue._frame("market_trades", [{"type": "update", "trades": [new]}]))
    (request,) = [a for a in line.due(after_s=1) if isinstance(a, RestRequest)]
    assert (request.first_id, request.last_id) == (1005, 1007)
    second = START_NS // NS
    assert request.url.endswith(f"/products/BTC-USD/ticker?limit=1000&start={second}&end={second + 2}")


def test_pages_by_time_move_back_until_the_hole_is_covered() -> None:
    """Also after a restart, when only the id of the last stored trade is known, and never in a circle."""
    source = CoinbaseAdvanced()
    newest = START_NS // NS

    def body(request: RestRequest) -> bytes:
        """A venue with a trade a second, ids as their second."""
        start, end = (int(part.split("=")[1]) for part in request.url.split("?")[1].split("&")[1:])
        seconds = [second for second in range(start, end + 1) if second < newest][-1000:]
        trades = [
            {
                "product_id": "BTC-USD",
                "trade_id": str(s),
                "price": "1",
                "size": "1",
                "side": "BUY",
                "time": to_iso(s * NS),
            }
            for s in reversed(seconds)
        ]
        return json.dumps({"trades": trades}).encode()

    hole = TradeHole("BTC-USD", newest - 2500, newest - 1, 0, newest * NS)
    request = source.trades_request(hole)
    seen: set[int] = set()
    pages = 0
    while request is not None and pages < 10:
        answer = source.parse_trades(request, body(request))
        seen |= {trade.trade_id for trade in answer.trades}
        request = answer.next_request
        pages += 1
    assert pages == 3
    assert seen >= set(range(newest - 2500, newest))


def test_a_connection_without_books_keeps_no_gap_open() -> None:
    line = Line(CoinbaseAdvanced())
    line.connect(channels=("trades",))
    venue = Venue(3)
    line.send(venue.trades_snapshot("BTC-USD"))
    venue.trades_snapshot("ETH-USD")
    line.send(venue.trades_snapshot("BTC-USD"))
    assert [g.repaired_at_ns is not None for g in line.gaps(GapKind.CONNECTION_SEQUENCE)] == [True]


# Full channel


def test_a_full_channel_starts_with_a_question_for_the_orders() -> None:
    line = Line(CoinbaseExchange(), ["BTC-USD"])
    line.connect(channels=("full",))
    order = {"product_id": "BTC-USD", "side": "buy", "price": "99.00", "time": line.time()}
    line.send({"type": "open", "sequence": 11, "order_id": "a", "remaining_size": "2"} | order)
    (request,) = line.due()
    assert request.purpose is Purpose.ORDERS
    assert request.url.endswith("/products/BTC-USD/book?level=3")
    line.answer(request, {"sequence": 10, "bids": [["98.00", "1", "z"]], "asks": []})
    line.send(line.match(500, sequence=12, maker_order_id="a", side="buy"))
    levels = line.pipeline.state.connections[1].books["BTC-USD"].levels
    assert levels.top(0, 5) == [(scaled("99"), scaled("1.5")), (scaled("98"), scaled("1"))]
    line.send({"type": "done", "sequence": 14, "order_id": "a"} | order)
    assert [(g.first_id, g.last_id) for g in line.gaps(GapKind.BOOK_SEQUENCE)] == [(13, 13)]
    assert [a.purpose for a in line.due(after_s=6)] == [Purpose.ORDERS]


# Binance


def depth(first: int, last: int, *bids: tuple[str, str], at_ns: int) -> dict[str, Any]:
    data = {"e": "depthUpdate", "E": at_ns // MS_NS, "s": "BTCUSDT", "U": first, "u": last, "b": bids, "a": []}
    return {"stream": "btcusdt@depth@100ms", "data": data}


def test_a_binance_book_joins_its_snapshot_and_asks_again_after_a_hole() -> None:
    line = Line(Binance(), ["BTCUSDT"])
    line.connect(channels=("trades", "book", "ticker"))
    line.send(depth(100, 104, ("99.0", "1"), at_ns=line.now_ns))
    line.send(depth(105, 107, ("98.0", "7"), at_ns=line.now_ns))
    (request,) = line.due()
    assert request.purpose is Purpose.BOOK_REPAIR
    assert request.url == "https://api.binance.com/api/v3/depth?symbol=BTCUSDT&limit=5000"
    line.answer(request, {"lastUpdateId": 105, "bids": [["99.0", "2"], ["98.0", "1"]], "asks": [["101.0", "1"]]})
    state = line.pipeline.state.connections[1].books["BTCUSDT"]
    assert state.is_synced
    assert state.book.bids == {scaled("99"): scaled("2"), scaled("98"): scaled("7")}
    line.send(depth(108, 108, ("97.0", "1"), at_ns=line.now_ns))
    line.send(depth(111, 112, ("96.0", "1"), at_ns=line.now_ns))
    assert [(g.first_id, g.last_id) for g in line.gaps(GapKind.BOOK_SEQUENCE)] == [(109, 110)]
    assert not line.is_synced("BTCUSDT")
    (request,) = line.due(after_s=6)
    line.answer(request, {"lastUpdateId": 110, "bids": [["99.0", "2"]], "asks": []})
    assert line.is_synced("BTCUSDT")
    assert state.book.bids == {scaled("99"): scaled("2"), scaled("96"): scaled("1")}


def test_binance_says_who_took_and_names_its_last_trade() -> None:
    line = Line(Binance(), ["BTCUSDT"])

    def trade(trade_id: int, is_buyer_maker: bool) -> dict[str, Any]:
        at_ms = line.now_ns // MS_NS
        data = {"e": "trade", "E": at_ms, "s": "BTCUSDT", "t": trade_id, "p": "100.0", "q": "1", "T": at_ms}
        return {"stream": "btcusdt@trade", "data": data | {"m": is_buyer_maker, "M": True}}

    def ticker(last: int) -> dict[str, Any]:
        data = {"e": "24hrTicker", "E": line.now_ns // MS_NS, "s": "BTCUSDT", "c": "100.0", "L": last}
        return {"stream": "btcusdt@ticker", "data": data}

    line.send(trade(7, True))
    line.send(trade(8, False))
    assert [row.aggressor_side for row in line.rows if isinstance(row, TradeRow)] == ["sell", "buy"]
    line.send(ticker(10))
    line.now_ns += NS
    line.send(ticker(10))
    assert [(g.first_id, g.last_id) for g in line.gaps(GapKind.TRADE_ID)] == [(9, 10)]
    (request,) = line.due(after_s=1)
    assert request.url.endswith("/historicalTrades?symbol=BTCUSDT&limit=1000&fromId=9")
    at_ms = line.now_ns // MS_NS
    past = {"price": "100", "qty": "1", "time": at_ms, "isBuyerMaker": True}
    line.answer(request, [past | {"id": 9}, past | {"id": 10}])
    assert line.trade_ids("BTCUSDT") == [7, 8, 9, 10]
    assert line.pipeline.state.missing_trades() == 0


def test_sources_say_what_the_venues_want_to_hear() -> None:
    products, channels = ["BTC-USD", "ETH-USD"], [Channel.HEARTBEAT, Channel.TRADES, Channel.BOOK]
    assert [json.loads(m) for m in CoinbaseAdvanced().subscribe(products, channels)] == [
        {"type": "subscribe", "product_ids": products, "channel": name}
        for name in ("heartbeats", "market_trades", "level2")
    ]
    assert [json.loads(m) for m in CoinbaseExchange().unsubscribe(products, channels)] == [
        {"type": "unsubscribe", "product_ids": products, "channels": ["heartbeat", "matches", "level2_batch"]}
    ]
    assert [json.loads(m) for m in Binance().subscribe(["BTCUSDT"], [Channel.TRADES, Channel.BOOK])] == [
        {"method": "SUBSCRIBE", "params": ["btcusdt@trade", "btcusdt@depth@100ms"], "id": 1}
    ]
