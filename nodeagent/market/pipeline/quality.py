"""Whether a product's data can be relied on now, and why not: the one answer that status, rows and agents get.

Pure: a view of the feed's state at the time of the record at hand. What the process around it knows (rows that wait for
their database, a capture that is read back) is added by the service.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

import msgspec

from nodeagent.market.model.rows import NowRow
from nodeagent.market.model.times import NS
from nodeagent.market.pipeline.product import Product
from nodeagent.market.pipeline.state import Connection, FeedState

NOW_EVERY_S: Final = 2
"""Seconds between two `feed_now` rows of a product."""
STALE_AFTER_NS: Final = 10 * NS
"""A connection that brings nothing for so long has gone silent. Venues send heartbeats or tickers every second."""


class QualityState(StrEnum):
    """As in `feed_now.state`, and in the daemon's report."""

    STARTING = "starting"
    GOOD = "good"
    DOUBTFUL = "doubtful"
    FAILED = "failed"
    GONE = "gone"
    """Not followed any more."""


class Quality(msgspec.Struct, frozen=True):
    """A state, and the reason for it; none while good."""

    state: QualityState
    reason: str = ""


GOOD: Final = Quality(QualityState.GOOD)


def followed(feed: FeedState) -> list[str]:
    """The products that the feed follows; where any is welcome, those with data."""
    names = feed.rules.products
    return sorted(feed.products if names is None else names)


def quality(feed: FeedState, name: str) -> Quality:
    """How the product's data is. Good: connected, not stale, its book trusted, no trade known to be missing."""
    product = feed.products.get(name)
    if refusal := _refusal(feed, name, product):
        return Quality(QualityState.FAILED, refusal)
    if not feed.connections:
        if product is None or not product.has_frames:
            return Quality(QualityState.STARTING, "connecting to the venue")
        return Quality(QualityState.DOUBTFUL, "not connected to the venue")
    if product is None or not product.has_frames:
        return Quality(QualityState.STARTING, "waiting for its first data")
    if missing := product.ledger.missing.total():
        return Quality(QualityState.DOUBTFUL, f"{missing} trades are missing")
    if max(connection.frame_at_ns for connection in feed.connections.values()) + STALE_AFTER_NS < feed.now_ns:
        return Quality(QualityState.DOUBTFUL, "the venue has gone silent")
    return _book_quality(feed, name)


def now_row(feed: FeedState, name: str, ts_ns: int, now: Quality | None = None) -> NowRow:
    """The product's row of `feed_now`."""
    now = now or quality(feed, name)
    product = feed.products.get(name)
    return NowRow(
        ts_ns,
        feed.source.venue,
        name,
        feed.source.name,
        now.state.value,
        now.reason,
        product.ledger.missing.total() if product is not None else 0,
        product.ledger.last_id if product is not None else -1,
        product.recent_lag_ms() if product is not None else 0.0,
    )


def _book_quality(feed: FeedState, name: str) -> Quality:
    if feed.is_synced(name):
        return GOOD
    keepers = [c.books[name] for c in feed.connections.values() if name in c.books]
    if any(state.was_synced for state in keepers):
        return Quality(QualityState.DOUBTFUL, "its order book is in doubt; a new snapshot was asked for")
    return Quality(QualityState.STARTING, "waiting for the first snapshot of its order book")


def _refusal(feed: FeedState, name: str, product: Product | None) -> str:
    """Why no connection brings it: the venue's words, or its list of products. Empty when one does, or may yet."""
    connections = feed.connections.values()
    refusals = [connection.subscriptions.refusal(name) for connection in connections]
    has_data = product is not None and product.has_frames
    if feed.rules.is_unlisted(name) and not has_data:
        return next(filter(None, refusals), f"{feed.source.name} does not list {name}")
    if refusals and all(refusals):
        return refusals[0]
    return ""


def refused(feed: FeedState, connection: Connection) -> frozenset[str]:
    """Products that the connection's venue refuses, so as not to spoil a new connection's subscription with them."""
    return frozenset(name for name, wait in connection.subscriptions.waiting.items() if wait.refusal)
