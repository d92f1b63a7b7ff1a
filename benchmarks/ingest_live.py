"""The live part of `benchmarks.ingest`: a real feed process, a real QuestDB, an exchange at the reference load.

Twenty products, about 500 frames and 2,800 level changes a second, each of the three in a process of its own on
loopback. A second reader asks QuestDB all the time for trades it has not seen; a trade's delay is from its receipt by
the feed to the answer that shows it, so that it holds the wait for the batch, the write, the commit and half the time
between two questions.
"""

from __future__ import annotations

import asyncio
import json
import signal
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import psutil

from benchmarks.ingest_blocked import FIGURES_FILE
from nodeagent.market.feed.settings import FeedSettings
from nodeagent.market.store.runtime import MarketDataUnavailable, obtain_runtime
from nodeagent.market.store.server import QuestDBServer
from nodeagent.market.store.settings import QuestDBSettings
from nodeagent.market.store.sql import query_now

PRODUCTS: Final = tuple(f"{name}-USD" for name in (
    "BTC", "ETH", "SOL", "LTC", "XRP", "ADA", "DOT", "LINK", "AVAX", "UNI",
    "BCH", "XLM", "ATOM", "ETC", "FIL", "AAVE", "ALGO", "NEAR", "ICP", "APT",
))  # fmt: skip
WARM_UP_S: Final = 6.0
ASK_EVERY_S: Final = 0.02
READY_WITHIN_S: Final = 60.0
NEW_TRADES: Final = "SELECT received_at::long FROM trades WHERE received_at > {} ORDER BY received_at"


@dataclass(frozen=True)
class LiveFigures:
    """What was measured, or why nothing was."""

    frames_per_s: float = 0.0
    visible_p50_ms: float = 0.0
    visible_p99_ms: float = 0.0
    core_pct: float = 0.0
    rss_mib: float = 0.0
    questdb_core_pct: float = 0.0
    trades: int = 0
    loop_blocked_max_ms: float = 0.0
    """Beside twenty books of 46,000 levels (`ingest_blocked`)."""
    loop_blocked_cpu_ms: float = 0.0
    """The longest piece by its own processor time."""
    snapshot_max_ms: float = 0.0
    """From the receipt of such a snapshot until it was applied and packed."""
    problem: str = ""


def measure_live(seconds: float) -> LiveFigures:
    """Run it all for so long. Without Java or the jar, the figures say what is missing."""
    try:
        runtime = asyncio.run(obtain_runtime())
    except MarketDataUnavailable as absent:
        return LiveFigures(problem=str(absent))
    with tempfile.TemporaryDirectory() as folder:
        return asyncio.run(_measure(runtime, Path(folder), seconds))


async def _measure(runtime: Any, folder: Path, seconds: float) -> LiveFigures:
    server = QuestDBServer(runtime, QuestDBSettings(folder / "questdb"))
    await server.start()
    try:
        async with _Child("-m", "nodeagent.market.exchange", "--products", ",".join(PRODUCTS)) as exchange:
            addresses = json.loads(await exchange.first_line())
            settings = FeedSettings(
                source="coinbase-advanced",
                products=PRODUCTS,
                capture_dir=folder / "capture",
                endpoint_file=server.endpoint_file,
                status_file=folder / "status.json",
                ws_url=addresses["ws_url"],
                rest_url=addresses["rest_url"],
            )
            config = folder / "feed.json"
            config.write_text(settings.to_json())
            async with _Child("-m", "nodeagent.market.feed", "--config", str(config)) as feed:
                await _until_live(settings.status_file)
                await asyncio.sleep(WARM_UP_S)
                figures = await _watch(server, feed, settings.status_file, seconds)
        blocked = await measure_blocked(server.endpoint_file, folder / "blocked", seconds)
        return replace(
            figures,
            loop_blocked_max_ms=blocked["wall_ms"],
            loop_blocked_cpu_ms=blocked["cpu_ms"],
            snapshot_max_ms=blocked["settled_ms"],
        )
    finally:
        await server.stop()


