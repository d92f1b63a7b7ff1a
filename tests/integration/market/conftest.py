"""A real QuestDB 9.3.4 for the whole session, wiped between tests, and a feed process at will.

Tests skip only when Java or the jar are truly not to be had, and say which.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from nodeagent.market.store.endpoint import Endpoint
from nodeagent.market.store.migrate import migrate
from nodeagent.market.store.runtime import Runtime
from nodeagent.market.store.server import QuestDBServer
from nodeagent.market.store.settings import QuestDBSettings
from nodeagent.market.store.sql import query
from tests.integration.market.feeds import FeedProcess, is_up, until
from tests.questdb import questdb_runtime

TABLES = (
    "trades",
    "ticker",
    "book",
    "book_change",
    "feed_health",
    "feed_gap",
    "feed_drop",
    "feed_now",
    "schema_version",
)
VIEWS = ("candles_1h", "candles_5m", "candles_1m")


@pytest.fixture(scope="session")
def runtime() -> Runtime:
    """Java and the jar."""
    return asyncio.run(questdb_runtime())


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def shared_server(runtime: Runtime, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[QuestDBServer]:
    """One server for all tests that do not hurt it."""
    server = QuestDBServer(runtime, QuestDBSettings(tmp_path_factory.mktemp("questdb")))
    await server.start()
    yield server
    await server.stop()


@pytest_asyncio.fixture(loop_scope="session")
async def server(shared_server: QuestDBServer) -> QuestDBServer:
    """The shared server with empty tables."""
    await until("the server is up", lambda: is_up(shared_server), within_s=60)
    await wipe(shared_server.endpoint)
    return shared_server


async def wipe(endpoint: Endpoint) -> None:
    """Drop every table and view of ours, and make them anew."""
    for view in VIEWS:
        await query(endpoint, f"DROP MATERIALIZED VIEW IF EXISTS {view}")
    for table in TABLES:
        await query(endpoint, f"DROP TABLE IF EXISTS {table}")
    await migrate(endpoint)


@pytest.fixture
def endpoint(server: QuestDBServer) -> Endpoint:
    """How to reach it."""
    return server.endpoint


@pytest_asyncio.fixture(loop_scope="session")
async def feeds(tmp_path: Path) -> AsyncIterator[list[FeedProcess]]:
    """Feed processes to be ended, whatever happens."""
    started: list[FeedProcess] = []
    yield started
    for feed in started:
        await feed.kill()


@pytest.fixture
def captures() -> Path:
    """The folder of recorded market data."""
    folder = Path(__file__).parents[3].parent / "shared" / "data" / "coinbase"
    if not folder.is_dir():
        pytest.skip("the recorded market data (../shared/data/coinbase) is not here")
    return folder


@pytest.fixture(autouse=True)
def _room(tmp_path: Path) -> Iterator[None]:
    """Captures are large: do not keep them."""
    yield
    if not os.environ.get("KEEP_TEST_FILES"):
        shutil.rmtree(tmp_path, ignore_errors=True)
