"""The supervised server: real processes, killed and found again."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psycopg2
import psycopg2.errors
import pytest
import pytest_asyncio

from agentfarm.errors import Conflict, Unavailable
from nodeagent.market.store.migrate import load_migrations, migrate
from nodeagent.market.store.runtime import Java, Runtime
from nodeagent.market.store.server import ExternalQuestDB, QuestDBServer, ServerState
from nodeagent.market.store.settings import QuestDBSettings
from nodeagent.market.store.sql import SqlRefused, get, query
from tests.integration.market.feeds import until

pytestmark = pytest.mark.asyncio(loop_scope="session")

Events = list[tuple[str, dict[str, Any]]]


@pytest.fixture
def events() -> Events:
    """What a server told."""
    return []


@pytest_asyncio.fixture(loop_scope="session")
async def own(
    runtime: Runtime, tmp_path: Path, events: Events, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[QuestDBServer]:
    """A server that a test may hurt; in development mode, where it lets tables be suspended by hand."""
    monkeypatch.setenv("QDB_DEV_MODE_ENABLED", "true")
    server = QuestDBServer(runtime, _settings(tmp_path), lambda name, facts: events.append((name, dict(facts))))
    await server.start()
    yield server
    await server.stop()


def _deeds(events: Events) -> list[object]:
    return [facts["deed"] for name, facts in events if name == "questdb.repaired"]


def _settings(folder: Path) -> QuestDBSettings:
    return QuestDBSettings(folder / "questdb", restart_backoff_s=0.05, check_every_s=0.3)


async def test_killed_server_comes_back_and_a_suspended_table_is_resumed(own: QuestDBServer, events: Events) -> None:
    await query(own.endpoint, "INSERT INTO feed_drop VALUES (now(), 's', 'ticker', 7)")
    before, pid = own.endpoint, own.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    await until("it is back", lambda: own.restarts == 1 and own.state is ServerState.READY)
    assert own.endpoint == before, "it came back somewhere else"
    await until("its rows are back", lambda: _count(own, "feed_drop", 1))
    assert [name for name, _ in events] == ["questdb.ready", "questdb.crashed", "questdb.ready"]
    await query(own.endpoint, "ALTER TABLE feed_drop SUSPEND WAL")
    await query(own.endpoint, "ALTER MATERIALIZED VIEW candles_5m SUSPEND WAL")
    await until("the table was resumed", lambda: "resumed table feed_drop" in _deeds(events))
    await until("the view was resumed", lambda: "resumed materialized view candles_5m" in _deeds(events))
    report = await own.health()
    assert report.suspended == ()
    assert report.is_good, report.problems


async def test_server_left_by_a_dead_supervisor_is_taken_over_or_replaced(
    runtime: Runtime, own: QuestDBServer, tmp_path: Path
) -> None:
    pid = own.pid
    assert pid is not None
    await own.detach()
    successor = QuestDBServer(runtime, _settings(tmp_path))
    await successor.start()
    assert successor.pid == pid, "the same settings: taken over"
    await successor.detach()
    other = QuestDBServer(runtime, QuestDBSettings(tmp_path / "questdb", heap_mib=160))
    try:
        await other.start()
        assert other.pid != pid, "other settings: replaced"
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    finally:
        await other.stop()


async def test_second_supervisor_of_a_folder_is_refused(runtime: Runtime, server: QuestDBServer) -> None:
    folder = server.endpoint_file.parent
    with pytest.raises(Conflict, match="Another process"):
        await QuestDBServer(runtime, QuestDBSettings(folder)).start()
    assert server.state is ServerState.READY


async def test_server_that_cannot_start_says_why(runtime: Runtime, tmp_path: Path) -> None:
    java = tmp_path / "java"
    java.write_text("#!/bin/sh\necho 'the heap is on fire'\nexit 3\n")
    java.chmod(0o755)
    server = QuestDBServer(Runtime(Java(java, 25, "PATH"), runtime.jar), _settings(tmp_path))
    with pytest.raises(Unavailable, match=r"status 3: the heap is on fire") as refused:
        await server.start()
    assert "questdb.log" in refused.value.remedy
    await server.stop()


async def test_health_metrics_and_report(server: QuestDBServer) -> None:
    report = await server.health()
    assert report.is_up
    assert 50 * 2**20 < report.rss_bytes < 700 * 2**20
    assert {table.name for table in report.tables} >= {"trades", "book", "ticker", "candles_1m"}
    endpoint = server.endpoint
    status, body = await asyncio.to_thread(get, endpoint, "/metrics", 5.0, port=endpoint.health_port)
    assert status == 200
    assert b"questdb_memory_rss" in body


async def test_migrations_applied_twice_change_nothing(server: QuestDBServer) -> None:
    assert await migrate(server.endpoint) == []
    await query(server.endpoint, "DROP TABLE schema_version")
    assert len(await migrate(server.endpoint)) == len(load_migrations())
    answer = await query(server.endpoint, "SELECT version FROM schema_version ORDER BY version")
    assert [row[0] for row in answer.rows] == [migration.version for migration in load_migrations()]


async def test_dedup_keys_are_those_of_the_rows(server: QuestDBServer) -> None:
    from nodeagent.market.model.rows import ROW_TYPES

    for kind in ROW_TYPES:
        columns = (await query(server.endpoint, f"SHOW COLUMNS FROM {kind.table}")).dicts()
        assert [c["column"] for c in columns] == [name.removesuffix("_ns") for name in kind.__struct_fields__]
        assert {c["column"] for c in columns if c["upsertKey"]} == set(kind.dedup_keys)


async def test_agents_read_and_cannot_write(server: QuestDBServer) -> None:
    def ask(sql: str) -> list[tuple[Any, ...]]:
        with psycopg2.connect(server.endpoint.reader_url()) as connection, connection.cursor() as cursor:
            cursor.execute(sql)
            return list(cursor.fetchall())

    assert await asyncio.to_thread(ask, "SELECT count() FROM trades") == [(0,)]
    with pytest.raises(psycopg2.Error, match=r"permission|denied|not permitted|not allowed"):
        await asyncio.to_thread(ask, "TRUNCATE TABLE trades")


async def test_server_of_somebody_else_is_used_and_left_alone(server: QuestDBServer, tmp_path: Path) -> None:
    ours = server.endpoint
    external = ExternalQuestDB(
        f"http://{ours.user}:{ours.password}@{ours.host}:{ours.http_port}",
        pg_port=ours.pg_port,
        endpoint_file=tmp_path / "endpoint.json",
    )
    await external.start()
    assert (await external.health()).is_good
    await external.stop()
    assert (await server.health()).is_up
    nobody = ExternalQuestDB("http://127.0.0.1:1")
    with pytest.raises(Unavailable):
        await nobody.start()
    assert not (await nobody.health()).is_up


async def test_refused_statement_is_told_apart_from_an_absent_server(server: QuestDBServer) -> None:
    with pytest.raises(SqlRefused, match="nonsense"):
        await query(server.endpoint, "SELECT nonsense FROM nowhere")


async def _count(server: QuestDBServer, table: str, count: int) -> bool:
    return (await query(server.endpoint, f"SELECT count() FROM {table}")).rows[0][0] == count
