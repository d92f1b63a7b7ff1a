"""What is lost on the way is noticed and brought back."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from nodeagent.market.exchange import ExchangeServer, Fault, FaultKind, GeneratedContent
from nodeagent.market.store.server import QuestDBServer
from nodeagent.market.store.sql import query
from tests.integration.market.feeds import FeedProcess, feed_for, sent_trades, until, until_all_stored

pytestmark = pytest.mark.asyncio(loop_scope="session")

FRAMES = 10_000
PRODUCTS = tuple(f"P{number}-USD" for number in range(20))
BY_RATE = (
    Fault(FaultKind.DROP, rate=0.004),
    Fault(FaultKind.DUPLICATE, rate=0.004),
    Fault(FaultKind.REORDER, rate=0.004),
    Fault(FaultKind.CORRUPT, rate=0.002),
    Fault(FaultKind.TRUNCATE, rate=0.002),
    Fault(FaultKind.CLOSE, rate=0.0003),
)
BY_HAND = (
    FaultKind.STALL,
    FaultKind.CLOSE_IN_SNAPSHOT,
    FaultKind.SLOW_CONSUMER,
    FaultKind.TOO_MANY_REQUESTS,
    FaultKind.CLOCK_STEP,
)
"""Each once in every fifth of the run."""


@pytest.mark.timeout(300)
@pytest.mark.parametrize("protocol", ["advanced", pytest.param("exchange", marks=pytest.mark.long)])
async def test_ten_thousand_frames_with_every_fault_leave_no_hole(
    protocol: str, server: QuestDBServer, feeds: list[FeedProcess], tmp_path: Path
) -> None:
    async with _exchange(protocol, seed=5, faults=BY_RATE) as exchange:
        feed = feed_for(tmp_path, exchange, server)
        feeds.append(feed)
        await feed.start()
        for part in range(1, 6):
            await until("a fifth was told", lambda part=part: exchange.frames.total() > part * FRAMES / 5, within_s=60)
            for kind in BY_HAND:
                exchange.inject(kind, seconds=0.8)
            exchange.disconnect_all()  # a new connection asks over REST and gets snapshots
        await until("each fault has happened", lambda: _have_happened(exchange), within_s=60)
        exchange.heal()
        exchange.pause()
        await until_all_stored(exchange, server.endpoint, within_s=90)
        await until("no trade is missing", lambda: feed.status()["missing_trades"] == 0)
        await until("books are trusted again", lambda: _is_synced(feed), within_s=60)
        await until("each hole in trade ids is closed in feed_gap", lambda: _no_open_trade_hole(server))
        status, happened, found = feed.status(), exchange.plan.happened, await _found(server)
        print(
            f"{protocol}: {exchange.frames.total()} frames; {dict(happened)}; found {found},"
            f" {status['rejected']} refused"
        )
        assert status["gaps"] > 0
        assert status["rejected"] >= happened[FaultKind.TRUNCATE], "no part of a frame is a frame"
        assert (tmp_path / "capture" / "quarantine.ndjson").stat().st_size > 0
        if protocol == "advanced":  # it numbers its frames: what the line did to them is told one by one
            share = 0.9  # what happened to a connection's last frames is told by its end
            assert found["duplicate"] >= share * happened[FaultKind.DUPLICATE]
            assert found["out_of_order"] >= share * happened[FaultKind.REORDER]
            assert found["connection_sequence"] >= share * happened[FaultKind.DROP]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("protocol", ["advanced", "exchange"])
async def test_ten_thousand_clean_frames_raise_no_alarm(
    protocol: str, server: QuestDBServer, feeds: list[FeedProcess], tmp_path: Path
) -> None:
    async with _exchange(protocol, seed=8) as exchange:
        feed = feed_for(tmp_path, exchange, server)
        feeds.append(feed)
        await feed.start()
        await until("all was told", lambda: exchange.frames.total() > FRAMES, within_s=120)
        exchange.pause()
        await until_all_stored(exchange, server.endpoint, within_s=60)
        status = feed.status()
        assert (status["gaps"], status["rejected"], status["missing_trades"]) == (0, 0, 0)
        assert await _found(server) == {}
        assert _is_synced(feed)


def _exchange(protocol: str, seed: int, faults: Sequence[Fault] = ()) -> ExchangeServer:
    content = GeneratedContent(PRODUCTS, seed, time.time_ns(), trades_per_s=8)
    return ExchangeServer(protocol, content=content, seed=seed, faults=faults)


def _have_happened(exchange: ExchangeServer) -> bool:
    happened = exchange.plan.happened
    return all(happened[kind] for kind in (*(fault.kind for fault in BY_RATE), *BY_HAND))


async def _found(server: QuestDBServer) -> dict[str, int]:
    answer = await query(server.endpoint, "SELECT kind, count() FROM feed_gap GROUP BY kind")
    return dict(answer.rows)


@pytest.mark.parametrize("kind", [FaultKind.CLOSE_IN_SNAPSHOT, FaultKind.SLOW_CONSUMER, FaultKind.TOO_MANY_REQUESTS])
async def test_feed_comes_back_after(
    kind: FaultKind, server: QuestDBServer, feeds: list[FeedProcess], tmp_path: Path
) -> None:
    async with ExchangeServer("advanced", seed=6, speed=2) as exchange:
        feed = feed_for(tmp_path, exchange, server)
        feeds.append(feed)
        await feed.start()
        await until("rows are stored", lambda: feed.status().get("rows_stored", 0) > 220)
        exchange.inject(kind, count=2)
        exchange.disconnect_all()
        await until("it happened twice", lambda: exchange.plan.happened[kind] == 2)
        await until("books are trusted again", lambda: feed.status()["is_connected"] and _is_synced(feed))
        exchange.pause()
        await until_all_stored(exchange, server.endpoint)


async def test_silence_is_noticed_and_ended(server: QuestDBServer, feeds: list[FeedProcess], tmp_path: Path) -> None:
    async with ExchangeServer("advanced", seed=7, speed=2) as exchange:
        feed = feed_for(tmp_path, exchange, server, silence_max_s=2.0)
        feeds.append(feed)
        await feed.start()
        await until("trades flow", lambda: sum(map(len, sent_trades(exchange).values())) > 220)
        exchange.inject(FaultKind.STALL, seconds=600)
        await until("the feed connected anew", lambda: feed.status().get("connects", 0) >= 2, within_s=60)
        await until("books are trusted again", lambda: _is_synced(feed))
        exchange.pause()
        await until_all_stored(exchange, server.endpoint)


async def _no_open_trade_hole(server: QuestDBServer) -> bool:
    sql = "SELECT count() FROM feed_gap WHERE kind = 'trade_id' AND repaired_at IS NULL"
    return (await query(server.endpoint, sql)).rows[0][0] == 0


def _is_synced(feed: FeedProcess) -> bool:
    products = feed.status().get("products", {})
    return bool(products) and all(product["is_synced"] for product in products.values())
