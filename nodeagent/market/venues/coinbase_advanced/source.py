"""Coinbase Advanced Trade: WebSocket frames and REST answers, read purely.

Rules of the protocol kept here: `sequence_num` counts every frame of a connection from 0, acknowledgements included;
trades come newest first, in snapshots too; the ask side is called `offer`; a quantity of 0 removes; `side` of a trade
is the maker's. Source: docs.cdp.coinbase.com/coinbase-app/advanced-trade-apis/websocket, checked against recordings.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from agentfarm.errors import InvalidRequest
from nodeagent.market.model.decimals import read_many, scaled
from nodeagent.market.model.events import (
    ASK,
    BID,
    UNKNOWN_TIME_NS,
    BookDelta,
    BookSnapshot,
    Candle,
    Change,
    Event,
    Heartbeat,
    Instrument,
    OrderBook,
    Parsed,
    Reject,
    Status,
    Subscribed,
    Ticker,
    Trade,
    VenueError,
)
from nodeagent.market.model.slices import Steps
from nodeagent.market.model.source import Channel, Purpose, RestBudget, RestRequest, Signer, TradeHole, TradePage
from nodeagent.market.model.times import NS, BadTime, parse_time_ns
from nodeagent.market.venues.coinbase_advanced import wire
from nodeagent.market.venues.fields import (
    DECODE_ERRORS,
    READ_ERRORS,
    UnknownSide,
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
    Channel.TRADES: "market_trades",
    Channel.BOOK: "level2",
    Channel.TICKER: "ticker",
    Channel.HEARTBEAT: "heartbeats",
    Channel.STATUS: "status",
}
CONNECTION_WIDE: Final = frozenset({Channel.HEARTBEAT, Channel.STATUS})
"""Channels that are acknowledged without products: to unsubscribe a product from one could end it for all."""
TRADES_PAGE_MAX: Final = 1000
LOOK_BACK_S: Final = 7 * 24 * 3600
"""How far to look for trades when the one before the hole is known by its id alone, as after a restart."""
_decode: Final = wire.FRAME.decode
_SIDES: Final = {"bid": BID, "offer": ASK}


class CoinbaseAdvanced:
    """The source `coinbase-advanced`."""

    name = "coinbase-advanced"
    venue = "coinbase"
    websocket_url = "wss://advanced-trade-ws.coinbase.com"
    rest_url = "https://api.coinbase.com/api/v3/brokerage/market"
    has_connection_sequence = True
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
        return self._messages("subscribe", products, channels, signer, now_s)

    def unsubscribe(self, products: Sequence[str], channels: Sequence[Channel]) -> list[bytes]:
        per_product = [channel for channel in channels if channel not in CONNECTION_WIDE]
        return self._messages("unsubscribe", products, per_product, None, 0)

    def _messages(
        self, verb: str, products: Sequence[str], channels: Sequence[Channel], signer: Signer | None, now_s: int
    ) -> list[bytes]:
        """One message a channel, as the venue wants it; channels it does not have are left out."""
        messages = []
        for channel in channels:
            if channel in CHANNEL_NAMES:
                message = {"type": verb, "product_ids": list(products), "channel": CHANNEL_NAMES[channel]}
                messages.append(to_json(message | dict(signer.fields(now_s) if signer else {})))
        return messages

    def parse(self, frame: bytes, received_at_ns: int) -> Parsed:
        """Read one frame; never raises."""
        try:
            if not frame.isascii():
                frame.decode()  # damage also counts in fields that are skipped
            message = _decode(frame)
        except DECODE_ERRORS as error:
            return _parse_other(frame, error)
        rejects: list[Reject] = []
        try:
            sent_at_ns = parse_time_ns(message.timestamp)
        except BadTime as error:
            sent_at_ns = UNKNOWN_TIME_NS
            rejects.append(reject_of(error, ""))
        events: list[Event] = []
        if isinstance(message, wire.BookFrame):
            for entry in message.events:
                _read_book(entry, sent_at_ns, events, rejects)
        elif isinstance(message, wire.TradesFrame):
            for trades in message.events:
                _read_trades(trades.trades, trades.type == "snapshot", events, rejects)
        elif isinstance(message, wire.TickerFrame | wire.TickerBatchFrame):
            for tickers in message.events:
                _read_tickers(tickers.tickers, sent_at_ns, events, rejects)
        else:
            _read_rest_of(message, sent_at_ns, events, rejects)
        return Parsed(events, rejects, message.sequence_num, sent_at_ns)

    def parse_long(self, frame: bytes, received_at_ns: int) -> Steps[Parsed]:
        """`parse` in slices. Only a book's frame is long; what is none, or damaged, is read as a whole."""
        try:
            if not frame.isascii():
                frame.decode()
            message = wire.LONG_BOOK.decode(frame)
            sent_at_ns = parse_time_ns(message.timestamp)
            events: list[Event] = []
            for entry in message.events:
                events.append((yield from _read_long_book(entry, sent_at_ns)))
            return Parsed(events, [], message.sequence_num, sent_at_ns)
        except (*DECODE_ERRORS, *READ_ERRORS):
            return self.parse(frame, received_at_ns)

    def rest_cost(self, request: RestRequest) -> float:
        """Each question counts once."""
        return 1.0

    def instruments_request(self) -> RestRequest | None:
        return RestRequest(Purpose.INSTRUMENTS, f"{self.rest_url}/products")

    def parse_instruments(self, body: bytes) -> tuple[Instrument, ...]:
        answer = read_answer(wire.PRODUCTS.decode, body, "a list of products")
        return read_instruments(
            (p.product_id, p.price_increment or p.quote_increment, p.base_increment, p.status == "online")
            for p in answer.products
        )

    def trades_request(self, hole: TradeHole) -> RestRequest | None:
        """The venue finds trades by time only, in whole seconds; the times around the hole bound the question."""
        window = ""
        if hole.before_ns:
            end_s = hole.before_ns // NS + 1
            start_s = hole.after_ns // NS if hole.after_ns else end_s - LOOK_BACK_S
            window = f"&start={start_s}&end={end_s}"
        return RestRequest(
            Purpose.TRADES,
            f"{self.rest_url}/products/{hole.product}/ticker?limit={TRADES_PAGE_MAX}{window}",
            hole.product,
            hole.first_id,
            hole.last_id,
            hole.after_ns,
            hole.before_ns,
        )

    def parse_trades(self, request: RestRequest, body: bytes) -> TradePage:
        answer = read_answer(wire.TRADES_PAGE.decode, body, "a page of trades")
        events: list[Event] = []
        rejects: list[Reject] = []
        _read_trades(answer.trades, True, events, rejects)
        trades = [event for event in events if isinstance(event, Trade)]
        return TradePage(trades, len(rejects), self._next_page(request, trades))

    def _next_page(self, request: RestRequest, trades: list[Trade]) -> RestRequest | None:
        """The older page: needed when this one is full and stops inside the hole. Without progress in time, stop."""
        if not trades or len(trades) < TRADES_PAGE_MAX or trades[0].trade_id <= request.first_id:
            return None
        before_ns = trades[0].time_ns
        if request.before_ns and before_ns // NS >= request.before_ns // NS:
            return None
        hole = TradeHole(request.product, request.first_id, trades[0].trade_id - 1, request.after_ns, before_ns)
        return self.trades_request(hole)

    def book_request(self, product: str, purpose: Purpose) -> RestRequest | None:
        url = f"{self.rest_url}/product_book?product_id={product}"
        return RestRequest(purpose, url, product) if purpose is Purpose.BOOK_CHECK else None

    def parse_book(self, request: RestRequest, body: bytes) -> BookSnapshot:
        def decode(body: bytes) -> BookSnapshot:
            book = wire.BOOK_ANSWER.decode(body).pricebook
            bids, asks = read_pairs(_pairs(book.bids)), read_pairs(_pairs(book.asks))
            return BookSnapshot(request.product, bids, asks, parse_time_ns(book.time) if book.time else UNKNOWN_TIME_NS)

        return read_answer(decode, body, "a product book")

    def parse_book_long(self, request: RestRequest, body: bytes) -> Steps[BookSnapshot]:
        """`parse_book` in slices."""
        try:
            book = wire.LONG_BOOK_ANSWER.decode(body).pricebook
            bids = yield from read_pairs_in_slices(map(_pairs, in_slices(book.bids, wire.PRICES)))
            asks = yield from read_pairs_in_slices(map(_pairs, in_slices(book.asks, wire.PRICES)))
            return BookSnapshot(request.product, bids, asks, parse_time_ns(book.time) if book.time else UNKNOWN_TIME_NS)
        except (*DECODE_ERRORS, *READ_ERRORS):
            return self.parse_book(request, body)

    def parse_orders(self, request: RestRequest, body: bytes) -> OrderBook:
        raise InvalidRequest("Advanced Trade publishes no level 3 book")


