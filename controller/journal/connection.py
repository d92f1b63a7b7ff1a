"""Connections for the engine's writer, and what a driver's error means for the farm."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import psycopg2
from psycopg2.extensions import connection as Connection  # noqa: N812 - psycopg2 names a class in lower case

from agentfarm.errors import Unavailable
from controller.journal.errors import DATA_STATES, LOST_LEAD_STATE, DataRefused, JournalCorrupt, LostLead

CONNECT_TIMEOUT_S: Final = 5
STATEMENT_TIMEOUT_MS: Final = 30_000
"""A statement of one turn takes milliseconds. A disk that hangs must not stop us without end."""

# Of a connection over TCP: a server that vanished without a word is noticed in about ten seconds.
KEEPALIVE: Final[dict[str, Any]] = {
    "keepalives": 1,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
}


def connect(dsn: str, name: str, *, settings: str = "") -> Connection:
    """A connection in autocommit: transactions are begun and ended by our own words. Raises Unavailable."""
    with translated():
        connection: Connection = psycopg2.connect(dsn, **options(name, settings))
        connection.autocommit = True
        return connection


def options(name: str, settings: str = "") -> dict[str, Any]:
    """What every connection of the journal asks for."""
    return {
        "connect_timeout": CONNECT_TIMEOUT_S,
        "application_name": f"agentfarm {name}",
        "options": f"-c statement_timeout={STATEMENT_TIMEOUT_MS} -c timezone=UTC {settings}",
        **KEEPALIVE,
    }


@contextmanager
def translated() -> Iterator[None]:
    """psycopg2's errors as ours: away, full or stopping is Unavailable; a value that cannot be stored is DataRefused;
    anything else is our own mistake."""
    try:
        yield
    except (psycopg2.OperationalError, psycopg2.InterfaceError) as error:
        if (error.pgcode or "").startswith(DATA_STATES):
            raise _refused(error) from error
        raise Unavailable(
            f"PostgreSQL is not available: {_words(error)}",
            remedy="It is tried again; if this stays, look at the database server and its disk.",
        ) from error
    except psycopg2.Error as error:
        if error.pgcode == LOST_LEAD_STATE:
            raise LostLead(
                f"Another controller leads now: {_words(error)}.", remedy="This one stands by, or stops."
            ) from error
        if (error.pgcode or "").startswith(DATA_STATES):
            raise _refused(error) from error
        raise JournalCorrupt(
            f"PostgreSQL refused what the farm wanted to store: {str(error).strip()}",
            remedy="This is a mistake of the farm; please report it with the controller's log.",
        ) from error


def _refused(error: psycopg2.Error) -> DataRefused:
    return DataRefused(
        f"PostgreSQL cannot store this: {_words(error)}.", remedy="Nothing of it was done; change what is too large."
    )


def _words(error: psycopg2.Error) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0]
