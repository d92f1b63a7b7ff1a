"""What each kind of event does to a feed: validate, count, keep the ledger and the book, build rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

from nodeagent.market.books.levels import compare, is_mismatch
from nodeagent.market.model.events import (
    BookDelta,
    BookSnapshot,
    Candle,
    GapKind,
    Heartbeat,
    Instrument,
    OrderBook,
    OrderEvent,
    Reject,
    RejectReason,
    Status,
    Subscribed,
    Ticker,
    Trade,
    VenueError,
)
from nodeagent.market.pipeline import trust
from nodeagent.market.pipeline.connection import BookState, Connection, Fault
from nodeagent.market.pipeline.ledger import Seen
from nodeagent.market.pipeline.product import Product
from nodeagent.market.pipeline.state import FeedState, Output
from nodeagent.market.pipeline.validation import (
    TIME_WINDOW_NS,
    check_order,
    check_snapshot,
    check_ticker,
    check_trade,
    outside_window,
)

MISMATCHES_MAX: Final = 2
"""Books that differ from the venue's answer so often in a row are wrong; once may be bad timing."""


def on_trade(feed: FeedState, trade: Trade, connection: Connection | None, out: Output) -> None:
    """A trade counts once: by id, whether live, from a snapshot or from a REST page."""
    venue_now_ns = feed.venue_now_ns
    refusal = check_trade(trade, feed.rules, venue_now_ns)
    product = feed.product(trade.product) if refusal is None else None
    if refusal is not None or product is None:
        _refuse(feed, refusal, connection, out)
        return
    product.saw_frame(feed.frames)
    if feed.source.trade_ids_contiguous and not _is_wanted(feed, product, trade, connection, out):
        return
    if venue_now_ns and not trade.is_history:
        product.saw_lag(venue_now_ns - trade.time_ns)
    product.counts.trades += 1
    out.rows.append(product.trade_row(trade, feed.now_ns))
    if trade.maker_order_id and connection is not None:
        state = connection.books.get(trade.product)
        if state is not None and state.orders is not None:
            _apply_full(feed, trade, state, out)


def _is_wanted(feed: FeedState, product: Product, trade: Trade, connection: Connection | None, out: Output) -> bool:
    """Enter the id in the ledger. Returns whether the trade is one we do not have yet."""
    seen, hole = product.ledger.observe(trade.trade_id, trade.time_ns, feed.now_ns)
    if seen is Seen.NEW:
        if hole is not None:
            trust.open_trade_hole(feed, hole, connection, out, is_history=trade.is_history)
        return True
    if seen is Seen.FILLS:
        out.rows += product.close_filled_holes(feed.now_ns)
        return True
    if seen is Seen.IMPLAUSIBLE:
        detail = f"trade id {trade.trade_id} after {product.ledger.last_id}"
        trust.reject(feed, Reject(RejectReason.IMPLAUSIBLE_ID, trade.product, detail), connection, out)
    elif not trade.is_history:
        product.counts.duplicates += 1
    return False


def on_delta(feed: FeedState, delta: BookDelta, connection: Connection, out: Output) -> None:
    """Change the book. The busiest function of the feed: nine of ten events pass here."""
    name = delta.product
    product = feed.products.get(name) or feed.product(name)
    if product is None:
        # Nobody asked for it, so the name is damaged: whose changes these were is unknown.
        _refuse(feed, Reject(RejectReason.UNKNOWN_PRODUCT, "", name[:64], breaks_book=True), connection, out)
        return
    counts = product.counts
    if delta.time_ns and feed.venue_now_ns:
        age_ns = feed.venue_now_ns - delta.time_ns
        if not -TIME_WINDOW_NS <= age_ns <= TIME_WINDOW_NS:
            _refuse(feed, outside_window(name, delta.time_ns, feed.venue_now_ns, breaks_book=True), connection, out)
            return
        counts.lag_sum_ns += age_ns
        counts.lag_count += 1
    product.saw_frame(feed.frames)
    counts.level_changes += len(delta.changes)
    state = connection.books.get(name) or connection.book_of(name)
    fault = state.apply(delta)
    if fault is not None:
        _on_fault(feed, fault, state, out)
    if feed.settings.every_change:
        out.rows += product.change_rows(delta, feed.now_ns, feed.position)


def on_snapshot(feed: FeedState, snapshot: BookSnapshot, connection: Connection, out: Output) -> None:
    """Replace the book."""
    checked, refusals = check_snapshot(snapshot, feed.rules)
    for refusal in refusals:
        trust.reject(feed, refusal, connection, out)
    product = feed.product(snapshot.product) if checked is not None else None
    if checked is None or product is None:
        return
    product.saw_frame(feed.frames)
    product.counts.level_changes += len(checked.bids) + len(checked.asks)
    state = connection.book_of(snapshot.product)
    state.book.tick = feed.rules.tick(snapshot.product) or 1
    fault = state.replace(checked, feed.now_ns)
    if fault is not None:
        _on_fault(feed, fault, state, out)
    else:
        trust.resynced(feed, state, connection, out)