async def measure_blocked(endpoint_file: Path, folder: Path, seconds: float) -> dict[str, float]:
    """How long the loop of a feed with the largest books was held up: the figures of `ingest_blocked`."""
    folder.mkdir()
    program = ("-m", "benchmarks.ingest_blocked")
    async with _Child(*program, "venue", ",".join(PRODUCTS)) as venue:
        settings = FeedSettings(
            source="coinbase-advanced",
            products=PRODUCTS,
            capture_dir=folder / "capture",
            endpoint_file=endpoint_file,
            status_file=folder / "status.json",
            ws_url=(await venue.first_line()).strip(),
            rest_url="http://127.0.0.1:9",
        )
        config = folder / "feed.json"
        config.write_text(settings.to_json())
        async with _Child(*program, "feed", str(config)):
            await _until_live(settings.status_file)
            await asyncio.sleep(seconds)
    figures: dict[str, float] = json.loads((folder / FIGURES_FILE).read_text())
    return figures


async def _watch(server: QuestDBServer, feed: _Child, status_file: Path, seconds: float) -> LiveFigures:
    """CPU, memory and delays over the given time."""
    process, questdb = psutil.Process(feed.pid), psutil.Process(server.pid)
    frames = _status(status_file)["frames"]
    cpu_s, questdb_cpu_s, began_s = _cpu_s(process), _cpu_s(questdb), time.monotonic()
    delays, rss = await asyncio.to_thread(_ask, server, process, began_s + seconds)
    took_s = time.monotonic() - began_s
    return LiveFigures(
        frames_per_s=(_status(status_file)["frames"] - frames) / took_s,
        visible_p50_ms=statistics.median(delays),
        visible_p99_ms=statistics.quantiles(delays, n=100)[98],
        core_pct=100 * (_cpu_s(process) - cpu_s) / took_s,
        rss_mib=rss / 2**20,
        questdb_core_pct=100 * (_cpu_s(questdb) - questdb_cpu_s) / took_s,
        trades=len(delays),
    )


def _ask(server: QuestDBServer, process: psutil.Process, until_s: float) -> tuple[list[float], int]:
    """Ask for new trades until then: each one's delay in milliseconds, and the feed's largest resident size."""
    newest_us = time.time_ns() // 1000
    delays: list[float] = []
    rss = 0
    while time.monotonic() < until_s:
        rows = query_now(server.endpoint, NEW_TRADES.format(newest_us)).rows
        now_us = time.time_ns() / 1000
        delays += [(now_us - received_us) / 1000 for (received_us,) in rows]
        newest_us = rows[-1][0] if rows else newest_us
        rss = max(rss, process.memory_info().rss)
        time.sleep(ASK_EVERY_S)
    return delays, rss


class _Child:
    """A Python program of ours, ended by SIGTERM on leaving."""

    def __init__(self, *arguments: str) -> None:
        self._arguments = arguments
        self._process: asyncio.subprocess.Process

    async def __aenter__(self) -> _Child:
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            *self._arguments,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._process.returncode is None:
            self._process.send_signal(signal.SIGTERM)
            async with asyncio.timeout(READY_WITHIN_S):
                await self._process.wait()

    @property
    def pid(self) -> int:
        return self._process.pid

    async def first_line(self) -> str:
        """The line that says it is ready."""
        assert self._process.stdout is not None
        async with asyncio.timeout(READY_WITHIN_S):
            return (await self._process.stdout.readline()).decode()


async def _until_live(status_file: Path) -> None:
    """Wait until the feed receives."""
    async with asyncio.timeout(READY_WITHIN_S):
        while not status_file.exists() or _status(status_file)["frames"] < len(PRODUCTS):  # noqa: ASYNC110 - a file
            await asyncio.sleep(0.1)


def _status(status_file: Path) -> dict[str, Any]:
    status: dict[str, Any] = json.loads(status_file.read_text())
    return status


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)
