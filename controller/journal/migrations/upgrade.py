"""Alembic, behind one door: from whatever revision a database has to the newest."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import sqlalchemy
from alembic import command
from alembic.config import Config
from alembic.util.exc import CommandError
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from agentfarm.errors import Conflict, Unavailable

MIGRATION_LOCK: Final = 0x6661726D_0001  # pg_advisory_lock key: "farm", migrations


def upgrade(dsn: str, migrations: Path) -> None:
    """Apply what is missing. Blocking; controllers starting together take turns. Raises as `migrate` does."""
    engine = sqlalchemy.create_engine(_sqlalchemy_url(dsn), poolclass=sqlalchemy.pool.NullPool)
    try:
        with engine.connect() as connection:
            connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": MIGRATION_LOCK})
            connection.commit()
            try:
                command.upgrade(_config(connection, migrations), "head")
            finally:
                connection.rollback()
                connection.execute(text("SELECT pg_advisory_unlock(:key)"), {"key": MIGRATION_LOCK})
                connection.commit()
    except CommandError as error:
        raise Conflict(
            f"The database was made by another release of the farm: {error}",
            remedy="Start the release that made it, or a newer one.",
        ) from error
    except DBAPIError as error:
        if not error.connection_invalidated and not isinstance(error, sqlalchemy.exc.OperationalError):
            raise
        raise Unavailable(f"PostgreSQL does not answer: {error.orig}", remedy="Check that it runs.") from error
    finally:
        engine.dispose()


def _config(connection: sqlalchemy.Connection, migrations: Path) -> Config:
    config = Config()
    config.set_main_option("script_location", str(migrations).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config


def _sqlalchemy_url(dsn: str) -> str:
    return "postgresql+psycopg2://" + dsn.split("://", 1)[1]
