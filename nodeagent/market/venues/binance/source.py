"""Binance spot: combined streams and REST answers, read purely.

Rules of the protocol kept here: books start from the REST depth snapshot and continue with numbered deltas (`U`,
`u`); `m` true means that the buyer was the maker, so the taker sold; trade ids rise by one per symbol, and the 24 h
ticker names the last one once a second, which serves as heartbeat; times are milliseconds. Products are symbols in
capitals (`BTCUSDT`). A minute allows 6,000 of request weight, a second 5 messages, of which our PING and PONG are two.
Source: developers.binance.com/docs/binance-spot-api-docs (web-socket-streams, rest-api).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from agentfarm.errors import InvalidRequest
from nodeagent.market.model.decimals import scaled
from nodeagent.market.model.events import (
    ASK,
    BID,
    UNKNOWN_TIME_NS,
    BookDelta,
    BookSnapshot,
    Event,
    Heartbeat,
    Instrument,
    OrderBook,
    Parsed,
    Side,
    Subscribed,
    Ticker,
    Trade,
    VenueError,
)
from nodeagent.market.model.source import Channel, Purpose, RestBudget, RestRequest, Signer, TradeHole, TradePage
from nodeagent.market.model.times import MS_NS
from nodeagent.market.venues.binance import wire
from nodeagent.market.venues.fields import (
    DECODE_ERRORS,
    READ_ERRORS,
    decode_frame,
    optional_number,
    read_answer,
    read_instruments,
    read_pairs,
    reject_of,
    to_json,
    unreadable,
)

STREAM_NAMES: Final = {Channel.TRADES: "trade", Channel.BOOK: "depth@100ms", Channel.TICKER: "ticker"}
TRADES_PAGE_MAX: Final = 1000
DEPTH_MAX: Final = 5000
DEPTH_CHECKED: Final = 1000
"""Levels that a book is compared with: a fifth of the weight."""
WEIGHTS: Final = {Purpose.INSTRUMENTS: 20, Purpose.TRADES: 25, Purpose.BOOK_CHECK: 50, Purpose.BOOK_REPAIR: 250}
ID_CHARS_MAX: Final = 36
_SUBSCRIBED_ID, _UNSUBSCRIBED_ID = 1, 2
"""Answers name nothing but the id. A product that is asked for alone lends it its name."""


class Binance:
    """The source `binance`."""

    name = "binance"
    venue = "binance"
    websocket_url = "wss://stream.binance.com:9443/stream"
    rest_url = "https://api.binance.com/api/v3"
    has_connection_sequence = False
    trade_ids_contiguous = True
    book_from_rest = True
    default_channels: tuple[Channel, ...] = (Channel.TICKER, Channel.TRADES, Channel.BOOK)
    max_frame_bytes = 16 * 1024 * 1024
    subscribe_within_s = 5.0
    max_connects_per_s = 1.0
    messages_per_s = 2.0
    rest_budget = RestBudget(per_s=50.0, burst=2500.0)
    silence_max_s = 10.0

    def connect_url(self, products: Sequence[str], channels: Sequence[Channel]) -> str:
        return self.websocket_url

    def subscribe(
        self, products: Sequence[str], channels: Sequence[Channel], signer: Signer | None = None, now_s: int = 0
    ) -> list[bytes]:
        alone = products[0] if len(products) == 1 else ""
        is_id = alone.isascii() and alone.isalnum() and len(alone) <= ID_CHARS_MAX
        return _request("SUBSCRIBE", products, channels, alone if is_id else _SUBSCRIBED_ID)

    def unsubscribe(self, products: Sequence[str], channels: Sequence[Channel]) -> list[bytes]:
        return _request("UNSUBSCRIBE", products, channels, _UNSUBSCRIBED_ID)

    def parse(self, frame: bytes, received_at_ns: int) -> Parsed:
        """Read one frame; never raises."""
        try:
            data = decode_frame(wire.FRAME, frame).data
        except DECODE_ERRORS as error:
            return _parse_other(frame, error)
        sent_at_ns = data.event_ms * MS_NS
        try:
            events = _read(data, sent_at_ns)
        except READ_ERRORS as error:
            is_book = isinstance(data, wire.DepthData)
            return Parsed([], [reject_of(error, data.symbol, breaks_book=is_book)], -1, sent_at_ns)
        return Parsed(events, [], -1, sent_at_ns)

    def rest_cost(self, request: RestRequest) -> float:
        """Its weight."""
        return WEIGHTS.get(request.purpose, 1)

    def instruments_request(self) -> RestRequest | None:
        return RestRequest(Purpose.INSTRUMENTS, f"{self.rest_url}/exchangeInfo")

    def parse_instruments(self, body: bytes) -> tuple[Instrument, ...]:
        info = read_answer(wire.EXCHANGE_INFO.decode, body, "exchange information")
        return read_instruments(
            (s.symbol, _filter(s, "PRICE_FILTER").tick_size, _filter(s, "LOT_SIZE").step_size, s.status == "TRADING")
            for s in info.symbols
        )

    def trades_request(self, hole: TradeHole) -> RestRequest | None:
        """Trades from an id upwards, oldest first."""
        url = f"{self.rest_url}/historicalTrades?symbol={hole.product}&limit={TRADES_PAGE_MAX}&fromId={hole.first_id}"
        return RestRequest(
            Purpose.TRADES, url, hole.product, hole.first_id, hole.last_id, hole.after_ns, hole.before_ns
        )

    def parse_trades(self, request: RestRequest, body: bytes) -> TradePage:
        entries = read_answer(wire.TRADES.decode, body, "a list of trades")
        trades = []
        rejected = 0
        for entry in entries:
            try:
                price, size, time_ns = scaled(entry.price), scaled(entry.qty), entry.time * MS_NS
            except READ_ERRORS:
                rejected += 1
                continue
            side = _taker(entry.is_buyer_maker)
            trades.append(Trade(request.product, entry.id, price, size, side, time_ns, is_history=True))
        trades.sort(key=lambda trade: trade.trade_id)
        following = None
        if trades and request.first_id <= trades[-1].trade_id < request.last_id:
            hole = TradeHole(
                request.product, trades[-1].trade_id + 1, request.last_id, request.after_ns, request.before_ns
            )
            following = self.trades_request(hole)
        return TradePage(trades, rejected, following)

    def book_request(self, product: str, purpose: Purpose) -> RestRequest | None:
        if purpose is Purpose.ORDERS:
            return None
        limit = DEPTH_CHECKED if purpose is Purpose.BOOK_CHECK else DEPTH_MAX
        return RestRequest(purpose, f"{self.rest_url}/depth?symbol={product}&limit={limit}", product)

    def parse_book(self, request: RestRequest, body: bytes) -> BookSnapshot:
        def decode(body: bytes) -> BookSnapshot:
            book = wire.DEPTH.decode(body)
            bids, asks = read_pairs(book.bids), read_pairs(book.asks)
            return BookSnapshot(request.product, bids, asks, UNKNOWN_TIME_NS, book.last_update_id)

        return read_answer(decode, body, "a depth snapshot")

    def parse_orders(self, request: RestRequest, body: bytes) -> OrderBook:
        raise InvalidRequest("Binance publishes no level 3 book")


def _request(method: str, products: Sequence[str], channels: Sequence[Channel], request_id: int | str) -> list[bytes]:
    streams = [
        f"{product.lower()}@{STREAM_NAMES[channel]}"
        for channel in channels
        if channel in STREAM_NAMES
        for product in products
    ]
    return [to_json({"method": method, "params": streams, "id": request_id})] if streams else []


def _read(data: wire.TradeData | wire.DepthData | wire.TickerData, sent_at_ns: int) -> list[Event]:
    """The events of one frame. Raises one of READ_ERRORS."""
    if isinstance(data, wire.DepthData):
        changes = [(BID, scaled(price), scaled(size)) for price, size in data.bids]
        changes += [(ASK, scaled(price), scaled(size)) for price, size in data.asks]
        return [BookDelta(data.symbol, changes, sent_at_ns, data.first_update_id, data.last_update_id)]
    if isinstance(data, wire.TradeData):
        side = _taker(data.is_buyer_maker)
        time_ns = data.trade_ms * MS_NS
        return [Trade(data.symbol, data.trade_id, scaled(data.price), scaled(data.size), side, time_ns)]
    ticker = Ticker(
        data.symbol,
        scaled(data.price),
        optional_number(data.best_bid),
        optional_number(data.best_bid_size),
        optional_number(data.best_ask),
        optional_number(data.best_ask_size),
        optional_number(data.volume),
        sent_at_ns,
        data.last_trade_id,
    )
    return [ticker, Heartbeat(sent_at_ns, 0, data.symbol, data.last_trade_id)]


def _taker(is_buyer_maker: bool) -> Side:
    return Side.SELL if is_buyer_maker else Side.BUY


def _filter(entry: wire.SymbolEntry, kind: str) -> wire.Filter:
    """The symbol's rule of that kind, or an empty one."""
    return next((rule for rule in entry.filters if rule.filter_type == kind), wire.Filter(kind))


