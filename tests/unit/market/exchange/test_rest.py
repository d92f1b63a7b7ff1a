"""REST: cursors, windows and refusals."""

from __future__ import annotations

from typing import Any

from nodeagent.market.exchange.coinbase.rest import ADVANCED_BASE, answer
from nodeagent.market.exchange.events import NS, Opening, Product, VenueTrade, time_ns_of, time_text
from nodeagent.market.exchange.venue import Venue

TRADES = [VenueTrade("A-USD", 100 + n, f"{10 + n}.00", "1.5", "SELL", n * NS) for n in range(50)]
VENUE = Venue([Opening(Product("A-USD"), {"9.00": "1", "8.00": "2"}, {"11.00": "3"}, list(TRADES), {}, 1)])


def ask(target: str) -> Any:
    """The body of a good answer."""
    said = answer(VENUE, target, 10**18)
    assert said.status == 200
    return said.body


def test_after_pages_downwards_without_overlap() -> None:
    first = answer(VENUE, "/products/A-USD/trades?limit=10&after=140", 0)
    assert [trade["trade_id"] for trade in first.body] == list(range(139, 129, -1))
    assert first.headers == {"CB-BEFORE": "139", "CB-AFTER": "130"}
    second = ask("/products/A-USD/trades?limit=10&after=130")
    assert second[0]["trade_id"] == 129


def test_before_gives_the_newest_page() -> None:
    page = ask("/products/A-USD/trades?limit=5&before=101")
    assert [trade["trade_id"] for trade in page] == [149, 148, 147, 146, 145]


def test_advanced_trades_are_found_by_time() -> None:
    page = ask(f"{ADVANCED_BASE}/products/A-USD/ticker?limit=1000&start=3&end=6")
    assert [trade["trade_id"] for trade in page["trades"]] == ["105", "104", "103"]
    assert page["best_bid"] == "9.00"


def test_books_are_best_first_in_both_forms() -> None:
    assert ask("/products/A-USD/book?level=2")["bids"] == [["9.00", "1", 1], ["8.00", "2", 1]]
    assert ask("/products/A-USD/book?level=1")["bids"] == [["9.00", "1", 1]]
    pricebook = ask(f"{ADVANCED_BASE}/product_book?product_id=A-USD&limit=1")["pricebook"]
    assert pricebook["bids"] == [{"price": "9.00", "size": "1"}]


def test_candles_have_no_row_where_nothing_was_traded() -> None:
    rows = ask("/products/A-USD/candles?granularity=60")
    assert rows == [[0, 10.0, 59.0, 10.0, 59.0, 75.0]]
    assert answer(VENUE, "/products/A-USD/candles?granularity=60&start=60&end=999999", 0).status == 400
    assert answer(VENUE, "/products/A-USD/candles?granularity=61", 0).status == 400


def test_what_is_not_there_is_404_and_nonsense_is_400() -> None:
    assert answer(VENUE, "/products/B-USD/trades", 0).status == 404
    assert answer(VENUE, "/elsewhere", 0).status == 404
    assert answer(VENUE, "/products/A-USD/trades?limit=many", 0).status == 400
    assert answer(VENUE, "/products/A-USD/book?level=9", 0).status == 400


def test_times_are_written_and_read_exactly() -> None:
    assert time_text(1_786_309_548_170_326_000) == "2026-08-09T21:05:48.170326Z"
    assert time_ns_of("2026-08-09T21:05:48.17Z") == 1_786_309_548_170_000_000
    assert time_ns_of("2026-08-09T21:05:48Z") == 1_786_309_548_000_000_000
