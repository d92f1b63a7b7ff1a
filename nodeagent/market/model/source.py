"""What a venue must bring to be a feed: names, words to send, and pure parsers.

Owns the `Source` interface and the request types around it. Nothing here opens a socket: the session connects to
`websocket_url`, sends `subscribe(...)`, hands every frame to `parse` and every REST answer to the parser named by its
request. Sources are found by the entry point group `agentfarm.feed_sources`; the entry's name is the source's name, its
object a class without constructor arguments.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from importlib.metadata import EntryPoint, entry_points
from typing import Final, Protocol

import msgspec

from agentfarm.errors import InvalidRequest
from nodeagent.market.model.events import BookSnapshot, Instrument, OrderBook, Parsed, Trade
from nodeagent.market.model.slices import Steps

ENTRY_POINT_GROUP: Final = "agentfarm.feed_sources"


class Channel(StrEnum):
    """What can be subscribed to, in our words; each source knows its own."""

    TRADES = "trades"
    BOOK = "book"
    TICKER = "ticker"
    HEARTBEAT = "heartbeat"
    STATUS = "status"
    FULL = "full"
    """Every order (L3); needs credentials on Coinbase Exchange."""


class Purpose(StrEnum):
    """What a REST request is for; decides which parser reads the answer."""

    INSTRUMENTS = "instruments"
    TRADES = "trades"
    BOOK_CHECK = "book_check"
    """Compare our book with the venue's."""
    BOOK_REPAIR = "book_repair"
    """Replace our book by the venue's (venues whose stream starts from a REST snapshot)."""
    ORDERS = "orders"
    """A level 3 book, to start an L3 book from."""


class TradeHole(msgspec.Struct, frozen=True):
    """Missing trades of a product: ids [first_id, last_id], which happened between the two times."""

    product: str
    first_id: int
    last_id: int
    after_ns: int = 0
    """Venue time of the trade before the hole; 0 where none is known."""
    before_ns: int = 0
    """Venue time of the trade or sign that showed the hole."""


class RestRequest(msgspec.Struct, frozen=True):
    """A GET that the session should make. Stored with its answer in the capture, so that a replay can read it."""

    purpose: Purpose
    url: str
    product: str = ""
    first_id: int = -1
    last_id: int = -1
    """The hole [first_id, last_id] in trade ids that this page is to fill (purpose `trades`)."""
    after_ns: int = 0
    before_ns: int = 0
    """The hole's times, carried from page to page."""
    connection_id: int = -1
    """The connection whose book it checks or repairs."""


class TradePage(msgspec.Struct, frozen=True):
    """One page of past trades, oldest first, and the request for the next page if the hole needs one."""

    trades: list[Trade]
    rejected: int
    """Entries of the page that could not be read."""
    next_request: RestRequest | None


class RestBudget(msgspec.Struct, frozen=True):
    """How fast a venue may be asked over REST, in the venue's own measure of what a question costs."""

    per_s: float
    burst: float
    """So much at once; below that, questions do not wait."""


class Signer(Protocol):
    """Credentials, as the extra fields of one subscribe message. Secrets stay inside."""

    def fields(self, now_s: int) -> Mapping[str, str]:
        """The fields to merge into a message signed at `now_s` (Unix seconds)."""


