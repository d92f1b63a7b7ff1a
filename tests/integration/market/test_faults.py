"""What is lost on the way is noticed and brought back."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from agentfarm.exchange import ExchangeServer, Fault, FaultKind, GeneratedContent
from nodeagent.questdb.server import QuestDBServer
from nodeagent.questdb.sql import query
from tests.integration.market.feeds import FeedProcess, feed_for, sent_trades, until, until_all_stored

pytestmark = pytest.mark.asyncio(loop_scope="session")

LOSSES = (
    Fault(FaultKind.DROP, rate=0.02),
    Fault(FaultKind.DUPLICATE, rate=0.02),
    Fault(FaultKind.REORDER, rate=0.02),
    Fault(FaultKind.CORRUPT, rate=0.01),
    Fault(FaultKind.TRUNCATE, rate=0.01),
    Fault(FaultKind.CLOSE, rate=0.005),
)


@pytest.mark.parametrize("protocol", ["advanced", "exchange"])
async def test_holes_of_a_lossy_feed_are_repaired(
    protocol: str, server: QuestDBServer, feeds: list[FeedProcess], tmp_path: Path
) -> None:
    content = GeneratedContent(tuple(f"P{n}-USD" for n in range(10)), 5, time.time_ns(), trades_per_s=20)
    async with ExchangeServer(protocol, content=content, seed=5, faults=LOSSES) as exchange:
        feed = feed_for(tmp_path, exchange, server)
        feeds.append(feed)
        await feed.start()
        await until("the fault run is over", lambda: exchange.told.total() > 900, within_s=40)
        exchange.heal()
        exchange.pause()
        await until_all_stored(exchange, server.endpoint, within_s=40)
        happened = exchange.plan.happened
        assert all(happened[fault.kind] for fault in LOSSES), f"the run was too short: {happened}"
        await until("no trade is missing", lambda: feed.status()["missing_trades"] == 0)
        assert feed.status()["gaps"] > 0
        await until("each hole in trade ids is closed in feed_gap", lambda: _no_open_trade_hole(server))
        assert (tmp_path / "capture" / "quarantine.ndjson").stat().st_size > 0


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
        await until("the feed connected anew", lambda: feed.status().get("connects", 0) >= 2, within_s=15)
        await until("books are trusted again", lambda: _is_synced(feed))
        exchange.pause()
        await until_all_stored(exchange, server.endpoint)


async def _no_open_trade_hole(server: QuestDBServer) -> bool:
    sql = "SELECT count() FROM feed_gap WHERE kind = 'trade_id' AND repaired_at IS NULL"
    return (await query(server.endpoint, sql)).rows[0][0] == 0


def _is_synced(feed: FeedProcess) -> bool:
    products = feed.status().get("products", {})
    return bool(products) and all(product["is_synced"] for product in products.values())
