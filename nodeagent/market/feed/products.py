"""How each product is, for the status: what the feed knows of it, and what the process around it adds."""

from __future__ import annotations

from nodeagent.market.feed.status import ProductStatus
from nodeagent.market.pipeline.quality import Quality, QualityState, followed, quality
from nodeagent.market.pipeline.state import FeedState


def product_statuses(feed: FeedState, doubt: str) -> dict[str, ProductStatus]:
    """Every product followed. doubt: why none can be good, whatever the feed knows of it; empty: no such reason."""
    return {name: _product_status(feed, name, doubt) for name in followed(feed)}


def _product_status(feed: FeedState, name: str, doubt: str) -> ProductStatus:
    product = feed.products.get(name)
    connection = feed.synced_connection(name)
    book = connection.books[name].levels if connection is not None else None
    found = quality(feed, name)
    if doubt and found.state is QualityState.GOOD:
        found = Quality(QualityState.DOUBTFUL, doubt)
    return ProductStatus(
        last_trade_id=product.ledger.last_id if product is not None else -1,
        trades=product.all_counts().trades if product is not None else 0,
        missing_trades=product.ledger.missing.total() if product is not None else 0,
        is_synced=product is not None and feed.is_synced(name),
        book_levels=len(book.bids) + len(book.asks) if book is not None else 0,
        state=found.state.value,
        reason=found.reason,
    )
