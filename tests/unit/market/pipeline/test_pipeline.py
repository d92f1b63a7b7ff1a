"""Stories of the pipeline: what happened on the line, what came out, what is asked of the venue."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest

from nodeagent.market.model.decimals import scaled
from nodeagent.market.model.events import GapKind, RejectReason
from nodeagent.market.model.records import Record, RecordKind
from nodeagent.market.model.rows import BookChangeRow, BookRow, HealthRow, TradeRow
from nodeagent.market.model.source import Channel, Purpose, RestRequest
from nodeagent.market.model.times import MINUTE_NS, MS_NS, NS
from nodeagent.market.pipeline.ledger import LedgerState
from nodeagent.market.pipeline.product import ProductState
from nodeagent.market.pipeline.questions import Resubscribe
from nodeagent.market.pipeline.state import Memory, PipelineSettings
from nodeagent.market.venues.coinbase_exchange.source import CoinbaseExchange
from tests.unit.market.line import RULES, Line, exchange, page


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
    line = exchange(memory=Memory(states={"BTC-USD": ProductState(LedgerState(first_id=9, last_id=97))}))
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
