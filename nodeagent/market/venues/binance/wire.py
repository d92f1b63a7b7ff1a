"""The shapes of Binance spot messages, as msgspec types. Fields we do not use are skipped unread."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

Id = Annotated[int, msgspec.Meta(ge=0, le=2**62)]
Milliseconds = Annotated[int, msgspec.Meta(ge=0, le=2**48)]
Pair = tuple[str, str]


class _Data(msgspec.Struct, tag_field="e", gc=False):
    event_ms: Milliseconds = msgspec.field(name="E")
    symbol: str = msgspec.field(name="s")


class TradeData(_Data, tag="trade", gc=False):
    trade_id: Id = msgspec.field(name="t")
    price: str = msgspec.field(name="p")
    size: str = msgspec.field(name="q")
    trade_ms: Milliseconds = msgspec.field(name="T")
    is_buyer_maker: bool = msgspec.field(name="m")


class DepthData(_Data, tag="depthUpdate", gc=False):
    first_update_id: Id = msgspec.field(name="U")
    last_update_id: Id = msgspec.field(name="u")
    bids: list[Pair] = msgspec.field(name="b")
    asks: list[Pair] = msgspec.field(name="a")


class TickerData(_Data, tag="24hrTicker", gc=False):
    price: str = msgspec.field(name="c")
    best_bid: str | None = msgspec.field(name="b", default=None)
    best_bid_size: str | None = msgspec.field(name="B", default=None)
    best_ask: str | None = msgspec.field(name="a", default=None)
    best_ask_size: str | None = msgspec.field(name="A", default=None)
    volume: str | None = msgspec.field(name="v", default=None)
    last_trade_id: Annotated[int, msgspec.Meta(ge=-1, le=2**62)] = msgspec.field(name="L", default=-1)


class StreamFrame(msgspec.Struct, gc=False):
    """A frame of a combined stream."""

    stream: str
    data: TradeData | DepthData | TickerData


class Fault(msgspec.Struct, gc=False):
    code: int = 0
    msg: str = ""


class Data(msgspec.Struct, gc=False):
    e: str = ""


class Envelope(msgspec.Struct, gc=False):
    """Anything else: an answer to a request, an error, or an unknown kind of data."""

    stream: str = ""
    data: Data | None = None
    e: str = ""
    id: int | str | None = None
    error: Fault | None = None
    code: int = 0
    msg: str = ""


class Filter(msgspec.Struct, gc=False):
    filter_type: str = msgspec.field(name="filterType")
    tick_size: str = msgspec.field(name="tickSize", default="")
    step_size: str = msgspec.field(name="stepSize", default="")


class SymbolEntry(msgspec.Struct, gc=False):
    symbol: str
    status: str = ""
    filters: list[Filter] = []


class ExchangeInfo(msgspec.Struct):
    symbols: list[SymbolEntry]


class DepthAnswer(msgspec.Struct):
    last_update_id: Id = msgspec.field(name="lastUpdateId")
    bids: list[Pair]
    asks: list[Pair]


class PastTrade(msgspec.Struct, gc=False):
    id: Id
    price: str
    qty: str
    time: Milliseconds
    is_buyer_maker: bool = msgspec.field(name="isBuyerMaker")


FRAME: Final = msgspec.json.Decoder(StreamFrame)
SHUTDOWN: Final = "serverShutdown"
KNOWN_KINDS: Final = frozenset({"trade", "depthUpdate", "24hrTicker"})
ENVELOPE: Final = msgspec.json.Decoder(Envelope)
EXCHANGE_INFO: Final = msgspec.json.Decoder(ExchangeInfo)
DEPTH: Final = msgspec.json.Decoder(DepthAnswer)
TRADES: Final = msgspec.json.Decoder(list[PastTrade])
