"""What a live feed should ask its venue now: missing trades, fresh snapshots, rules, a book to compare with.

Read from the feed's state by the shell, once or twice a second. Nothing here changes what rows are built, so a
replay, which never asks, builds the same.
"""

from __future__ import annotations

from typing import Final

from nodeagent.market.model.source import Channel, Purpose, RestRequest
from nodeagent.market.model.times import NS
from nodeagent.market.pipeline.connection import BookState, Connection
from nodeagent.market.pipeline.state import Action, FeedState, Resubscribe, Subscribe

INSTRUMENTS_RETRY_NS: Final = 60 * NS
INSTRUMENTS_REFRESH_NS: Final = 3600 * NS
QUIET_BOOK_NS: Final = 5 * NS
"""A book whose changes are numbered is asked for when a change waits for it, for only then it is sure that none is
missed between; where none comes for so long, without."""


class Questions:
    """The questions of one feed, with the times at which they were last put."""

    def __init__(self, feed: FeedState) -> None:
        self._feed = feed
        self._instruments_ask_ns = 0

    def due(self, now_ns: int, *, may_ask: bool = True) -> list[Action]:
        """The questions to put now (wall time, as in records). Each is put once; it comes again after its backoff.

        may_ask: whether the venue may be asked over REST now; questions that may not be put do not count as put.
        """
        actions: list[Action] = []
        if may_ask:
            actions += self._instruments(now_ns)
            actions += self._trades(now_ns)
        for connection in self._feed.connections.values():
            actions += self._books(connection, now_ns, may_ask=may_ask)
            if connection.opened is not None and (alone := connection.subscriptions.due(now_ns)):
                actions.append(Subscribe(connection.connection_id, alone))
        return actions

    def _instruments(self, now_ns: int) -> list[Action]:
        """Product rules: until known once a minute, then once an hour."""
        if 0 <= self._instruments_ask_ns - now_ns <= INSTRUMENTS_REFRESH_NS:
            return []
        wait_ns = INSTRUMENTS_REFRESH_NS if self._feed.has_instruments else INSTRUMENTS_RETRY_NS
        self._instruments_ask_ns = now_ns + wait_ns
        request = self._feed.source.instruments_request()
        return [request] if request is not None else []

    def _trades(self, now_ns: int) -> list[Action]:
        """Holes that are to be asked about."""
        holes = [hole for product in self._feed.products.values() for hole in product.ledger.due(now_ns)]
        requests = map(self._feed.source.trades_request, holes)
        return [request for request in requests if request is not None]

    def _books(self, connection: Connection, now_ns: int, *, may_ask: bool) -> list[Action]:
        """Snapshots for books in doubt; comparisons for trusted ones."""
        actions: list[Action] = []
        resubscribed: list[str] = []
        for product, state in connection.books.items():
            if state.is_synced:
                actions += self._check(connection, product, state, now_ns) if may_ask else []
            elif connection.subscriptions.refusal(product):
                continue  # no snapshot comes of what is refused
            elif state.is_ask_due(now_ns):
                request = self._repair_request(connection, product, state)
                if request is None:
                    state.asked(now_ns)
                    resubscribed.append(product)
                elif may_ask and self._can_join(state, now_ns):
                    state.asked(now_ns)
                    actions.append(request)
        if resubscribed:
            # Where frames of unknown content were lost, trades may be among them: their snapshot brings the last ones.
            is_numbered = self._feed.source.has_connection_sequence
            channels = (Channel.TRADES, Channel.BOOK) if is_numbered else (Channel.BOOK,)
            actions.append(Resubscribe(connection.connection_id, tuple(resubscribed), channels))
        return actions

    def _repair_request(self, connection: Connection, product: str, state: BookState) -> RestRequest | None:
        purpose = Purpose.BOOK_REPAIR if state.orders is None else Purpose.ORDERS
        return _on(connection, self._feed.source.book_request(product, purpose))

    def _can_join(self, state: BookState, now_ns: int) -> bool:
        """Whether a snapshot asked for now will be followed by the changes we hear."""
        is_numbered = self._feed.source.book_from_rest and state.orders is None
        return not is_numbered or bool(state.pending) or not 0 <= now_ns - state.next_ask_ns < QUIET_BOOK_NS

    def _check(self, connection: Connection, product: str, state: BookState, now_ns: int) -> list[Action]:
        interval_ns = int(self._feed.settings.book_check_interval_s * NS)
        if not interval_ns or 0 <= state.next_check_ns - now_ns <= interval_ns:
            return []
        is_first = not state.next_check_ns and not state.mismatches
        state.next_check_ns = now_ns + interval_ns
        if is_first:
            return []
        request = _on(connection, self._feed.source.book_request(product, Purpose.BOOK_CHECK))
        return [request] if request is not None else []


def _on(connection: Connection, request: RestRequest | None) -> RestRequest | None:
    """The request, bound to the connection whose book it is about."""
    if request is None:
        return None
    return RestRequest(request.purpose, request.url, request.product, connection_id=connection.connection_id)
