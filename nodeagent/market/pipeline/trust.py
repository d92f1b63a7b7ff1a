"""Losing trust and winning it back: every gap found, doubted book and repair passes here, and leaves a row."""

from __future__ import annotations

from nodeagent.market.model.events import GapKind, Reject
from nodeagent.market.model.rows import GapRow
from nodeagent.market.model.source import TradeHole
from nodeagent.market.pipeline.connection import BookState, Connection
from nodeagent.market.pipeline.product import repaired
from nodeagent.market.pipeline.state import FeedState, Output


def lost_frames(feed: FeedState, connection: Connection, hole: tuple[int, int], out: Output) -> None:
    """Frames of unknown content are gone: any book of the connection may be wrong."""
    feed.sequence_gaps += 1
    row = _row(feed, GapKind.CONNECTION_SEQUENCE, "", hole, connection.connection_id)
    if connection.books:
        out.rows.append(row)
        connection.open_gaps.append(row)
        _doubt_all(feed, connection)
    else:
        out.rows.append(repaired(row, feed.now_ns))  # lost trades show by their ids; nothing else can be brought back


def note_frame(feed: FeedState, kind: GapKind, sequence: int, connection: Connection, out: Output) -> None:
    """A frame came twice or late: a fact, with nothing to repair."""
    if kind is GapKind.DUPLICATE:
        feed.duplicate_frames += 1
    else:
        feed.out_of_order += 1
    out.rows.append(repaired(_row(feed, kind, "", (sequence, sequence), connection.connection_id), feed.now_ns))


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
        _doubt_all(feed, connection)
        return
    state = connection.books.get(product.name)
    if state is not None:
        doubt(feed, GapKind.REJECTED_LEVEL, state, out)


def doubt(feed: FeedState, kind: GapKind, state: BookState, out: Output, hole: tuple[int, int] = (0, 0)) -> None:
    """A book may be wrong from here on, until its next snapshot."""
    was_synced = state.is_synced
    state.doubt(feed.now_ns)
    if was_synced and state.open_gap is None:
        feed.products[state.product].counts.gaps += 1
        state.open_gap = _row(feed, kind, state.product, hole, state.connection_id)
        out.rows.append(state.open_gap)


def resynced(feed: FeedState, state: BookState, connection: Connection, out: Output) -> None:
    """A book was replaced and is trusted: close its gap, and the connection's when it was the last."""
    product = feed.products[state.product]
    product.counts.resyncs += 1
    if state.open_gap is not None:
        product.counts.repaired += 1
        out.rows.append(repaired(state.open_gap, feed.now_ns))
        state.open_gap = None
    if feed.orphan_gaps:
        _close_orphans(feed, state.product, out)
    if (connection.open_gaps or feed.orphan_gaps) and connection.is_synced():
        _close_gaps(feed, connection, out)


def open_trade_hole(
    feed: FeedState,
    hole: TradeHole,
    connection: Connection | None,
    out: Output,
    *,
    is_history: bool,
) -> None:
    """Trades are missing. Where nothing numbers the book's changes, they may have been lost with the trades.

    A hole shown by history (a first snapshot after a reconnect, trades that no recording has any more) says nothing
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


def close_connection(feed: FeedState, connection_id: int) -> None:
    """A connection is gone; its open gaps, and those of its books, wait for another's snapshots."""
    connection = feed.connections.pop(connection_id, None)
    if connection is not None:
        feed.collect_absent_removals(connection)
        feed.orphan_gaps += connection.open_gaps
        feed.orphan_gaps += [state.open_gap for state in connection.books.values() if state.open_gap is not None]


def forget_book(feed: FeedState, name: str, connection: Connection, out: Output) -> None:
    """The product is not followed any more. Its book's gap stays open until the product is back and its book can be
    trusted; the connection's may end now."""
    state = connection.books.pop(name, None)
    if state is not None and state.open_gap is not None:
        feed.orphan_gaps.append(state.open_gap)
    if state is not None and not state.is_synced and connection.books and connection.is_synced():
        _close_gaps(feed, connection, out)


def _close_gaps(feed: FeedState, connection: Connection, out: Output) -> None:
    """Every book of the connection is trusted again."""
    out.rows += [repaired(row, feed.now_ns) for row in connection.open_gaps]
    connection.open_gaps.clear()
    _close_orphans(feed, "", out)


def _close_orphans(feed: FeedState, product: str, out: Output) -> None:
    """A book of the product is trusted again; without a name: all books of a connection are."""
    out.rows += [repaired(row, feed.now_ns) for row in feed.orphan_gaps if row.product == product]
    feed.orphan_gaps = [row for row in feed.orphan_gaps if row.product != product]


def _doubt_all(feed: FeedState, connection: Connection) -> None:
    for state in connection.books.values():
        state.doubt(feed.now_ns)


def _row(feed: FeedState, kind: GapKind, product: str, hole: tuple[int, int], connection_id: int) -> GapRow:
    return GapRow(
        feed.now_ns,
        feed.source.venue,
        product,
        feed.source.name,
        kind.value,
        *hole,
        None,
        connection_id,
    )
