"""The recordings, and a slow, plain reading of them with `json` and `Decimal` to hold the real path against."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

from nodeagent.market.capture.formats import open_recording
from nodeagent.market.model.records import Record
from nodeagent.market.model.rows import Row
from nodeagent.market.model.source import load_source
from nodeagent.market.pipeline.pipeline import Pipeline

ROOT = Path(__file__).resolve().parents[3]
RECORDINGS = ROOT.parent / "shared" / "data" / "coinbase"

ADVANCED = "advtrade_2026-08-09_btc-eth_part1.jsonl.gz"
ADVANCED_TICKER = "advtrade_ticker_2026-04-05_btc-usd_part1.ndjson.gz"
EXCHANGE_2021 = "exchange_2021-04-17_10products.cryptofeed.txt.gz"
EXCHANGE_2026 = "exchange_2026-07-07_format-excerpt.jsonl"
EXCHANGE_L3 = "exchange_full-L3_2016-03-12_btc-usd_session0.in.gz"
EXCHANGE_L3_EXPECTED = "exchange_full-L3_2016-03-12_btc-usd_session0.expected.json"
REST_BOOK = "exchange_rest_book_level2_2026-07-07_btc-usd.json.gz"
PRODUCTS_2021 = "exchange_2021-04-17_products.cryptofeed.txt.gz"

Book = dict[str, dict[Decimal, Decimal]]
PlainTrade = tuple[int, Decimal, Decimal, str, str]
"""(id, price, size, taker side, time as written)"""


class Plain:
    """Books and trades by the letter of the protocol, one Decimal at a time."""

    def __init__(self) -> None:
        self.books: dict[str, Book] = {}
        self.trades: dict[str, dict[int, PlainTrade]] = {}

    def level(self, product: str, side: str, price: str, size: str) -> None:
        """Set or remove one level; `side` is `bids` or `asks`."""
        levels = self.books[product][side]
        if Decimal(size):
            levels[Decimal(price)] = Decimal(size)
        else:
            levels.pop(Decimal(price), None)

    def trade(self, entry: dict[str, Any]) -> None:
        """Enter a trade; its side is the maker's."""
        taker = {"buy": "sell", "sell": "buy"}[entry["side"].lower()]
        number = int(entry["trade_id"])
        trade = (number, Decimal(entry["price"]), Decimal(entry["size"]), taker, entry["time"])
        self.trades.setdefault(entry["product_id"], {})[number] = trade

    def advanced(self, frame: dict[str, Any]) -> None:
        """One Advanced Trade frame."""
        for event in frame["events"]:
            if frame["channel"] == "l2_data":
                if event["type"] == "snapshot":
                    self.books[event["product_id"]] = {"bids": {}, "asks": {}}
                for update in event["updates"]:
                    side = {"bid": "bids", "offer": "asks"}[update["side"]]
                    self.level(event["product_id"], side, update["price_level"], update["new_quantity"])
            elif frame["channel"] == "market_trades":
                for entry in event["trades"]:
                    self.trade(entry)

    def exchange(self, frame: dict[str, Any]) -> None:
        """One Exchange frame."""
        if frame["type"] == "snapshot":
            self.books[frame["product_id"]] = {"bids": {}, "asks": {}}
            for side in ("bids", "asks"):
                for price, size in frame[side]:
                    self.level(frame["product_id"], side, price, size)
        elif frame["type"] == "l2update":
            for side, price, size in frame["changes"]:
                self.level(frame["product_id"], {"buy": "bids", "sell": "asks"}[side], price, size)
        elif frame["type"] in {"match", "last_match"}:
            self.trade(frame)


def plain_frames(path: Path) -> Iterator[dict[str, Any]]:
    """The received frames of a recording, read without any code under test."""
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt") as file:
        for line in file:
            if path.name == ADVANCED:
                entry = json.loads(line)
                if entry["t"] == "recv":
                    yield json.loads(entry["data"])
            elif path.name == ADVANCED_TICKER:
                yield json.loads(line)["payload"]
            elif path.name == EXCHANGE_2021:
                if line.strip() and not line.startswith("wss"):
                    yield json.loads(line.split(": ", 1)[1])
            elif path.name == EXCHANGE_L3:
                yield json.loads(line.split(" ", 2)[2])
            else:
                yield json.loads(line)


def replay(path: Path) -> tuple[Pipeline, list[Row]]:
    """A recording through the real path."""
    recording = open_recording(path)
    return feed(Pipeline(load_source(recording.source), None), recording.records)


def feed(pipeline: Pipeline, records: Iterator[Record]) -> tuple[Pipeline, list[Row]]:
    """Records through a pipeline, to the end."""
    rows: list[Row] = []
    for record in records:
        rows += pipeline.feed(record).rows
    rows += pipeline.finish().rows
    return pipeline, rows
