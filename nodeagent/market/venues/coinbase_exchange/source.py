"""Coinbase Exchange: WebSocket frames and REST answers, read purely.

Rules of the protocol kept here: `sequence` on matches, tickers and heartbeats counts the product's full feed and is not
contiguous there, so losses show in `trade_id` and in the heartbeat's `last_trade_id`; `level2_batch` has no numbers at
all; `side` of a match is the maker's; a size of zero removes. Source: docs.cdp.coinbase.com/exchange/websocket-feed,
checked against recordings.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

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
    OrderEvent,
    Parsed,
    Status,
    Subscribed,
    Ticker,
    Trade,
    VenueError,
)
from nodeagent.market.model.slices import Steps
from nodeagent.market.model.source import Channel, Purpose, RestBudget, RestRequest, Signer, TradeHole, TradePage
from nodeagent.market.model.times import parse_time_ns
from nodeagent.market.venues.coinbase_exchange import wire
from nodeagent.market.venues.fields import (
    DECODE_ERRORS,
    READ_ERRORS,
    UnknownSide,
    decode_frame,
    in_slices,
    optional_number,
    read_answer,
    read_instruments,
    read_pairs,
    read_pairs_in_slices,
    reject_of,
    taker_of,
    to_json,
    unreadable,
)

CHANNEL_NAMES: Final = {
    Channel.TRADES: "matches",
    Channel.BOOK: "level2_batch",
    Channel.TICKER: "ticker",
    Channel.HEARTBEAT: "heartbeat",
    Channel.STATUS: "status",
    Channel.FULL: "full",
}
TRADES_PAGE_MAX: Final = 1000
_SIDES: Final = {"buy": BID, "sell": ASK}


class CoinbaseExchange:
    """The source `coinbase-exchange`."""

    name = "coinbase-exchange"
    venue = "coinbase"
    websocket_url = "wss://ws-feed.exchange.coinbase.com"
    rest_url = "https://api.exchange.coinbase.com"
    has_connection_sequence = False
    trade_ids_contiguous = True
    book_from_rest = False
    default_channels: tuple[Channel, ...] = (Channel.HEARTBEAT, Channel.TRADES, Channel.TICKER, Channel.BOOK)
    max_frame_bytes = 16 * 1024 * 1024
    subscribe_within_s = 5.0
    max_connects_per_s = 8.0
    messages_per_s = 6.0
    rest_budget = RestBudget(per_s=5.0, burst=5.0)
    silence_max_s = 10.0

    def connect_url(self, products: Sequence[str], channels: Sequence[Channel]) -> str:
        return self.websocket_url

    def subscribe(
        self, products: Sequence[str], channels: Sequence[Channel], signer: Signer | None = None, now_s: int = 0
    ) -> list[bytes]:
        message = self._message("subscribe", products, channels)
        return [to_json(message | dict(signer.fields(now_s) if signer else {}))]

    def unsubscribe(self, products: Sequence[str], channels: Sequence[Channel]) -> list[bytes]:
        per_product = [channel for channel in channels if channel is not Channel.STATUS]  # status knows no products
        return [to_json(self._message("unsubscribe", products, per_product))]

    def _message(self, verb: str, products: Sequence[str], channels: Sequence[Channel]) -> dict[str, Any]:
        names = [CHANNEL_NAMES[channel] for channel in channels if channel in CHANNEL_NAMES]
        return {"type": verb, "product_ids": list(products), "channels": names}

    def parse(self, frame: bytes, received_at_ns: int) -> Parsed:
        """Read one frame; never raises."""
        try:
            message = decode_frame(wire.FRAME, frame)
        except DECODE_ERRORS as error:
            return _parse_other(frame, error)
        try:
            event = _read(message)
        except READ_ERRORS as error:
            product = getattr(message, "product_id", "")
            is_book = isinstance(message, wire.UpdateMessage | wire.SnapshotMessage | wire.OrderMessage)
            return Parsed([], [reject_of(error, product, breaks_book=is_book)])
        return Parsed([event], [], -1, UNKNOWN_TIME_NS)

    def parse_long(self, frame: bytes, received_at_ns: int) -> Steps[Parsed]:
        """`parse` in slices. Only a snapshot is long; what is none, or damaged, is read as a whole."""
        try:
            message = decode_frame(wire.LONG_SNAPSHOT, frame)
            bids = yield from read_pairs_in_slices(in_slices(message.bids, wire.PAIRS))
            asks = yield from read_pairs_in_slices(in_slices(message.asks, wire.PAIRS))
            snapshot = BookSnapshot(message.product_id, bids, asks, _time_or_unknown(message.time))
            return Parsed([snapshot], [], -1, UNKNOWN_TIME_NS)
        except (*DECODE_ERRORS, *READ_ERRORS):
            return self.parse(frame, received_at_ns)

    def rest_cost(self, request: RestRequest) -> float:
        """Each question counts once."""
        return 1.0

    def instruments_request(self) -> RestRequest | None:
        return RestRequest(Purpose.INSTRUMENTS, f"{self.rest_url}/products")

    def parse_instruments(self, body: bytes) -> tuple[Instrument, ...]:
        return _instruments(read_answer(wire.PRODUCTS.decode, body, "a list of products"))

    def trades_request(self, hole: TradeHole) -> RestRequest | None:
        """`after` is the cursor to older pages: ids below it, newest first."""
        url = f"{self.rest_url}/products/{hole.product}/trades?limit={TRADES_PAGE_MAX}&after={hole.last_id + 1}"
        return RestRequest(
            Purpose.TRADES, url, hole.product, hole.first_id, hole.last_id, hole.after_ns, hole.before_ns
        )

    def parse_trades(self, request: RestRequest, body: bytes) -> TradePage:
        entries = read_answer(wire.TRADES.decode, body, "a page of trades")
        trades = []
        rejected = 0
        for entry in entries:
            try:
                trades.append(_trade(entry, request.product, is_history=True))
            except READ_ERRORS:
                rejected += 1
        trades.sort(key=lambda trade: trade.trade_id)
        older = None
        if trades and request.first_id < trades[0].trade_id <= request.last_id:
            hole = TradeHole(
                request.product, request.first_id, trades[0].trade_id - 1, request.after_ns, trades[0].time_ns
            )
            older = self.trades_request(hole)
        return TradePage(trades, rejected, older)

    def book_request(self, product: str, purpose: Purpose) -> RestRequest | None:
        if purpose is Purpose.BOOK_REPAIR:
            return None  # level2_batch has no numbers to join a REST book with: a new subscription brings a snapshot
        level = 3 if purpose is Purpose.ORDERS else 2
        return RestRequest(purpose, f"{self.rest_url}/products/{product}/book?level={level}", product)

    def parse_book(self, request: RestRequest, body: bytes) -> BookSnapshot:
        def decode(body: bytes) -> BookSnapshot:
            book = wire.BOOK.decode(body)
            bids, asks = read_pairs(book.bids), read_pairs(book.asks)
            time_ns = parse_time_ns(book.time) if book.time else UNKNOWN_TIME_NS
            return BookSnapshot(request.product, bids, asks, time_ns, book.sequence)

        return read_answer(decode, body, "a level 2 book")

    def parse_book_long(self, request: RestRequest, body: bytes) -> Steps[BookSnapshot]:
        """`parse_book` in slices."""
        try:
            book = wire.LONG_BOOK.decode(body)
            bids = yield from read_pairs_in_slices(in_slices(book.bids, wire.REST_LEVELS))
            asks = yield from read_pairs_in_slices(in_slices(book.asks, wire.REST_LEVELS))
            return BookSnapshot(request.product, bids, asks, _time_or_unknown(book.time), book.sequence)
        except (*DECODE_ERRORS, *READ_ERRORS):
            return self.parse_book(request, body)

    def parse_orders(self, request: RestRequest, body: bytes) -> OrderBook:
        def decode(body: bytes) -> OrderBook:
            book = wire.ORDERS.decode(body)
            bids = [(order_id, BID, scaled(price), scaled(size)) for price, size, order_id in book.bids]
            asks = [(order_id, ASK, scaled(price), scaled(size)) for price, size, order_id in book.asks]
            return OrderBook(request.product, book.sequence, bids + asks)

        return read_answer(decode, body, "a level 3 book")


def _parse_other(frame: bytes, cause: Exception) -> Parsed:
    """A frame of unknown type is ignored and counted; anything else that cannot be read is refused."""
    try:
        message = wire.ENVELOPE.decode(frame)
    except DECODE_ERRORS as error:
        return unreadable(error)
    if message.type in wire.KNOWN_TYPES:
        return unreadable(cause)
    return Parsed([], [], unknown_type=message.type)


def _read(message: Any) -> Event:
    """The event of a typed message. Raises one of READ_ERRORS."""
    if isinstance(message, wire.UpdateMessage):
        return _delta(message)
    if isinstance(message, wire.MatchMessage):
        is_last = isinstance(message, wire.LastMatchMessage)
        return _trade(message, message.product_id, is_last, message.sequence, message.maker_order_id)
    if isinstance(message, wire.TickerMessage):
        return _ticker(message)
    if isinstance(message, wire.HeartbeatMessage):
        return Heartbeat(parse_time_ns(message.time), message.sequence, message.product_id, message.last_trade_id)
    if isinstance(message, wire.SnapshotMessage):
        return BookSnapshot(
            message.product_id, read_pairs(message.bids), read_pairs(message.asks), _time_or_unknown(message.time)
        )
    if isinstance(message, wire.SubscriptionsMessage):
        return Subscribed({c.name: tuple(c.product_ids) for c in message.channels})
    if isinstance(message, wire.StatusMessage):
        return Status(_instruments(message.products))
    if isinstance(message, wire.ErrorMessage):
        return VenueError(f"{message.message} {message.reason}".strip())
    return _order(message)


def _delta(message: wire.UpdateMessage) -> BookDelta:
    try:
        changes = [(_SIDES[side], scaled(price), scaled(size)) for side, price, size in message.changes]
    except KeyError as error:
        raise UnknownSide(f"unknown side {str(error)[:20]}") from error
    return BookDelta(message.product_id, changes, _time_or_unknown(message.time))


def _trade(
    entry: wire.MatchMessage | wire.TradeEntry,
    product: str,
    is_history: bool,
    sequence: int = -1,
    maker_order_id: str = "",
) -> Trade:
    return Trade(
        product,
        entry.trade_id,
        scaled(entry.price),
        scaled(entry.size),
        taker_of(entry.side),
        parse_time_ns(entry.time),
        is_history,
        sequence,
        maker_order_id,
    )


def _ticker(message: wire.TickerMessage) -> Ticker:
    return Ticker(
        message.product_id,
        scaled(message.price),
        optional_number(message.best_bid),
        optional_number(message.best_bid_size),
        optional_number(message.best_ask),
        optional_number(message.best_ask_size),
        optional_number(message.volume_24h),
        _time_or_unknown(message.time),
        message.trade_id,
    )


def _order(message: wire.OrderMessage) -> OrderEvent:
    size = "0"
    price = message.price
    if isinstance(message, wire.OpenMessage):
        size = message.remaining_size
    elif isinstance(message, wire.ChangeMessage):
        size = message.new_size or "0"
        price = message.new_price or price
    side = _SIDES.get(message.side)
    if side is None:
        raise UnknownSide(f"unknown side {message.side[:20]!r}")
    kind: str = type(message).__struct_config__.tag  # type: ignore[assignment]  # our tags are strings
    return OrderEvent(
        message.product_id,
        kind,
        message.sequence,
        message.order_id,
        side,
        scaled(price) if price else 0,
        scaled(size),
        _time_or_unknown(message.time),
    )


def _time_or_unknown(text: str) -> int:
    """Tickers without a time and snapshots of old are real; a time that is there must be right."""
    return parse_time_ns(text) if text else UNKNOWN_TIME_NS


def _instruments(entries: list[wire.ProductEntry]) -> tuple[Instrument, ...]:
    return read_instruments((p.id, p.quote_increment, p.base_increment, p.status == "online") for p in entries)
