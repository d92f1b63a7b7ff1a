"""A real QuestDB with a few trades in it, for what agents read."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from nodeagent.market.store.endpoint import Endpoint
from nodeagent.market.store.server import QuestDBServer
from nodeagent.market.store.settings import QuestDBSettings
from nodeagent.market.store.sql import query
from tests.questdb import questdb_runtime

TRADES = [
    ("2026-01-01T00:00:00.000001Z", 1, "100.10", "0.50000001", "buy"),
    ("2026-01-01T00:00:00.000001Z", 2, "100.20", "1", "sell"),
    ("2026-01-01T00:01:00Z", 3, "99.9", "2", "buy"),
    ("2026-01-01T00:10:00Z", 4, "101", "0.25", "buy"),
]


@pytest.fixture(scope="module")
def questdb(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    """A server of our own, with `TRADES` of BTC-USD."""
    yield from _served(asyncio.run(questdb_runtime()), tmp_path_factory.mktemp("questdb"))


def _served(runtime: object, folder: Path) -> Iterator[Endpoint]:
    with asyncio.Runner() as runner:
        server = QuestDBServer(runtime, QuestDBSettings(folder))  # type: ignore[arg-type]
        try:
            runner.run(server.start())
            runner.run(_fill(server.endpoint))
            yield server.endpoint
        finally:
            runner.run(server.stop())


async def _fill(endpoint: Endpoint) -> None:
    rows = ", ".join(
        f"('{at}', 'coinbase', 'BTC-USD', 'test', '{side}', {number}, {price}m, {size}m, '{at}')"
        for at, number, price, size, side in TRADES
    )
    columns = "ts, venue, product, source, aggressor_side, trade_id, price, size, received_at"
    await query(endpoint, f"INSERT INTO trades ({columns}) VALUES {rows}")
    for _ in range(500):
        answer = await query(endpoint, "SELECT count() FROM trades")
        if answer.rows[0][0] == len(TRADES):
            return
        await asyncio.sleep(0.02)  # the write-ahead log is applied in the background, and nothing tells when
    raise AssertionError("the trades did not become visible")
