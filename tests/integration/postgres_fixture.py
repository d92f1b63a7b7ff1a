"""A real PostgreSQL for tests: one server a session, one fresh, migrated database a test.

    def test_something(database_url: str): ...        # schema in place, empty
    def test_raw(empty_database_url: str): ...        # not even a schema

The server is the embedded one with fsync off: a test's crash is a killed process, not a lost disk. What a killed test
run left behind is cleared by the next.
"""

from __future__ import annotations

import itertools
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import psycopg2
import pytest

from agentfarm.errors import FarmError
from controller.journal.migrations.migrate import migrate
from controller.postgres import cluster as on_disk
from controller.postgres.cluster import Cluster

PREFIX = "agentfarm-test-postgres-"
TEMPLATE = "migrated"
FAST = {"fsync": "off", "full_page_writes": "off", "autovacuum": "off", "shared_buffers": "32MB"}


@dataclass
class TestServer:
    """The session's server. `process` may be killed by a test that then waits for nobody else to need it."""

    __test__ = False
    cluster: Cluster
    process: psutil.Process
    numbers: Iterator[int]

    def create(self, template: str = "template1") -> str:
        """A new database; returns its URL."""
        name = f"test_{next(self.numbers)}"
        self.run(f"CREATE DATABASE {name} TEMPLATE {template}")
        return self.cluster.dsn(name)

    def drop(self, url: str) -> None:
        """Drop a database, whoever is still connected."""
        name = url.split("@/", 1)[1].split("?", 1)[0]
        self.run(f"DROP DATABASE {name} WITH (FORCE)")

    def run(self, statement: str) -> None:
        """One statement outside every test's database."""
        with closing(psycopg2.connect(self.cluster.dsn("postgres"))) as connection:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(statement)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[TestServer]:
    """A PostgreSQL server with a migrated template database."""
    _clear_leftovers()
    folder = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-"))
    cluster = on_disk.prepare(folder, FAST, lambda _: None)
    child = on_disk.spawn(cluster)
    process = psutil.Process(child.pid)
    try:
        while not on_disk.is_ready(cluster, child.pid):
            assert child.poll() is None, cluster.log_path.read_text()
            with suppress(psutil.TimeoutExpired):
                process.wait(timeout=0.02)
        server = TestServer(cluster, process, itertools.count(1))
        server.run(f"CREATE DATABASE {TEMPLATE}")
        migrate(cluster.dsn(TEMPLATE))
        yield server
    finally:
        on_disk.end(process, 5.0)
        child.wait(timeout=10)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def database_url(postgres_server: TestServer) -> Iterator[str]:
    """A fresh database with the newest schema."""
    url = postgres_server.create(TEMPLATE)
    yield url
    postgres_server.drop(url)


@pytest.fixture
def empty_database_url(postgres_server: TestServer) -> Iterator[str]:
    """A fresh database with nothing in it."""
    url = postgres_server.create()
    yield url
    postgres_server.drop(url)


def _clear_leftovers() -> None:
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        owner = folder.name.removeprefix(PREFIX).split("-", 1)[0]
        if owner.isdigit() and not psutil.pid_exists(int(owner)):
            with suppress(FarmError, OSError):
                on_disk.clear(on_disk.prepare(folder, FAST, lambda _: None))
            shutil.rmtree(folder, ignore_errors=True)
