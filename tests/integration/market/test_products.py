"""Products change while a feed runs: the new ones stream, the gone ones end, the others never notice."""

from __future__ import annotations

import asyncio
import signal
import time
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from nodeagent.market.capture.reader import read_capture
from nodeagent.market.exchange import ExchangeServer, GeneratedContent, HouseRules
from nodeagent.market.model.records import RecordKind
from nodeagent.market.store.server import QuestDBServer
from nodeagent.market.store.sql import query
from tests.integration.market.feeds import FeedProcess, feed_for, sent_trades, stored_trades, until

pytestmark = pytest.mark.asyncio(loop_scope="session")
THREE = ("BTC-USD", "ETH-USD", "SOL-USD")


def content(seed: int) -> GeneratedContent:
    return GeneratedContent(THREE, seed, time.time_ns(), trades_per_s=20)


def change(feed: FeedProcess, *products: str) -> None:
    """As the daemon does it: new settings, then SIGHUP."""
    feed.settings = replace(feed.settings, products=products)
    staged = feed.config.with_suffix(".new")
    staged.write_text(feed.settings.to_json())
    staged.replace(feed.config)
    assert feed.process is not None
    feed.process.send_signal(signal.SIGHUP)


def state(feed: FeedProcess, product: str) -> str:
    said = feed.status().get("products", {}).get(product)
    return said["state"] if said else ""


async def until_good(feed: FeedProcess, *products: str) -> None:
    """All of them."""
    await until(f"{products} are good", lambda: all(state(feed, name) == "good" for name in products), 40)


async def until_stored(
    exchange: ExchangeServer, server: QuestDBServer, product: str, minimum: int = 50, *, may_begin_later: bool = False
) -> None:
    """Every trade that the exchange told of the product is stored once, and no other.

    may_begin_later: what was told first may have been lost with a process that had captured nothing of it yet.
    """

    async def is_so() -> bool:
        sent, held = sent_trades(exchange).get(product, []), (await stored_trades(server.endpoint)).get(product, [])
        expected = sent[-len(held) :] if may_begin_later else sent
        return len(held) >= minimum and held == expected

    await until(f"all of {product} is stored", is_so)


@pytest.mark.parametrize("protocol", ["advanced", "exchange"])
async def test_a_product_joins_and_leaves_while_another_streams(
    protocol: str, server: QuestDBServer, feeds: list[FeedProcess], tmp_path: Path
) -> None:
    async with ExchangeServer(protocol, content=content(31)) as exchange:
        feed = feed_for(tmp_path, exchange, server, products=("BTC-USD",))
        feeds.append(feed)
        await feed.start()
        await until("BTC is good", lambda: state(feed, "BTC-USD") == "good")
        change(feed, "BTC-USD", "ETH-USD")
        await until("ETH is good", lambda: state(feed, "ETH-USD") == "good")
        await until("ETH trades", lambda: len(sent_trades(exchange).get("ETH-USD", ())) > 150)
        change(feed, "BTC-USD")
        await until("ETH is gone", lambda: state(feed, "ETH-USD") == "" and state(feed, "BTC-USD") == "good")
        await until("its rows end", lambda: _newest_state(server, "ETH-USD", "gone"))
        told = exchange.frames.copy()
        await until("BTC goes on", lambda: exchange.frames["heartbeats"] + exchange.frames["heartbeat"]
                    > told["heartbeats"] + told["heartbeat"] + 1)  # fmt: skip
        exchange.pause()
        await until_stored(exchange, server, "BTC-USD")
        status = feed.status()
        assert (status["connects"], status["gaps"], status["rejected"]) == (1, 0, 0)
        assert status["products"].keys() == {"BTC-USD"}
        gaps = await query(server.endpoint, "SELECT * FROM feed_gap")
        assert gaps.rows == ()
        held = (await stored_trades(server.endpoint))["ETH-USD"]
        assert held == list(range(held[0], held[-1] + 1))
        assert await feed.stop() == 0
        records = [record.kind for record in read_capture(tmp_path / "capture")]
        assert records.count(RecordKind.CONNECT) == 1
        assert records.count(RecordKind.PRODUCTS) == 3


async def _newest_state(server: QuestDBServer, product: str, wanted: str) -> bool:
    sql = f"SELECT state FROM feed_now WHERE product = '{product}' LATEST ON ts PARTITION BY product"
    found = await query(server.endpoint, sql)
    return bool(found.rows) and found.rows[0][0] == wanted


