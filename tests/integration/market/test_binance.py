"""The second venue, end to end: simulated Binance, a real feed process, a real QuestDB."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from nodeagent.market.capture.reader import read_capture
from nodeagent.market.exchange import ExchangeServer, Fault, FaultKind, GeneratedContent
from nodeagent.market.model.records import RecordKind, RestAnswer
from nodeagent.market.model.source import Purpose
from nodeagent.market.model.times import NS
from nodeagent.market.store.endpoint import Endpoint
from nodeagent.market.store.server import QuestDBServer
from nodeagent.market.store.sql import query
from tests.integration.market.feeds import (
    FeedProcess,
    feed_for,
    gaps_by_kind,
    has_no_open_trade_hole,
    has_trusted_books,
    until,
    until_all_stored,
)

pytestmark = pytest.mark.asyncio(loop_scope="session")

MS_NS = 1_000_000
WHOLE_BOOK = 1000
"""More levels a side than the generated market has."""
BY_RATE = (
    Fault(FaultKind.DROP, rate=0.003),
    Fault(FaultKind.DUPLICATE, rate=0.003),
    Fault(FaultKind.REORDER, rate=0.003),
    Fault(FaultKind.CORRUPT, rate=0.002),
    Fault(FaultKind.TRUNCATE, rate=0.002),
)
BY_HAND = (
    FaultKind.STALL,
    FaultKind.SLOW_CONSUMER,
    FaultKind.SHUTDOWN,
    FaultKind.CLOSE,
    FaultKind.CLOSE_IN_SNAPSHOT,
    FaultKind.TOO_MANY_REQUESTS,
    FaultKind.CLOCK_STEP,
)


def _exchange(seed: int, products: int, trades_per_s: float, faults: Sequence[Fault] = ()) -> ExchangeServer:
    names = tuple(f"P{number}USDT" for number in range(products))
    content = GeneratedContent(names, seed, time.time_ns(), trades_per_s=trades_per_s)
    return ExchangeServer("binance", content=content, seed=seed, faults=faults)


@pytest.mark.timeout(180)
async def test_every_fault_leaves_no_hole(server: QuestDBServer, feeds: list[FeedProcess], tmp_path: Path) -> None:
    async with _exchange(61, 2, 80, BY_RATE) as exchange:
        await _suffer(exchange, server, feeds, tmp_path, frames=2_000, times=1)


@pytest.mark.long
@pytest.mark.timeout(900)
async def test_twenty_thousand_frames_with_every_fault_leave_no_hole(
    server: QuestDBServer, feeds: list[FeedProcess], tmp_path: Path
) -> None:
    async with _exchange(62, 4, 40, BY_RATE) as exchange:
        await _suffer(exchange, server, feeds, tmp_path, frames=20_000, times=5)


async def _suffer(
    exchange: ExchangeServer,
    server: QuestDBServer,
    feeds: list[FeedProcess],
    folder: Path,
    *,
    frames: int,
    times: int,
) -> None:
    """Faults by rate throughout, each other one once in every part of the run; then all must be whole and exact."""
    feed = feed_for(folder, exchange, server, book_depth=WHOLE_BOOK)
    feeds.append(feed)
    await feed.start()
    await until("books are trusted", lambda: has_trusted_books(feed), within_s=60)
    exchange.inject(FaultKind.DROP, channel="depthUpdate")
    await until("a hole in a book is told", lambda: _has_book_hole(server.endpoint))
    for part in range(1, times + 1):
        await until(
            "a part was told",
            lambda part=part: exchange.frames.total() > part * frames / (times + 1),
            within_s=200,
        )
        for kind in BY_HAND:
            exchange.inject(kind, seconds=0.8)
    happened = exchange.plan.happened
    await until("all was told", lambda: exchange.frames.total() > frames, within_s=200)
    await until("each fault has happened", lambda: all(happened[f.kind] for f in BY_RATE), within_s=60)
    await until("each fault by hand, too", lambda: all(happened[kind] >= times for kind in BY_HAND), within_s=60)
    exchange.heal()
    exchange.pause()
    await until_all_stored(exchange, server.endpoint, within_s=90)
    await until("no trade is missing", lambda: feed.status()["missing_trades"] == 0)
    await until("books are trusted again", lambda: has_trusted_books(feed), within_s=120)
    await until("each hole in trade ids is closed", lambda: has_no_open_trade_hole(server.endpoint))
    assert await _stored(server.endpoint) == _sent(exchange)
    await until("the stored books are the venue's", lambda: _books_are_equal(exchange, server.endpoint))
    status, found = feed.status(), await gaps_by_kind(server.endpoint)
    print(f"{exchange.frames.total()} frames; {dict(happened)}; found {found}; refused {dict(exchange.refused)}")
    assert found["trade_id"] > 0
    assert status["rejected"] >= happened[FaultKind.TRUNCATE], "no part of a frame is a frame"
    assert set(exchange.refused) <= {429}, "whoever is told to wait and asks on is banned"


@pytest.mark.timeout(120)
async def test_a_clean_run_raises_no_alarm_and_its_books_are_those_of_a_plain_replay(
    server: QuestDBServer, feeds: list[FeedProcess], tmp_path: Path
) -> None:
    async with _exchange(63, 3, 20) as exchange:
        feed = feed_for(tmp_path, exchange, server, book_depth=WHOLE_BOOK)
        feeds.append(feed)
        await feed.start()
        await until("all was told", lambda: exchange.frames.total() > 800, within_s=60)
        exchange.pause()
        await until_all_stored(exchange, server.endpoint)
        await until("the stored books are the venue's", lambda: _books_are_equal(exchange, server.endpoint))
        status = feed.status()
        assert (status["gaps"], status["rejected"], status["missing_trades"]) == (0, 0, 0)
        assert (status["problems"], exchange.refused) == ([], {})
        assert await gaps_by_kind(server.endpoint) == {}
        assert await _stored(server.endpoint) == _sent(exchange)
        assert await feed.stop() == 0
        replayed = _Replay()
        for record in read_capture(tmp_path / "capture"):
            replayed.take(record.kind, record.payload, record.received_at_ns)
        rows = await query(server.endpoint, "SELECT ts, product, bids, asks FROM book ORDER BY ts, product")
        stored = {(row[0][:19], row[1]): (_pairs(row[2]), _pairs(row[3])) for row in rows.rows}
        assert len(stored) >= 2 * len(exchange.venue.markets)
        for key, sides in stored.items():
            assert sides == replayed.seconds[key], key


@pytest.mark.timeout(180)
async def test_a_killed_feed_loses_nothing(server: QuestDBServer, feeds: list[FeedProcess], tmp_path: Path) -> None:
    chance = random.Random(64)
    async with _exchange(64, 2, 80) as exchange:
        feed = feed_for(tmp_path, exchange, server, book_depth=WHOLE_BOOK)
        feeds.append(feed)
        await feed.start()
        await until("trades flow", lambda: exchange.frames["trade"] > 100)
        for _ in range(2):
            told = exchange.frames["trade"] + chance.randint(50, 200)
            await until("more trades flow", lambda told=told: exchange.frames["trade"] > told)
            await feed.kill()
            before = sum(map(len, exchange.sent_trades.values()))
            await until("trades pass unheard", lambda b=before: sum(map(len, exchange.sent_trades.values())) > b + 30)
            await feed.start()
        await until("the feed is connected", lambda: feed.status().get("is_connected", False))
        exchange.pause()
        await until_all_stored(exchange, server.endpoint, within_s=60)
        await until("books are trusted again", lambda: has_trusted_books(feed), within_s=60)
        assert await _stored(server.endpoint) == _sent(exchange)
        await until("the stored books are the venue's", lambda: _books_are_equal(exchange, server.endpoint))
        assert exchange.refused == {}


@dataclass
class _Replay:
    """Books by the documented procedure, in plain Decimals: one connection, no loss; how they stood at each second."""

    books: dict[str, dict[str, dict[Decimal, Decimal]]] = field(default_factory=dict)
    numbers: dict[str, int] = field(default_factory=dict)
    waiting: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    seconds: dict[tuple[str, str], tuple[Any, Any]] = field(default_factory=dict)
    second: int = 0

    def take(self, kind: RecordKind, payload: bytes, at_ns: int) -> None:
        while self.second and at_ns // NS > self.second:
            self.second += 1
            at = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(self.second))
            self.seconds |= {(at, product): _doubles(sides) for product, sides in self.books.items()}
        self.second = self.second or at_ns // NS
        if kind is RecordKind.RECEIVED:
            data = json.loads(payload).get("data", {})
            if data.get("e") == "depthUpdate":
                self._hear(data)
        elif kind is RecordKind.REST:
            answer = RestAnswer.decode(payload)
            if answer.request.purpose is Purpose.BOOK_REPAIR:
                self._begin(answer.request.product, json.loads(answer.body))

    def _begin(self, product: str, snapshot: dict[str, Any]) -> None:
        sides = (("b", "bids"), ("a", "asks"))
        self.books[product] = {side: {Decimal(p): Decimal(s) for p, s in snapshot[name]} for side, name in sides}
        self.numbers[product] = snapshot["lastUpdateId"]
        for data in self.waiting.pop(product, []):
            self._hear(data)

    def _hear(self, data: dict[str, Any]) -> None:
        product = data["s"]
        if product not in self.books:
            self.waiting.setdefault(product, []).append(data)
        elif data["u"] > self.numbers[product]:
            assert data["U"] <= self.numbers[product] + 1
            self.numbers[product] = data["u"]
            for side, levels in self.books[product].items():
                for price, size in data[side]:
                    levels[Decimal(price)] = Decimal(size)
                    if not Decimal(size):
                        del levels[Decimal(price)]


def _doubles(sides: dict[str, dict[Decimal, Decimal]]) -> tuple[Any, Any]:
    bids, asks = sorted(sides["b"].items(), reverse=True), sorted(sides["a"].items())
    return tuple([(float(p), float(s)) for p, s in levels] for levels in (bids, asks))  # type: ignore[return-value]


def _pairs(levels: list[list[float]]) -> list[tuple[float, float]]:
    return list(zip(*levels, strict=True))


async def _has_book_hole(endpoint: Endpoint) -> bool:
    return "book_sequence" in await gaps_by_kind(endpoint)


async def _books_are_equal(exchange: ExchangeServer, endpoint: Endpoint) -> bool:
    """Whether the newest row of each product is the venue's whole book."""
    rows = await query(endpoint, "SELECT product, bids, asks FROM book LATEST ON ts PARTITION BY product")
    return {row[0]: (_pairs(row[1]), _pairs(row[2])) for row in rows.rows} == {
        name: tuple([(float(p), float(s)) for p, s in market.levels(side)] for side in ("bid", "offer"))
        for name, market in exchange.venue.markets.items()
    }


async def _stored(endpoint: Endpoint) -> set[tuple[Any, ...]]:
    """Every stored trade: product, id, price, size, who took, and when in milliseconds."""
    sql = "SELECT product, trade_id, price::STRING, size::STRING, aggressor_side, ts::LONG FROM trades"
    answer = await query(endpoint, sql)
    return {(row[0], row[1], Decimal(row[2]), Decimal(row[3]), row[4], row[5] // 1000) for row in answer.rows}


def _sent(exchange: ExchangeServer) -> set[tuple[Any, ...]]:
    return {
        (
            name,
            trade.trade_id,
            Decimal(trade.price),
            Decimal(trade.size),
            "sell" if trade.maker_side == "BUY" else "buy",
            trade.time_ns // MS_NS,
        )
        for name, trades in exchange.sent_trades.items()
        for trade in trades.values()
    }