def _parse_other(frame: bytes, cause: Exception) -> Parsed:
    """An answer to a request, an error, an unknown kind of data, or a reject."""
    try:
        message = wire.ENVELOPE.decode(frame)
    except DECODE_ERRORS as error:
        return _unreadable(error)
    alone = message.id if isinstance(message.id, str) else ""
    if message.error is not None or message.msg:
        text = message.error.msg if message.error is not None else message.msg
        return Parsed([VenueError(f"{alone}: {text}" if alone else text)], [])
    kind = message.data.e if message.data is not None else message.e
    if kind == wire.SHUTDOWN:
        return Parsed([], [])  # the end of the connection follows, and a new one; nothing is lost by waiting for it
    if kind and kind not in wire.KNOWN_KINDS:
        return Parsed([], [], unknown_type=kind)
    if not message.stream and not kind and message.id is not None:
        is_subscription = message.id != _UNSUBSCRIBED_ID
        return Parsed([Subscribed({"streams": (alone,)} if alone else {})] if is_subscription else [], [])
    return _unreadable(cause)


def _unreadable(error: Exception) -> Parsed:
    """A frame of unknown content. No book is in doubt by it: where one lost a change, its next number tells."""
    return Parsed([], [msgspec.structs.replace(refusal, breaks_book=False) for refusal in unreadable(error).rejects])
