"""Capture and QuestDB held against each other, repaired from the capture, and two feeds held against each other."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from nodeagent.market.exchange import ExchangeServer, GeneratedContent
from nodeagent.market.store.server import QuestDBServer
from nodeagent.market.store.sql import query
from tests.integration.market.feeds import FeedProcess, feed_for, stored_trades, until, until_all_stored

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(300)]

PRODUCTS = ("BTC-USD", "ETH-USD")


class Told:
    """What a program said, line by line, and how it ended."""

    def __init__(self, code: int, out: bytes, err: bytes) -> None:
        self.code = code
        self.lines: list[dict[str, Any]] = [json.loads(line) for line in out.splitlines()]
        self.err = err.decode()

    def of(self, event: str) -> list[dict[str, Any]]:
        return [line for line in self.lines if line["event"] == event]

    @property
    def done(self) -> dict[str, Any]:
        assert self.lines, self.err
        assert self.lines[-1]["event"] == "done", (self.lines[-1], self.err)
        return self.lines[-1]

    def product(self, name: str) -> dict[str, Any]:
        return next(line for line in self.of("product") if line["product"] == name)


async def audit(*arguments: object) -> Told:
    """`python -m nodeagent.market.audit`, beside this loop, so that the exchange and the feed go on."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "nodeagent.market.audit", *map(str, arguments),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    async with asyncio.timeout(60):
        out, err = await process.communicate()
    assert process.returncode is not None
    return Told(process.returncode, out, err)


async def rows(server: QuestDBServer, sql: str) -> tuple[tuple[Any, ...], ...]:
    return (await query(server.endpoint, sql)).rows


def has_repaired(feed: FeedProcess) -> bool:
    """Whether a hole was seen, and every one is closed."""
    status = feed.status()
    return bool(0 < status.get("gaps", 0) <= status["repaired"])


async def visible(server: QuestDBServer, sql: str, value: Any) -> None:
    """Wait until a query's one value is this: what was written is seen a moment later."""

    async def is_so() -> bool:
        return bool((await rows(server, sql))[0][0] == value)

    await until(f"{sql} is {value}", is_so)


async def test_damage_is_named_and_a_replay_beside_the_feed_repairs_it(
    server: QuestDBServer, feeds: list[FeedProcess], tmp_path: Path
) -> None:
    content = GeneratedContent(PRODUCTS, 21, time.time_ns(), trades_per_s=40)
    async with ExchangeServer("advanced", content=content) as exchange:
        feed = feed_for(tmp_path, exchange, server)
        feeds.append(feed)
        await feed.start()
        await until("300 trades were sent", lambda: sum(map(len, exchange.sent_trades.values())) > 300)
        capture, endpoint = feed.settings.capture_dir, ("--endpoint", server.endpoint_file)
        looks: list[Told] = []

        async def is_good_and_enough() -> bool:
            """The feed writes on meanwhile, and may not have stored anything yet."""
            looks.append(await audit("verify", capture, *endpoint))
            return looks[-1].code == 0 and all(line["stored"] > 50 for line in looks[-1].of("product"))

        await until("what is stored is good", is_good_and_enough, within_s=60)
        told = looks[-1]
        assert told.done["is_good"]
        assert {line["product"] for line in told.of("product")} == set(PRODUCTS)
        assert all(line["captured"] == line["stored"] > 50 for line in told.of("product"))

        exchange.pause()
        await until_all_stored(exchange, server.endpoint)
        truth = await stored_trades(server.endpoint)
        first, second = truth["BTC-USD"][10:12]
        await query(server.endpoint, f"UPDATE trades SET price = price + 1 WHERE trade_id = {first}")
        await query(
            server.endpoint,
            "INSERT INTO trades SELECT dateadd('s', 1, ts), venue, product, source, aggressor_side, trade_id, price,"
            f" size, received_at FROM trades WHERE product = 'BTC-USD' AND trade_id = {second}",
        )
        await visible(server, f"SELECT count() FROM trades WHERE product = 'BTC-USD' AND trade_id = {second}", 2)
        told = await audit("verify", capture, *endpoint)
        assert told.code == 1
        found = told.product("BTC-USD")
        assert {(one["trade_id"], one["what"]) for one in found["differences"]} == {
            (first, "differing"), (second, "twice"),
        }  # fmt: skip
        assert told.product("ETH-USD")["is_good"]
        assert not told.done["is_good"]

        await query(server.endpoint, "DROP TABLE trades")
        told = await audit("verify", capture, *endpoint)
        assert told.code == 1
        assert "no table trades" in told.done["problems"][0]
        assert told.product("BTC-USD")["lacking"] == told.product("BTC-USD")["captured"]

        told = await audit("replay", capture, *endpoint, "--product", "ETH-USD")
        assert told.code == 0, told.lines
        assert set(await stored_trades(server.endpoint)) == {"ETH-USD"}
        told = await audit("replay", capture, *endpoint)
        assert told.code == 0, told.lines
        assert told.done["rows"]["trades"] >= 300
        await until_all_stored(exchange, server.endpoint)
        assert (await audit("verify", capture, *endpoint)).code == 0
        assert await stored_trades(server.endpoint) == truth


