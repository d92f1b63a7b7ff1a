"""A session of the Coinbase Exchange protocol, purely: messages and events in, frames out.

Rules kept: `sequence` counts the product's full feed and is not contiguous here; `level2_batch` is acknowledged as
`level2_50` and carries no numbers; the first match is a `last_match`; heartbeats are per product and name the last
trade;
channels that need credentials are refused. Frames follow a 2026 recording field by field.
"""

from __future__ import annotations

import json
import uuid
from typing import Any, Final

from nodeagent.market.exchange.events import (
    NS,
    Batch,
    BookBatch,
    TickerBatch,
    TradeBatch,
    VenueTrade,
    is_zero,
    time_text,
)
from nodeagent.market.exchange.faults import Frame
from nodeagent.market.exchange.venue import Market, Venue

PUBLIC_CHANNELS: Final = ("heartbeat", "status", "ticker", "ticker_batch", "matches", "level2_batch")
PRIVATE_CHANNELS: Final = ("full", "user", "level2", "level3", "rfq_matches", "balance")
_ECHO: Final = {"level2_batch": "level2_50", "ticker_batch": "ticker_1000"}
_SIDES: Final = {"bid": "buy", "offer": "sell"}
TICKER_NAMES: Final = {
    "price": "price",
    "volume_24h": "volume_24_h",
    "low_24h": "low_24_h",
    "high_24h": "high_24_h",
    "best_bid": "best_bid",
    "best_bid_size": "best_bid_quantity",
    "best_ask": "best_ask",
    "best_ask_size": "best_ask_quantity",
}
"""Of a ticker's fields: how Exchange names what Advanced Trade names otherwise."""
_ORDERS = uuid.UUID("5f4b6d1e-6f0f-4f5b-9f57-0a8f4f3b2a10")


class ExchangeSession:
    """One connection."""

    def __init__(self, venue: Venue) -> None:
        self._venue = venue
        self._channels: dict[str, dict[str, None]] = {}

    @property
    def is_subscribed(self) -> bool:
        """Whether the 5 s rule is met."""
        return bool(self._channels)

    def receive(self, text: str, now_ns: int) -> list[Frame]:
        """Answer a client's message."""
        try:
            message = json.loads(text)
            kind = message["type"]
            channels = _channels_of(message, list(self._venue.markets))
        except (ValueError, TypeError, KeyError, AttributeError):
            return [_error("Malformed JSON", "")]
        if kind not in ("subscribe", "unsubscribe"):
            return [_error(f"Type {kind!r} is not known", "")]
        for channel, products in channels.items():
            if channel in PRIVATE_CHANNELS:
                return [_error("Failed to subscribe", f"{channel} channel requires authentication")]
            if channel not in PUBLIC_CHANNELS:
                return [_error("Failed to subscribe", f"{channel} is not a valid channel")]
            for product in products:
                if product not in self._venue.markets:
                    return [_error("Failed to subscribe", f"{product} is not a valid product")]
        if kind == "unsubscribe":
            self._unsubscribe(channels)
            return [self._acknowledge()]
        fresh = self._subscribe(channels)
        snapshots = [frame for channel, product in fresh for frame in self._snapshot(channel, product, now_ns)]
        return [self._acknowledge(), *snapshots]

    def frames_of(self, batch: Batch, now_ns: int) -> list[Frame]:
        """The frames that an event brings to this connection."""
        market = self._venue.markets[batch.product]
        if isinstance(batch, BookBatch) and self._wants("level2_batch", batch.product):
            return [_l2update(batch)] if batch.changes else []
        if isinstance(batch, TradeBatch) and self._wants("matches", batch.product):
            return [_match("match", trade, market) for trade in batch.trades]
        if isinstance(batch, TickerBatch) and self._wants("ticker", batch.product):
            return [_ticker(market, batch.fields, batch.trade_id, batch.sent_at_ns)]
        return []

    def second(self, now_ns: int) -> list[Frame]:
        """Heartbeats, on the whole second."""
        return [_heartbeat(self._venue.markets[name], now_ns) for name in self._channels.get("heartbeat", ())]

    def farewell(self, now_ns: int) -> list[Frame]:
        """Nothing: the venue just goes."""
        return []

    def _subscribe(self, channels: dict[str, list[str]]) -> list[tuple[str, str]]:
        fresh = []
        for channel, products in channels.items():
            subscribed = self._channels.setdefault(channel, {})
            fresh += [(channel, product) for product in products if product not in subscribed]
            subscribed.update(dict.fromkeys(products))
        return fresh

    def _unsubscribe(self, channels: dict[str, list[str]]) -> None:
        for channel, products in channels.items():
            subscribed = self._channels.get(channel, {})
            for product in products:
                subscribed.pop(product, None)
            if not subscribed:
                self._channels.pop(channel, None)

    def _acknowledge(self) -> Frame:
        channels = [
            {"name": _ECHO.get(channel, channel), "product_ids": list(products), "account_ids": None}
            for channel, products in self._channels.items()
        ]
        return _frame({"type": "subscriptions", "channels": channels}, "subscriptions", is_control=True)

    def _snapshot(self, channel: str, product: str, now_ns: int) -> list[Frame]:
        market = self._venue.markets[product]
        if channel == "level2_batch":
            message = {
                "type": "snapshot",
                "product_id": product,
                "asks": market.levels("offer"),
                "bids": market.levels("bid"),
                "time": time_text(market.book_time_ns),
            }
            return [_frame(message, "snapshot", product, is_snapshot=True)]
        if channel == "matches" and market.trades:
            return [_match("last_match", market.trades[-1], market)]
        if channel == "ticker" and market.ticker and market.trades:
            return [_ticker(market, market.ticker, market.last_trade_id, now_ns)]
        if channel == "status":
            return [_frame({"type": "status", "products": [_status(market)], "currencies": []}, "status")]
        return []

    def _wants(self, channel: str, product: str) -> bool:
        return product in self._channels.get(channel, ())


