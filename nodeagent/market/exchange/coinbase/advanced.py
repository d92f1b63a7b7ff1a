"""A session of the Advanced Trade protocol, purely: messages and events in, frames out.

Rules kept, as documented and seen in recordings: `sequence_num` is one counter for the connection, acknowledgements
included;
the snapshot of a channel comes before its acknowledgement, which is cumulative; trades are newest first; the ask side
is
`offer`; updates may be empty; one channel per subscribe message.
"""

from __future__ import annotations

import json
from typing import Any, Final

from nodeagent.market.exchange.events import (
    NS,
    Batch,
    BookBatch,
    Side,
    TickerBatch,
    TradeBatch,
    VenueTrade,
    envelope_time_text,
    time_text,
)
from nodeagent.market.exchange.faults import Frame
from nodeagent.market.exchange.venue import Market, Venue

PUBLIC_CHANNELS: Final = ("heartbeats", "candles", "status", "ticker", "ticker_batch", "level2", "market_trades")
PRIVATE_CHANNELS: Final = ("user", "futures_balance_summary")
CONNECTION_WIDE: Final = ("heartbeats", "status")
"""Acknowledged without products: unsubscribing any product from them ends them."""
SNAPSHOT_TRADES: Final = 100
CANDLE_S: Final = 300
SNAPSHOT_CANDLES: Final = 100
TICKER_BATCH_S: Final = 5
_BATCH_LEAVES_OUT: Final = ("best_bid", "best_ask", "best_bid_quantity", "best_ask_quantity")


class AdvancedSession:
    """One connection."""

    def __init__(self, venue: Venue) -> None:
        self._venue = venue
        self._channels: dict[str, dict[str, None]] = {}
        self._sequence = 0
        self._beats = 41_690
        self._seconds = 0

    @property
    def is_subscribed(self) -> bool:
        """Whether the 5 s rule is met."""
        return bool(self._channels)

    def receive(self, text: str, now_ns: int) -> list[Frame]:
        """Answer a client's message."""
        try:
            message = json.loads(text)
            kind, channel = message["type"], message["channel"]
            products = list(dict.fromkeys(message.get("product_ids", ())))
        except (ValueError, TypeError, KeyError):
            return [_error("failure to parse the message")]
        if kind not in ("subscribe", "unsubscribe"):
            return [_error(f"unknown type {kind!r}")]
        if channel in PRIVATE_CHANNELS:
            return [_error("authentication failure")]
        if channel not in PUBLIC_CHANNELS or any(product not in self._venue.markets for product in products):
            return [_error("failure to subscribe")]
        if kind == "unsubscribe":
            return self._unsubscribe(channel, products, now_ns)
        return self._subscribe(channel, products, now_ns)

    def frames_of(self, batch: Batch, now_ns: int) -> list[Frame]:
        """The frames that an event brings to this connection."""
        if isinstance(batch, BookBatch) and self._wants("level2", batch.product):
            return [self._book("update", batch.product, _changes(batch), batch.sent_at_ns)]
        if isinstance(batch, TradeBatch) and self._wants("market_trades", batch.product):
            return [self._trades("update", batch.product, list(batch.trades), batch.sent_at_ns)]
        if isinstance(batch, TickerBatch) and self._wants("ticker", batch.product):
            return [self._ticker("update", "ticker", batch.product, batch.fields, batch.sent_at_ns)]
        return []

    def second(self, now_ns: int) -> list[Frame]:
        """What comes once a second: heartbeats, candles of now, every fifth time the slow tickers."""
        self._seconds += 1
        frames = []
        if "heartbeats" in self._channels:
            self._beats += 1
            text = envelope_time_text(now_ns).replace("T", " ").removesuffix("Z") + f" +0000 UTC m=+{self._beats}.26"
            frames.append(self._frame("heartbeats", [{"current_time": text, "heartbeat_counter": self._beats}], now_ns))
        for product in self._channels.get("candles", ()):
            if candles := _candles(self._venue.markets[product])[-1:]:
                frames.append(self._frame("candles", [{"type": "update", "candles": candles}], now_ns, product))
        if self._seconds % TICKER_BATCH_S == 0:
            for product in self._channels.get("ticker_batch", ()):
                if ticker := self._venue.markets[product].ticker:
                    frames.append(self._ticker("update", "ticker_batch", product, ticker, now_ns))
        return frames

    def farewell(self, now_ns: int) -> list[Frame]:
        """Nothing: the venue just goes."""
        return []

    def _subscribe(self, channel: str, products: list[str], now_ns: int) -> list[Frame]:
        subscribed = self._channels.setdefault(channel, {})
        fresh = [product for product in products or self._venue.markets if product not in subscribed]
        subscribed.update(dict.fromkeys(fresh))
        return [*self._snapshots(channel, fresh, now_ns), self._acknowledge(now_ns)]

    def _unsubscribe(self, channel: str, products: list[str], now_ns: int) -> list[Frame]:
        """Without products the channel ends; so it does where the venue knows it without products."""
        subscribed = self._channels.get(channel, {})
        for product in products if products and channel not in CONNECTION_WIDE else list(subscribed):
            subscribed.pop(product, None)
        if not subscribed:
            self._channels.pop(channel, None)
        return [self._acknowledge(now_ns)]

    def _snapshots(self, channel: str, products: list[str], now_ns: int) -> list[Frame]:
        markets = [self._venue.markets[product] for product in products]
        if channel == "level2":
            return [self._book("snapshot", m.product.id, _levels(m), now_ns) for m in markets]
        if channel == "market_trades":
            return [self._trades("snapshot", m.product.id, m.trades[-SNAPSHOT_TRADES:], now_ns) for m in markets]
        if channel in ("ticker", "ticker_batch"):
            return [self._ticker("snapshot", channel, m.product.id, m.ticker, now_ns) for m in markets if m.ticker]
        if channel == "candles":
            events = [{"type": "snapshot", "candles": _candles(market)} for market in markets]
            return [self._frame("candles", [event], now_ns, is_snapshot=True) for event in events]
        if channel == "status":
            products_said = [_status(market) for market in markets]
            return [self._frame("status", [{"type": "snapshot", "products": products_said}], now_ns, is_snapshot=True)]
        return []

    def _acknowledge(self, now_ns: int) -> Frame:
        content = {
            channel: ["heartbeats"] if channel == "heartbeats" else list(products)
            for channel, products in self._channels.items()
        }
        return self._frame("subscriptions", [{"subscriptions": content}], now_ns, is_control=True)

    def _book(self, kind: str, product: str, updates: list[dict[str, str]], now_ns: int) -> Frame:
        event = {"type": kind, "product_id": product, "updates": updates}
        return self._frame("l2_data", [event], now_ns, product, is_snapshot=kind == "snapshot")

    def _trades(self, kind: str, product: str, trades: list[VenueTrade], now_ns: int) -> Frame:
        content = [_trade(trade) for trade in reversed(trades)]
        first = trades[0].trade_id if trades else 0
        event = {"type": kind, "trades": content}
        return self._frame(
            "market_trades", [event], now_ns, product, is_snapshot=kind == "snapshot", first_trade_id=first
        )

    def _ticker(self, kind: str, channel: str, product: str, fields: dict[str, str], now_ns: int) -> Frame:
        left_out = _BATCH_LEAVES_OUT if channel == "ticker_batch" else ()
        content = {"type": "ticker", "product_id": product} | {k: v for k, v in fields.items() if k not in left_out}
        event = {"type": kind, "tickers": [content]}
        return self._frame(channel, [event], now_ns, product, is_snapshot=kind == "snapshot")

    def _wants(self, channel: str, product: str) -> bool:
        return product in self._channels.get(channel, ())

    def _frame(
        self,
        channel: str,
        events: list[dict[str, Any]],
        now_ns: int,
        product: str = "",
        *,
        is_snapshot: bool = False,
        is_control: bool = False,
        first_trade_id: int = 0,
    ) -> Frame:
        envelope = {
            "channel": channel,
            "timestamp": envelope_time_text(now_ns),
            "sequence_num": self._sequence,
            "events": events,
        }
        self._sequence += 1
        text = json.dumps(envelope, separators=(",", ":"))
        return Frame(text, channel, product, is_snapshot, is_control, first_trade_id)


