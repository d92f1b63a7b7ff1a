"""A pipeline at the end of a line: what was sent, what came out, what is asked of the venue."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from nodeagent.market.model.decimals import scaled
from nodeagent.market.model.events import GapKind, Instrument
from nodeagent.market.model.records import Record, RecordKind, RestAnswer
from nodeagent.market.model.rows import GapRow, Row, TradeRow
from nodeagent.market.model.source import Purpose, RestRequest, Source
from nodeagent.market.model.times import MS_NS, NS, to_iso
from nodeagent.market.pipeline.pipeline import Pipeline
from nodeagent.market.pipeline.state import Output
from nodeagent.market.venues.coinbase_exchange.source import CoinbaseExchange
from tests.unit.market.venue import START_NS

RULES = {"BTC-USD": Instrument("BTC-USD", scaled("0.01"), scaled("0.00000001"))}


class Line:
    """A pipeline and a clock; what is sent arrives 20 ms later."""

    def __init__(self, source: Source, products: Sequence[str] | None = ("BTC-USD", "ETH-USD"), **options: Any) -> None:
        self.pipeline = Pipeline(source, products, **options)
        self.source = source
        self.now_ns = START_NS
        self.rows: list[Row] = []

    def connect(self, connection: int = 1, channels: tuple[str, ...] = ("trades", "book")) -> Output:
        products = sorted(self.pipeline.state.rules.products or ())
        opened = {"source": self.source.name, "url": "", "products": products, "channels": channels}
        return self.take(RecordKind.CONNECT, json.dumps(opened).encode(), connection)

    def send(self, message: dict[str, Any] | bytes, connection: int = 1) -> Output:
        payload = message if isinstance(message, bytes) else json.dumps(message).encode()
        return self.take(RecordKind.RECEIVED, payload, connection)

    def answer(self, request: RestRequest, body: Any, status: int = 200) -> Output:
        return self.take(RecordKind.REST, RestAnswer(request, status, json.dumps(body).encode()).encode(), 0)

    def take(self, kind: RecordKind, payload: bytes, connection: int) -> Output:
        self.now_ns += 10 * MS_NS
        out = self.pipeline.feed(Record(kind, connection, self.now_ns + 20 * MS_NS, self.now_ns, payload))
        self.rows += out.rows
        return out

    def due(self, after_s: float = 0.0) -> list[Any]:
        """Questions now, without the one for the product rules."""
        self.now_ns += int(after_s * NS)
        asked = self.pipeline.due(self.now_ns + 30 * MS_NS)
        return [a for a in asked if not (isinstance(a, RestRequest) and a.purpose is Purpose.INSTRUMENTS)]

    def gaps(self, kind: GapKind) -> list[GapRow]:
        return [row for row in self.rows if isinstance(row, GapRow) and row.kind == kind]

    def trade_ids(self, product: str = "BTC-USD") -> list[int]:
        return [row.trade_id for row in self.rows if isinstance(row, TradeRow) and row.product == product]

    def is_synced(self, product: str) -> bool:
        return self.pipeline.state.connections[1].books[product].is_synced

    # Exchange messages

    def match(self, trade_id: int, product: str = "BTC-USD", **fields: Any) -> dict[str, Any]:
        message = {"type": "match", "trade_id": trade_id, "side": "sell", "size": "0.5", "price": "100.00"}
        return message | {"product_id": product, "sequence": 1, "time": self.time()} | fields

    def snapshot(self, product: str = "BTC-USD") -> dict[str, Any]:
        book = {"bids": [["99.00", "1"], ["98.00", "2"]], "asks": [["101.00", "1"], ["102.00", "2"]]}
        return {"type": "snapshot", "product_id": product, "time": self.time(), **book}

    def update(self, *changes: tuple[str, str, str], product: str = "BTC-USD", **fields: Any) -> dict[str, Any]:
        return {"type": "l2update", "product_id": product, "changes": changes, "time": self.time()} | fields

    def heartbeat(self, last_trade_id: int) -> dict[str, Any]:
        message = {"type": "heartbeat", "last_trade_id": last_trade_id, "product_id": "BTC-USD", "sequence": 1}
        return message | {"time": self.time()}

    def time(self) -> str:
        return to_iso(self.now_ns)[:26] + "Z"


def exchange(**options: Any) -> Line:
    """Connected to Exchange, with a book of two products and a trade."""
    line = Line(CoinbaseExchange(), **options)
    line.connect()
    for product in ("BTC-USD", "ETH-USD"):
        line.send(line.snapshot(product))
        line.send(line.match(100, product, type="last_match"))
    return line


def page(line: Line, *ids: int) -> list[dict[str, Any]]:
    """A REST page of trades, newest first."""
    return [
        {"trade_id": n, "side": "buy", "size": "1", "price": "100.00", "time": line.time()}
        for n in sorted(ids, reverse=True)
    ]