@pytest.mark.parametrize("protocol", ["advanced", "exchange"])
async def test_a_product_that_comes_back_is_asked_for_what_it_missed(
    protocol: str, server: QuestDBServer, feeds: list[FeedProcess], tmp_path: Path
) -> None:
    async with ExchangeServer(protocol, content=content(32), house=HouseRules(rest_per_s=50)) as exchange:
        feed = feed_for(tmp_path, exchange, server, products=("BTC-USD", "ETH-USD"))
        feeds.append(feed)
        await feed.start()
        await until("ETH is good", lambda: state(feed, "ETH-USD") == "good")
        change(feed, "BTC-USD")
        await until("ETH is gone", lambda: state(feed, "ETH-USD") == "")
        before = len(sent_trades(exchange)["ETH-USD"])
        await until("200 trades pass meanwhile", lambda: len(sent_trades(exchange)["ETH-USD"]) > before + 200)
        change(feed, "BTC-USD", "ETH-USD")
        await until("ETH is back", lambda: bool(state(feed, "ETH-USD")))
        await until("ETH is good again", lambda: state(feed, "ETH-USD") == "good", 40)
        exchange.pause()
        await until_stored(exchange, server, "ETH-USD", 200)
        await until_stored(exchange, server, "BTC-USD", 200)
        assert feed.status()["connects"] == 1


@pytest.mark.parametrize("protocol", ["advanced", "exchange"])
async def test_a_refused_product_fails_with_the_venues_words_and_harms_no_other(
    protocol: str, server: QuestDBServer, feeds: list[FeedProcess], tmp_path: Path
) -> None:
    async with ExchangeServer(protocol, content=content(33)) as exchange:
        feed = feed_for(tmp_path, exchange, server, products=("BTC-USD", "NO-SUCH"))  # from the start
        feeds.append(feed)
        await feed.start()
        await until("BTC is good", lambda: state(feed, "BTC-USD") == "good")
        await until("NO-SUCH is refused", lambda: state(feed, "NO-SUCH") == "failed")
        change(feed, "BTC-USD", "ETH-USD", "NO-SUCH", "NOR-THIS")  # and together with a good one
        await until("ETH is good", lambda: state(feed, "ETH-USD") == "good")
        await until("NOR-THIS is refused", lambda: state(feed, "NOR-THIS") == "failed")
        reasons = {name: said["reason"] for name, said in feed.status()["products"].items()}
        words = "failure to subscribe" if protocol == "advanced" else "NOR-THIS is not a valid product"
        assert words in reasons["NOR-THIS"]
        assert reasons["BTC-USD"] == reasons["ETH-USD"] == ""
        exchange.pause()
        await until_stored(exchange, server, "BTC-USD")
        assert feed.status()["connects"] == 1


async def test_without_products_there_is_no_connection(
    server: QuestDBServer, feeds: list[FeedProcess], tmp_path: Path
) -> None:
    async with ExchangeServer("advanced", content=content(34)) as exchange:
        feed = feed_for(tmp_path, exchange, server, products=())
        feeds.append(feed)
        await feed.start()
        await until("it idles", lambda: feed.status().get("state") == "idle")
        assert (feed.status()["connections"], exchange.sessions) == (0, 0)
        change(feed, "SOL-USD")
        await until("SOL is good", lambda: state(feed, "SOL-USD") == "good")
        change(feed)
        await until("it idles again", lambda: feed.status()["state"] == "idle" and exchange.sessions == 0)
        assert feed.status()["problems"] == []
        assert await feed.stop() == 0


@pytest.mark.parametrize("protocol", ["advanced", "exchange"])
async def test_a_feed_killed_while_products_change_loses_nothing(
    protocol: str, server: QuestDBServer, feeds: list[FeedProcess], tmp_path: Path
) -> None:
    async with ExchangeServer(protocol, content=content(35), house=HouseRules(rest_per_s=50)) as exchange:
        feed = feed_for(tmp_path, exchange, server, products=("BTC-USD", "ETH-USD"))
        feeds.append(feed)
        await feed.start()
        await until("both are good", lambda: state(feed, "BTC-USD") == state(feed, "ETH-USD") == "good")
        for products in (("BTC-USD", "SOL-USD"), ("BTC-USD", "ETH-USD", "SOL-USD")):
            change(feed, *products)
            await asyncio.sleep(0)
            await feed.kill()
            await feed.start()
            await until_good(feed, *products)
        exchange.pause()
        for product in THREE:
            await until_stored(exchange, server, product, may_begin_later=product == "SOL-USD")
        refused = [msgspec.json.decode(line) for line in _quarantined(tmp_path / "capture")]
        assert refused == []


def _quarantined(folder: Path) -> list[bytes]:
    return [line for path in folder.glob("quarantine*") if path.is_file() for line in path.read_bytes().splitlines()]