def _error(message: str) -> Frame:
    return Frame(json.dumps({"type": "error", "message": message}), "error", is_control=True)


def _changes(batch: BookBatch) -> list[dict[str, str]]:
    time = time_text(batch.time_ns)
    return [_update(side, price, size, time) for side, price, size in batch.changes]


def _levels(market: Market) -> list[dict[str, str]]:
    time = time_text(market.book_time_ns)
    sides: tuple[Side, Side] = ("bid", "offer")
    return [_update(side, price, size, time) for side in sides for price, size in market.levels(side)]


def _update(side: Side, price: str, size: str, time: str) -> dict[str, str]:
    return {"side": side, "event_time": time, "price_level": price, "new_quantity": size}


def _trade(trade: VenueTrade) -> dict[str, str]:
    return {
        "product_id": trade.product,
        "trade_id": str(trade.trade_id),
        "price": trade.price,
        "size": trade.size,
        "time": time_text(trade.time_ns),
        "side": trade.maker_side,
    }


def _status(market: Market) -> dict[str, str]:
    product = market.product
    base, _, quote = product.id.partition("-")
    return {
        "product_type": "SPOT",
        "id": product.id,
        "base_currency": base,
        "quote_currency": quote,
        "base_increment": product.base_increment,
        "quote_increment": product.quote_increment,
        "display_name": f"{base}/{quote}",
        "status": "online",
        "status_message": "",
        "min_market_funds": "1",
    }


def _candles(market: Market) -> list[dict[str, str]]:
    """Five-minute candles of the trades known, oldest first."""
    groups: dict[int, list[VenueTrade]] = {}
    for trade in market.trades[-20_000:]:
        groups.setdefault(trade.time_ns // NS // CANDLE_S * CANDLE_S, []).append(trade)
    return [
        {
            "start": str(start_s),
            "high": max((trade.price for trade in trades), key=float),
            "low": min((trade.price for trade in trades), key=float),
            "open": trades[0].price,
            "close": trades[-1].price,
            "volume": f"{sum(float(trade.size) for trade in trades):.8f}",
            "product_id": market.product.id,
        }
        for start_s, trades in sorted(groups.items())[-SNAPSHOT_CANDLES:]
    ]
