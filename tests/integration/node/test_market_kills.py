"""Exactly once beside a daemon, whatever is killed: feed, daemon, QuestDB, some or all of them at one moment."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from contextlib import suppress
from pathlib import Path

import pytest

from nodeagent.market.exchange import ExchangeServer, GeneratedContent
from nodeagent.market.store.endpoint import Endpoint
from tests.integration.market.feeds import SOURCES, until_all_stored
from tests.integration.node.conftest import Node
from tests.integration.node.waiting import until
from tests.questdb import questdb_runtime

PRODUCTS = ("BTC-USD", "ETH-USD", "SOL-USD")
FEED, QUESTDB, DAEMON = "nodeagent.market.feed", "io.questdb", "daemon"
VICTIMS = ((FEED,), (QUESTDB,), (DAEMON,), (FEED, QUESTDB), (DAEMON, QUESTDB), (DAEMON, FEED), (DAEMON, FEED, QUESTDB))
BACK_WITHIN_S = 150.0
"""A feed that was killed again and again is started again after a minute at most."""
TRADES_PER_S = 30.0


@pytest.mark.timeout(300)
async def test_a_few_kills_lose_nothing(node: Node) -> None:
    await _kill_at_random(node, "exchange", [(DAEMON,), (FEED, QUESTDB), (DAEMON, FEED, QUESTDB)], seed=51)


@pytest.mark.long
@pytest.mark.timeout(1500)
@pytest.mark.parametrize("protocol", ["advanced", "exchange"])
async def test_twenty_kills_of_anything_lose_nothing(node: Node, protocol: str) -> None:
    chance = random.Random(protocol)
    victims = [*VICTIMS, *(chance.choice(VICTIMS) for _ in range(20 - len(VICTIMS)))]
    chance.shuffle(victims)
    await _kill_at_random(node, protocol, victims, seed=52)


async def _kill_at_random(node: Node, protocol: str, victims: list[tuple[str, ...]], *, seed: int) -> None:
    """Kill at moments chosen by `seed`, also while what was killed before comes back; then compare."""
    await questdb_runtime(offline=True)
    chance = random.Random(seed)
    content = GeneratedContent(PRODUCTS, seed, time.time_ns(), trades_per_s=TRADES_PER_S, changes_per_s=100)
    async with ExchangeServer(protocol, content=content, seed=seed) as exchange:
        addresses = {"source": SOURCES[protocol], "ws_url": exchange.ws_url, "rest_url": exchange.rest_url}
        market = {"products": list(PRODUCTS), "feed": {**addresses, "book_check_interval_s": 0.0}}
        await node.start(market=market)
        await until(lambda: _feed_said(node), BACK_WITHIN_S)
        for wanted in victims:
            told = _told(exchange) + chance.randint(1, int(3 * 3 * TRADES_PER_S))
            await until(lambda told=told: _told(exchange) > told, BACK_WITHIN_S)
            await _until_alive(node, wanted)
            for word in wanted:
                for pid in _pids(node, word):
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
            if DAEMON in wanted:
                await node.kill()
                await node.start(market=market)  # as a service manager does
        exchange.pause()
        await _until_alive(node, (FEED, QUESTDB))
        endpoint = Endpoint.load(node.data / "questdb" / "endpoint.json")
        await until_all_stored(exchange, endpoint, within_s=BACK_WITHIN_S)
        print(f"{len(victims)} kills: {_told(exchange)} trades sent, each stored once")


def _feed_said(node: Node) -> bool:
    """Whether the feed has been connected: from then on the exchange counts what it sent."""
    try:
        return bool(json.loads((node.data / "feed" / "status.json").read_bytes())["connects"])
    except FileNotFoundError:
        return False


def _told(exchange: ExchangeServer) -> int:
    return sum(market.last_trade_id - market.trades[0].trade_id for market in exchange.venue.markets.values())


async def _until_alive(node: Node, words: tuple[str, ...]) -> None:
    await until(lambda: all(_pids(node, word) for word in words), BACK_WITHIN_S, look_every_s=0.3)


def _pids(node: Node, word: str) -> list[int]:
    """The daemon, or the processes of this node whose command line has that word."""
    if word == DAEMON:
        return [node.process.pid] if node.process is not None and node.process.returncode is None else []
    folder = str(node.folder).encode()
    found = []
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            command = (entry / "cmdline").read_bytes() if entry.name.isdigit() else b""
            if word.encode() in command and folder in command:
                found.append(int(entry.name))
    return found
