"""What a live feed should ask its venue now: missing trades, fresh snapshots, rules, a book to compare with.

The shell reads the questions once or twice a second. Nothing here changes a row: a replay, which never asks, builds the
same rows.
"""

from __future__ import annotations

from typing import Final, TypeAlias

import msgspec

from nodeagent.market.books.trust import BookState
from nodeagent.market.model.source import Channel, Purpose, RestRequest
from nodeagent.market.model.times import NS
from nodeagent.market.pipeline.state import Connection, FeedState

INSTRUMENTS_RETRY_NS: Final = 60 * NS
INSTRUMENTS_REFRESH_NS: Final = 3600 * NS
QUIET_BOOK_NS: Final = 5 * NS
"""The feed asks for a book with numbered changes when a change waits for it: only then no change between is missed.
Where none comes for so long, the feed asks all the same."""


class Resubscribe(msgspec.Struct, frozen=True):
    """Unsubscribe and subscribe again on a connection: the snapshot that follows repairs books and recent trades."""

    connection_id: int
    products: tuple[str, ...]
    channels: tuple[Channel, ...]


class Subscribe(msgspec.Struct, frozen=True):
    """Ask a connection for one product alone, with all its channels, to see whether the venue has it."""

    connection_id: int
    product: str


Action: TypeAlias = RestRequest | Resubscribe | Subscribe


class Questions:
    """The questions of one feed, and when each was put last."""

    def __init__(self, feed: FeedState) -> None:
        self._feed = feed
        self._instruments_ask_ns = 0

    def due(self, now_ns: int, *, may_ask: bool = True) -> list[Action]:
        """The questions to put now (wall time, as in records). Each comes once, and again after its backoff.

        may_ask: whether REST questions are allowed now; those that are not allowed do not count as put.
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
        """Product rules: once a minute until they are known, then once an hour."""
        if 0 <= self._instruments_ask_ns - now_ns <= INSTRUMENTS_REFRESH_NS:
            return []
        wait_ns = INSTRUMENTS_REFRESH_NS if self._feed.has_instruments else INSTRUMENTS_RETRY_NS
        self._instruments_ask_ns = now_ns + wait_ns
        request = self._feed.source.instruments_request()
        return [request] if request is not None else []

    def _trades(self, now_ns: int) -> list[Action]:
        """The pages of past trades that may fill holes."""
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
                continue  # the venue sends no snapshot of it
            elif state.is_ask_due(now_ns):
                request = self._repair_request(connection, product, state)
                if request is None:
                    state.asked(now_ns)
                    resubscribed.append(product)
                elif may_ask and self._can_join(state, now_ns):
                    state.asked(now_ns)
                    actions.append(request)
        if resubscribed:
            # Trades may be among lost frames of unknown content: the snapshot of trades brings the newest ones.
            is_numbered = self._feed.source.has_connection_sequence
            channels = (Channel.TRADES, Channel.BOOK) if is_numbered else (Channel.BOOK,)
            actions.append(Resubscribe(connection.connection_id, tuple(resubscribed), channels))
        return actions

    def _repair_request(self, connection: Connection, product: str, state: BookState) -> RestRequest | None:
        purpose = Purpose.BOOK_REPAIR if state.orders is None else Purpose.ORDERS
        return _on(connection, self._feed.source.book_request(product, purpose))

    def _can_join(self, state: BookState, now_ns: int) -> bool:
        """Whether the changes that come will follow a snapshot of now."""
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
