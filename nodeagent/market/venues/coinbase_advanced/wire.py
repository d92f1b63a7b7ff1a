"""The shapes of Coinbase Advanced Trade messages, as msgspec types. Fields we do not use are skipped unread.

What a frame is about has no default: a damaged key must not pass for an empty list.
"""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

Id = Annotated[int, msgspec.Meta(ge=0, le=2**62)]
"""Ids and counters: bounded, so that no hostile number becomes a bignum."""


class LevelEntry(msgspec.Struct, gc=False):
    side: str
    price_level: str
    new_quantity: str
    event_time: str


class BookEvent(msgspec.Struct, gc=False):
    type: str
    product_id: str
    updates: list[LevelEntry]


class LongBookEvent(msgspec.Struct, gc=False):
    """The same, its levels as they came."""

    type: str
    product_id: str
    updates: msgspec.Raw


class TradeEntry(msgspec.Struct, gc=False):
    product_id: str
    trade_id: Id
    price: str
    size: str
    time: str
    side: str


class TradesEvent(msgspec.Struct, gc=False):
    type: str
    trades: list[TradeEntry]


class TickerEntry(msgspec.Struct, gc=False):
    product_id: str
    price: str
    volume_24_h: str | None = None
    best_bid: str | None = None
    best_ask: str | None = None
    best_bid_quantity: str | None = None
    best_ask_quantity: str | None = None


class TickersEvent(msgspec.Struct, gc=False):
    tickers: list[TickerEntry]


class HeartbeatEvent(msgspec.Struct, gc=False):
    heartbeat_counter: Id


class SubscriptionsEvent(msgspec.Struct, gc=False):
    subscriptions: dict[str, list[str]]


class CandleEntry(msgspec.Struct, gc=False):
    product_id: str
    start: str


class CandlesEvent(msgspec.Struct, gc=False):
    candles: list[CandleEntry]


class StatusEntry(msgspec.Struct, gc=False):
    id: str
    quote_increment: str = ""
    base_increment: str = ""
    status: str = ""


class StatusEvent(msgspec.Struct, gc=False):
    products: list[StatusEntry]


class _Frame(msgspec.Struct, tag_field="channel", gc=False):
    sequence_num: Id
    timestamp: str


class BookFrame(_Frame, tag="l2_data", gc=False):
    events: list[BookEvent]


class LongBookFrame(_Frame, tag="l2_data", gc=False):
    events: list[LongBookEvent]


class TradesFrame(_Frame, tag="market_trades", gc=False):
    events: list[TradesEvent]


class TickerFrame(_Frame, tag="ticker", gc=False):
    events: list[TickersEvent]


class TickerBatchFrame(_Frame, tag="ticker_batch", gc=False):
    events: list[TickersEvent]


class HeartbeatFrame(_Frame, tag="heartbeats", gc=False):
    events: list[HeartbeatEvent]


class SubscriptionsFrame(_Frame, tag="subscriptions", gc=False):
    events: list[SubscriptionsEvent]


class CandlesFrame(_Frame, tag="candles", gc=False):
    events: list[CandlesEvent]


class StatusFrame(_Frame, tag="status", gc=False):
    events: list[StatusEvent]


class Envelope(msgspec.Struct, gc=False):
    """What any message may carry: enough to tell an error, an unknown channel and a broken frame apart."""

    channel: str = ""
    type: str = ""
    message: str = ""
    reason: str = ""
    sequence_num: Annotated[int, msgspec.Meta(ge=-1, le=2**62)] = -1


class ProductEntry(msgspec.Struct):
    product_id: str
    base_increment: str = ""
    quote_increment: str = ""
    price_increment: str = ""
    status: str = ""


class ProductsAnswer(msgspec.Struct):
    products: list[ProductEntry]


class TradesAnswer(msgspec.Struct):
    trades: list[TradeEntry]


class PriceEntry(msgspec.Struct):
    price: str
    size: str


class PriceBook(msgspec.Struct):
    bids: list[PriceEntry]
    asks: list[PriceEntry]
    time: str = ""


class BookAnswer(msgspec.Struct):
    pricebook: PriceBook


class LongPriceBook(msgspec.Struct):
    """The same, its sides as they came."""

    bids: msgspec.Raw
    asks: msgspec.Raw
    time: str = ""


class LongBookAnswer(msgspec.Struct):
    pricebook: LongPriceBook


FRAME: Final = msgspec.json.Decoder(
    BookFrame
    | TradesFrame
    | TickerFrame
    | TickerBatchFrame
    | HeartbeatFrame
    | SubscriptionsFrame
    | CandlesFrame
    | StatusFrame,
    strict=False,  # trade ids are strings on this feed
)
KNOWN_CHANNELS: Final = frozenset(
    ("l2_data", "market_trades", "ticker", "ticker_batch", "heartbeats", "subscriptions", "candles", "status")
)
ENVELOPE: Final = msgspec.json.Decoder(Envelope)
PRODUCTS: Final = msgspec.json.Decoder(ProductsAnswer)
TRADES_PAGE: Final = msgspec.json.Decoder(TradesAnswer, strict=False)
BOOK_ANSWER: Final = msgspec.json.Decoder(BookAnswer)
LONG_BOOK: Final = msgspec.json.Decoder(LongBookFrame, strict=False)
LONG_BOOK_ANSWER: Final = msgspec.json.Decoder(LongBookAnswer)
LEVELS: Final = msgspec.json.Decoder(list[LevelEntry], strict=False)
PRICES: Final = msgspec.json.Decoder(list[PriceEntry])
