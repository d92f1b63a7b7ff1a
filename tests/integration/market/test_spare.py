"""A hot spare: two connections, one story."""

from __future__ import annotations

from pathlib import Path

import pytest

from nodeagent.market.exchange import ExchangeServer
from nodeagent.market.store.server import QuestDBServer
from tests.integration.market.feeds import FeedProcess, feed_for, sent_trades, until, until_all_stored

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_two_connections_store_each_trade_once_and_cover_each_other(
    server: QuestDBServer, feeds: list[FeedProcess], tmp_path: Path
) -> None:
    async with ExchangeServer("advanced", seed=41) as exchange:
        feed = feed_for(tmp_path, exchange, server, connections=2)
        feeds.append(feed)
        await feed.start()
        await until("both connections are open", lambda: feed.status().get("connections") == 2)
        told = sum(map(len, sent_trades(exchange).values()))
        await until("more trades flow", lambda: sum(map(len, sent_trades(exchange).values())) > told + 20)
        exchange.disconnect_one()
        await until("the spare is back", lambda: feed.status()["connects"] == 3 and feed.status()["connections"] == 2)
        exchange.pause()
        await until_all_stored(exchange, server.endpoint)
        assert feed.status()["gaps"] == 0, "the other connection had everything"
        assert all(product["is_synced"] for product in feed.status()["products"].values())