async def test_a_hole_is_told_while_it_is_open_and_when_it_was_repaired(
    server: QuestDBServer, feeds: list[FeedProcess], tmp_path: Path
) -> None:
    content = GeneratedContent(PRODUCTS, 22, time.time_ns(), trades_per_s=40)
    async with ExchangeServer("advanced", content=content) as exchange:
        feed = feed_for(tmp_path, exchange, server)
        feeds.append(feed)
        await feed.start()
        await until("trades come", lambda: sum(map(len, exchange.sent_trades.values())) > 60)
        exchange.inject("drop")
        await until("the hole was found and closed", lambda: has_repaired(feed))
        exchange.pause()
        await until_all_stored(exchange, server.endpoint)
        told = await audit("gaps", "--endpoint", server.endpoint_file)
        assert told.code == 0
        assert told.of("gap")
        assert all(gap["repaired_at"] is not None and gap["open_s"] >= 0 for gap in told.of("gap"))
        assert told.done["open"] == 0
        await query(server.endpoint, "UPDATE feed_gap SET repaired_at = null")
        await visible(server, "SELECT count() FROM feed_gap WHERE repaired_at IS NOT NULL", 0)
        told = await audit("gaps", "--endpoint", server.endpoint_file, "--open", "--since", "2030-01-01T00:00:00Z")
        assert told.done["open"] == told.done["gaps"] > 0
        assert (await audit("replay", feed.settings.capture_dir, "--endpoint", server.endpoint_file)).code == 0
        told = await audit("gaps", "--endpoint", server.endpoint_file, "--open")
        assert told.done["open"] == 0, told.lines


async def test_both_feeds_of_one_market_agree(server: QuestDBServer, feeds: list[FeedProcess], tmp_path: Path) -> None:
    start_ns = time.time_ns()
    made = [GeneratedContent(PRODUCTS, 23, start_ns, trades_per_s=40) for _ in range(2)]
    async with (
        ExchangeServer("advanced", content=made[0]) as advanced,
        ExchangeServer("exchange", content=made[1]) as exchange,
    ):
        both = [feed_for(tmp_path / one.protocol, one, server) for one in (advanced, exchange)]
        feeds += both
        for feed in both:
            await feed.start()
        for one in (advanced, exchange):
            await until("trades come", lambda one=one: sum(map(len, one.sent_trades.values())) > 200)  # type: ignore[misc]
        for feed in both:
            assert await feed.stop() == 0
    told = await audit("compare", *(feed.settings.capture_dir for feed in both))
    assert told.code == 0, told.lines
    assert told.done["sources"] == ["coinbase-advanced", "coinbase-exchange"]
    for agreement in told.of("agreement"):
        assert agreement["common"] > 30
        assert agreement["only_a"] == agreement["only_b"] == agreement["differing"] == 0
