"""Connections and products come and go, record by record, while everything else goes on.

CONNECT and DISCONNECT open and close a connection. PRODUCTS says what the feed follows from there on; KEPT brings back
a book where a replay begins in the middle.

What a product leaves behind is closed cleanly: its minute, its book on every connection. Its open gaps stay open in
`feed_gap`, for that is what they are, and the feed remembers them together with the newest trade. When the feed follows
the product again, it asks for what was missing and for what passed meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec

from nodeagent.market.books import kept
from nodeagent.market.model.events import Event
from nodeagent.market.model.records import Connected, Following
from nodeagent.market.model.rows import HealthRow
from nodeagent.market.model.times import MINUTE_NS, NS
from nodeagent.market.pipeline.product import Product
from nodeagent.market.pipeline.quality import Quality, QualityState, now_row
from nodeagent.market.pipeline.rules import close_gaps
from nodeagent.market.pipeline.state import Connection, FeedState, Output

_CONNECTED: Final = msgspec.json.Decoder(Connected)
_FOLLOWING: Final = msgspec.json.Decoder(Following)


def connect(feed: FeedState, connection_id: int, payload: bytes) -> None:
    """A new connection: its frame numbers start at 0, its books from nothing."""
    disconnect(feed, connection_id)
    try:
        opened = _CONNECTED.decode(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        opened = None
    connection = Connection(connection_id, feed.now_ns, opened)
    feed.connections[connection_id] = connection
    if opened is None:
        return
    _welcome(feed, opened.products)
    connection.subscriptions.asked(opened.products, feed.now_ns)
    for product in opened.products:
        connection.expect_book(product, 0, is_from_rest=feed.source.book_from_rest)
    left_out = (feed.rules.products or frozenset()) - set(opened.products)  # refused on the connection before
    connection.subscriptions.asked(sorted(left_out), feed.now_ns)


def disconnect(feed: FeedState, connection_id: int) -> None:
    """A connection is gone; its open gaps, and those of its books, wait for the snapshots of another."""
    connection = feed.connections.pop(connection_id, None)
    if connection is not None:
        feed.collect_absent_removals(connection)
        feed.orphan_gaps += connection.open_gaps
        feed.orphan_gaps += [state.open_gap for state in connection.books.values() if state.open_gap is not None]


def follow(feed: FeedState, payload: bytes, out: Output) -> None:
    """Take a PRODUCTS record. Where any product is welcome (a file of unknown origin) it means nothing."""
    before = feed.rules.products
    if before is None:
        return
    try:
        products = frozenset(_FOLLOWING.decode(payload).products)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return
    for name in sorted(before - products):
        _leave(feed, name, out)
    feed.rules.products = products
    feed.left = (feed.left | (before - products)) - products
    added = sorted(products - before)
    for connection in feed.connections.values():
        connection.subscriptions.asked(added, feed.now_ns)
        for name in added:
            connection.expect_book(name, feed.now_ns, is_from_rest=feed.source.book_from_rest)


def take_kept(feed: FeedState, connection_id: int, payload: bytes) -> None:
    """Take the book of a KEPT record where there is none yet: at the beginning of a replay."""
    record = kept.read(payload)
    if record is None or not feed.rules.knows(record.product):
        return
    connection = feed.connections.get(connection_id)
    if connection is None or connection.opened is None:
        connection = feed.connections[connection_id] = Connection(connection_id, feed.now_ns, record.opened)
        connection.sequence.expected = record.next_sequence
        _welcome(feed, record.opened.products)
        for product in record.opened.products:
            connection.expect_book(product, feed.now_ns, is_from_rest=feed.source.book_from_rest)
    state = connection.book_of(record.product)
    if feed.product(record.product) is None or state.was_synced or state.orders is not None:
        return
    state.book.tick = feed.rules.tick(record.product) or 1
    state.replace(record.snapshot(feed.now_ns), feed.now_ns)


def followed_events(feed: FeedState, events: list[Event]) -> list[Event]:
    """The events without those about products that the feed has left."""
    left = feed.left
    return [event for event in events if getattr(event, "product", "") not in left]


def minute_row(feed: FeedState, product: Product, minute_ns: int) -> HealthRow:
    """Close the product's running minute."""
    return product.close_minute(minute_ns, -feed.skew.offset_ns, is_synced=feed.is_synced(product.name))


def _welcome(feed: FeedState, products: Iterable[str]) -> None:
    """A connection subscribed to these, so the feed followed them then. A replay that begins before a change of
    products learns it here."""
    if feed.rules.products is not None:
        feed.rules.products |= frozenset(products)
        feed.left -= frozenset(products)


def _leave(feed: FeedState, name: str, out: Output) -> None:
    """The feed does not follow the product any more: write its last rows and forget it."""
    gone = Quality(QualityState.GONE, "the feed does not follow it any more")
    # At the second's end, as all rows of this table: it must not be older than the last one that said something else.
    out.rows.append(now_row(feed, name, (feed.now_ns // NS + 1) * NS, gone))
    product = feed.products.get(name)
    if product is not None:
        for connection in feed.connections.values():
            feed.collect_absent_removals(connection)
        out.rows.append(minute_row(feed, product, feed.now_ns // MINUTE_NS * MINUTE_NS))
        feed.earlier[name] = product.state()
        del feed.products[name]
    for connection in feed.connections.values():
        connection.subscriptions.dropped(name)
        _forget_book(feed, name, connection, out)


def _forget_book(feed: FeedState, name: str, connection: Connection, out: Output) -> None:
    """The book's gap stays open until the product is back with a trusted book; the connection's may end now."""
    state = connection.books.pop(name, None)
    if state is not None and state.open_gap is not None:
        feed.orphan_gaps.append(state.open_gap)
    if state is not None and not state.is_synced and connection.books and connection.is_synced():
        close_gaps(feed, connection, out)
