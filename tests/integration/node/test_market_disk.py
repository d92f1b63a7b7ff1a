"""A disk that is really full: what the node gives up and says, and that it needs nobody's hands to be whole again."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import AsyncIterator, Collection, Iterator
from pathlib import Path
from typing import Any

import pytest

from nodeagent.market.exchange import ExchangeServer, GeneratedContent
from nodeagent.market.store.endpoint import Endpoint
from nodeagent.market.store.sql import query
from tests.integration.market.feeds import until as until_asked
from tests.integration.market.feeds import until_all_stored
from tests.integration.node.conftest import Node
from tests.integration.node.controller import ScriptedController
from tests.integration.node.waiting import until
from tests.questdb import questdb_runtime

MIB = 2**20
DISK_MIB = 1600
LOW_MIB = DISK_MIB / 5
PRODUCTS = ("BTC-USD", "ETH-USD")
SOON_S = 120.0
FULL_TRADES = 1_500
"""Trades told while there is not a byte left."""


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """An ext4 of its own for the node's folder: on it room is counted, and taken, as on a node."""
    image, folder = tmp_path / "image", tmp_path / "data"
    folder.mkdir()
    with image.open("wb") as file:
        file.truncate(DISK_MIB * MIB)
    try:
        subprocess.run(["mkfs.ext4", "-q", "-m", "0", str(image)], check=True, capture_output=True)
        subprocess.run(["mount", "-o", "loop", str(image), str(folder)], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as refused:
        pytest.skip(f"a file system of its own needs root and loop devices: {refused}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)
    image.unlink()


@pytest.fixture
async def exchange() -> AsyncIterator[ExchangeServer]:
    await questdb_runtime(offline=True)
    content = GeneratedContent(PRODUCTS, 61, time.time_ns(), trades_per_s=30, changes_per_s=200)
    async with ExchangeServer("advanced", content=content, seed=61) as server:
        yield server


@pytest.mark.timeout(600)
async def test_full_disk_is_told_costs_no_trade_and_heals(
    small_disk: Path, node: Node, controller: ScriptedController, exchange: ExchangeServer
) -> None:
    feed = {"ws_url": exchange.ws_url, "rest_url": exchange.rest_url, "every_change": True}
    await node.start(market={"products": list(PRODUCTS), "feed": {**feed, "book_check_interval_s": 0.0}})
    await until(lambda: _said(node).get("rows_by_table", {}).get("book", 0) > 0, SOON_S)
    await until(lambda: controller.market_measured.state == "simulated", SOON_S)
    ballast = small_disk / "ballast"
    order = ("book_change", "ticker", "book")
    for count, share in enumerate((0.8, 0.4, 0.2), 1):
        _leave(ballast, LOW_MIB * share)
        await until(lambda count=count: len(_said(node).get("left_out", ())) >= count, SOON_S)
        without = set(_said(node)["left_out"])
        assert without == set(order[: len(without)]), "what goes first"
        await until(lambda without=without: _is_told(controller, "degraded: the disk is low: ", without), SOON_S)
    await until(
        lambda: _stays_full(ballast, _is_told(controller, "failed: the disk is full: ")), SOON_S, look_every_s=0.2
    )
    told = _told(exchange)
    await until(lambda: _stays_full(ballast, _told(exchange) > told + FULL_TRADES), SOON_S, look_every_s=0.2)
    print(controller.market_measured.state, "|", _said(node)["problems"])
    ballast.unlink()
    await until(lambda: controller.market_measured.state == "simulated", 3 * SOON_S)
    exchange.pause()
    endpoint = Endpoint.load(node.data / "questdb" / "endpoint.json")
    await until_all_stored(exchange, endpoint, within_s=2 * SOON_S)
    await until(lambda: _said(node)["problems"] == [] and _said(node)["state"] == "live", SOON_S)
    await until_asked("each row left out is counted in feed_drop", lambda: _is_counted(endpoint, node), 2 * SOON_S)
    assert set(await _dropped(endpoint)) == set(order)


async def _dropped(endpoint: Endpoint) -> dict[str, int]:
    return dict((await query(endpoint, "SELECT what, sum(rows) FROM feed_drop GROUP BY what")).rows)


async def _is_counted(endpoint: Endpoint, node: Node) -> bool:
    return sum((await _dropped(endpoint)).values()) == _said(node)["rows_dropped"] > 0


def _stays_full(ballast: Path, claim: bool) -> bool:
    """The claim, looked at while nobody gets what others give back."""
    _leave(ballast, 0)
    return claim


def _is_told(controller: ScriptedController, words: str, tables: Collection[str] = ()) -> bool:
    state = controller.market_measured.state
    return state.startswith(words) and all(table in state for table in tables)


def _leave(ballast: Path, mib: float) -> None:
    """Take all of the disk but so much."""
    with ballast.open("ab") as file:
        size = MIB
        while size >= 4096:
            free = shutil.disk_usage(ballast).free - int(mib * MIB)
            try:
                if free < size:
                    raise OSError
                length = file.seek(0, os.SEEK_END)
                os.posix_fallocate(file.fileno(), length, free // size * size)
            except OSError:
                size //= 2


def _said(node: Node) -> dict[str, Any]:
    try:
        said: dict[str, Any] = json.loads((node.data / "feed" / "status.json").read_bytes())
    except (FileNotFoundError, ValueError):
        return {}
    return said


def _told(exchange: ExchangeServer) -> int:
    return sum(market.last_trade_id - market.trades[0].trade_id for market in exchange.venue.markets.values())
