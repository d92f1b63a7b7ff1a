"""The engine's writer: takes the lead, reads the farm, and makes each turn durable."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from datetime import date
from typing import Final, TypeVar

import psycopg2
import structlog
from psycopg2.extensions import connection as Connection  # noqa: N812 - psycopg2 names a class in lower case

from agentfarm.errors import FarmError, Unavailable
from controller.core.model import FarmState, Instant, Limits, TaskId
from controller.core.records import Clock
from controller.core.transition import Changes
from controller.journal import days
from controller.journal.commit import Committer
from controller.journal.connection import connect, translated
from controller.journal.encode import clean
from controller.journal.errors import JournalCorrupt
from controller.journal.express import is_small, open_express, send
from controller.journal.load import inputs_of, load_state
from controller.journal.statements import PREPARED, SESSION_SETTINGS

log = structlog.get_logger(__name__)
T = TypeVar("T")

LEADER_LOCK: Final = 0x6661726D_0002  # pg_advisory_lock key: "farm", leader
LEAD_POLL_S: Final = 0.25  # how often a standby asks for the lead


def _this_moment() -> Instant:
    return Instant(time.monotonic(), time.time())


class Journal:
    """One controller's way to write. Every call blocks and belongs on one thread, never on the event loop, but
    `commit_here`, which belongs there; one call at a time, only `close` may come in the middle of another.

    A call that finds the connection broken raises Unavailable, and the next one connects again. After any error the
    state in memory is worth nothing: `take_lead`, then `load`.

    clock: the moment on the engine's two clocks; monotonic moments are stored as wall times by it.
    """

    def __init__(self, dsn: str, *, clock: Callable[[], Instant] = _this_moment) -> None:
        self._dsn = dsn
        self._clock = clock
        self._connection: Connection | None = None
        self._lock_connection: Connection | None = None
        self._express: Connection | None = None
        self._is_sending = False  # on the express way
        self._committer: Committer | None = None
        self._epoch = 0
        self._days_made_on: date | None = None
        self._is_closing = threading.Event()
        self._is_closed = False

    # -------------------------------------------------------------- leading

    def take_lead(self) -> int:
        """Wait as long as another controller leads, then begin a new epoch and return it.

        Raises Unavailable when PostgreSQL is away, or when `close` ends the waiting.
        """
        while not self._try_lock():
            if self._is_closing.wait(LEAD_POLL_S):
                raise Unavailable("This controller stops; it does not take the lead.")
        with translated(), self._connected().cursor() as cursor:
            cursor.execute("UPDATE leader SET epoch = epoch + 1 RETURNING epoch")
            row = cursor.fetchone()
            if row is None:
                raise JournalCorrupt("The table `leader` has lost its row.", remedy="Restore the database.")
            self._epoch = int(row[0])
        return self._epoch

    def _try_lock(self) -> bool:
        """The lock lives as long as its session. The epoch, not the lock, is what keeps an old leader from writing."""
        try:
            with translated():
                if self._lock_connection is None:
                    self._lock_connection = connect(self._dsn, "lead")
                with self._lock_connection.cursor() as cursor:
                    cursor.execute(
                        "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()"
                        " AND granted) OR pg_try_advisory_lock(%s)",
                        (LEADER_LOCK,),
                    )
                    row = cursor.fetchone()
                    return bool(row and row[0])
        except FarmError:
            self._lock_connection = _closed(self._lock_connection)
            raise

    # -------------------------------------------------------------- reading

    def load(self, limits: Limits, now: Instant) -> FarmState:
        """Everything live. Monotonic moments are counted from `now`; `state.epoch` is that of `take_lead`."""
        try:
            with translated():
                connection = self._connected()
                self._make_days(connection, now.wall)
                state = load_state(connection, limits, now, self._epoch)
                self._express = _closed(self._express)  # the old one may be dead
                self._express = open_express(self._dsn)
        except FarmError:
            self._give_up()
            raise
        self._committer = Committer(state.next_replica)
        return state

    def find_keys(self, keys: Sequence[str]) -> dict[str, TaskId]:
        """The tasks that were submitted under these idempotency keys; keys never seen are not in the answer."""
        by_stored = {clean(key): key for key in keys}
        try:
            with translated(), self._connected().cursor() as cursor:
                cursor.execute("SELECT key, task FROM idempotency WHERE key = ANY(%s)", (list(by_stored),))
                return {by_stored[key]: TaskId(task) for key, task in cursor.fetchall()}
        except FarmError:
            self._connection = _closed(self._connection)
            raise

    def read_inputs(self, ids: Sequence[TaskId]) -> dict[TaskId, bytes]:
        """Inputs of live tasks that memory had no room for."""
        try:
            with translated(), self._connected().cursor() as cursor:
                return inputs_of(cursor, list(ids))
        except FarmError:
            self._connection = _closed(self._connection)
            raise

    # -------------------------------------------------------------- writing

    def commit(self, changes: Changes, epoch: int) -> None:
        """Make one turn durable, in one transaction, if `epoch` still leads. No changes: only that is checked.

        Raises LostLead; Unavailable, after which it may be stored or not; JournalCorrupt: nothing was.
        """
        if self._committer is None:
            raise Unavailable("The state was not read since the last error.", remedy="Call take_lead, then load.")
        try:
            with translated():
                connection = self._connected()
                if not self._has_days_for(changes):
                    self._make_days(connection, changes.finished_tasks[-1].finished_at)
                with connection.cursor() as cursor:
                    self._committer.write(cursor, changes, epoch, Clock.at(self._clock()))
        except BaseException:
            self._give_up()
            raise

    def commit_here(self, changes: Changes, epoch: int) -> Awaitable[None] | None:
        """As `commit`, but on the event loop, which goes on meanwhile; None where it must be `commit`."""
        is_ready = self._committer is not None and self._express is not None and not self._is_closed
        if not is_ready or not is_small(changes) or not self._has_days_for(changes):
            return None
        return self._commit_here(changes, epoch)

    async def _commit_here(self, changes: Changes, epoch: int) -> None:
        connection, committer = self._express, self._committer
        assert connection is not None
        assert committer is not None
        clock = Clock.at(self._clock())
        self._is_sending = True
        try:
            with translated():
                await send(connection, lambda cursor: committer.write(cursor, changes, epoch, clock))
        except BaseException:
            self._is_sending = False
            self._give_up()
            raise
        self._is_sending = False

    def forget_before(self, day: date) -> int:
        """Retention: drop what ended before that UTC day. Returns how many day partitions went."""
        try:
            with translated(), self._connected().cursor() as cursor:
                cursor.execute("SET statement_timeout = 0")
                return days.forget_before(cursor, day)
        finally:
            self._connection = _closed(self._connection)

    def stop_waiting(self) -> None:
        """End a `take_lead` that waits; a leader may go on to write. From any thread, safe twice."""
        self._is_closing.set()

    def close(self) -> None:
        """Give up the lead and every connection; end a waiting `take_lead`. From any thread, safe twice.

        A call that is in the middle of a statement on another thread hears Unavailable at once, whatever PostgreSQL
        does: closing alone would wait for the statement's end, which a server that stands still never tells.
        """
        self._is_closing.set()
        self._is_closed = True
        for connection in (self._connection, self._lock_connection, self._express):
            _cut(connection)
        self._give_up()
        self._lock_connection = _closed(self._lock_connection)

    # -------------------------------------------------------------- the connection

    def _connected(self) -> Connection:
        if self._is_closed:
            raise Unavailable("The journal is closed.")
        if self._connection is None or self._connection.closed:
            connection = connect(self._dsn, "journal", settings=SESSION_SETTINGS)
            with connection.cursor() as cursor:
                cursor.execute(PREPARED)
            self._connection = connection
        return self._connection

    def _has_days_for(self, changes: Changes) -> bool:
        ended = changes.finished_tasks
        return not ended or self._days_made_on == days.day_of(ended[-1].finished_at)

    def _give_up(self) -> None:
        """What was begun may be stored or not; nothing is written before the next `load`."""
        self._committer = None
        self._connection = _closed(self._connection)
        if not self._is_sending:  # else it hears that its line was cut, and closes it where the loop watches it
            self._express = _closed(self._express)

    def _make_days(self, connection: Connection, wall: float) -> None:
        today = days.day_of(wall)
        if self._days_made_on == today:
            return
        with connection.cursor() as cursor:
            days.make_days(cursor, today)
        self._days_made_on = today


def _cut(connection: Connection | None) -> None:
    """End both directions of its socket."""
    if connection is not None:
        with suppress(psycopg2.Error, OSError), socket.socket(fileno=os.dup(connection.fileno())) as line:
            line.shutdown(socket.SHUT_RDWR)


def _closed(connection: Connection | None) -> Connection | None:
    """Close a connection, whatever state it is in. Returns what replaces it: none."""
    if connection is not None:
        with suppress(psycopg2.Error):
            connection.close()
    return None
