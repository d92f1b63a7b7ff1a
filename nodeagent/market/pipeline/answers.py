"""A REST record: reading the venue's answer, and what the answer does to the feed.

The question stands in the record beside the answer, so a replay needs no memory of what the feed asked.
"""

from __future__ import annotations

from typing import Final, TypeAlias

from agentfarm.errors import InvalidRequest
from nodeagent.market.books.levels import compare, is_mismatch
from nodeagent.market.model.events import BookSnapshot, GapKind, Instrument, OrderBook, Reject, RejectReason
from nodeagent.market.model.records import RestAnswer
from nodeagent.market.model.slices import Steps
from nodeagent.market.model.source import Purpose, RestRequest, TradePage, parse_book_in_slices
from nodeagent.market.pipeline.rules import doubt, learn, on_snapshot, on_trade, resynced
from nodeagent.market.pipeline.state import Connection, FeedState, Output

HTTP_OK: Final = 200
MISMATCHES_MAX: Final = 2
"""Books that differ from the venue's answer so often in a row are wrong; once may be bad timing."""

Answer: TypeAlias = tuple[RestRequest, BookSnapshot | OrderBook | TradePage | tuple[Instrument, ...]] | Reject | None
"""The request with what the venue answered; a refusal; None where there is nothing to do."""


def read_answer(feed: FeedState, payload: bytes) -> Steps[Answer]:
    """Read a REST record, in slices. Changes nothing."""
    try:
        answer = RestAnswer.decode(payload)
        request, purpose, body = answer.request, answer.request.purpose, answer.body
        if answer.status != HTTP_OK or request.product in feed.left:
            return None
        if purpose is Purpose.INSTRUMENTS:
            return request, feed.source.parse_instruments(body)
        if purpose is Purpose.TRADES:
            return request, feed.source.parse_trades(request, body)
        if request.connection_id not in feed.connections:
            return None
        if purpose is Purpose.ORDERS:
            return request, feed.source.parse_orders(request, body)
        return request, (yield from parse_book_in_slices(feed.source, request, body))
    except InvalidRequest as error:
        return Reject(RejectReason.MALFORMED, "", error.problem)


def take_answer(feed: FeedState, answer: Answer, out: Output) -> None:
    """Do what the answer says."""
    if answer is None:
        return
    if isinstance(answer, Reject):
        out.rejects.append(answer)
        return
    request, content = answer
    if isinstance(content, TradePage):
        for trade in content.trades:
            on_trade(feed, trade, None, out)
    elif isinstance(content, tuple):
        learn(feed, content)
        feed.has_instruments = feed.rules.is_listing_known = True
    else:
        connection = feed.connections[request.connection_id]
        if isinstance(content, OrderBook):
            _start_orders(feed, content, connection, out)
        elif request.purpose is Purpose.BOOK_REPAIR:
            on_snapshot(feed, content, connection, out)
        else:
            _check_book(feed, content, connection, out)


def _start_orders(feed: FeedState, book: OrderBook, connection: Connection, out: Output) -> None:
    """Start the L3 book from its answer."""
    product = feed.product(book.product)
    if product is None:
        return
    state = connection.book_of(book.product)
    hole = state.follow_orders().replace(book)
    state.synced(feed.now_ns)
    if hole is not None:
        doubt(feed, GapKind.BOOK_SEQUENCE, state, out, hole)
    else:
        resynced(feed, state, connection, out)


def _check_book(feed: FeedState, snapshot: BookSnapshot, connection: Connection, out: Output) -> None:
    """Compare a trusted book with the venue's own; twice far off in a row is a mismatch."""
    state = connection.books.get(snapshot.product)
    product = feed.product(snapshot.product)
    if state is None or product is None or not state.is_synced:
        return
    if not is_mismatch(compare(state.book, snapshot)):
        state.mismatches = 0
        return
    state.mismatches += 1
    state.next_check_ns = 0
    if state.mismatches >= MISMATCHES_MAX:
        doubt(feed, GapKind.BOOK_MISMATCH, state, out)