def trade_terms(trade: VenueTrade) -> dict[str, str]:
    """Side (the maker's), size and price, as Coinbase Exchange writes them in frames and over REST."""
    return {"side": "buy" if trade.maker_side == "BUY" else "sell", "size": trade.size, "price": trade.price}


def _channels_of(message: dict[str, Any], everything: list[str]) -> dict[str, list[str]]:
    """Channel to products: root products apply to every named channel."""
    root = list(message.get("product_ids") or ())
    channels: dict[str, list[str]] = {}
    for entry in message["channels"]:
        if isinstance(entry, str):
            channels[entry] = root or everything
        else:
            channels[entry["name"]] = [*root, *(entry.get("product_ids") or ())] or everything
    return channels


def _frame(message: dict[str, Any], channel: str, product: str = "", **marks: Any) -> Frame:
    return Frame(json.dumps(message, separators=(",", ":")), channel, product, **marks)


def _error(message: str, reason: str) -> Frame:
    return _frame({"type": "error", "message": message, "reason": reason}, "error", is_control=True)


def _l2update(batch: BookBatch) -> Frame:
    changes = [[_SIDES[side], price, "0.00000000" if is_zero(size) else size] for side, price, size in batch.changes]
    message = {"type": "l2update", "product_id": batch.product, "changes": changes, "time": time_text(batch.time_ns)}
    return _frame(message, "l2update", batch.product)


def _match(kind: str, trade: VenueTrade, market: Market) -> Frame:
    message = {
        "type": kind,
        "trade_id": trade.trade_id,
        "maker_order_id": str(uuid.uuid5(_ORDERS, f"maker/{trade.product}/{trade.trade_id}")),
        "taker_order_id": str(uuid.uuid5(_ORDERS, f"taker/{trade.product}/{trade.trade_id}")),
        **trade_terms(trade),
        "product_id": trade.product,
        "sequence": market.next_sequence(),
        "time": time_text(trade.time_ns),
    }
    return _frame(message, kind, trade.product, first_trade_id=trade.trade_id)


def _ticker(market: Market, fields: dict[str, str], trade_id: int, sent_at_ns: int) -> Frame:
    last = market.trades[-1] if market.trades else None
    message: dict[str, Any] = {"type": "ticker", "sequence": market.next_sequence(), "product_id": market.product.id}
    message |= {theirs: fields[ours] for theirs, ours in TICKER_NAMES.items() if ours in fields}
    message |= {"open_24h": fields["price"], "volume_30d": fields.get("volume_24_h", "0")}
    message["time"] = time_text(sent_at_ns)
    message |= {
        "side": "buy" if last and last.maker_side == "SELL" else "sell",
        "trade_id": trade_id,
        "last_size": last.size if last else "0",
    }
    return _frame(message, "ticker", market.product.id)


def _heartbeat(market: Market, now_ns: int) -> Frame:
    message = {
        "type": "heartbeat",
        "last_trade_id": market.last_trade_id,
        "product_id": market.product.id,
        "sequence": market.next_sequence(),
        "time": time_text(now_ns // NS * NS),
    }
    return _frame(message, "heartbeat", market.product.id)


def _status(market: Market) -> dict[str, Any]:
    product = market.product
    base, _, quote = product.id.partition("-")
    return {
        "id": product.id,
        "base_currency": base,
        "quote_currency": quote,
        "base_increment": product.base_increment,
        "quote_increment": product.quote_increment,
        "min_market_funds": "1",
        "status": "online",
        "post_only": False,
        "limit_only": False,
        "cancel_only": False,
    }
