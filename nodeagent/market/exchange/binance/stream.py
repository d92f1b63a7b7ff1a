"""A connection of the Binance spot protocol, purely: messages and events in, frames out.

Rules kept, as documented: streams are named `<symbol in small letters>@<kind>`, asked for by the address or by
SUBSCRIBE, whose answer repeats the `id`; `/stream` wraps each event with its stream's name, `/ws` does not. Depth is
numbered: `U` to `u` are the ids of the changes in an event, gathered for 100 ms or a second; the book itself comes over
REST. `m` says that the buyer was the maker. Times are milliseconds, numbers have eight decimals. A symbol that is not
listed is accepted and never heard of.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Final

from nodeagent.market.exchange.events import NS, Batch, BookBatch, Side, TradeBatch, VenueTrade
from nodeagent.market.exchange.faults import Frame
from nodeagent.market.exchange.protocol import read_target
from nodeagent.market.exchange.venue import Market, Venue

MS_NS: Final = 1_000_000
STREAMS_MAX: Final = 1024
ID_CHARS_MAX: Final = 36
DEPTH_SPANS_NS: Final = {"depth": NS, "depth@100ms": NS // 10}
KINDS: Final = ("trade", "ticker", *DEPTH_SPANS_NS)
"""Streams that are spoken here; the venue has more."""
METHODS: Final = ("SUBSCRIBE", "UNSUBSCRIBE", "LIST_SUBSCRIPTIONS")
INVALID_REQUEST, INVALID_JSON = 2, 3


def is_stream_path(path: str) -> bool:
    """Whether streams are to be had there."""
    return read_target(path)[0].strip("/").partition("/")[0] in ("stream", "ws")


@dataclass(slots=True)
class _Gathered:
    """Changes of a book that no frame has brought yet."""

    since_ns: int
    first_update_id: int = 0
    last_update_id: int = 0
    levels: dict[tuple[Side, str], str] = field(default_factory=dict)


class _Invalid(Exception):
    """A message that cannot be followed."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class BinanceSession:
    """One connection."""

    def __init__(self, venue: Venue, path: str = "/stream") -> None:
        self._venue = venue
        self._products = {product.id.lower(): product.id for product in venue.products}
        self._streams: dict[str, None] = {}
        self._gathered: dict[str, _Gathered] = {}
        place, query = read_target(path)
        self._is_combined = place.startswith("/stream")
        names = query.get("streams", "") if self._is_combined else place.removeprefix("/ws")
        self._streams.update(dict.fromkeys(name for name in names.split("/") if _is_spoken(name)))

    @property
    def is_subscribed(self) -> bool:
        """Whether any stream was asked for."""
        return bool(self._streams)

    def receive(self, text: str, now_ns: int) -> list[Frame]:
        """Answer a client's message."""
        message: dict[str, Any] = {}
        try:
            message = _read(text)
            result = self._follow(message["method"], _names(message))
        except _Invalid as invalid:
            error = {"code": invalid.code, "msg": str(invalid)}
            return [_control({"error": error, "id": message["id"]} if "id" in message else error)]
        return [_control({"result": result, "id": message.get("id")})]

    def frames_of(self, batch: Batch, now_ns: int) -> list[Frame]:
        """The frames that an event brings to this connection."""
        symbol = batch.product.lower()
        if isinstance(batch, TradeBatch):
            stream = f"{symbol}@trade"
            return [self._trade(stream, t, batch.sent_at_ns) for t in batch.trades] if stream in self._streams else []
        if not isinstance(batch, BookBatch):
            return []
        frames = []
        for kind, span_ns in DEPTH_SPANS_NS.items():
            stream = f"{symbol}@{kind}"
            if stream in self._streams:
                frames += self._gather(stream, batch, span_ns)
        return frames

    def second(self, now_ns: int) -> list[Frame]:
        """Tickers; and changes that wait for more, of which there may be none."""
        frames = [self._depth(stream, now_ns) for stream, waiting in self._gathered.items() if waiting.levels]
        for stream in self._streams:
            symbol, _, kind = stream.partition("@")
            if kind == "ticker" and symbol in self._products:
                frames += self._ticker(stream, self._venue.markets[self._products[symbol]], now_ns)
        return frames

    def farewell(self, now_ns: int) -> list[Frame]:
        """The server shuts down."""
        return [self._frame("!serverShutdown", {"e": "serverShutdown", "E": now_ns // MS_NS}, is_control=True)]

    def _follow(self, method: str, names: list[str]) -> list[str] | None:
        """Change what is subscribed to, or list it. Raises _Invalid, and then changes nothing."""
        if method == "LIST_SUBSCRIPTIONS":
            return list(self._streams)
        for name in names:
            if not _is_spoken(name):
                raise _Invalid(INVALID_REQUEST, f"Invalid request: {name!r} is no stream")
        if method == "UNSUBSCRIBE":
            for name in names:
                self._streams.pop(name, None)
                self._gathered.pop(name, None)
            return None
        if len(self._streams.keys() | set(names)) > STREAMS_MAX:
            raise _Invalid(INVALID_REQUEST, f"Invalid request: more than {STREAMS_MAX} streams")
        self._streams.update(dict.fromkeys(names))
        return None

    def _gather(self, stream: str, batch: BookBatch, span_ns: int) -> list[Frame]:
        """Add changes to the stream's next event. Returns it when its time has come."""
        waiting = self._gathered.setdefault(stream, _Gathered(batch.sent_at_ns))
        last_id = self._venue.markets[batch.product].update_id
        if batch.changes:
            waiting.first_update_id = waiting.first_update_id or last_id - len(batch.changes) + 1
            waiting.last_update_id = last_id
            waiting.levels.update({(side, price): size for side, price, size in batch.changes})
        is_due = waiting.levels and batch.sent_at_ns - waiting.since_ns >= span_ns
        return [self._depth(stream, batch.sent_at_ns)] if is_due else []

    def _depth(self, stream: str, now_ns: int) -> Frame:
        waiting = self._gathered[stream]
        product = self._products[stream.partition("@")[0]]
        sides = {
            side: [[eight(price), eight(size)] for (of, price), size in waiting.levels.items() if of == side]
            for side in ("bid", "offer")
        }
        message = {"e": "depthUpdate", "E": now_ns // MS_NS, "s": product}
        message |= {"U": waiting.first_update_id, "u": waiting.last_update_id, "b": sides["bid"], "a": sides["offer"]}
        self._gathered[stream] = _Gathered(now_ns)
        return self._frame(stream, message, product)

    def _trade(self, stream: str, trade: VenueTrade, sent_at_ns: int) -> Frame:
        message = {
            "e": "trade",
            "E": sent_at_ns // MS_NS,
            "s": trade.product,
            "t": trade.trade_id,
            "p": eight(trade.price),
            "q": eight(trade.size),
            "T": trade.time_ns // MS_NS,
            "m": trade.maker_side == "BUY",
            "M": True,
        }
        return self._frame(stream, message, trade.product, first_trade_id=trade.trade_id)

    def _ticker(self, stream: str, market: Market, now_ns: int) -> list[Frame]:
        if not market.trades:
            return []
        first, last = market.trades[0], market.trades[-1]
        (bid, bid_size), (ask, ask_size) = market.best("bid"), market.best("offer")
        numbers = {"c": last.price, "Q": last.size, "b": bid, "B": bid_size, "a": ask, "A": ask_size}
        numbers |= {"o": first.price, "x": first.price, "v": market.ticker.get("volume_24_h", "0")}
        numbers |= {"h": market.ticker.get("high_24_h", last.price), "l": market.ticker.get("low_24_h", last.price)}
        message: dict[str, Any] = {"e": "24hrTicker", "E": now_ns // MS_NS, "s": market.product.id}
        message |= {name: eight(number) for name, number in numbers.items()}
        message |= {"O": now_ns // MS_NS - 86_400_000, "C": now_ns // MS_NS, "F": first.trade_id, "L": last.trade_id}
        return [self._frame(stream, message | {"n": last.trade_id - first.trade_id + 1}, market.product.id)]

    def _frame(self, stream: str, message: dict[str, Any], product: str = "", **marks: Any) -> Frame:
        text = json.dumps({"stream": stream, "data": message} if self._is_combined else message, separators=(",", ":"))
        return Frame(text, message["e"], product, **marks)


def eight(number: str) -> str:
    """As the venue writes numbers: eight decimals."""
    return f"{Decimal(number):.8f}"


def _is_spoken(name: str) -> bool:
    symbol, _, kind = name.partition("@")
    return bool(symbol) and symbol == symbol.lower() and kind in KINDS


def _read(text: str) -> dict[str, Any]:
    """A message with a method and a good id. Raises _Invalid."""
    try:
        message = json.loads(text)
    except ValueError:
        raise _Invalid(INVALID_JSON, "Invalid JSON") from None
    if not isinstance(message, dict) or message.get("method") not in METHODS:
        raise _Invalid(INVALID_REQUEST, f"Invalid request: the method is none of {', '.join(METHODS)}")
    number = message.get("id")
    is_text = isinstance(number, str) and number.isalnum() and len(number) <= ID_CHARS_MAX
    is_number = isinstance(number, int) and not isinstance(number, bool) and abs(number) < 2**63
    if not (number is None or is_text or is_number):
        raise _Invalid(INVALID_REQUEST, "Invalid request: the id is neither a number nor a short name")
    return message


def _names(message: dict[str, Any]) -> list[str]:
    names = message.get("params", [])
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise _Invalid(INVALID_REQUEST, "Invalid request: params is no list of streams")
    return names


def _control(message: dict[str, Any]) -> Frame:
    return Frame(json.dumps(message, separators=(",", ":")), "answer", is_control=True)