def _parse_other(frame: bytes, cause: Exception) -> Parsed:
    """A frame that is none of the known ones: an error message, an unknown channel, or a reject."""
    try:
        message = wire.ENVELOPE.decode(frame)
    except DECODE_ERRORS as error:
        return unreadable(error)
    if message.type == "error":
        return Parsed([VenueError(message.message or message.reason)], [])
    if message.channel in wire.KNOWN_CHANNELS or not (message.channel or message.type):
        return unreadable(cause, message.sequence_num)
    return Parsed([], [], message.sequence_num, UNKNOWN_TIME_NS, message.channel or message.type)


def _read_book(entry: wire.BookEvent, sent_at_ns: int, events: list[Event], rejects: list[Reject]) -> None:
    """An event of `l2_data`. One unreadable level refuses the whole event: half a delta makes a wrong book."""
    product = entry.product_id
    updates = entry.updates
    is_snapshot = entry.type == "snapshot"
    bids: dict[int, int] = {}
    asks: dict[int, int] = {}
    changes: list[Change] = []
    add, sides, number = changes.append, _SIDES, scaled
    try:
        if is_snapshot:
            _add_levels(updates, bids, asks)
        else:
            for update in updates:
                add((sides[update.side], number(update.price_level), number(update.new_quantity)))
        time_ns = parse_time_ns(updates[-1].event_time) if updates else sent_at_ns
    except KeyError as error:
        unknown = UnknownSide(f"unknown side {str(error)[:20]}")
        rejects.append(reject_of(unknown, product, breaks_book=True))
        return
    except READ_ERRORS as error:
        rejects.append(reject_of(error, product, breaks_book=True))
        return
    if is_snapshot:
        events.append(BookSnapshot(product, bids, asks, time_ns))
    else:
        events.append(BookDelta(product, changes, time_ns))


