"""A gap that was open when its feed was killed, or its product left, is repaired under the row that it had."""

from __future__ import annotations

import json
import time
from itertools import pairwise
from pathlib import Path

import pytest

from nodeagent.market.exchange import ExchangeServer, Fault, FaultKind, GeneratedContent, HouseRules
from nodeagent.market.model.times import NS
from nodeagent.market.model.times import parse_time_ns as time_ns
from nodeagent.market.store.server import QuestDBServer
from nodeagent.market.store.sql import query
from tests.integration.market.feeds import FeedProcess, feed_for, until, until_all_stored
from tests.integration.market.test_products import change, state

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(600)]

Row = tuple[str, str, str, int, int, str | None]


async def _gaps(server: QuestDBServer, where: str = "true") -> list[Row]:
    """Rows of feed_gap: found at, product, kind, ids, repaired at."""
    sql = f"SELECT ts, product, kind, first_id, last_id, repaired_at FROM feed_gap WHERE {where} ORDER BY ts"
    return [tuple(row) for row in (await query(server.endpoint, sql)).rows]


async def _lose_trades(exchange: ExchangeServer, feed: FeedProcess, server: QuestDBServer) -> list[Row]:
    """Until trades of both products are missing that REST does not bring, and the capture has a place after that to go
    on from."""
    exchange.inject(Fault(FaultKind.TOO_MANY_REQUESTS, rate=1.0))
    exchange.inject(Fault(FaultKind.DROP, count=40, channel="match"))

    async def is_told() -> bool:
        progress = json.loads((feed.folder / "capture" / "progress.json").read_text())["state"]
        holes = await _gaps(server, "kind = 'trade_id' AND repaired_at IS NULL")
        is_later = progress["anchor_ns"] > max(time_ns(row[0]) for row in holes) + NS if holes else False
        return exchange.plan.happened[FaultKind.DROP] == 40 and len({row[1] for row in holes}) == 2 and is_later

    await until("there are holes, and a later place to go on from", is_told, 120)
    return await _gaps(server)


async def _lose_books(exchange: ExchangeServer, server: QuestDBServer) -> list[Row]:
    """Until frames of unknown content are missing, and no snapshot comes."""
    exchange.inject(Fault(FaultKind.DROP, rate=1.0, channel="l2_data"))

    async def is_told() -> bool:
        return bool(await _gaps(server, "kind = 'connection_sequence' AND repaired_at IS NULL"))

    await until("frames are missing", is_told, 120)
    return await _gaps(server)


async def _until_closed(server: QuestDBServer, before: list[Row]) -> None:
    """No gap is open, and those of before have one row each, in which they are repaired."""

    async def is_none_open() -> bool:
        return not await _gaps(server, "repaired_at IS NULL")

    await until("every gap is closed", is_none_open, 90)
    after = await _gaps(server)
    assert {row[:5] for row in before} <= {row[:5] for row in after}
    holes = sorted((row[1], row[3], row[4]) for row in after if row[2] == "trade_id")
    for (product, _, last), (next_product, first, _) in pairwise(holes):
        assert product != next_product or last < first, f"a hole has two rows: {holes}"


@pytest.mark.parametrize("protocol", ["advanced", "exchange"])
async def test_gaps_open_at_a_kill_are_closed_under_their_own_rows(
    protocol: str, server: QuestDBServer, feeds: list[FeedProcess], tmp_path: Path
) -> None:
    content = GeneratedContent(("BTC-USD", "ETH-USD"), 71, time.time_ns(), trades_per_s=20)
    async with ExchangeServer(protocol, content=content, house=HouseRules(rest_per_s=50)) as exchange:
        feed = feed_for(tmp_path, exchange, server, keep_books_interval_s=0.2)
        feeds.append(feed)
        await feed.start()
        await until("both are good", lambda: state(feed, "BTC-USD") == state(feed, "ETH-USD") == "good", 120)
        if protocol == "exchange":
            before = await _lose_trades(exchange, feed, server)
        else:
            before = await _lose_books(exchange, server)
        await feed.kill()
        exchange.heal()
        await feed.start()
        await _until_closed(server, before)
        exchange.pause()
        await until_all_stored(exchange, server.endpoint, 90)


async def test_gaps_of_a_product_that_left_are_closed_under_their_own_rows_when_it_is_back(
    server: QuestDBServer, feeds: list[FeedProcess], tmp_path: Path
) -> None:
    content = GeneratedContent(("BTC-USD", "ETH-USD"), 72, time.time_ns(), trades_per_s=20)
    async with ExchangeServer("exchange", content=content, house=HouseRules(rest_per_s=50)) as exchange:
        feed = feed_for(tmp_path, exchange, server, keep_books_interval_s=0.2)
        feeds.append(feed)
        await feed.start()
        await until("both are good", lambda: state(feed, "BTC-USD") == state(feed, "ETH-USD") == "good", 120)
        before = await _lose_trades(exchange, feed, server)
        assert {row[1] for row in before} == {"BTC-USD", "ETH-USD"}
        change(feed, "BTC-USD")
        await until("ETH is gone", lambda: state(feed, "ETH-USD") == "")
        await feed.kill()
        exchange.heal()
        await feed.start()
        await until("BTC is good", lambda: state(feed, "BTC-USD") == "good", 90)
        assert {row[1] for row in await _gaps(server, "repaired_at IS NULL")} == {"ETH-USD"}
        change(feed, "BTC-USD", "ETH-USD")
        await _until_closed(server, before)
        exchange.pause()
        await until_all_stored(exchange, server.endpoint, 90)
