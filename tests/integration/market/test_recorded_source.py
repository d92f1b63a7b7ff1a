"""A feed process that plays a recording in place of a venue: the same path, down to a real QuestDB."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from nodeagent.market.feed.settings import FeedSettings
from nodeagent.market.store.server import QuestDBServer
from tests.integration.market.feeds import FeedProcess, until
from tests.integration.market.recordings import BTC_ETH, TEN_PRODUCTS, read_truth
from tests.integration.market.test_audit import audit
from tests.integration.market.test_recordings import _has_books, _has_trades

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(300)]

SLOW_S = 60.0
"""A process that starts and plays on a machine with much else to do."""


def playing(folder: Path, recording: Path, server: QuestDBServer, **more: Any) -> FeedProcess:
    truth = read_truth(recording)
    given: dict[str, Any] = {
        "source": "capture", "recording": recording, "speed": 0.0, "capture_dir": folder / "capture",
        "products": tuple(truth.trades.keys() | truth.bids.keys()), "endpoint_file": server.endpoint_file,
        "status_file": folder / "status.json",
    }  # fmt: skip
    return FeedProcess(folder, FeedSettings(**{**given, **more}))


@pytest.mark.parametrize(("name", "source"), [(BTC_ETH, "coinbase-advanced"), (TEN_PRODUCTS, "coinbase-exchange")])
async def test_a_recording_is_a_source_and_its_end_is_no_failure(
    name: str, source: str, server: QuestDBServer, feeds: list[FeedProcess], tmp_path: Path, captures: Path
) -> None:
    truth = read_truth(captures / name)
    feed = playing(tmp_path, captures / name, server)
    feeds.append(feed)
    await feed.start()
    await until("every trade is stored as it was", lambda: _has_trades(server.endpoint, truth), SLOW_S)
    await until("the last books are stored", lambda: _has_books(server.endpoint, truth), SLOW_S)
    await until("it says that it is over", lambda: feed.status().get("state") == "over", SLOW_S)
    status = feed.status()
    assert status["source"] == source
    assert any(problem.startswith("the recording is over") for problem in status["problems"])
    assert (status["rejected"], status["gaps"], status["rest_requests"]) == (0, 0, 0)
    await feed.kill()
    await feed.start()  # it plays once more, and stores nothing twice
    pid = feed.process.pid if feed.process is not None else 0
    await until("it is over again", lambda: (feed.status()["pid"], feed.status()["state"]) == (pid, "over"), SLOW_S)
    await until("nothing is stored twice", lambda: _has_trades(server.endpoint, truth))
    assert await feed.stop() == 0
    told = await audit("verify", feed.settings.capture_dir, "--endpoint", server.endpoint_file)
    assert told.code == 0, told.lines


async def test_products_that_the_recording_does_not_hold_are_refused_by_name(
    server: QuestDBServer, feeds: list[FeedProcess], tmp_path: Path, captures: Path
) -> None:
    feed = playing(tmp_path, captures / BTC_ETH, server, products=("BTC-USD", "ETH-USD", "ETH-USDC"))
    feeds.append(feed)
    await feed.start()
    assert feed.process is not None
    assert await feed.process.wait() == 5
    assert "holds no ETH-USDC" in feed.log.read_text()