def _read_long_book(entry: wire.LongBookEvent, sent_at_ns: int) -> Steps[Event]:
    """The same in slices. Raises DECODE_ERRORS, READ_ERRORS."""
    bids: dict[int, int] = {}
    asks: dict[int, int] = {}
    changes: list[Change] = []
    updates: list[wire.LevelEntry] = []
    for updates in in_slices(entry.updates, wire.LEVELS):
        if entry.type == "snapshot":
            _add_levels(updates, bids, asks)
        else:
            changes += _numbers(updates)
        yield
    time_ns = parse_time_ns(updates[-1].event_time) if updates else sent_at_ns
    if entry.type == "snapshot":
        return BookSnapshot(entry.product_id, bids, asks, time_ns)
    return BookDelta(entry.product_id, changes, time_ns)


def _add_levels(levels: Sequence[wire.LevelEntry], bids: dict[int, int], asks: dict[int, int]) -> None:
    """Put a snapshot's levels into their sides. Raises BadNumber, UnknownSide."""
    for side, price, size in _numbers(levels):
        if size:
            (asks if side else bids)[price] = size


def _numbers(levels: Sequence[wire.LevelEntry]) -> Iterator[Change]:
    """Levels as numbers: cheaper by the slice than one by one. Raises BadNumber, UnknownSide."""
    try:
        sides = [_SIDES[level.side] for level in levels]
    except KeyError as error:
        raise UnknownSide(f"unknown side {str(error)[:20]}") from error
    prices = read_many([level.price_level for level in levels])
    return zip(sides, prices, read_many([level.new_quantity for level in levels]), strict=True)


def _pairs(entries: Sequence[wire.PriceEntry]) -> list[tuple[str, str]]:
    return [(entry.price, entry.size) for entry in entries]


def _read_trades(entries: list[wire.TradeEntry], is_history: bool, events: list[Event], rejects: list[Reject]) -> None:
    """Trades, oldest first: the venue sends the newest first, also inside updates."""
    trades = []
    for entry in entries:
        try:
            trades.append(
                Trade(
                    entry.product_id,
                    entry.trade_id,
                    scaled(entry.price),
                    scaled(entry.size),
                    taker_of(entry.side),
                    parse_time_ns(entry.time),
                    is_history,
                )
            )
        except READ_ERRORS as error:
            rejects.append(reject_of(error, entry.product_id))
    trades.sort(key=_by_id)
    events.extend(trades)


def _by_id(trade: Trade) -> int:
    return trade.trade_id


def _read_tickers(entries: list[wire.TickerEntry], sent_at_ns: int, events: list[Event], rejects: list[Reject]) -> None:
    """Tickers carry no time of their own: the envelope's counts."""
    for entry in entries:
        try:
            events.append(
                Ticker(
                    entry.product_id,
                    scaled(entry.price),
                    optional_number(entry.best_bid),
                    optional_number(entry.best_bid_quantity),
                    optional_number(entry.best_ask),
                    optional_number(entry.best_ask_quantity),
                    optional_number(entry.volume_24_h),
                    sent_at_ns,
                )
            )
        except READ_ERRORS as error:
            rejects.append(reject_of(error, entry.product_id))


def _read_rest_of(
    message: wire.HeartbeatFrame | wire.SubscriptionsFrame | wire.CandlesFrame | wire.StatusFrame,
    sent_at_ns: int,
    events: list[Event],
    rejects: list[Reject],
) -> None:
    """The quiet channels."""
    if isinstance(message, wire.HeartbeatFrame):
        events.extend(Heartbeat(sent_at_ns, beat.heartbeat_counter) for beat in message.events)
    elif isinstance(message, wire.SubscriptionsFrame):
        for entry in message.events:
            events.append(Subscribed({name: tuple(ids) for name, ids in entry.subscriptions.items()}))
    elif isinstance(message, wire.CandlesFrame):
        for candles in message.events:
            events.extend(Candle(c.product_id, _start_ns(c.start)) for c in candles.candles)
    else:
        for status in message.events:
            rules = ((p.id, p.quote_increment, p.base_increment, p.status == "online") for p in status.products)
            events.append(Status(read_instruments(rules)))


def _start_ns(text: str) -> int:
    return int(text) * NS if text.isdigit() and text.isascii() and len(text) < 12 else UNKNOWN_TIME_NS
