"""Exactly once, whatever dies: the stored trades are the sent trades."""

from __future__ import annotations

import os
import random
import signal
import time
from contextlib import suppress
from pathlib import Path

import pytest

from nodeagent.market.exchange import ExchangeServer, GeneratedContent
from nodeagent.market.store.server import QuestDBServer
from tests.integration.market.feeds import FeedProcess, feed_for, is_up, sent_trades, until, until_all_stored

pytestmark = pytest.mark.asyncio(loop_scope="session")


def _busy(seed: int) -> GeneratedContent:
    return GeneratedContent(("BTC-USD", "ETH-USD", "SOL-USD"), seed, time.time_ns(), trades_per_s=60, changes_per_s=200)


async def test_killed_feed_and_questdb_lose_nothing(
    server: QuestDBServer, feeds: list[FeedProcess], tmp_path: Path
) -> None:
    async with ExchangeServer("advanced", content=_busy(21)) as exchange:
        feed = feed_for(tmp_path, exchange, server)
        feeds.append(feed)
        await _kill_at_random(exchange, feed, server, times=3, seed=21)


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("protocol", ["advanced", "exchange"])
async def test_twenty_kills_lose_nothing(
    protocol: str, server: QuestDBServer, feeds: list[FeedProcess], tmp_path: Path
) -> None:
    async with ExchangeServer(protocol, content=_busy(22)) as exchange:
        feed = feed_for(tmp_path, exchange, server)
        feeds.append(feed)
        await _kill_at_random(exchange, feed, server, times=20, seed=22)


async def _kill_at_random(
    exchange: ExchangeServer, feed: FeedProcess, server: QuestDBServer, *, times: int, seed: int
) -> None:
    """Kill feed, QuestDB, or both, `times` times under load; then compare."""
    chance = random.Random(seed)
    victims = [("feed", "questdb", "both")[number % 3] for number in range(times)]
    await feed.start()
    await until("trades flow", lambda: _told(exchange) > 350)
    for victim in victims:
        told = _told(exchange) + chance.randint(50, 200)
        await until("more trades flow", lambda told=told: _told(exchange) > told)
        if victim in ("questdb", "both"):
            _kill_server(server)
        if victim in ("feed", "both"):
            await feed.kill()
            await feed.start()
            await until("the feed is connected again", lambda: feed.status().get("is_connected", False))
    exchange.pause()
    await until("QuestDB is back", lambda: is_up(server), within_s=60)
    await until_all_stored(exchange, server.endpoint, within_s=60)


async def test_questdb_away_loses_nothing_and_holds_no_rows_in_memory(
    server: QuestDBServer, feeds: list[FeedProcess], tmp_path: Path
) -> None:
    async with ExchangeServer("advanced", content=_busy(23), seed=23) as exchange:
        feed = feed_for(tmp_path, exchange, server, queue_max=300)
        feeds.append(feed)
        await feed.start()
        await until("rows are stored", lambda: feed.status().get("rows_stored", 0) > 300)
        before_bytes = feed.rss_bytes()
        server._process.signal(signal.SIGSTOP)  # type: ignore[union-attr]  # away without being gone: the worst kind
        try:
            told = _told(exchange)
            await until("the feed is behind", lambda: feed.status()["state"] == "behind")
            await until("much more was sent", lambda: _told(exchange) > told + 700)
            assert feed.status()["rows_queued"] < 1000
            assert feed.rss_bytes() - before_bytes < 50 * 2**20
        finally:
            server._process.signal(signal.SIGCONT)  # type: ignore[union-attr]
        exchange.pause()
        await until_all_stored(exchange, server.endpoint)
        await until("the feed is live", lambda: feed.status()["state"] == "live")
        assert feed.status()["gaps"] == 0


async def test_stopped_feed_goes_on_without_a_hole(
    server: QuestDBServer, feeds: list[FeedProcess], tmp_path: Path
) -> None:
    async with ExchangeServer("exchange", content=_busy(24), seed=24) as exchange:
        feed = feed_for(tmp_path, exchange, server)
        feeds.append(feed)
        await feed.start()
        await until("trades flow", lambda: _told(exchange) > 100)
        assert await feed.stop() == 0
        told = _told(exchange)
        await until("trades happen while nobody listens", lambda: _told(exchange) > told + 150)
        await feed.start()
        await until("the feed is connected again", lambda: feed.status().get("connects") == 1)
        exchange.pause()
        await until_all_stored(exchange, server.endpoint)


def _told(exchange: ExchangeServer) -> int:
    return sum(map(len, sent_trades(exchange).values()))


def _kill_server(server: QuestDBServer) -> None:
    """Hit it wherever it is: running, starting, or down already."""
    if server.pid is not None:
        with suppress(ProcessLookupError):
            os.kill(server.pid, signal.SIGKILL)
