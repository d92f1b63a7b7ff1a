"""A feed in a process of its own, and what to wait for."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import psutil

from nodeagent.market.exchange import ExchangeServer
from nodeagent.market.feed.settings import FeedSettings
from nodeagent.market.store.endpoint import Endpoint
from nodeagent.market.store.server import QuestDBServer, ServerState
from nodeagent.market.store.sql import SqlRefused, query

SOURCES = {"advanced": "coinbase-advanced", "exchange": "coinbase-exchange", "binance": "binance"}


class FeedProcess:
    """`python -m nodeagent.market.feed`, started, killed and started again."""

    def __init__(self, folder: Path, settings: FeedSettings) -> None:
        self.folder = folder
        self.settings = settings
        self.process: asyncio.subprocess.Process | None = None
        self.config = folder / "feed.json"
        self.log = folder / "feed.log"

    async def start(self) -> None:
        """Begin, or begin again."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.config.write_text(self.settings.to_json())
        with self.log.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "nodeagent.market.feed",
                "--config",
                str(self.config),
                stdout=log,
                stderr=log,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            )

    async def kill(self) -> None:
        """kill -9."""
        await self._end(signal.SIGKILL)

    async def stop(self) -> int:
        """SIGTERM; the exit status."""
        await self._end(signal.SIGTERM)
        assert self.process is not None
        assert self.process.returncode is not None
        return self.process.returncode

    def status(self) -> dict[str, Any]:
        """What it last said of itself; nothing before its first word."""
        try:
            said: dict[str, Any] = json.loads(self.settings.status_file.read_text())
        except FileNotFoundError:
            return {}
        return said

    def rss_bytes(self) -> int:
        """Its resident memory."""
        assert self.process is not None
        return int(psutil.Process(self.process.pid).memory_info().rss)

    def cpu_s(self) -> float:
        """Processor time it has used."""
        assert self.process is not None
        times = psutil.Process(self.process.pid).cpu_times()
        return float(times.user + times.system)

    async def _end(self, number: signal.Signals) -> None:
        if self.process is not None and self.process.returncode is None:
            self.process.send_signal(number)
            async with asyncio.timeout(60):
                await self.process.wait()


def feed_for(folder: Path, exchange: ExchangeServer, server: QuestDBServer, **settings: Any) -> FeedProcess:
    """A feed from this exchange into this QuestDB."""
    chosen: dict[str, Any] = {
        "source": SOURCES[exchange.protocol],
        "products": tuple(product.id for product in exchange.venue.products),
        "capture_dir": folder / "capture",
        "endpoint_file": server.endpoint_file,
        "status_file": folder / "status.json",
        "ws_url": exchange.ws_url,
        "rest_url": exchange.rest_url,
        "book_check_interval_s": 0.0,
    }
    return FeedProcess(folder, FeedSettings(**{**chosen, **settings}))


async def until(what: str, holds: Callable[[], Awaitable[bool] | bool], within_s: float = 60.0) -> None:
    """Wait until something holds; fail with its name when it does not in time."""
    deadline_s = time.monotonic() + within_s
    while True:
        answer = holds()
        if answer if isinstance(answer, bool) else await answer:
            return
        assert time.monotonic() < deadline_s, f"not within {within_s:g} s: {what}"
        await asyncio.sleep(0.05)


def has_trusted_books(feed: FeedProcess) -> bool:
    """Whether it says so of every product."""
    products = feed.status().get("products", {})
    return bool(products) and all(product["is_synced"] for product in products.values())


async def has_no_open_trade_hole(endpoint: Endpoint) -> bool:
    """Whether every hole in trade ids was closed."""
    sql = "SELECT count() FROM feed_gap WHERE kind = 'trade_id' AND repaired_at IS NULL"
    return bool((await query(endpoint, sql)).rows[0][0] == 0)


async def gaps_by_kind(endpoint: Endpoint) -> dict[str, int]:
    """How many rows feed_gap has of each kind."""
    answer = await query(endpoint, "SELECT kind, count() FROM feed_gap GROUP BY kind")
    return dict(answer.rows)


async def is_up(server: QuestDBServer) -> bool:
    """Whether it answers now, and not only by its own account."""
    return server.state is ServerState.READY and (await server.health()).is_up


async def stored_trades(endpoint: Endpoint) -> dict[str, list[int]]:
    """Per product every stored trade id, in order, duplicates and all."""
    answer = await query(endpoint, "SELECT product, trade_id FROM trades ORDER BY product, trade_id")
    found: dict[str, list[int]] = {}
    for product, trade_id in answer.rows:
        found.setdefault(product, []).append(trade_id)
    return found


def sent_trades(exchange: ExchangeServer) -> dict[str, list[int]]:
    """The same, as the exchange knows it."""
    return {product: sorted(trades) for product, trades in exchange.sent_trades.items()}


async def until_all_stored(exchange: ExchangeServer, endpoint: Endpoint, within_s: float = 60.0) -> None:
    """Wait until the stored trades are exactly the sent ones: none missing, none twice, none invented."""

    async def are_equal() -> bool:
        sent = sent_trades(exchange)
        try:
            count = await query(endpoint, "SELECT count() FROM trades")  # all ids are read when it agrees
        except SqlRefused:  # the table was dropped, and is not made again yet
            return False
        return count.rows[0][0] == sum(map(len, sent.values())) and await stored_trades(endpoint) == sent

    try:
        await until("every trade is stored once", are_equal, within_s)
    except AssertionError:
        stored, sent = await stored_trades(endpoint), sent_trades(exchange)
        for product, ids in sent.items():
            have = stored.get(product, [])
            missing = sorted(set(ids) - set(have))
            extra = sorted(set(have) - set(ids))
            twice = len(have) - len(set(have))
            print(f"{product}: sent {len(ids)}, missing {missing[:20]}, extra {extra[:20]}, twice {twice}")
        raise
