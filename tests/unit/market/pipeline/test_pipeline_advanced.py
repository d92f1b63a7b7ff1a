"""Stories of Advanced Trade: one frame counter for everything on a connection."""

from __future__ import annotations

import json

from nodeagent.market.model.events import GapKind
from nodeagent.market.model.records import RecordKind
from nodeagent.market.model.source import Channel, RestRequest, TradeHole
from nodeagent.market.model.times import NS, to_iso
from nodeagent.market.pipeline.questions import Resubscribe
from nodeagent.market.venues.coinbase_advanced.source import CoinbaseAdvanced
from tests.unit.market.line import Line
from tests.unit.market.venue import START_NS, Venue


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
