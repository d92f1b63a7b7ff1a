"""Exchange to QuestDB, end to end: real sockets, a real feed process, a real server."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from nodeagent.market.exchange import ExchangeServer, GeneratedContent
from nodeagent.market.store.server import QuestDBServer
from nodeagent.market.store.sql import query
from tests.integration.market.feeds import FeedProcess, feed_for, until, until_all_stored

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest.mark.parametrize("protocol", ["advanced", "exchange"])
async def test_every_trade_sent_is_stored_once(
    protocol: str, server: QuestDBServer, feeds: list[FeedProcess], tmp_path: Path
) -> None:
    content = GeneratedContent(("BTC-USD", "ETH-USD"), 11, time.time_ns(), trades_per_s=30)
    async with ExchangeServer(protocol, content=content) as exchange:
        feed = feed_for(tmp_path, exchange, server)
        feeds.append(feed)
        await feed.start()
        await until("200 trades were sent", lambda: sum(map(len, exchange.sent_trades.values())) > 200 + 60)
        exchange.pause()
        await until_all_stored(exchange, server.endpoint)
        await until("books are stored", lambda: _has_rows(server, "book"))
        await until("tickers are stored", lambda: _has_rows(server, "ticker"))
        await until("the feed says so", lambda: feed.status().get("rows_stored", 0) > 200)
        status = feed.status()
        assert status["is_connected"]
        assert status["gaps"] == 0
        assert status["missing_trades"] == 0
        assert status["problems"] == []
        assert await feed.stop() == 0


async def _has_rows(server: QuestDBServer, table: str) -> bool:
    answer = await query(server.endpoint, f"SELECT count() FROM {table}")
    return bool(answer.rows[0][0])
