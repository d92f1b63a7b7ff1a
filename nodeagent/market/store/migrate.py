"""Bring a QuestDB's tables up to date: `schema/NNNN_name.sql`, applied in order, each once.

Owns `schema_version`. Statements are written so that applying them again changes nothing (`IF NOT EXISTS`), because
QuestDB
has no transaction around schema changes: a migration cut short is simply applied again. Migrations only grow; an
older program meets newer tables and goes on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.resources import files
from typing import Final

from agentfarm.errors import Conflict
from nodeagent.market.store.endpoint import Endpoint
from nodeagent.market.store.sql import query

STATEMENT_TIMEOUT_S: Final = 60.0
ANSWER_TIMEOUT_S: Final = 5.0
"""A server that answers nothing for so long is asked no more for now."""

VERSION_TABLE: Final = (
    "CREATE TABLE IF NOT EXISTS schema_version (applied_at TIMESTAMP, version INT, name STRING, digest STRING)"
    " TIMESTAMP(applied_at) PARTITION BY YEAR BYPASS WAL"
)
"""Without a WAL, so that the next question sees a row."""
APPLIED: Final = "SELECT version, applied_at FROM schema_version"
BRANCH_VERSION: Final = 0
"""Of no migration: such a row says that the database went on from an older copy."""


@dataclass(frozen=True, slots=True)
class Migration:
    """One file. `digest` tells an edited file from the one that was applied."""

    version: int
    name: str
    statements: tuple[str, ...]
    digest: str


def load_migrations() -> tuple[Migration, ...]:
    """The packaged migrations, by version; numbers have no holes."""
    migrations = sorted(
        (
            parse_migration(file.name, file.read_text())
            for file in files(__package__).joinpath("schema").iterdir()
            if file.name.endswith(".sql")
        ),
        key=lambda migration: migration.version,
    )
    assert [migration.version for migration in migrations] == list(range(1, len(migrations) + 1)), (
        "numbers of migrations have a hole"
    )
    return tuple(migrations)


def parse_migration(file_name: str, text: str) -> Migration:
    """Split a file into statements; comments (`--`) go, so that only a change of meaning changes the digest."""
    number, _, name = file_name.removesuffix(".sql").partition("_")
    bare = "\n".join(line.partition("--")[0].rstrip() for line in text.splitlines())
    statements = tuple(" ".join(part.split()) for part in bare.split(";") if part.strip())
    return Migration(int(number), name, statements, hashlib.sha256("\n".join(statements).encode()).hexdigest())


def pending(migrations: Iterable[Migration], applied: dict[int, str]) -> list[Migration]:
    """Those still to apply. Raises Conflict when one that was applied has been edited since."""
    left = []
    for migration in migrations:
        digest = applied.get(migration.version)
        if digest is None:
            left.append(migration)
        elif digest != migration.digest:
            raise Conflict(
                f"Migration {migration.version:04} {migration.name} was applied to this QuestDB in another form.",
                remedy="Add a new migration instead of editing one, or use an empty data folder.",
            )
    return left


async def migrate(endpoint: Endpoint, migrations: tuple[Migration, ...] | None = None) -> list[Migration]:
    """Apply what is missing; what was applied. Raises Unavailable, SqlRefused or Conflict."""
    await query(endpoint, VERSION_TABLE, timeout_s=STATEMENT_TIMEOUT_S)
    answer = await query(endpoint, "SELECT version, digest FROM schema_version")
    left = pending(migrations or load_migrations(), {int(version): str(digest) for version, digest in answer.rows})
    for migration in left:
        for statement in migration.statements:
            await query(endpoint, statement, timeout_s=STATEMENT_TIMEOUT_S)
        await query(
            endpoint,
            f"INSERT INTO schema_version VALUES (now(), {migration.version}, '{migration.name}', '{migration.digest}')",  # noqa: S608 - our own constants
        )
    return left


async def restore_tables(endpoint: Endpoint) -> None:
    """`migrate`, and then every statement once more: a table or view that somebody has dropped is there again, empty.

    What is there stays as it is. Raises Unavailable, SqlRefused or Conflict.
    """
    await migrate(endpoint)
    for migration in load_migrations():
        for statement in migration.statements:
            await query(endpoint, statement, timeout_s=STATEMENT_TIMEOUT_S)


@dataclass(frozen=True, slots=True)
class Database:
    """A database at one moment, as its writer remembers it."""

    identity: str
    """When its first migration was applied, and when it last parted from its own copies."""
    transactions: dict[str, int]
    """Per table, how many it has taken in its life. They go back with the data, whatever brought that back."""

    def holds(self, earlier: Database) -> bool:
        """Whether it is that one, with all that it held then."""
        return self.identity == earlier.identity and all(
            self.transactions.get(table, 0) >= count for table, count in earlier.transactions.items()
        )


async def identify(endpoint: Endpoint, tables: Iterable[str]) -> Database:
    """Bring the tables up to date; returns what tells this database from an empty one in its place, and from an older
    copy of itself.

    Where one of `tables` is missing although its migration was applied, somebody dropped it: all are applied again, and
    the database counts as another one, so that its writer begins again. Raises Unavailable, SqlRefused or
    Conflict.
    """
    tables = frozenset(tables)
    await query(endpoint, "SELECT 1", timeout_s=ANSWER_TIMEOUT_S)
    await migrate(endpoint)
    there = {str(row[0]) for row in (await query(endpoint, "SELECT table_name FROM tables()")).rows}
    if tables - there:
        await query(endpoint, "TRUNCATE TABLE schema_version")
        await migrate(endpoint)
    return await _look(endpoint, tables)


async def branch(endpoint: Endpoint, tables: Iterable[str]) -> Database:
    """Tell this database from every copy there is of it: from here on it holds what they do not. Raises as `query`."""
    await query(endpoint, f"INSERT INTO schema_version VALUES (now(), {BRANCH_VERSION}, 'branched', '')")  # noqa: S608 - our own constant
    return await _look(endpoint, frozenset(tables))


async def _look(endpoint: Endpoint, tables: frozenset[str]) -> Database:
    applied = [(int(version), str(at)) for version, at in (await query(endpoint, APPLIED)).rows]
    identity = min(at for version, at in applied if version != BRANCH_VERSION)
    branched = max((at for version, at in applied if version == BRANCH_VERSION), default="")
    taken = await query(endpoint, "SELECT name, sequencerTxn FROM wal_tables()")
    return Database(
        f"{identity} {branched}".strip(), {name: int(count) for name, count in taken.rows if name in tables and count}
    )
