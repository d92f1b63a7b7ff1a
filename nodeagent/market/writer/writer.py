"""Rows into QuestDB by the official client, on a thread of its own.

Only here and in `writer_encoding` is the QuestDB client imported. Rows come in order; a `Mark` between them says that
everything before it stands for the capture up to a position. A batch is built into our own buffer and kept until the
server has taken it, however long that lasts: the client's own buffer would be emptied by a failed flush. Only then is
the mark acknowledged, so that what is saved as acknowledged never runs ahead of what is stored. Sending twice is
harmless: every table has DEDUP keys. An empty database in the place of the one that had the rows, or an older copy of
it, is noticed and reported.

Limits: `INGEST_QUEUE_MAX` units of rows wait in memory (a book row counts `BOOK_ROW_UNITS`). Beyond that `has_room` is
false and the feed stops making rows; they are in the capture, from which it makes them later.
"""

from __future__ import annotations

import asyncio
import re
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, TypeAlias

from questdb import QuestDBError, QuestDBErrorCode, Sender

from agentfarm.backoff import Backoff
from agentfarm.errors import FarmError
from nodeagent.market.model.rows import ROW_TYPES, BookRow, Row
from nodeagent.market.store.endpoint import Endpoint
from nodeagent.market.store.migrate import Database, branch, identify
from nodeagent.market.writer.drops import DropCounts, DropRow, Drops
from nodeagent.market.writer.encoding import encoder

INGEST_QUEUE_MAX: Final = 20_000
BOOK_ROW_UNITS: Final = 8
ROOM_AGAIN_SHARE: Final = 0.5
"""Once full, rows are made again when the queue has drained to this share: switching has a price."""
LOOK_EVERY_S: Final = 30.0
"""Between two looks whether the database is still the same one. At each new connection it is looked at anyway."""
RETRY_MIN_S: Final = 0.1
RETRY_MAX_S: Final = 2.0
AWAY: Final = frozenset(
    {
        QuestDBErrorCode.CouldNotResolveAddr,
        QuestDBErrorCode.SocketError,
        QuestDBErrorCode.ConnectTimeout,
        QuestDBErrorCode.HandshakeError,
        QuestDBErrorCode.TlsError,
        QuestDBErrorCode.AuthError,
    }
)
"""Errors that say nothing about the rows: the same batch is sent again until it is taken."""
_ERRNO: Final = re.compile(r"errno: [1-9]")


AnyRow: TypeAlias = Row | DropRow
TABLES: Final[Mapping[type[AnyRow], str]] = {**{kind: kind.table for kind in ROW_TYPES}, DropRow: DropRow.table}
_ENCODERS: Final = {kind: encoder(kind, table) for kind, table in TABLES.items()}


@dataclass(frozen=True, slots=True)
class Mark:
    """All rows put before this stand for the capture up to `position`; `state` is what a restart needs besides."""

    position: int
    state: Any
    era: int = 0
    """Grows each time the rows begin again."""
    database: Database | None = None
    """Set when it is acknowledged: the one that has the rows."""
    drops: Drops = ()
    """Set when it is acknowledged: of the rows up to here."""


@dataclass(frozen=True, slots=True)
class WriterSettings:
    """A flush costs the server, its rows hardly anything: so batches by time, and by size when catching up."""

    flush_interval_s: float = 0.15
    flush_rows_max: int = 5_000
    queue_max: int = INGEST_QUEUE_MAX


@dataclass(slots=True)
class WriterCounts:
    """What happened so far. Written by the writer's thread, read by anyone."""

    stored: Counter[str] = field(default_factory=Counter)
    """Rows the server has taken, by table; a row sent twice counts twice."""
    dropped: Counter[str] = field(default_factory=Counter)
    refused: int = 0
    """Rows the server will not take in any company."""
    flushes: int = 0
    retries: int = 0
    flush_ms: float = 0.0
    """The last one."""
    problem: str = ""
    """Why nothing is being stored now; empty when all is well."""


