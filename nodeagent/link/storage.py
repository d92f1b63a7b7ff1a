"""The outbox's file: SQLite, in WAL mode, with a full sync at each commit, written on a thread of its own.

What is written, and when, is the outbox's to say (`nodeagent/core/outbox.py`).
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Final

from agentfarm.files import set_aside
from nodeagent.core.outbox import Outbox, Row, Written
from nodeagent.machine.logging import log

WAL_BYTES_MAX: Final = 4 * 2**20

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS result (
    token      INTEGER PRIMARY KEY,
    replica_id INTEGER NOT NULL,
    data       BLOB NOT NULL
) STRICT
"""


class Storage:
    """The outbox's `Disk`. On the event loop; `start` before use."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = OutboxFile(path)
        self._thread: ThreadPoolExecutor | None = None
        self._writing: asyncio.Future[None] | None = None
        self.problem = ""
        """Why results cannot be written now; empty while they can."""

    async def start(self, outbox: Outbox) -> None:
        """Give the outbox what an earlier daemon left. A damaged file never keeps us from starting, nor does a full
        disk."""
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="outbox")
        try:
            rows = await asyncio.get_running_loop().run_in_executor(self._thread, self._file.open)
        except sqlite3.Error as problem:
            self._failed(problem)
            return
        if self._file.set_aside is not None:
            log.error("outbox.damaged", path=str(self._path), set_aside=str(self._file.set_aside),
                      consequence="results not yet acknowledged may be lost; their tasks will run again")  # fmt: skip
        outbox.restore(rows)
        if rows:
            log.info("outbox.recovered", results=len(rows))

    async def stop(self, outbox: Outbox) -> None:
        """Write everything that waits, and close. Safe twice, and unstarted."""
        if self._thread is None:
            return
        outbox.close()
        await self._idle()
        outbox.flush()
        await self._idle()
        thread, self._thread = self._thread, None
        await asyncio.get_running_loop().run_in_executor(thread, self._file.close)
        thread.shutdown()

    def write(self, rows: list[Row], removed: list[int], done: Callable[[Written], None]) -> None:
        """See `Disk`."""
        loop = asyncio.get_running_loop()
        self._writing = loop.run_in_executor(self._thread, self._file.commit, rows, removed)
        self._writing.add_done_callback(partial(self._written, done))

    async def _idle(self) -> None:
        if self._writing is not None:
            await asyncio.wait((self._writing,))

    def _written(self, done: Callable[[Written], None], commit: asyncio.Future[None]) -> None:
        problem = commit.exception()
        if problem is None:
            self._healed()
            done(Written.DONE)
        elif isinstance(problem, sqlite3.Error):
            done(self._failed(problem))
        else:
            raise problem

    def _healed(self) -> None:
        if self.problem:
            log.info("outbox.healed")
            self.problem = ""

    def _failed(self, problem: sqlite3.Error) -> Written:
        text = str(problem)
        if text != self.problem:
            log.error("outbox.not_written", path=str(self._path), problem=text,
                      remedy="make room on the disk; results stay in memory until then")  # fmt: skip
        self.problem = text
        if isinstance(problem, sqlite3.DatabaseError) and not isinstance(problem, sqlite3.OperationalError):
            self._file.close()  # damaged while in use: the next commit opens it again, and sets it aside
            return Written.LOST
        return Written.FAILED


class OutboxFile:
    """Rows of the outbox. Blocking: used on the outbox's thread alone."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._db: sqlite3.Connection | None = None
        self.set_aside: Path | None = None
        """Where a damaged file was moved by the last `open`."""

    def open(self) -> list[Row]:
        """Open it, making it if needed; returns what it holds. A damaged file is set aside, and an empty one
        begins.

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

    def _open(self) -> list[Row]:
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

    def commit(self, added: Iterable[Row], removed: Iterable[int]) -> None:
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
