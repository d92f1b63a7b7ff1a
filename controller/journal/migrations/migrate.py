"""Bring a database to the newest schema with the Alembic revisions of migrations/.

A revision's name says when it is safe: `pre` only adds, and the release before still runs on it; `post` removes, once
no old release runs. A revision is named as its file, and names sort in their order: so a controller that finds the
newest one stored starts without Alembic, whose import takes longer than all else that a start does.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import psycopg2

from controller.journal.connection import connect, translated

MIGRATIONS: Final = Path(__file__).parent


def migrate(dsn: str) -> None:
    """Bring the database at `dsn` to the newest revision. Blocking; controllers starting together take turns.

    Raises Unavailable when PostgreSQL does not answer, Conflict when a newer release made the schema.
    """
    if _stored_revision(dsn) != newest_revision():
        from controller.journal.migrations.upgrade import upgrade  # noqa: PLC0415 - Alembic, only where it has work

        upgrade(dsn, MIGRATIONS)


def newest_revision() -> str:
    """The revision this release needs."""
    return max(path.stem for path in (MIGRATIONS / "versions").glob("[0-9]*.py"))


def _stored_revision(dsn: str) -> str | None:
    """The database's revision; None for one that has no tables yet."""
    with translated():
        connection = connect(dsn, "migrate")
        try:
            with connection.cursor() as cursor:
                cursor.execute("SELECT version_num FROM alembic_version")
                row = cursor.fetchone()
                return str(row[0]) if row is not None else None
        except psycopg2.errors.UndefinedTable:
            return None
        finally:
            connection.close()
