"""QuestDB away under the reference load: nothing is lost, and memory does not know of it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from nodeagent.market.exchange import ExchangeServer, GeneratedContent
from nodeagent.market.store.runtime import Runtime
from nodeagent.market.store.server import QuestDBServer
from nodeagent.market.store.settings import QuestDBSettings
from tests.integration.market.feeds import FeedProcess, feed_for, until, until_all_stored

pytestmark = pytest.mark.asyncio(loop_scope="session")

PRODUCTS = tuple(f"P{number}-USD" for number in range(20))
FRAMES_PER_S_MIN = 400
"""The generated market of twenty products tells about 500."""
MEMORY_GROWTH_MAX = 50 * 2**20
CAUGHT_UP_WITHIN_S = 600.0
"""Seconds on a free machine; a test's machine may be busy with others."""
WARM_UP_FRAMES = 3_000


@pytest_asyncio.fixture(loop_scope="session")
async def own(runtime: Runtime, tmp_path: Path) -> AsyncIterator[QuestDBServer]:
    """A server that a test may take away."""
    server = QuestDBServer(runtime, QuestDBSettings(tmp_path / "questdb"))
    await server.start()
    yield server
    await server.stop()


@pytest.mark.timeout(240)
async def test_half_a_minute_without_questdb(own: QuestDBServer, feeds: list[FeedProcess], tmp_path: Path) -> None:
    await _be_away(own, feeds, tmp_path, seconds=24)


@pytest.mark.long
@pytest.mark.timeout(1800)
async def test_ten_minutes_without_questdb(own: QuestDBServer, feeds: list[FeedProcess], tmp_path: Path) -> None:
    await _be_away(own, feeds, tmp_path, seconds=600)


async def _be_away(own: QuestDBServer, feeds: list[FeedProcess], folder: Path, *, seconds: float) -> None:
    """Half of the time it stands still (connections open, nothing answered), half of it there is no process."""
    content = GeneratedContent(PRODUCTS, 31, time.time_ns())
    async with ExchangeServer("advanced", content=content, seed=31) as exchange:
        feed = feed_for(folder, exchange, own)
        feeds.append(feed)
        await feed.start()
        await until("it is warm", lambda: feed.status().get("frames", 0) > WARM_UP_FRAMES, within_s=60)
        memory = _Memory(feed)
        frames, began_s = exchange.frames.total(), time.monotonic()
        pid = own.pid
        assert pid is not None
        await own.detach()  # its supervisor would end a server that stands still, and start another
        os.kill(pid, signal.SIGSTOP)
        try:
            await until("half of the time is over", lambda: memory.watched_s() > seconds / 2, within_s=4 * seconds)
        finally:
            os.kill(pid, signal.SIGKILL)
        enough = frames + int(seconds * FRAMES_PER_S_MIN)  # a slow machine takes longer, and tells as much
        await until(
            "all of it is over, and enough was told to show anything",
            lambda: memory.watched_s() > seconds and exchange.frames.total() > enough,
            within_s=4 * seconds,
        )
        frames, took_s = exchange.frames.total() - frames, time.monotonic() - began_s
        away, during = feed.status(), memory.growth_bytes
        await own.start()
        back_s, back_cpu_s = time.monotonic(), feed.cpu_s()
        await until(
            "it has caught up", lambda: bool(memory.watched_s()) and _is_live(feed), within_s=CAUGHT_UP_WITHIN_S
        )
        caught_up_s, caught_up_cpu_s = time.monotonic() - back_s, feed.cpu_s() - back_cpu_s
        exchange.pause()
        await until_all_stored(exchange, own.endpoint, within_s=60)
        trades = sum(map(len, exchange.sent_trades.values()))
        print(
            f"away {took_s:.0f} s: {frames} frames ({frames / took_s:.0f}/s), {trades} trades sent and stored in all;"
            f" memory {memory.before_bytes / 2**20:.0f} MiB, {during / 2**20:+.1f} while away,"
            f" {memory.growth_bytes / 2**20:+.1f} with catching up; capture {away['capture_bytes'] / 2**20:.1f} MiB;"
            f" live {caught_up_s:.1f} s after its return, for {caught_up_cpu_s:.1f} s of processor time"
        )
        assert away["state"] == "behind" or seconds < 60
        assert memory.growth_bytes < MEMORY_GROWTH_MAX
        last = feed.status()
        assert (last["gaps"], last["rows_dropped"], last["rows_refused"]) == (0, 0, 0)


@dataclass
class _Memory:
    """The feed's resident memory against what it was, looked at each time somebody asks for the time."""

    feed: FeedProcess
    growth_bytes: int = 0

    def __post_init__(self) -> None:
        self.before_bytes = self.feed.rss_bytes()
        self._began_s = time.monotonic()

    def watched_s(self) -> float:
        self.growth_bytes = max(self.growth_bytes, self.feed.rss_bytes() - self.before_bytes)
        return time.monotonic() - self._began_s


def _is_live(feed: FeedProcess) -> bool:
    status = feed.status()
    return bool(status["state"] == "live" and not status["problems"])
