"""Trusted books, written into the capture now and then, so that a replay may begin there instead of at their snapshot.

A connection can be days old, and its books' snapshots with it. Without this a feed that begins to replay in its middle
would have no book until the next snapshot. A KEPT record stands for what the pipeline knows at that place: to the
pipeline that wrote it, and to a replay from further back, it says nothing new.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import msgspec

from nodeagent.market.model.events import BookSnapshot
from nodeagent.market.model.records import Connected
from nodeagent.market.pipeline.changes import welcome
from nodeagent.market.pipeline.connection import Connection
from nodeagent.market.pipeline.state import FeedState


class Kept(msgspec.Struct, frozen=True):
    """The payload: one book of one connection. Prices to sizes as texts of scaled numbers, which JSON may not hold."""

    opened: Connected
    next_sequence: int
    """The number of the connection's next frame."""
    product: str
    update_id: int
    bids: dict[str, str]
    asks: dict[str, str]
    is_first: bool
    """The first of the connection's books: from here on all of them follow."""
    is_last: bool


_decode: Final = msgspec.json.Decoder(Kept).decode


def keep(connection: Connection) -> Iterator[bytes]:
    """A payload for each trusted book. L3 books are left out: they start from a REST answer at each connection."""
    opened = connection.opened
    products = [name for name, state in connection.books.items() if state.is_synced and state.orders is None]
    if opened is None:
        return
    for number, product in enumerate(products):
        state = connection.books.get(product)
        if state is not None and state.is_synced:
            yield msgspec.json.encode(
                Kept(
                    opened,
                    connection.sequence.expected or 0,
                    product,
                    state.update_id,
                    {str(price): str(size) for price, size in state.book.bids.items()},
                    {str(price): str(size) for price, size in state.book.asks.items()},
                    is_first=number == 0,
                    is_last=number == len(products) - 1,
                )
            )


def read(payload: bytes) -> Kept | None:
    """The payload; None when it is damaged."""
    try:
        return _decode(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None


def take_kept(feed: FeedState, connection_id: int, payload: bytes) -> None:
    """Know what the record says, where it is not known: at the beginning of a replay."""
    kept = read(payload)
    if kept is None or not feed.rules.knows(kept.product):
        return
    connection = feed.connections.get(connection_id)
    if connection is None or connection.opened is None:
        connection = feed.connections[connection_id] = Connection(connection_id, feed.now_ns, kept.opened)
        connection.sequence.expected = kept.next_sequence
        welcome(feed, kept.opened.products)
        for product in kept.opened.products:
            connection.expect_book(product, feed.now_ns, is_from_rest=feed.source.book_from_rest)
    state = connection.book_of(kept.product)
    if feed.product(kept.product) is None or state.was_synced or state.orders is not None:
        return
    bids = {int(price): int(size) for price, size in kept.bids.items()}
    asks = {int(price): int(size) for price, size in kept.asks.items()}
    state.book.tick = feed.rules.tick(kept.product) or 1
    state.replace(BookSnapshot(kept.product, bids, asks, feed.now_ns, kept.update_id), feed.now_ns)
