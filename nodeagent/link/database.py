"""The outbox's file: SQLite, in WAL mode, with a full sync at each commit. Blocking; used on the outbox's thread
alone."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final

from agentfarm.files import set_aside

WAL_BYTES_MAX: Final = 4 * 2**20

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS result (
    token      INTEGER PRIMARY KEY,
    replica_id INTEGER NOT NULL,
    data       BLOB NOT NULL
) STRICT
"""


class OutboxFile:
    """Rows of (token, replica id, serialized AttemptResult)."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._db: sqlite3.Connection | None = None
        self.set_aside: Path | None = None
        """Where a damaged file was moved by the last `open`."""

    def open(self) -> list[tuple[int, int, bytes]]:
        """Open it, making it if needed; returns what it holds. A damaged file is set aside, and a new one begins.

        Raises sqlite3.OperationalError when the disk does not let us.
        """
        self.set_aside = None
        try:
            return self._open()
        except sqlite3.OperationalError:
            self.close()
            raise
        except sqlite3.DatabaseError:
            self.close()
            self.set_aside = self._move_away()
            return self._open()

    def _open(self) -> list[tuple[int, int, bytes]]:
        self._db = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
        self._path.chmod(0o600)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        self._db.execute(f"PRAGMA journal_size_limit = {WAL_BYTES_MAX}")
        self._db.execute("PRAGMA cache_size = -256")
        (verdict,) = self._db.execute("PRAGMA quick_check(1)").fetchone()
        if verdict != "ok":
            raise sqlite3.DatabaseError(verdict)
        self._db.execute(_SCHEMA)
        return self._db.execute("SELECT token, replica_id, data FROM result").fetchall()

    def commit(self, added: Iterable[tuple[int, int, bytes]], removed: Iterable[int]) -> None:
        """One transaction: durable when it returns. Raises sqlite3.Error, having changed nothing."""
        if self._db is None:
            self.open()
        assert self._db is not None
        try:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.executemany("INSERT OR REPLACE INTO result VALUES (?, ?, ?)", added)
            self._db.executemany("DELETE FROM result WHERE token = ?", ((token,) for token in removed))
            self._db.execute("COMMIT")
        except sqlite3.Error:
            with suppress(sqlite3.Error):
                self._db.execute("ROLLBACK")
            raise

    def close(self) -> None:
        """Let go of the file."""
        if self._db is not None:
            with suppress(sqlite3.Error):
                self._db.close()
            self._db = None

    def _move_away(self) -> Path:
        target = set_aside(self._path)
        for suffix in ("-wal", "-shm"):
            self._path.with_name(self._path.name + suffix).unlink(missing_ok=True)
        return target
