"""Books against plain dicts; L3 books against the orders they hold."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from nodeagent.market.books.levels import Book
from nodeagent.market.books.orders import OrdersBook
from nodeagent.market.model.events import ASK, BID, BookSnapshot, OrderBook, OrderEvent, Side, Trade

changes = st.lists(
    st.tuples(st.sampled_from((BID, ASK)), st.integers(1, 30), st.sampled_from((0, 0, 1, 2, 3))), max_size=80
)
side_levels = st.dictionaries(st.integers(1, 30), st.integers(1, 9), max_size=20)


@given(side_levels, side_levels, changes)
def test_a_book_is_two_dicts(bids: dict[int, int], asks: dict[int, int], steps: list[tuple[int, int, int]]) -> None:
    book = Book()
    book.replace(BookSnapshot("BTC-USD", dict(bids), dict(asks), 0))
    plain = (dict(bids), dict(asks))
    absent = 0
    for side, price, size in steps:
        book.apply([(side, price, size)])
        if size:
            plain[side][price] = size
        elif plain[side].pop(price, None) is None:
            absent += 1
        assert book.best_bid() == max(plain[BID], default=None)
        assert book.best_ask() == min(plain[ASK], default=None)
        assert book.is_crossed() == bool(plain[BID] and plain[ASK] and max(plain[BID]) >= min(plain[ASK]))
    assert book.absent_removals == absent
    for depth in (1, 3, 100):
        assert book.top(BID, depth) == sorted(plain[BID].items(), reverse=True)[:depth]
        assert book.top(ASK, depth) == sorted(plain[ASK].items())[:depth]


def test_size_only_changes_and_removals_keep_the_order() -> None:
    book = Book()
    book.apply([(BID, 5, 1), (BID, 3, 1), (BID, 4, 1), (BID, 4, 9), (BID, 5, 0), (BID, 99, 0)])
    assert book.top(BID, 9) == [(4, 9), (3, 1)]
    assert book.absent_removals == 1


def order(kind: str, sequence: int, order_id: str, **fields: int) -> OrderEvent:
    return OrderEvent(
        "BTC-USD", kind, sequence, order_id, fields.get("side", BID), fields.get("price", 0), fields.get("size", 0), 0
    )


def fill(sequence: int, maker: str, size: int, aggressor: Side = Side.SELL) -> Trade:
    return Trade("BTC-USD", sequence, 10, size, aggressor, 0, False, sequence, maker)


def test_an_l3_book_waits_for_its_snapshot_drops_the_old_and_replays_the_rest() -> None:
    book = OrdersBook()
    book.apply(order("open", 8, "old", price=9, size=5))
    book.apply(order("open", 11, "a", price=10, size=4))
    book.apply(fill(12, "a", 1))
    hole = book.replace(OrderBook("BTC-USD", 10, [("r", BID, 9, 7), ("s", ASK, 12, 1)]))
    assert hole is None
    assert book.is_synced
    assert book.levels.bids == {9: 7, 10: 3}
    assert book.levels.asks == {12: 1}
    book.apply(order("change", 13, "r", size=2))
    book.apply(order("change", 14, "a", price=8, size=3))
    book.apply(order("done", 15, "s", side=ASK))
    book.apply(order("done", 16, "never seen"))
    assert book.levels.bids == {9: 2, 8: 3}
    assert book.levels.asks == {}
    assert book.unknown_orders == 1


def test_a_missing_l3_message_puts_the_book_in_doubt() -> None:
    book = OrdersBook()
    book.replace(OrderBook("BTC-USD", 10, [("r", BID, 9, 7)]))
    assert book.apply(order("open", 13, "x", price=9, size=1)) == (11, 12)
    assert not book.is_synced
    assert book.replace(OrderBook("BTC-USD", 12, [("r", BID, 9, 7)])) is None
    assert book.levels.bids == {9: 8}, "the message that showed the hole was not lost"


ids = st.sampled_from("abcdefgh")
messages = st.one_of(
    st.tuples(st.just("open"), ids, st.integers(1, 5), st.integers(1, 9)),
    st.tuples(st.just("done"), ids, st.just(0), st.just(0)),
    st.tuples(st.just("change"), ids, st.integers(0, 5), st.integers(0, 9)),
    st.tuples(st.just("match"), ids, st.just(0), st.integers(1, 12)),
)


@given(st.lists(messages, max_size=60))
def test_l3_levels_are_the_sum_of_their_orders(steps: list[tuple[str, str, int, int]]) -> None:
    book = OrdersBook()
    book.replace(OrderBook("BTC-USD", 0, []))
    plain: dict[str, tuple[int, int]] = {}
    for sequence, (kind, order_id, price, size) in enumerate(steps, start=1):
        if kind == "match":
            book.apply(fill(sequence, order_id, size))
        else:
            book.apply(order(kind, sequence, order_id, price=price, size=size))
        known = plain.get(order_id)
        if kind == "open":
            plain[order_id] = (price, size)
        elif kind == "done":
            plain.pop(order_id, None)
        elif known is not None and kind == "change":
            plain[order_id] = (price or known[0], size)
        elif known is not None:
            plain[order_id] = (known[0], max(0, known[1] - size))
        plain = {key: value for key, value in plain.items() if value[1]}
    levels: dict[int, int] = {}
    for price, size in plain.values():
        levels[price] = levels.get(price, 0) + size
    assert book.levels.bids == levels
    assert book.levels.asks == {}
    assert len(book) == len(plain)