class Source(Protocol):
    """One venue's protocol. Holds no state of a connection: one instance may serve many."""

    name: str
    """Unique, the entry point's name: `coinbase-advanced`."""
    venue: str
    """Where the trades happened: `coinbase`. Two sources may share a venue; (venue, product, trade_id) is a trade."""
    websocket_url: str
    rest_url: str
    has_connection_sequence: bool
    """`Parsed.sequence` counts every frame of a connection from 0."""
    trade_ids_contiguous: bool
    """Trade ids rise by exactly one per product, so that a jump is a hole."""
    book_from_rest: bool
    """A book starts from a REST snapshot; otherwise the subscription brings one."""
    default_channels: tuple[Channel, ...]
    max_frame_bytes: int
    subscribe_within_s: float
    """The venue closes a connection that has not subscribed by then."""
    max_connects_per_s: float
    messages_per_s: float
    """Ours on one connection; as many may follow each other at once."""
    rest_budget: RestBudget
    silence_max_s: float
    """With the default channels something arrives at least this often; longer silence is a stall."""

    def connect_url(self, products: Sequence[str], channels: Sequence[Channel]) -> str:
        """Where to connect for these; `websocket_url` itself where subscriptions are messages."""

    def subscribe(
        self,
        products: Sequence[str],
        channels: Sequence[Channel],
        signer: Signer | None = None,
        now_s: int = 0,
    ) -> list[bytes]:
        """The messages that subscribe to `channels` for `products`, in the order to send them."""

    def unsubscribe(self, products: Sequence[str], channels: Sequence[Channel]) -> list[bytes]:
        """The messages that end these subscriptions; sending `subscribe` again then brings a fresh snapshot."""

    def parse(self, frame: bytes, received_at_ns: int) -> Parsed:
        """Read one frame. Never raises, whatever the bytes: what cannot be read is a reject."""

    def rest_cost(self, request: RestRequest) -> float:
        """What a question takes of the budget."""

    def instruments_request(self) -> RestRequest | None:
        """Ask for all products' rules."""

    def parse_instruments(self, body: bytes) -> tuple[Instrument, ...]:
        """Read that answer. Raises InvalidRequest when it is not what the venue documents."""

    def trades_request(self, hole: TradeHole) -> RestRequest | None:
        """Ask for the past trades of a hole, by its first page; None where the venue has no such question."""

    def parse_trades(self, request: RestRequest, body: bytes) -> TradePage:
        """Read a page. Raises InvalidRequest when it is not what the venue documents."""

    def book_request(self, product: str, purpose: Purpose) -> RestRequest | None:
        """Ask for the whole book: L2, or every order for `Purpose.ORDERS`. None: the venue has no such question."""

    def parse_book(self, request: RestRequest, body: bytes) -> BookSnapshot:
        """Read that answer. Raises InvalidRequest when it is not what the venue documents."""

    def parse_orders(self, request: RestRequest, body: bytes) -> OrderBook:
        """Read a level 3 book. Raises InvalidRequest when it is not what the venue documents."""


def parse_in_slices(source: Source, frame: bytes, received_at_ns: int) -> Steps[Parsed]:
    """`Source.parse` for a long frame: by the source's `parse_long`, of the same arguments and result, where it has
    one."""
    parse_long = getattr(source, "parse_long", None)
    if parse_long is None:
        return source.parse(frame, received_at_ns)
    parsed: Parsed = yield from parse_long(frame, received_at_ns)
    return parsed


def parse_book_in_slices(source: Source, request: RestRequest, body: bytes) -> Steps[BookSnapshot]:
    """`Source.parse_book` likewise, by the source's `parse_book_long`. Raises InvalidRequest."""
    parse_long = getattr(source, "parse_book_long", None)
    if parse_long is None:
        return source.parse_book(request, body)
    book: BookSnapshot = yield from parse_long(request, body)
    return book


BUILT_IN: Final = {
    "coinbase-advanced": "nodeagent.market.venues.coinbase_advanced.source:CoinbaseAdvanced",
    "coinbase-exchange": "nodeagent.market.venues.coinbase_exchange.source:CoinbaseExchange",
    "binance": "nodeagent.market.venues.binance.source:Binance",
    "capture": "nodeagent.market.venues.recording:Capture",
}
"""Ours, known also where the package's entry points are not installed. An installed entry of the same name wins."""


def load_source(name: str) -> Source:
    """The source of that name. Raises InvalidRequest, listing the known ones, when there is none."""
    sources = {key: EntryPoint(key, value, ENTRY_POINT_GROUP) for key, value in BUILT_IN.items()}
    sources.update({entry.name: entry for entry in entry_points(group=ENTRY_POINT_GROUP)})
    if name not in sources:
        raise InvalidRequest(f"There is no feed source {name!r}.", remedy=f"Known: {', '.join(sorted(sources))}.")
    source: Source = sources[name].load()()
    return source
