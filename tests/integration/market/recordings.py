"""What a recording says, read straight from the file with nothing but `json` and `Decimal`: the slow, obvious twin."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

BTC_ETH = "advtrade_2026-08-09_btc-eth_part1.jsonl.gz"
TEN_PRODUCTS = "exchange_2021-04-17_10products.cryptofeed.txt.gz"
TICKER = "advtrade_ticker_2026-04-05_btc-usd_part1.ndjson.gz"

Trade = tuple[int, str, str, str, str]
"""id, price, size (both with twelve digits), taker side, time with microseconds."""


@dataclass
class Truth:
    """A recording's trades and last books."""

    trades: dict[str, dict[int, Trade]] = field(default_factory=dict)
    bids: dict[str, dict[Decimal, Decimal]] = field(default_factory=dict)
    asks: dict[str, dict[Decimal, Decimal]] = field(default_factory=dict)
    tickers: dict[str, int] = field(default_factory=dict)

    def add_trade(self, entry: dict[str, Any]) -> None:
        taker = "sell" if entry["side"].lower() == "buy" else "buy"
        trade_id = int(entry["trade_id"])
        row = (
            trade_id,
            f"{Decimal(entry['price']):.12f}",
            f"{Decimal(entry['size']):.12f}",
            taker,
            _micros(entry["time"]),
        )
        self.trades.setdefault(entry["product_id"], {})[trade_id] = row

    def set_level(self, product: str, is_bid: bool, price: str, size: str) -> None:
        side = (self.bids if is_bid else self.asks).setdefault(product, {})
        if Decimal(size) == 0:
            side.pop(Decimal(price), None)
        else:
            side[Decimal(price)] = Decimal(size)

    def top(self, product: str, depth: int) -> tuple[list[tuple[float, float]], list[tuple[float, float]]]:
        """The best levels of the last book, as doubles."""
        bids = sorted(self.bids[product].items(), reverse=True)[:depth]
        asks = sorted(self.asks[product].items())[:depth]
        return [(float(p), float(s)) for p, s in bids], [(float(p), float(s)) for p, s in asks]


def read_truth(path: Path) -> Truth:
    """Read a recording of either protocol."""
    truth = Truth()
    for frame in _frames(path):
        if "channel" in frame:
            _advanced(truth, frame)
        else:
            _exchange(truth, frame)
    return truth


def _advanced(truth: Truth, frame: dict[str, Any]) -> None:
    for event in frame["events"]:
        if frame["channel"] == "market_trades":
            for t in event["trades"]:
                truth.add_trade(t)
        elif frame["channel"] == "l2_data":
            for u in event["updates"]:
                truth.set_level(event["product_id"], u["side"] == "bid", u["price_level"], u["new_quantity"])
        elif frame["channel"] == "ticker":
            for t in event["tickers"]:
                truth.tickers[t["product_id"]] = truth.tickers.get(t["product_id"], 0) + 1


def _exchange(truth: Truth, frame: dict[str, Any]) -> None:
    product = frame.get("product_id", "")
    if frame["type"] in ("match", "last_match"):
        truth.add_trade(frame)
    elif frame["type"] == "snapshot":
        for name in ("bids", "asks"):
            for price, size in frame[name]:
                truth.set_level(product, name == "bids", price, size)
    elif frame["type"] == "l2update":
        for side, price, size in frame["changes"]:
            truth.set_level(product, side == "buy", price, size)
    elif frame["type"] == "ticker":
        truth.tickers[product] = truth.tickers.get(product, 0) + 1


def _frames(path: Path) -> Iterator[dict[str, Any]]:
    with gzip.open(path, "rt") as lines:
        for line in lines:
            if line.startswith("{"):
                said = json.loads(line)
                if said.get("t") == "recv":
                    yield json.loads(said["data"])
                elif "payload" in said:
                    yield said["payload"]
            elif line[:1].isdigit():
                yield json.loads(line.partition(": ")[2])


def _micros(time: str) -> str:
    whole, _, fraction = time.rstrip("Z").partition(".")
    return f"{whole}.{fraction.ljust(6, '0')[:6]}Z"
