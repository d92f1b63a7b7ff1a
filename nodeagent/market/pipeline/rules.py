"""What an event does to a feed: validate, count, keep the ledger and the book, lose or win back trust, build rows.

The rules change `state` and write what follows into the record's `Output`. They call no module above them. First comes
each kind of event, then trust: every gap, doubted book and repair passes there and leaves a row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

from nodeagent.market.books.trust import BookState, Fault
from nodeagent.market.model.events import (
    BookDelta,
    BookSnapshot,
    Candle,
    GapKind,
    Heartbeat,
    Instrument,
    OrderEvent,
    Reject,
    RejectReason,
    Status,
    Subscribed,
    Ticker,
    Trade,
    VenueError,
)
from nodeagent.market.model.source import TradeHole
from nodeagent.market.pipeline.ledger import Seen
from nodeagent.market.pipeline.product import Product
from nodeagent.market.pipeline.state import Connection, FeedState, Output
from nodeagent.market.pipeline.validation import (
    TIME_WINDOW_NS,
    check_order,
    check_snapshot,
    check_ticker,
    check_trade,
    outside_window,
)


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
            _open_trade_hole(feed, hole, connection, out, is_history=trade.is_history)
        return True
    if seen is Seen.FILLS:
        out.rows += product.close_filled_holes(feed.now_ns)
        return True
    if seen is Seen.IMPLAUSIBLE:
        detail = f"trade id {trade.trade_id} after {product.ledger.last_id}"
        reject(feed, Reject(RejectReason.IMPLAUSIBLE_ID, trade.product, detail), connection, out)
    elif not trade.is_history:
        product.counts.duplicates += 1
    return False


def on_delta(feed: FeedState, delta: BookDelta, connection: Connection, out: Output) -> None:
    """Change the book. The busiest function of the feed: nine of ten events pass here."""
    name = delta.product
    product = feed.products.get(name) or feed.product(name)
    if product is None:
        # We follow no such product, so the name is damaged: whose changes these were is unknown.
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
        reject(feed, refusal, connection, out)
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
        resynced(feed, state, connection, out)


def _on_ticker(feed: FeedState, ticker: Ticker, connection: Connection, out: Output) -> None:
    """Store the ticker; the venue's time where it gave one."""
    refusal = check_ticker(ticker, feed.rules, feed.venue_now_ns)
    product = feed.product(ticker.product) if refusal is None else None
    if refusal is not None or product is None:
        _refuse(feed, refusal, connection, out)
        return
    product.saw_frame(feed.frames)
    out.rows.append(product.ticker_row(ticker, ticker.time_ns or feed.now_ns))


def _on_heartbeat(feed: FeedState, beat: Heartbeat, connection: Connection, out: Output) -> None:
    """Compare the newest trade that the venue names with the newest we have."""
    product = feed.product(beat.product)
    if product is None:
        return
    product.saw_frame(feed.frames)
    if beat.last_trade_id >= 0 and feed.source.trade_ids_contiguous:
        hole = product.ledger.announce(beat.last_trade_id, beat.time_ns, feed.now_ns)
        if hole is not None:
            _open_trade_hole(feed, hole, connection, out, is_history=False)


def _on_order(feed: FeedState, order: OrderEvent, connection: Connection, out: Output) -> None:
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


def _on_candle(feed: FeedState, candle: Candle, connection: Connection, out: Output) -> None:
    product = feed.product(candle.product)
    if product is not None:
        product.saw_frame(feed.frames)


def _on_status(feed: FeedState, status: Status, connection: Connection, out: Output) -> None:
    learn(feed, status.instruments)


def learn(feed: FeedState, instruments: Iterable[Instrument]) -> None:
    """Take product rules; the books that stand must obey them from now on."""
    feed.rules.learn(instruments)
    for connection in feed.connections.values():
        for product, state in connection.books.items():
            state.book.tick = feed.rules.tick(product) or 1


def _on_subscribed(feed: FeedState, subscribed: Subscribed, connection: Connection, out: Output) -> None:
    """The venue sends these products. Binance acknowledges without naming any."""
    waiting = connection.subscriptions.waiting
    if waiting:
        named = {product for products in subscribed.channels.values() for product in products}
        connection.subscriptions.acknowledged(named & waiting.keys() if subscribed.channels else None)


def _on_venue_error(feed: FeedState, error: VenueError, connection: Connection, out: Output) -> None:
    connection.subscriptions.refused(error.message, feed.now_ns)
    out.venue_errors.append(error)


def _apply_full(feed: FeedState, event: OrderEvent | Trade, state: BookState, out: Output) -> None:
    assert state.orders is not None
    hole = state.orders.apply(event)
    state.is_changed = True
    if hole is not None:
        doubt(feed, GapKind.BOOK_SEQUENCE, state, out, hole)


