"""Recorded days of the real venue, through every part, against values computed straight from the files."""

from __future__ import annotations

from pathlib import Path

import pytest

from nodeagent.market.audit.replay import replay
from nodeagent.market.exchange import ExchangeServer, RecordedContent
from nodeagent.market.store.endpoint import Endpoint
from nodeagent.market.store.server import QuestDBServer
from nodeagent.market.store.sql import query
from tests.integration.market.conftest import wipe
from tests.integration.market.feeds import FeedProcess, feed_for, until
from tests.integration.market.recordings import BTC_ETH, TEN_PRODUCTS, TICKER, Trade, Truth, read_truth

pytestmark = pytest.mark.asyncio(loop_scope="session")

TRADES_SQL = "SELECT product, trade_id, price, size, aggressor_side, ts FROM trades ORDER BY product, trade_id"
EVERYTHING = (
    "SELECT * FROM trades ORDER BY ts, product, trade_id",
    "SELECT * FROM ticker ORDER BY ts, product",
    "SELECT * FROM book ORDER BY ts, product",
    "SELECT * FROM feed_health ORDER BY ts, product",
    "SELECT * FROM feed_gap ORDER BY ts, product, kind, first_id",
    "SELECT * FROM candles_1m ORDER BY ts, product",
    "SELECT * FROM candles_5m ORDER BY ts, product",
    "SELECT * FROM candles_1h ORDER BY ts, product",
)


PLAYED = {"advanced": (BTC_ETH, 10.0), "exchange": (TEN_PRODUCTS, 20.0)}
"""Per protocol a recording, and how many times faster than it happened it is played."""


@pytest.mark.parametrize("protocol", PLAYED)
async def test_recording_played_by_the_exchange_is_stored_as_it_was(
    protocol: str, server: QuestDBServer, feeds: list[FeedProcess], tmp_path: Path, captures: Path
) -> None:
    name, speed = PLAYED[protocol]
    truth = read_truth(captures / name)
    async with ExchangeServer(protocol, content=RecordedContent(captures / name), speed=speed) as exchange:
        feed = feed_for(tmp_path, exchange, server, book_depth=50)
        feeds.append(feed)
        await feed.start()
        await until("the recording is over", exchange.is_over.is_set, within_s=60)
        await until("every trade is stored as it was", lambda: _has_trades(server.endpoint, truth))
        await until("the last books are stored", lambda: _has_books(server.endpoint, truth))
        assert feed.status()["rejected"] == 0
        assert (await query(server.endpoint, "SELECT * FROM feed_gap")).rows == (), (
            "a hole was seen where there is none"
        )


@pytest.mark.parametrize("name", [BTC_ETH, TEN_PRODUCTS, TICKER])
async def test_replaying_twice_gives_equal_answers(name: str, server: QuestDBServer, captures: Path) -> None:
    truth = read_truth(captures / name)
    first = await replay(captures / name, server.endpoint)
    assert first.is_stored
    assert first.refused == 0
    assert first.rejected == 0
    await until("every trade is stored as it was", lambda: _has_trades(server.endpoint, truth))
    assert first.rows.get("ticker", 0) == sum(truth.tickers.values())
    answers = await _settled(server.endpoint)
    await replay(captures / name, server.endpoint)
    assert await _settled(server.endpoint) == answers, "a second replay into the same tables changed an answer"
    await wipe(server.endpoint)
    await replay(captures / name, server.endpoint)
    assert await _settled(server.endpoint) == answers, "a replay into empty tables gave another answer"


async def test_capture_of_a_feed_gives_back_what_the_feed_stored(
    server: QuestDBServer, feeds: list[FeedProcess], tmp_path: Path
) -> None:
    async with ExchangeServer("advanced", seed=31) as exchange:
        feed = feed_for(tmp_path, exchange, server)
        feeds.append(feed)
        await feed.start()
        await until("rows of three seconds", lambda: feed.status().get("rows_by_table", {}).get("book", 0) >= 6)
        assert await feed.stop() == 0
    stored = await _settled(server.endpoint)
    await wipe(server.endpoint)
    result = await replay(tmp_path / "capture", server.endpoint)
    assert result.is_stored
    again = await _settled(server.endpoint)
    assert again[:2] == stored[:2]
    assert all(row in again[2] for row in stored[2]), "a book row that was stored is not made again"
    assert len(stored[0]) > 200


async def _has_trades(endpoint: Endpoint, truth: Truth) -> bool:
    stored: dict[str, dict[int, Trade]] = {}
    for product, *trade in (await query(endpoint, TRADES_SQL)).rows:
        stored.setdefault(product, {})[trade[0]] = tuple(trade)
    return stored == truth.trades


async def _has_books(endpoint: Endpoint, truth: Truth) -> bool:
    answer = await query(endpoint, "SELECT product, bids, asks FROM book LATEST ON ts PARTITION BY product")
    stored = {product: _levels(bids) + _levels(asks) for product, bids, asks in answer.rows}
    tops = {product: truth.top(product, 50) for product in truth.bids}
    return stored == {product: bids + asks for product, (bids, asks) in tops.items()}


def _levels(array: list[list[float]]) -> list[tuple[float, float]]:
    return list(zip(array[0], array[1], strict=True)) if array else []


async def _settled(endpoint: Endpoint) -> list[object]:
    """Every table and view, once rows and views have caught up."""

    async def are_applied() -> bool:
        tables = await query(endpoint, "SELECT wal_txn, table_txn FROM tables() WHERE walEnabled")
        views = await query(endpoint, "SELECT base_table_txn, refresh_base_table_txn FROM materialized_views()")
        return all(asked is None or asked == done for asked, done in (*tables.rows, *views.rows))

    await until("rows are applied and views refreshed", are_applied)
    return [(await query(endpoint, sql)).rows for sql in EVERYTHING]
