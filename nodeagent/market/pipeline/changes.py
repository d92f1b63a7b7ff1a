"""Changing what a feed follows, record by record, while everything else goes on.

A PRODUCTS record says what is followed from there on. What a product leaves behind is closed cleanly: its minute, its
book on every connection. Its open gaps stay open in `feed_gap`, for that is what they are, and are remembered together
with the newest trade: followed again, the product is asked for what was missing and for what passed meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec

from nodeagent.market.model.events import Event
from nodeagent.market.model.records import Following
from nodeagent.market.model.rows import HealthRow
from nodeagent.market.model.times import MINUTE_NS, NS
from nodeagent.market.pipeline import quality, trust
from nodeagent.market.pipeline.minutes import health_row
from nodeagent.market.pipeline.product import Product
from nodeagent.market.pipeline.quality import Quality, QualityState
from nodeagent.market.pipeline.state import FeedState, Output

_FOLLOWING: Final = msgspec.json.Decoder(Following)


def follow(feed: FeedState, payload: bytes, out: Output) -> None:
    """Take a PRODUCTS record. Where any product is welcome (a file of unknown origin) it means nothing."""
    known = feed.rules.products
    if known is None:
        return
    try:
        wanted = frozenset(_FOLLOWING.decode(payload).products)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return
    for name in sorted(known - wanted):
        _leave(feed, name, out)
    feed.rules.products = wanted
    feed.left = (feed.left | (known - wanted)) - wanted
    added = sorted(wanted - known)
    for connection in feed.connections.values():
        connection.subscriptions.asked(added, feed.now_ns)
        for name in added:
            connection.expect_book(name, feed.now_ns, is_from_rest=feed.source.book_from_rest)


def welcome(feed: FeedState, products: Iterable[str]) -> None:
    """A connection asked for these: they were followed then, whatever we were told since. Matters to a replay that
    begins before a change."""
    if feed.rules.products is not None:
        feed.rules.products |= frozenset(products)
        feed.left -= frozenset(products)


def wanted_events(feed: FeedState, events: list[Event]) -> list[Event]:
    """Without those of products that were left."""
    left = feed.left
    return [event for event in events if getattr(event, "product", "") not in left]


def minute_row(feed: FeedState, product: Product, minute_ns: int) -> HealthRow:
    """Close the product's running minute."""
    return health_row(
        product.close_minute(),
        minute_ns=minute_ns,
        venue=product.venue,
        product=product.name,
        source=product.source,
        missing_trades=product.ledger.missing.total(),
        skew_ns=-feed.skew.offset_ns,
        is_synced=feed.is_synced(product.name),
    )


def _leave(feed: FeedState, name: str, out: Output) -> None:
    gone = Quality(QualityState.GONE, "the feed does not follow it any more")
    # At the second's end, as all rows of this table: it must not be older than the last one that said something else.
    out.rows.append(quality.now_row(feed, name, (feed.now_ns // NS + 1) * NS, gone))
    product = feed.products.get(name)
    if product is not None:
        for connection in feed.connections.values():
            feed.collect_absent_removals(connection)
        out.rows.append(minute_row(feed, product, feed.now_ns // MINUTE_NS * MINUTE_NS))
        feed.known[name] = product.state()
        del feed.products[name]
    for connection in feed.connections.values():
        connection.subscriptions.dropped(name)
        trust.forget_book(feed, name, connection, out)
