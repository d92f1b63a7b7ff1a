"""The shapes of Coinbase Exchange messages, as msgspec types. Fields we do not use are skipped unread."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

Id = Annotated[int, msgspec.Meta(ge=0, le=2**62)]
Pair = tuple[str, str]
RestLevel = tuple[str, str, int]
RestOrder = tuple[str, str, str]


class _Message(msgspec.Struct, tag_field="type", gc=False):
    pass


class SnapshotMessage(_Message, tag="snapshot", gc=False):
    product_id: str
    bids: list[Pair]
    asks: list[Pair]
    time: str = ""


class LongSnapshotMessage(_Message, tag="snapshot", gc=False):
    """The same, its sides as they came."""

    product_id: str
    bids: msgspec.Raw
    asks: msgspec.Raw
    time: str = ""


class UpdateMessage(_Message, tag="l2update", gc=False):
    product_id: str
    changes: list[tuple[str, str, str]]
    time: str = ""


class MatchMessage(_Message, tag="match", gc=False):
    product_id: str
    trade_id: Id
    side: str
    size: str
    price: str
    time: str
    sequence: Id = 0
    maker_order_id: str = ""


class LastMatchMessage(MatchMessage, tag="last_match", gc=False):
    pass


class TickerMessage(_Message, tag="ticker", gc=False):
    product_id: str
    price: str
    time: str = ""
    trade_id: Annotated[int, msgspec.Meta(ge=-1, le=2**62)] = -1
    best_bid: str | None = None
    best_ask: str | None = None
    best_bid_size: str | None = None
    best_ask_size: str | None = None
    volume_24h: str | None = None


class HeartbeatMessage(_Message, tag="heartbeat", gc=False):
    product_id: str
    sequence: Id
    last_trade_id: Id
    time: str


class SubscribedChannel(msgspec.Struct, gc=False):
    name: str
    product_ids: list[str] = []


class SubscriptionsMessage(_Message, tag="subscriptions", gc=False):
    channels: list[SubscribedChannel]


class ErrorMessage(_Message, tag="error", gc=False):
    message: str = ""
    reason: str = ""


class ProductEntry(msgspec.Struct, gc=False):
    id: str
    quote_increment: str = ""
    base_increment: str = ""
    status: str = ""


class StatusMessage(_Message, tag="status", gc=False):
    products: list[ProductEntry] = []


class _OrderMessage(_Message, gc=False):
    product_id: str
    sequence: Id
    order_id: str
    side: str
    price: str | None = None
    time: str = ""


class ReceivedMessage(_OrderMessage, tag="received", gc=False):
    pass


class OpenMessage(_OrderMessage, tag="open", gc=False):
    remaining_size: str = "0"


class DoneMessage(_OrderMessage, tag="done", gc=False):
    pass


class ChangeMessage(_OrderMessage, tag="change", gc=False):
    new_size: str | None = None
    new_price: str | None = None


class ActivateMessage(_Message, tag="activate", gc=False):
    """A stop order woke; it changes no book. Its product, order id and sequence suffice."""

    product_id: str
    sequence: Id = 0
    order_id: str = ""
    side: str = "buy"
    price: str | None = None
    time: str = ""


class Envelope(msgspec.Struct, gc=False):
    """What any message carries."""

    type: str


class TradeEntry(msgspec.Struct, gc=False):
    trade_id: Id
    side: str
    size: str
    price: str
    time: str


class BookAnswer(msgspec.Struct):
    sequence: Id
    bids: list[RestLevel]
    asks: list[RestLevel]
    time: str = ""


class LongBookAnswer(msgspec.Struct):
    """The same, its sides as they came."""

    sequence: Id
    bids: msgspec.Raw
    asks: msgspec.Raw
    time: str = ""


class OrdersAnswer(msgspec.Struct):
    sequence: Id
    bids: list[RestOrder]
    asks: list[RestOrder]


OrderMessage = ReceivedMessage | OpenMessage | DoneMessage | ChangeMessage | ActivateMessage
FRAME: Final = msgspec.json.Decoder(
    SnapshotMessage
    | UpdateMessage
    | MatchMessage
    | LastMatchMessage
    | TickerMessage
    | HeartbeatMessage
    | SubscriptionsMessage
    | ErrorMessage
    | StatusMessage
    | ReceivedMessage
    | OpenMessage
    | DoneMessage
    | ChangeMessage
    | ActivateMessage
)
KNOWN_TYPES: Final = frozenset(
    {
        *("snapshot", "l2update", "match", "last_match", "ticker", "heartbeat", "subscriptions", "error", "status"),
        *("received", "open", "done", "change", "activate"),
    }
)
ENVELOPE: Final = msgspec.json.Decoder(Envelope)
PRODUCTS: Final = msgspec.json.Decoder(list[ProductEntry])
TRADES: Final = msgspec.json.Decoder(list[TradeEntry])
BOOK: Final = msgspec.json.Decoder(BookAnswer)
ORDERS: Final = msgspec.json.Decoder(OrdersAnswer)
LONG_SNAPSHOT: Final = msgspec.json.Decoder(LongSnapshotMessage)
LONG_BOOK: Final = msgspec.json.Decoder(LongBookAnswer)
PAIRS: Final = msgspec.json.Decoder(list[Pair])
REST_LEVELS: Final = msgspec.json.Decoder(list[RestLevel])
