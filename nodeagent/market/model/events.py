"""What a frame says, venue-neutral and exact.

Owns the event types every source parses into. Must never hold a float: prices and sizes are **scaled integers**, the
number times 10**12 (`SCALE`), so that comparing, hashing and taking tick multiples cost an int operation and nothing is
ever rounded. `nodeagent.market.model.decimals` turns text into them and back.

Times are nanoseconds since the Unix epoch, UTC. `side` of a book level is `BID` or `ASK`; `aggressor_side` of a trade
is the side that **took** liquidity (venues that report the maker are turned round by their source).

These are `msgspec.Struct`s rather than dataclasses: one is built 4-5 times faster, and a feed builds tens of thousands
a second. They are frozen and hold no cycles, so the collector need not track them (`gc=False`).
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final, TypeAlias

import msgspec

SCALE_DIGITS: Final = 12
SCALE: Final = 10**SCALE_DIGITS

UNKNOWN_TIME_NS: Final = 0
"""The venue gave no time for this event."""


class Side(StrEnum):
    """A side of the book, and the side of a taker."""

    BUY = "buy"
    SELL = "sell"


BID: Final = 0
ASK: Final = 1
"""Index of a side in books and level changes: cheaper than an enum in the hottest loop."""

Change: TypeAlias = tuple[int, int, int]
"""(BID or ASK, price, size): the absolute size now resting there; 0 removes the level. Scaled integers."""

Level: TypeAlias = tuple[int, int]
"""(price, size), scaled integers."""


class Trade(msgspec.Struct, frozen=True, gc=False):
    """One trade. `trade_id` rises by one per trade and product where the venue promises so."""

    product: str
    trade_id: int
    price: int
    size: int
    aggressor_side: Side
    time_ns: int
    is_history: bool = False
    """From a snapshot, a `last_match` or a REST page: may be hours old, and may be known already."""
    sequence: int = -1
    maker_order_id: str = ""
    """For L3 books: the message's number in the product's full feed, and the order that was filled."""


class BookSnapshot(msgspec.Struct, frozen=True, gc=False):
    """The whole L2 book of a product; replaces whatever was known."""

    product: str
    bids: dict[int, int]
    asks: dict[int, int]
    time_ns: int
    last_update_id: int = -1
    """The venue's number of the last change inside, or -1 where the venue has none."""


class BookDelta(msgspec.Struct, frozen=True, gc=False):
    """Level changes of one product, in order; may be empty."""

    product: str
    changes: list[Change]
    time_ns: int
    first_update_id: int = -1
    last_update_id: int = -1
    """The venue's numbers of the first and last change (Binance `U` and `u`), or -1 where the venue has none."""


class OrderEvent(msgspec.Struct, frozen=True, gc=False):
    """One message of a full (L3) channel, as far as the book needs it."""

    product: str
    kind: str
    """`received`, `open`, `change`, `done` or `activate`; fills are `Trade`s."""
    sequence: int
    order_id: str
    side: int
    price: int
    """0 where none was given: a market order, or a change of size alone."""
    size: int
    """open: remaining size; change: new size; else 0."""
    time_ns: int


class OrderBook(msgspec.Struct, frozen=True, gc=False):
    """A level 3 book: every resting order, as (order id, BID or ASK, price, size), and the last sequence inside."""

    product: str
    sequence: int
    orders: list[tuple[str, int, int, int]]


class Ticker(msgspec.Struct, frozen=True, gc=False):
    """Last price and best quotes. A number that the venue left out is -1."""

    product: str
    price: int
    best_bid: int
    best_bid_size: int
    best_ask: int
    best_ask_size: int
    volume_24h: int
    time_ns: int
    trade_id: int = -1


class Heartbeat(msgspec.Struct, frozen=True, gc=False):
    """A sign of life. `product` is empty where the beat is for the whole connection."""

    time_ns: int
    counter: int
    product: str = ""
    last_trade_id: int = -1


class Candle(msgspec.Struct, frozen=True, gc=False):
    """A venue's own candle. Counted; ours come from trades, so that they agree with them."""

    product: str
    start_ns: int


class Instrument(msgspec.Struct, frozen=True, gc=False):
    """A product's trading rules. Increments are scaled integers; 0 means unknown."""

    product: str
    price_increment: int
    size_increment: int
    is_trading: bool = True


class Status(msgspec.Struct, frozen=True, gc=False):
    """Products and their rules, from a status channel or a REST listing."""

    instruments: tuple[Instrument, ...]


class Subscribed(msgspec.Struct, frozen=True, gc=False):
    """The venue's acknowledgement: channel name to products, cumulative."""

    channels: dict[str, tuple[str, ...]]


class VenueError(msgspec.Struct, frozen=True, gc=False):
    """The venue refused something; the text is its own."""

    message: str


Event: TypeAlias = (
    Trade | BookSnapshot | BookDelta | OrderEvent | Ticker | Heartbeat | Candle | Status | Subscribed | VenueError
)


class RejectReason(StrEnum):
    """Why something was refused; stored with the raw bytes and counted under this name."""

    NOT_JSON = "not_json"
    MALFORMED = "malformed"
    BAD_NUMBER = "bad_number"
    TOO_PRECISE = "too_precise"
    BAD_TIME = "bad_time"
    UNKNOWN_SIDE = "unknown_side"
    UNKNOWN_PRODUCT = "unknown_product"
    PRICE_NOT_POSITIVE = "price_not_positive"
    SIZE_NOT_POSITIVE = "size_not_positive"
    OFF_TICK = "off_tick"
    OUTSIDE_TIME_WINDOW = "outside_time_window"
    IMPLAUSIBLE_ID = "implausible_id"


class Reject(msgspec.Struct, frozen=True, gc=False):
    """Something refused. The frame it came in is kept raw by the intake; `detail` is the offending part."""

    reason: RejectReason
    product: str
    """Empty when the frame could not be read so far."""
    detail: str
    breaks_book: bool = False
    """A level of this product's book is now unknown: it must be asked for again."""


class GapKind(StrEnum):
    """What kind of hole was found."""

    CONNECTION_SEQUENCE = "connection_sequence"
    """Frames of unknown content were lost on a connection."""
    TRADE_ID = "trade_id"
    """Trades are missing."""
    BOOK_WITH_TRADES = "book_with_trades"
    """Where nothing numbers a book's changes: trades were lost, so changes may have been."""
    BOOK_SEQUENCE = "book_sequence"
    CROSSED_BOOK = "crossed_book"
    BOOK_MISMATCH = "book_mismatch"
    REJECTED_LEVEL = "rejected_level"
    OUT_OF_ORDER = "out_of_order"
    """A frame came after a later one."""
    DUPLICATE = "duplicate"
    """A frame came twice. Costs nothing, is counted all the same."""


class Parsed(msgspec.Struct, frozen=True, gc=False):
    """All that one frame says."""

    events: list[Event]
    rejects: list[Reject]
    sequence: int = -1
    """The frame's number on its connection (Advanced Trade `sequence_num`), or -1 where the venue has none."""
    sent_at_ns: int = UNKNOWN_TIME_NS
    """When the venue sent it, for the skew estimate."""
    unknown_type: str = ""
    """The name of a message type we do not know: ignored and counted, never an error."""