def _on_fault(feed: FeedState, fault: Fault, state: BookState, out: Output) -> None:
    """A book shows that it is wrong; if it was trusted, this is news."""
    if fault.kind is GapKind.REJECTED_LEVEL:
        refusal = Reject(RejectReason.OFF_TICK, state.product, "a level is no multiple of the increment", True)
        trust.reject(feed, refusal, feed.connections.get(state.connection_id), out)
        return
    if fault.kind is GapKind.CROSSED_BOOK and state.is_synced:
        feed.products[state.product].counts.crossed += 1
    trust.doubt(feed, fault.kind, state, out, (fault.first_id, fault.last_id))


def on_ticker(feed: FeedState, ticker: Ticker, connection: Connection, out: Output) -> None:
    """Store the ticker; the venue's time where it gave one."""
    refusal = check_ticker(ticker, feed.rules, feed.venue_now_ns)
    product = feed.product(ticker.product) if refusal is None else None
    if refusal is not None or product is None:
        _refuse(feed, refusal, connection, out)
        return
    product.saw_frame(feed.frames)
    out.rows.append(product.ticker_row(ticker, ticker.time_ns or feed.now_ns))


def on_heartbeat(feed: FeedState, beat: Heartbeat, connection: Connection, out: Output) -> None:
    """Compare the newest trade the venue speaks of with the newest we have."""
    product = feed.product(beat.product)
    if product is None:
        return
    product.saw_frame(feed.frames)
    if beat.last_trade_id >= 0 and feed.source.trade_ids_contiguous:
        hole = product.ledger.announce(beat.last_trade_id, beat.time_ns, feed.now_ns)
        if hole is not None:
            trust.open_trade_hole(feed, hole, connection, out, is_history=False)


def on_order(feed: FeedState, order: OrderEvent, connection: Connection, out: Output) -> None:
    """Keep the L3 book."""
    refusal = check_order(order, feed.rules)
    product = feed.product(order.product) if refusal is None else None
    if refusal is not None or product is None:
        _refuse(feed, refusal, connection, out)
        return
    product.saw_frame(feed.frames)
    state = connection.book_of(order.product)
    state.follow_orders()
    _apply_full(feed, order, state, out)


def on_orders_book(feed: FeedState, book: OrderBook, connection: Connection, out: Output) -> None:
    """Start the L3 book from a REST answer."""
    product = feed.product(book.product)
    if product is None:
        return
    state = connection.book_of(book.product)
    hole = state.follow_orders().replace(book)
    state.synced(feed.now_ns)
    if hole is not None:
        trust.doubt(feed, GapKind.BOOK_SEQUENCE, state, out, hole)
    else:
        trust.resynced(feed, state, connection, out)


def check_book(feed: FeedState, answer: BookSnapshot, connection: Connection, out: Output) -> None:
    """Compare a trusted book with the venue's own; twice far off in a row is a mismatch."""
    state = connection.books.get(answer.product)
    product = feed.product(answer.product)
    if state is None or product is None or not state.is_synced:
        return
    if not is_mismatch(compare(state.book, answer)):
        state.mismatches = 0
        return
    state.mismatches += 1
    state.next_check_ns = 0
    if state.mismatches >= MISMATCHES_MAX:
        trust.doubt(feed, GapKind.BOOK_MISMATCH, state, out)


def learn(feed: FeedState, instruments: Iterable[Instrument]) -> None:
    """Take product rules; books that stand already are held against them from now on."""
    feed.rules.learn(instruments)
    for connection in feed.connections.values():
        for product, state in connection.books.items():
            state.book.tick = feed.rules.tick(product) or 1


def _apply_full(feed: FeedState, event: OrderEvent | Trade, state: BookState, out: Output) -> None:
    assert state.orders is not None
    hole = state.orders.apply(event)
    state.is_changed = True
    if hole is not None:
        trust.doubt(feed, GapKind.BOOK_SEQUENCE, state, out, hole)


def _refuse(feed: FeedState, refusal: Reject | None, connection: Connection | None, out: Output) -> None:
    """A refusal is recorded; a product beyond `PRODUCTS_MAX`, or one without a name, is refused as unknown."""
    trust.reject(feed, refusal or Reject(RejectReason.UNKNOWN_PRODUCT, "", ""), connection, out)


def _on_candle(feed: FeedState, candle: Candle, connection: Connection, out: Output) -> None:
    product = feed.product(candle.product)
    if product is not None:
        product.saw_frame(feed.frames)


def _on_status(feed: FeedState, status: Status, connection: Connection, out: Output) -> None:
    learn(feed, status.instruments)


def _on_subscribed(feed: FeedState, subscribed: Subscribed, connection: Connection, out: Output) -> None:
    """The venue sends these products. Binance acknowledges without naming any."""
    waiting = connection.subscriptions.waiting
    if waiting:
        named = {product for products in subscribed.channels.values() for product in products}
        connection.subscriptions.acknowledged(named & waiting.keys() if subscribed.channels else None)


def _on_venue_error(feed: FeedState, error: VenueError, connection: Connection, out: Output) -> None:
    connection.subscriptions.refused(error.message, feed.now_ns)
    out.venue_errors.append(error)


HANDLERS: Final[dict[type, Callable[[FeedState, Any, Connection, Output], None]]] = {
    Trade: on_trade,
    BookDelta: on_delta,
    BookSnapshot: on_snapshot,
    Ticker: on_ticker,
    Heartbeat: on_heartbeat,
    OrderEvent: on_order,
    Candle: _on_candle,
    Status: _on_status,
    Subscribed: _on_subscribed,
    VenueError: _on_venue_error,
}
