"""Another database in the place of the one that held the rows, empty or an older copy: the capture fills it."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import pytest

from nodeagent.market.exchange import ExchangeServer, GeneratedContent
from nodeagent.market.store.runtime import Runtime
from nodeagent.market.store.server import QuestDBServer
from nodeagent.market.store.settings import QuestDBSettings
from nodeagent.market.store.sql import query
from tests.integration.market.feeds import FeedProcess, feed_for, sent_trades, until, until_all_stored

pytestmark = pytest.mark.asyncio(loop_scope="session")


def _told(exchange: ExchangeServer) -> int:
    return sum(map(len, sent_trades(exchange).values()))


def _content(seed: int) -> GeneratedContent:
    return GeneratedContent(("BTC-USD", "ETH-USD"), seed, time.time_ns(), trades_per_s=40)


async def test_an_emptied_folder_is_filled_again(runtime: Runtime, feeds: list[FeedProcess], tmp_path: Path) -> None:
    async with ExchangeServer("advanced", content=_content(51)) as exchange:
        server = QuestDBServer(runtime, QuestDBSettings(tmp_path / "questdb"))
        try:
            await server.start()
            feed = feed_for(tmp_path, exchange, server)
            feeds.append(feed)
            await feed.start()
            await until("rows are stored", lambda: feed.status().get("rows_by_table", {}).get("trades", 0) > 300)
            await server.stop()
            shutil.rmtree(tmp_path / "questdb" / "root")
            told = _told(exchange)
            await until("trades go on", lambda: _told(exchange) > told + 100)
            server = QuestDBServer(runtime, QuestDBSettings(tmp_path / "questdb"))
            await server.start()
            exchange.pause()
            await until_all_stored(exchange, server.endpoint, 60)
            await until("the feed is live", lambda: feed.status()["state"] == "live")
            assert feed.status()["connects"] == 1
            assert b"feed.database_is_new" in feed.log.read_bytes()
        finally:
            await server.stop()


async def test_a_dropped_table_is_made_and_filled_again_once(
    server: QuestDBServer, feeds: list[FeedProcess], tmp_path: Path
) -> None:
    async with ExchangeServer("exchange", content=_content(52)) as exchange:
        feed = feed_for(tmp_path, exchange, server)
        feeds.append(feed)
        await feed.start()
        await until("rows are stored", lambda: feed.status().get("rows_by_table", {}).get("trades", 0) > 300)
        for view in ("candles_1h", "candles_5m", "candles_1m"):
            await query(server.endpoint, f"DROP MATERIALIZED VIEW IF EXISTS {view}")
        await query(server.endpoint, "DROP TABLE trades")
        told = _told(exchange)
        await until("trades go on", lambda: _told(exchange) > told + 100)
        exchange.pause()
        await until_all_stored(exchange, server.endpoint, 60)
        await until("the feed is live", lambda: feed.status()["state"] == "live")
        assert feed.status()["rows_refused"] == 0
        assert await feed.stop() == 0
        assert feed.log.read_bytes().count(b"feed.database_is_new") == 1


@pytest.mark.timeout(300)
@pytest.mark.parametrize("is_killed", [False, True])
async def test_an_older_copy_is_noticed_and_filled_again(
    is_killed: bool, runtime: Runtime, feeds: list[FeedProcess], tmp_path: Path
) -> None:
    """Put back under a feed that runs on, or one that was killed; and then the later one, put aside, back again."""
    root, copy, later = (tmp_path / "questdb" / "root", tmp_path / "copy", tmp_path / "later")
    server = QuestDBServer(runtime, QuestDBSettings(tmp_path / "questdb"))
    async with ExchangeServer("advanced", content=_content(53)) as exchange:
        feed = feed_for(tmp_path, exchange, server)
        feeds.append(feed)

        async def more_stored() -> None:
            stored = feed.status().get("rows_by_table", {}).get("trades", 0)
            await until(
                "more is stored", lambda: feed.status().get("rows_by_table", {}).get("trades", 0) > stored + 200, 90
            )

        try:
            await server.start()
            await feed.start()
            await more_stored()
            await server.stop()
            shutil.copytree(root, copy)
            server = await _started(runtime, tmp_path)
            await more_stored()
            if is_killed:
                await feed.kill()
            await server.stop()
            root.rename(later)
            copy.rename(root)
            server = await _started(runtime, tmp_path)
            if is_killed:
                await feed.start()
            await until("it is noticed", lambda: _went_back(feed) == 1, 60)
            await more_stored()
            await server.stop()
            shutil.rmtree(root)
            later.rename(root)
            server = await _started(runtime, tmp_path)
            await until("it is noticed again", lambda: _went_back(feed) == 2, 60)
            exchange.pause()
            await until_all_stored(exchange, server.endpoint, 90)
            await until("the feed is live", lambda: feed.status()["state"] == "live")
            assert feed.status()["missing_trades"] == 0
            await server.stop()
            server = await _started(runtime, tmp_path)
            exchange.resume()
            await more_stored()
            assert _went_back(feed) == 2, "a restart alone is no return"
            assert b"feed.database_is_new" not in feed.log.read_bytes()
        finally:
            await server.stop()


async def _started(runtime: Runtime, folder: Path) -> QuestDBServer:
    server = QuestDBServer(runtime, QuestDBSettings(folder / "questdb"))
    await server.start()
    return server


def _went_back(feed: FeedProcess) -> int:
    return feed.log.read_bytes().count(b"feed.database_went_back")
