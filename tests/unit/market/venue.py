"""A small venue that speaks Advanced Trade, knows the truth, and answers REST: what faults are injected into."""

from __future__ import annotations

import json
import random
from decimal import Decimal
from typing import Any

from nodeagent.market.model.records import Connected, Record, RecordKind, RestAnswer
from nodeagent.market.model.source import Purpose
from nodeagent.market.model.times import MS_NS, NS, to_iso
from nodeagent.market.pipeline.questions import Action, Resubscribe, Subscribe

START_NS = 1_786_309_548 * NS
PRODUCTS = ("BTC-USD", "ETH-USD")
TICK = Decimal("0.01")


class Venue:
    """Books around a mid price, trades with ids that rise by one, one frame counter for the connection."""

    def __init__(self, seed: int, products: tuple[str, ...] = PRODUCTS) -> None:
        self.products = products
        self.chance = random.Random(seed)
        self.now_ns = START_NS
        self.sequence = 0
        self.books: dict[str, dict[str, dict[Decimal, Decimal]]] = {p: {"bid": {}, "offer": {}} for p in products}
        self.trades: dict[str, list[dict[str, Any]]] = {p: [] for p in products}
        for product in products:
            for side in ("bid", "offer"):
                for _ in range(40):
                    self.books[product][side][self._price(side)] = self._size()
            for _ in range(5):
                self._trade(product)

    def opening(self) -> list[bytes]:
        """Snapshots and acknowledgements, as the venue sends them after subscribing."""
        frames = []
        for product in self.products:
            frames += [self.trades_snapshot(product), self.book_snapshot(product)]
        acknowledged = {"subscriptions": {"level2": list(self.products), "market_trades": list(self.products)}}
        return [*frames, self._frame("subscriptions", [acknowledged])]

    def next_frame(self) -> bytes:
        """Whatever happens next."""
        product = self.chance.choice(self.products)
        kind = self.chance.random()
        if kind < 0.6:
            return self._frame("l2_data", [self._changes(product)])
        if kind < 0.85:
            new = [self._trade(product) for _ in range(self.chance.randint(1, 4))]
            return self._frame("market_trades", [{"type": "update", "trades": new[::-1]}])
        if kind < 0.95:
            return self._frame("ticker", [self._ticker(product)])
        beat = {"current_time": "2026-08-09 21:05:48 +0000 UTC m=+1.0", "heartbeat_counter": self.sequence}
        return self._frame("heartbeats", [beat])

    def book_snapshot(self, product: str) -> bytes:
        """The whole book."""
        updates = [
            self._level(side, price, size)
            for side in ("bid", "offer")
            for price, size in self.books[product][side].items()
        ]
        return self._frame("l2_data", [{"type": "snapshot", "product_id": product, "updates": updates}])

    def trades_snapshot(self, product: str) -> bytes:
        """The last 100 trades, newest first."""
        return self._frame("market_trades", [{"type": "snapshot", "trades": self.trades[product][-100:][::-1]}])

    def answer(self, question: Action) -> list[Record]:
        """What a question brings: frames on the connection, or a REST answer."""
        if isinstance(question, Subscribe):
            return []
        if isinstance(question, Resubscribe):
            frames = []
            for product in question.products:
                frames += [self.trades_snapshot(product), self.book_snapshot(product)]
            return [self.received(frame) for frame in frames]
        if question.purpose is Purpose.TRADES:
            trades = [t for t in self.trades[question.product] if int(t["trade_id"]) <= question.last_id]
            body = json.dumps({"trades": trades[-1000:][::-1], "best_bid": "", "best_ask": ""}).encode()
            payload = RestAnswer(question, 200, body).encode()
            return [Record(RecordKind.REST, 0, self.now_ns, self.now_ns, payload)]
        return []

    def received(self, frame: bytes) -> Record:
        """The frame as received 20 ms later."""
        at_ns = self.now_ns + 20 * MS_NS
        return Record(RecordKind.RECEIVED, 1, at_ns, at_ns, frame)

    def connected(self) -> Record:
        """The connection's first record."""
        opened = Connected("coinbase-advanced", "wss://", self.products, ("trades", "book", "ticker", "heartbeat"))
        payload = json.dumps(
            {"source": opened.source, "url": "", "products": self.products, "channels": opened.channels}
        )
        return Record(RecordKind.CONNECT, 1, self.now_ns, self.now_ns, payload.encode())

    def _frame(self, channel: str, events: list[dict[str, Any]]) -> bytes:
        self.now_ns += 10 * MS_NS
        frame = {"channel": channel, "timestamp": to_iso(self.now_ns), "sequence_num": self.sequence, "events": events}
        self.sequence += 1
        return json.dumps(frame, separators=(",", ":")).encode()

    def _changes(self, product: str) -> dict[str, Any]:
        updates = []
        for _ in range(self.chance.randint(0, 6)):
            side = self.chance.choice(("bid", "offer"))
            levels = self.books[product][side]
            price = self.chance.choice(sorted(levels)) if levels and self.chance.random() < 0.6 else self._price(side)
            size = Decimal(0) if self.chance.random() < 0.3 and len(levels) > 5 else self._size()
            if size:
                levels[price] = size
            else:
                levels.pop(price, None)
            updates.append(self._level(side, price, size))
        return {"type": "update", "product_id": product, "updates": updates}

    def _level(self, side: str, price: Decimal, size: Decimal) -> dict[str, str]:
        time = to_iso(self.now_ns)[:26] + "Z"
        return {"side": side, "event_time": time, "price_level": str(price), "new_quantity": str(size)}

    def _trade(self, product: str) -> dict[str, Any]:
        trade = {
            "product_id": product,
            "trade_id": str(1000 + len(self.trades[product])),
            "price": str(self._price("bid")),
            "size": str(self._size()),
            "time": to_iso(self.now_ns)[:26] + "Z",
            "side": self.chance.choice(("BUY", "SELL")),
        }
        self.trades[product].append(trade)
        return trade

    def _ticker(self, product: str) -> dict[str, Any]:
        best_bid = str(max(self.books[product]["bid"]))
        entry = {"type": "ticker", "product_id": product, "price": best_bid, "best_bid": best_bid, "volume_24_h": "1"}
        return {"type": "update", "tickers": [entry]}

    def _price(self, side: str) -> Decimal:
        distance = self.chance.randint(1, 5000) * TICK
        return Decimal(1000) + (distance if side == "offer" else -distance)

    def _size(self) -> Decimal:
        return Decimal(self.chance.randint(1, 10**9)) / 10**8
