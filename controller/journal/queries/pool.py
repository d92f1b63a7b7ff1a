"""A small pool of connections for queries that are not the engine's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar

import sqlalchemy
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.pool import QueuePool

from agentfarm.errors import Unavailable
from controller.journal.connection import CONNECT_TIMEOUT_S, KEEPALIVE

T = TypeVar("T")
POOL_WAIT_S: Final = 5.0  # how long a query waits for a free connection
STATEMENT_TIMEOUT_MS: Final = 15_000


class Pool:
    """At most `connections_max` connections, used from any thread."""

    def __init__(self, dsn: str, name: str, connections_max: int, isolation: str = "READ COMMITTED") -> None:
        self._engine = sqlalchemy.create_engine(
            "postgresql+psycopg2://" + dsn.split("://", 1)[1],
            isolation_level=isolation, poolclass=QueuePool,
            pool_size=connections_max, max_overflow=0, pool_timeout=POOL_WAIT_S,
            connect_args={
                "application_name": f"agentfarm {name}", "connect_timeout": CONNECT_TIMEOUT_S,
                "options": f"-c statement_timeout={STATEMENT_TIMEOUT_MS} -c timezone=UTC", **KEEPALIVE,
            },
        )  # fmt: skip

    def run(self, work: Callable[[Connection], T], *, may_repeat: bool) -> T:
        """`work` in one transaction. Raises Unavailable when PostgreSQL is away.

        may_repeat: do it again once when the connection is dead, as it is after a restart of the server.
        """
        try:
            with self._engine.begin() as connection:
                return work(connection)
        except DBAPIError as error:
            if error.connection_invalidated and may_repeat:
                return self.run(work, may_repeat=False)
            if error.connection_invalidated or isinstance(error, OperationalError | InterfaceError):
                raise _away(error.orig or error) from error
            raise
        except PoolTimeout as error:
            raise _away(error) from error

    def close(self) -> None:
        """Close every idle connection; those in use when they are given back."""
        self._engine.dispose()


def _away(error: BaseException) -> Unavailable:
    words = str(error).strip().splitlines() or [type(error).__name__]
    return Unavailable(f"PostgreSQL is not available: {words[0]}", remedy="Try again in a few seconds.")
