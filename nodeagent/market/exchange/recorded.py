"""A recording as content: what happened on the real venue, sent again by our protocols.

Reads, by content and not by name, gzipped or plain: cryptofeed's recordings of both formats, one raw frame a line, and
lines with the frame under `payload` or `data`. The frames become venue events, so that a client that connects late,
twice or over the other protocol sees a consistent story; times, ids, prices and sizes are those of the recording.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

from agentfarm.errors import InvalidRequest
from nodeagent.market.exchange.coinbase.exchange import TICKER_NAMES
from nodeagent.market.exchange.events import (
    Batch,
    BookBatch,
    Opening,
    Product,
    Side,
    TickerBatch,
    TradeBatch,
    VenueTrade,
    time_ns_of,
)

_SIDES: Final[dict[str, Side]] = {"buy": "bid", "bid": "bid", "sell": "offer", "offer": "offer"}


class RecordedContent:
    """A file, read whole. Raises InvalidRequest when nothing in it is a frame of Coinbase."""

    is_finite = True

    def __init__(self, path: Path) -> None:
        story = _Story()
        for frame in read_frames(path):
            story.hear(frame)
        if not story.products:
            raise InvalidRequest(f"{path} holds no frame of a Coinbase feed.")
        self._story = story
        self.start_ns = story.start_ns

    def openings(self) -> list[Opening]:
        """Each product with its first snapshot, the trades before the first update, and its first ticker."""
        return [product.opening() for product in self._story.products.values()]

    def batches(self) -> Iterator[Batch]:
        """Every update, in recorded order."""
        return iter(self._story.batches)


def read_frames(path: Path) -> Iterator[dict[str, Any]]:
    """The received frames of a recording, decoded; every other line is passed over."""
    with path.open("rb") as probe:
        is_gzip = probe.read(2) == b"\x1f\x8b"
    with gzip.open(path, "rt") if is_gzip else path.open() as lines:
        for line in lines:
            text = line.strip()
            if not text.startswith(
                "{"
            ):  # cryptofeed's first format: `time: {frame}`; `->`, `<-` lines are not received
                head, _, text = text.partition(": ")
                if not head.replace(".", "", 1).isdigit():
                    continue
            try:
                message = json.loads(text)
            except ValueError:
                continue
            if isinstance(message, dict) and isinstance(frame := _unwrap(message), dict):
                yield frame


def _unwrap(message: dict[str, Any]) -> Any:
    if "t" in message:
        return json.loads(message["data"]) if message["t"] == "recv" else None
    return message.get("payload", message)


@dataclass(slots=True)
class _Recorded:
    """One product before its first update, and how many digits its numbers have."""

    id: str
    bids: dict[str, str] = field(default_factory=dict)
    asks: dict[str, str] = field(default_factory=dict)
    history: dict[int, VenueTrade] = field(default_factory=dict)
    ticker: dict[str, str] = field(default_factory=dict)
    time_ns: int = 0
    last_trade_id: int = 0
    price_digits: int = 2
    size_digits: int = 8

    def opening(self) -> Opening:
        product = Product(self.id, _increment(self.size_digits), _increment(self.price_digits))
        trades = [self.history[trade_id] for trade_id in sorted(self.history)]
        return Opening(product, dict(self.bids), dict(self.asks), trades, dict(self.ticker), self.time_ns)


class _Story:
    """Frames of either protocol, heard one by one."""

    def __init__(self) -> None:
        self.products: dict[str, _Recorded] = {}
        self.batches: list[Batch] = []
        self.start_ns = 0
        self._now_ns = 0

    def hear(self, frame: dict[str, Any]) -> None:
        """Take in one frame; types that carry no market event are passed over."""
        if "channel" in frame:
            self._tick(frame.get("timestamp", ""))
            for event in frame.get("events", ()):
                self._hear_advanced(frame["channel"], event)
        elif (kind := frame.get("type")) in ("snapshot", "l2update", "match", "last_match", "ticker"):
            if kind not in ("last_match", "snapshot"):
                self._tick(frame.get("time", ""))
            self._hear_exchange(kind, frame)

    def _hear_advanced(self, channel: str, event: dict[str, Any]) -> None:
        is_snapshot = event.get("type") == "snapshot"
        if channel == "l2_data":
            product = self._product(event["product_id"])
            levels = [(_SIDES[u["side"]], u["price_level"], u["new_quantity"]) for u in event["updates"]]
            time_ns = time_ns_of(event["updates"][-1]["event_time"]) if event["updates"] else self._now_ns
            self._book(product, is_snapshot, levels, time_ns)
        elif channel == "market_trades":
            trades = sorted((_advanced_trade(entry) for entry in event["trades"]), key=lambda trade: trade.trade_id)
            for name in dict.fromkeys(trade.product for trade in trades):
                self._trades(self._product(name), is_snapshot, [trade for trade in trades if trade.product == name])
        elif channel == "ticker":
            for entry in event["tickers"]:
                fields = {key: value for key, value in entry.items() if key not in ("type", "product_id")}
                self._ticker(self._product(entry["product_id"]), is_snapshot, fields)

    def _hear_exchange(self, kind: str, frame: dict[str, Any]) -> None:
        product = self._product(frame["product_id"])
        if kind == "snapshot":
            levels: list[tuple[Side, str, str]] = [("bid", level[0], level[1]) for level in frame["bids"]]
            levels += [("offer", level[0], level[1]) for level in frame["asks"]]
            self._book(product, True, levels, time_ns_of(frame["time"]) if frame.get("time") else 0)
        elif kind == "l2update":
            changes = [(_SIDES[side], price, size) for side, price, size in frame["changes"]]
            self._book(product, False, changes, time_ns_of(frame["time"]))
        elif kind == "ticker":
            fields = {ours: frame[theirs] for theirs, ours in TICKER_NAMES.items() if theirs in frame}
            self._ticker(product, False, fields, int(frame.get("trade_id", 0)))
        else:
            self._trades(product, kind == "last_match", [_exchange_trade(frame)])

    def _book(self, product: _Recorded, is_snapshot: bool, levels: list[tuple[Side, str, str]], time_ns: int) -> None:
        for _, price, size in levels:
            product.price_digits = max(product.price_digits, _digits(price))
            product.size_digits = max(product.size_digits, _digits(size))
        if is_snapshot and not product.bids and not product.asks:
            product.time_ns = time_ns
            product.bids = {price: size for side, price, size in levels if side == "bid"}
            product.asks = {price: size for side, price, size in levels if side == "offer"}
        elif not is_snapshot:
            self.batches.append(BookBatch(product.id, tuple(levels), time_ns, self._now_ns))

    def _trades(self, product: _Recorded, is_snapshot: bool, trades: list[VenueTrade]) -> None:
        fresh = [trade for trade in trades if trade.trade_id > product.last_trade_id]
        for trade in fresh:
            product.price_digits = max(product.price_digits, _digits(trade.price))
            product.size_digits = max(product.size_digits, _digits(trade.size))
        if not fresh:
            return
        if is_snapshot and not any(isinstance(b, TradeBatch) and b.product == product.id for b in self.batches):
            product.history |= {trade.trade_id: trade for trade in fresh}
        else:
            self.batches.append(TradeBatch(product.id, tuple(fresh), self._now_ns))
        product.last_trade_id = fresh[-1].trade_id

    def _ticker(self, product: _Recorded, is_snapshot: bool, fields: dict[str, str], trade_id: int = 0) -> None:
        if is_snapshot and not product.ticker:
            product.ticker = fields
        else:
            self.batches.append(TickerBatch(product.id, fields, trade_id or product.last_trade_id, self._now_ns))

    def _product(self, name: str) -> _Recorded:
        return self.products.setdefault(name, _Recorded(name))

    def _tick(self, text: str) -> None:
        if text:
            self._now_ns = max(self._now_ns, time_ns_of(text))
            self.start_ns = self.start_ns or self._now_ns


def _advanced_trade(entry: dict[str, Any]) -> VenueTrade:
    return VenueTrade(
        entry["product_id"],
        int(entry["trade_id"]),
        entry["price"],
        entry["size"],
        entry["side"],
        time_ns_of(entry["time"]),
    )


def _exchange_trade(frame: dict[str, Any]) -> VenueTrade:
    return VenueTrade(
        frame["product_id"],
        frame["trade_id"],
        frame["price"],
        frame["size"],
        "BUY" if frame["side"] == "buy" else "SELL",
        time_ns_of(frame["time"]),
    )


def _digits(number: str) -> int:
    return len(number.partition(".")[2])


def _increment(digits: int) -> str:
    return f"{Decimal(1).scaleb(-digits):f}"
