"""The express way of a small turn: from the event loop straight to PostgreSQL, without the journal's thread.

A lone task is two turns one after the other, and the way to a thread and back cost each of them more than making its
statements. So small turns have a connection of their own, in psycopg2's asynchronous mode, on which the loop itself
sends and listens. Large ones go on by the thread: what takes long must not hold up the loop, and COPY knows no
asynchronous mode.
"""

from __future__ import annotations

import asyncio
import select
import time
from collections.abc import Callable, Iterator
from typing import Final

import psycopg2
from psycopg2.extensions import POLL_OK, POLL_READ
from psycopg2.extensions import connection as Connection  # noqa: N812 - psycopg2 names a class in lower case
from psycopg2.extensions import cursor as Cursor  # noqa: N812 - as above

from controller.core.transition import Changes
from controller.journal.commit import COPY_FROM
from controller.journal.connection import CONNECT_TIMEOUT_S, options
from controller.journal.statements import PREPARED, SESSION_SETTINGS

ROWS_MAX: Final = 16  # in one small turn
BYTES_MAX: Final = 64 * 1024  # of payloads in one small turn


def is_small(changes: Changes) -> bool:
    """Whether making the statements of these changes holds up the loop for a moment only, and needs no COPY."""
    if len(changes.inserted_tasks) >= COPY_FROM:
        return False
    rows = sum([len(getattr(changes, name)) for name in Changes.__slots__])
    rows += sum([len(batch.tasks) for batch in changes.lease_batches])
    return rows <= ROWS_MAX and sum(_sizes(changes)) <= BYTES_MAX


def _sizes(changes: Changes) -> Iterator[int]:
    for task in changes.inserted_tasks:
        yield task.input_size
    for ended in changes.finished_tasks:
        yield len(ended.output) + len(ended.error_message) + len(ended.error_traceback)
    for row in changes.checkpoints:
        yield len(row.payload or b"")
        for _, _, payload in row.writes:
            yield len(payload)


def open_express(dsn: str) -> Connection:
    """A connection for `send`. Blocks, on a thread. Raises psycopg2's errors."""
    connection: Connection = psycopg2.connect(dsn, async_=True, **options("journal express", SESSION_SETTINGS))
    deadline = time.monotonic() + CONNECT_TIMEOUT_S
    _settle(connection, deadline)
    cursor = connection.cursor()  # held until it is done: the connection itself does not hold it
    cursor.execute(PREPARED)
    _settle(connection, deadline)
    return connection


def _settle(connection: Connection, deadline: float) -> None:
    """Wait until what was begun on the connection is done."""
    while (poll := connection.poll()) != POLL_OK:
        line = select.poll()
        line.register(connection.fileno(), select.POLLIN if poll == POLL_READ else select.POLLOUT)
        if not line.poll(max(0.0, deadline - time.monotonic()) * 1e3):
            raise psycopg2.OperationalError(f"it did not answer within {CONNECT_TIMEOUT_S} s")


async def send(connection: Connection, write: Callable[[Cursor], None]) -> None:
    """What `write` says with one `execute`, done when this returns. Raises psycopg2's errors; the connection is worth
    nothing after any error, and after a cancellation."""
    cursor = connection.cursor()
    write(cursor)
    poll = connection.poll()
    while poll != POLL_OK:
        await _line_is_ready(connection.fileno(), poll == POLL_READ)
        poll = connection.poll()


async def _line_is_ready(line: int, to_read: bool) -> None:
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()
    watch, unwatch = (loop.add_reader, loop.remove_reader) if to_read else (loop.add_writer, loop.remove_writer)
    watch(line, _tell, ready)
    try:
        await ready
    finally:
        unwatch(line)


def _tell(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)