class RowWriter:
    """The one writer of a feed. `put` and `mark` are called on the event loop, everything else happens on its
    thread."""

    def __init__(
        self,
        endpoint: Callable[[], Endpoint],
        settings: WriterSettings,
        *,
        source: str,
        on_ack: Callable[[Mark], None],
        on_refused: Callable[[AnyRow, str], None],
        on_database: Callable[[Database, Database], None] | None = None,
        database: Database | None = None,
        drops: Drops = (),
    ) -> None:
        """`endpoint` is asked at each connection: a restarted server may have moved. `database`: the one that has
        what was put before. `on_database` hears of another in its place, or of the first, before any row goes there:
        as it was found, and as it is called from then on. The callbacks run on the writer's thread."""
        self.counts = WriterCounts()
        self._endpoint = endpoint
        self._settings = settings
        self._on_ack = on_ack
        self._on_refused = on_refused
        self._on_database = on_database
        self._database = database
        self._taken: Counter[str] = Counter()
        self._looked_at_s = -LOOK_EVERY_S
        self._queue: deque[AnyRow | Mark] = deque()
        self._units = 0
        self._is_full = False
        self._first_at_s = 0.0
        self._changed = threading.Condition()
        self._give_up_at_s: float | None = None
        self._without: frozenset[str] = frozenset()
        self._room = asyncio.Event()
        self._room.set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._run, name="row-writer", daemon=True)
        self._sender: Sender | None = None
        self._drops = DropCounts(source, drops)

    def start(self) -> None:
        """Begin. Needs a running event loop, and no server yet."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    async def stop(self, within_s: float) -> bool:
        """Store what waits, for at most so long. True when everything was stored; the rest is in the capture."""
        if not self._thread.is_alive():
            return True
        with self._changed:
            self._give_up_at_s = time.monotonic() + within_s
            self._changed.notify()
        await asyncio.to_thread(self._thread.join)
        return not self._queue

    @property
    def has_room(self) -> bool:
        """Whether rows should be made now."""
        return not self._is_full

    @property
    def queued(self) -> int:
        """Rows and marks waiting."""
        return len(self._queue)

    async def room(self) -> None:
        """Return when there is room."""
        await self._room.wait()

    def leave_out(self, tables: frozenset[str]) -> None:
        """Drop rows of these tables from now on, and count them."""
        self._without = tables

    def put(self, rows: Sequence[AnyRow]) -> None:
        """Take rows. Never refuses: the caller looks at `has_room` before it makes more."""
        if rows:
            with self._changed:
                if not self._queue:
                    self._first_at_s = time.monotonic()
                    self._changed.notify()
                self._queue.extend(rows)
                self._units += _units(rows)
                if self._units >= self._settings.queue_max and not self._is_full:
                    self._is_full = True
                    self._room.clear()
                if len(self._queue) >= self._settings.flush_rows_max:
                    self._changed.notify()

    def mark(self, mark: Mark) -> None:
        """Everything put so far stands for the capture up to here."""
        with self._changed:
            if self._queue and isinstance(self._queue[-1], Mark):
                self._queue.pop()
            if not self._queue:
                self._first_at_s = time.monotonic()
                self._changed.notify()
            self._queue.append(mark)

    def _run(self) -> None:
        while (batch := self._take()) is not None:
            last = max((place for place, item in enumerate(batch) if isinstance(item, Mark)), default=0)
            first_rows = self._rows_to_store(_rows(batch[:last]))
            drops = self._drops.now()
            if not self._store(first_rows + self._rows_to_store(_rows(batch[last:]))):
                with self._changed:
                    self._queue.extendleft(reversed(batch))
                return
            if isinstance(mark := batch[last], Mark):
                self._on_ack(replace(mark, database=self._stored_in(), drops=drops))
            self._drained(_rows(batch))
        self._store([*self._drops.take(None)])

    def _take(self) -> list[AnyRow | Mark] | None:
        """The next batch, when it is due; None at the end."""
        with self._changed:
            while True:
                is_ending = self._give_up_at_s is not None
                if not self._queue:
                    if is_ending:
                        return None
                    self._changed.wait()
                    continue
                wait_s = self._first_at_s + self._settings.flush_interval_s - time.monotonic()
                if is_ending or wait_s <= 0 or len(self._queue) >= self._settings.flush_rows_max:
                    break
                self._changed.wait(wait_s)
            count = min(len(self._queue), self._settings.flush_rows_max)
            batch = [self._queue.popleft() for _ in range(count)]
            self._first_at_s = time.monotonic()
            return batch

    def _rows_to_store(self, rows: list[AnyRow]) -> list[AnyRow]:
        """The rows to store: without those to leave out, with the counts of such as were left out in a past minute."""
        now_ns = time.time_ns()
        without = self._without
        if without:
            to_store = []
            for row in rows:
                table = TABLES[type(row)]
                if table in without:
                    self.counts.dropped[table] += 1
                    self._drops.add(table, now_ns)
                else:
                    to_store.append(row)
            rows = to_store
        return [*rows, *self._drops.take(now_ns)] if self._drops else rows

    def _drained(self, rows: list[AnyRow]) -> None:
        with self._changed:
            self._units -= _units(rows)
            has_drained = self._is_full and self._units <= self._settings.queue_max * ROOM_AGAIN_SHARE
            if has_drained:
                self._is_full = False
        if has_drained and self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._room.set)

    def _store(self, rows: list[AnyRow]) -> bool:
        """Send a batch until it is taken. False when the time to give up came first."""
        backoff = Backoff(RETRY_MIN_S, RETRY_MAX_S)
        is_migrated = False
        while rows:
            try:
                self._flush(rows)
            except QuestDBError as error:
                self.counts.retries += 1
                self.counts.problem = f"QuestDB takes no rows: {error}"[:500]
                self._close()
                if not _is_about_rows(error):
                    pass
                elif is_migrated:
                    return self._store_singly(rows)
                else:
                    is_migrated = self._migrate()
            except (FarmError, OSError) as error:
                self.counts.retries += 1
                self.counts.problem = f"QuestDB cannot be reached: {error}"[:500]
            else:
                self.counts.problem = ""
                self.counts.stored.update(TABLES[type(row)] for row in rows)
                return True
            if not self._pause(backoff.next_s()):
                return False
        return True

    def _store_singly(self, rows: list[AnyRow]) -> bool:
        """One of these rows spoils the batch: find it, hand it out, store the rest."""
        for number, row in enumerate(rows):
            try:
                self._flush([row])
            except QuestDBError as error:
                self._close()
                if not _is_about_rows(error):
                    return self._store(rows[number:])
                self.counts.refused += 1
                self._on_refused(row, str(error))
            except (FarmError, OSError):
                return self._store(rows[number:])
            else:
                self.counts.stored[TABLES[type(row)]] += 1
        self.counts.problem = ""
        return True

    def _flush(self, rows: Iterable[AnyRow]) -> None:
        """One request. Raises QuestDBError, or FarmError when there is no address yet."""
        if self._sender is None or time.monotonic() - self._looked_at_s >= LOOK_EVERY_S:
            self._look_at_database()
        if self._sender is None:
            sender = Sender.from_conf(self._endpoint().ingest_conf() + "protocol_version=3;")
            sender.establish()  # type: ignore[no-untyped-call]  # the client's stubs leave it untyped
            self._sender = sender
        buffer = self._sender.new_buffer()
        for row in rows:
            _ENCODERS[type(row)](buffer, row)
        began_s = time.perf_counter()
        self._sender.flush(buffer, clear=False)
        self.counts.flush_ms = (time.perf_counter() - began_s) * 1000
        self.counts.flushes += 1
        self._taken.update({TABLES[type(row)] for row in rows})

    def _look_at_database(self) -> None:
        """Make sure of its tables, and that it is the one that has our rows, with all of them; tell if it is not.
        Raises FarmError, OSError."""
        endpoint = self._endpoint()
        before = now = asyncio.run(identify(endpoint, TABLES.values()))
        stored_in = self._stored_in()
        if self._on_database is not None and (stored_in is None or not before.holds(stored_in)):
            if stored_in is not None:
                now = asyncio.run(branch(endpoint, TABLES.values()))
            self._on_database(before, now)
        self._database = now
        self._taken.clear()
        self._looked_at_s = time.monotonic()

    def _stored_in(self) -> Database | None:
        """The database that has the rows, with a transaction for each table of each batch that it has taken."""
        if self._database is None:
            return None
        return replace(self._database, transactions=dict(self._taken + Counter(self._database.transactions)))

    def _migrate(self) -> bool:
        """The server refused: perhaps it is new and has no tables."""
        try:
            self._look_at_database()
        except (FarmError, OSError):
            return False
        return True

    def _pause(self, wait_s: float) -> bool:
        """Wait before the next try; False when it is time to give up."""
        with self._changed:
            if self._give_up_at_s is None:
                self._changed.wait(wait_s)
            else:
                wait_s = min(wait_s, self._give_up_at_s - time.monotonic())
                if wait_s <= 0:
                    return False
                self._changed.wait(wait_s)
        return True

    def _close(self) -> None:
        """Forget the connection; the next flush opens another."""
        if self._sender is not None:
            try:
                self._sender.close(False)
            except QuestDBError as error:
                self.counts.problem = str(error)
            self._sender = None


def _is_about_rows(error: QuestDBError) -> bool:
    """Whether sending the same batch again would fail again: the server answered, and named a line for what is in it.

    A full disk names a line too, that at which the room ended; the operating system's error number shows it.
    """
    text = str(error)
    return error.code not in AWAY and '"line"' in text and _ERRNO.search(text) is None


def _rows(items: Iterable[AnyRow | Mark]) -> list[AnyRow]:
    return [item for item in items if not isinstance(item, Mark)]


def _units(rows: Iterable[AnyRow]) -> int:
    return sum(BOOK_ROW_UNITS if type(row) is BookRow else 1 for row in rows)
