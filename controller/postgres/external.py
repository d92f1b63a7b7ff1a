"""A PostgreSQL that someone else runs, behind the same face as the embedded one."""

from __future__ import annotations

import asyncio
from typing import Final, Protocol

import psycopg2

from agentfarm.errors import InvalidRequest, Unavailable
from agentfarm.service import Service

CONNECT_TIMEOUT_S: Final = 5
RETRY_S: Final = 0.2


class Postgres(Protocol):
    """What the controller needs of its database server."""

    @property
    def dsn(self) -> str:
        """A libpq URL; valid after `start`."""

    async def start(self) -> None:
        """Begin. Raises FarmError with a remedy where it cannot be."""

    async def wait_ready(self, deadline_s: float) -> None:
        """Return once it takes connections; raises Unavailable after `deadline_s`."""

    async def stop(self, deadline_s: float = 15.0) -> None:
        """End what `start` began. Safe twice, safe unstarted."""


class ExternalPostgres(Service):
    """The server at a `database_url`. Starting it only proves that it answers."""

    def __init__(self, url: str) -> None:
        super().__init__("postgres")
        if not url.startswith(("postgresql://", "postgres://")):
            raise InvalidRequest(
                "database_url does not begin with postgresql://.",
                remedy="Give a URL such as postgresql://farm:PASSWORD@db.example:5432/agentfarm",
            )
        self.dsn = url

    async def wait_ready(self, deadline_s: float) -> None:
        """Return once it takes connections; raises Unavailable after `deadline_s`."""
        await answer(self.dsn, deadline_s)


async def answer(dsn: str, deadline_s: float) -> None:
    """Return once the server at `dsn` takes connections; raises Unavailable, with its own words, after `deadline_s`."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + deadline_s
    while True:
        problem = await asyncio.to_thread(_try_connect, dsn)
        if problem is None:
            return
        if loop.time() + RETRY_S > deadline:
            raise Unavailable(
                f"PostgreSQL does not answer: {problem}",
                remedy="Check that it runs and that database_url is right; for the embedded one see server.log.",
            )
        await asyncio.sleep(RETRY_S)


def _try_connect(dsn: str) -> str | None:
    try:
        psycopg2.connect(dsn, connect_timeout=CONNECT_TIMEOUT_S).close()
    except psycopg2.Error as error:
        return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return None