def reject(feed: FeedState, refusal: Reject, connection: Connection | None, out: Output) -> None:
    """Count a refusal; if a level is unknown because of it, its book is in doubt (every book, if the product is)."""
    out.rejects.append(refusal)
    product = feed.product(refusal.product) if refusal.product else None
    if product is None:
        feed.unreadable += 1
    else:
        product.saw_frame(feed.frames)
        product.counts.rejected += 1
    if not refusal.breaks_book or connection is None:
        return
    if product is None:
        connection.doubt_books(feed.now_ns)
        return
    state = connection.books.get(product.name)
    if state is not None:
        doubt(feed, GapKind.REJECTED_LEVEL, state, out)


def _refuse(feed: FeedState, refusal: Reject | None, connection: Connection | None, out: Output) -> None:
    """Record a refusal; a product beyond `PRODUCTS_MAX`, or one without a name, is refused as unknown."""
    reject(feed, refusal or Reject(RejectReason.UNKNOWN_PRODUCT, "", ""), connection, out)


def _on_fault(feed: FeedState, fault: Fault, state: BookState, out: Output) -> None:
    """A book shows that it is wrong; that is news if it was trusted."""
    if fault.kind is GapKind.REJECTED_LEVEL:
        refusal = Reject(RejectReason.OFF_TICK, state.product, "a level is no multiple of the increment", True)
        reject(feed, refusal, feed.connections.get(state.connection_id), out)
        return
    if fault.kind is GapKind.CROSSED_BOOK and state.is_synced:
        feed.products[state.product].counts.crossed += 1
    doubt(feed, fault.kind, state, out, (fault.first_id, fault.last_id))


def doubt(feed: FeedState, kind: GapKind, state: BookState, out: Output, hole: tuple[int, int] = (0, 0)) -> None:
    """A book may be wrong from here on, until its next snapshot."""
    was_synced = state.is_synced
    state.doubt(feed.now_ns)
    if was_synced and state.open_gap is None:
        feed.products[state.product].counts.gaps += 1
        state.open_gap = feed.gap_row(kind, state.product, hole, state.connection_id)
        out.rows.append(state.open_gap)


def resynced(feed: FeedState, state: BookState, connection: Connection, out: Output) -> None:
    """A snapshot replaced a book: close the book's gap, and the connection's if this book was the last in doubt."""
    product = feed.products[state.product]
    product.counts.resyncs += 1
    if state.open_gap is not None:
        product.counts.repaired += 1
        out.rows.append(state.open_gap.repaired(feed.now_ns))
        state.open_gap = None
    if feed.orphan_gaps:
        _close_orphans(feed, state.product, out)
    if (connection.open_gaps or feed.orphan_gaps) and connection.is_synced():
        close_gaps(feed, connection, out)


def close_gaps(feed: FeedState, connection: Connection, out: Output) -> None:
    """Every book of the connection is trusted again: close the gaps of connections."""
    out.rows += [row.repaired(feed.now_ns) for row in connection.open_gaps]
    connection.open_gaps.clear()
    _close_orphans(feed, "", out)


def _close_orphans(feed: FeedState, product: str, out: Output) -> None:
    """A book of the product is trusted again; without a name: all books of a connection are."""
    out.rows += [row.repaired(feed.now_ns) for row in feed.orphan_gaps if row.product == product]
    feed.orphan_gaps = [row for row in feed.orphan_gaps if row.product != product]


def _open_trade_hole(
    feed: FeedState,
    hole: TradeHole,
    connection: Connection | None,
    out: Output,
    *,
    is_history: bool,
) -> None:
    """Trades are missing. Where the book's changes bear no numbers, some may be missing with the trades.

    A hole that history shows (a first snapshot after a reconnect, trades that no recording has any more) says nothing
    about this connection's book.
    """
    connection_id = connection.connection_id if connection is not None else 0
    product = feed.products[hole.product]
    out.rows.append(product.open_trade_hole(hole.first_id, hole.last_id, connection_id, feed.now_ns))
    if connection is None or is_history or not hole.before_ns or feed.source.has_connection_sequence:
        return
    state = connection.books.get(product.name)
    if state is not None and state.update_id < 0 and state.orders is None:
        doubt(feed, GapKind.BOOK_WITH_TRADES, state, out, (hole.first_id, hole.last_id))


RULES: Final[dict[type, Callable[[FeedState, Any, Connection, Output], None]]] = {
    Trade: on_trade,
    BookDelta: on_delta,
    BookSnapshot: on_snapshot,
    Ticker: _on_ticker,
    Heartbeat: _on_heartbeat,
    OrderEvent: _on_order,
    Candle: _on_candle,
    Status: _on_status,
    Subscribed: _on_subscribed,
    VenueError: _on_venue_error,
}
