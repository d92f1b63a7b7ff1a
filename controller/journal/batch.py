"""Statements gathered and sent together: a turn is one message to PostgreSQL, not one for each statement.

What would have to be looked at between two statements (does the epoch still lead, did as many rows move as must) is
checked by guards inside PostgreSQL, which end the transaction: see errors.py.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any, Final

from psycopg2.extensions import cursor as Cursor  # noqa: N812 - psycopg2 names a class in lower case

MESSAGE_BYTES_MAX: Final = 32 * 1024 * 1024  # beyond it, what was gathered is sent; the transaction goes on
ROWS_MAX: Final = 1_000  # in one VALUES list


class Batch:
    """One transaction in the making on a connection in autocommit."""

    def __init__(self, cursor: Cursor) -> None:
        self._cursor = cursor
        self._parts: list[bytes] = [b"BEGIN"]
        self._size = 0

    def add(self, statement: str, *values: Any) -> None:
        """A statement with its values."""
        part = self._cursor.mogrify(statement, values or None)
        self._parts.append(part)
        self._size += len(part)
        if self._size > MESSAGE_BYTES_MAX:
            self._send()

    def execute(self, name: str, *values: Any) -> None:
        """A prepared statement."""
        self.add(f"EXECUTE {name}({', '.join(['%s'] * len(values))})", *values)

    def insert(
        self, table: str, columns: dict[str, str], rows: Sequence[tuple[Any, ...]], *, key: Sequence[str] = ()
    ) -> None:
        """Rows into a table; with a key, a row that is there already takes the new values."""
        changed = ", ".join(f"{name} = excluded.{name}" for name in columns if name not in key)
        upsert = f" ON CONFLICT ({', '.join(key)}) DO UPDATE SET {changed}" if key else ""
        place = f"({', '.join(columns.values())})"
        for start in range(0, len(rows), ROWS_MAX):
            listed = b", ".join(self._cursor.mogrify(place, row) for row in rows[start : start + ROWS_MAX])
            head = f"INSERT INTO {table} ({', '.join(columns)}) VALUES "  # noqa: S608 - names are ours
            self._parts.append(head.encode() + listed + upsert.encode())
            self._size += len(listed)
            if self._size > MESSAGE_BYTES_MAX:
                self._send()

    def copy(self, statement: str, rows: bytes) -> None:
        """Rows in COPY's binary form."""
        self._send()
        self._cursor.copy_expert(statement, io.BytesIO(rows))

    def commit(self) -> None:
        """Send the rest, and make it durable."""
        self._parts.append(b"COMMIT")
        self._send()

    def _send(self) -> None:
        if self._parts:
            self._cursor.execute(b";".join(self._parts))
        self._parts, self._size = [], 0
