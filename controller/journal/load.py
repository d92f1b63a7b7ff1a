"""What is stored, read in one snapshot: the rows of which controller/core/restore.py makes the live farm."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from psycopg2.extensions import connection as Connection  # noqa: N812 - psycopg2 names a class in lower case
from psycopg2.extensions import cursor as Cursor  # noqa: N812

from controller.core.lives import TaskState
from controller.core.model import DeploymentName, FarmState, Instant, Limits, Task, TaskId
from controller.core.records import Clock, Row, Table
from controller.core.restore import Floors, restore
from controller.core.transition import LeaseBatch
from controller.journal import rows
from controller.journal.encode import options_of
from controller.journal.errors import fitting

PAGE: Final = 5_000
"""Rows fetched at once."""


def load_state(connection: Connection, limits: Limits, now: Instant, epoch: int) -> FarmState:
    """Everything live, in one snapshot. Errors of the driver pass through."""
    with connection.cursor() as cursor:
        cursor.execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SET LOCAL statement_timeout = 0;"
                       " SET LOCAL enable_seqscan = on; SET LOCAL enable_hashjoin = on")  # fmt: skip
        with fitting():
            state = restore(Snapshot(cursor), limits, now, epoch)
        cursor.execute("COMMIT")
    return state


class Snapshot:
    """The rows, in the transaction of a cursor: see `Rows` of controller/core/restore.py."""

    def __init__(self, cursor: Cursor) -> None:
        self._cursor = cursor

    def floors(self) -> Floors:
        """The next ids."""
        self._cursor.execute(
            "SELECT GREATEST(task_floor, COALESCE((SELECT max(id) FROM task), 0) + 1,"
            " COALESCE((SELECT max(id) FROM task_finished), 0) + 1),"
            " GREATEST(replica_floor, COALESCE((SELECT max(id) FROM replica), 0) + 1),"
            " COALESCE((SELECT max(id) FROM lease), 0) + 1 FROM leader"
        )
        row = self._cursor.fetchone()
        assert row is not None
        return Floors(*row)

    def records(self, table: Table[Any]) -> Iterable[Row]:
        """Rows of a table."""
        return rows.read(self._cursor, table)

    def tasks(self, names: Mapping[str, DeploymentName], clock: Clock) -> Iterator[Task]:
        """Tasks without their inputs. The hot loop of a restart: plain tuples, no keywords."""
        query = (
            "SELECT id, deployment, priority, extract(epoch from submitted_at)::float, octet_length(input),"
            " attempt, failures, crashes, extract(epoch from not_before)::float, is_cancelling, options"
            " FROM task ORDER BY id"
        )
        queued, mono = TaskState.QUEUED, clock.mono
        for row in self._stream(query):
            task_id, name, priority, at, size, attempt, failures, crashes, not_before, is_cancelling, options = row
            yield Task(
                task_id, names[name], priority, at, None, size, attempt, failures, crashes, queued,
                options_of(options) if options is not None else None,
                mono(not_before) if not_before is not None else 0.0, is_cancelling, attempt > 0,
            )  # fmt: skip

    def leases(self) -> Iterator[LeaseBatch]:
        """Lease rows, the newest first."""
        self._cursor.execute(
            "SELECT id, node, extract(epoch from leased_at)::float, tasks, attempts, tokens, replicas"
            " FROM lease ORDER BY id DESC"
        )
        for row in self._cursor.fetchall():
            yield LeaseBatch(*row)

    def inputs(self, last: TaskId) -> Iterator[tuple[TaskId, bytes]]:
        """Inputs of the tasks up to `last`."""
        query = f"SELECT id, input FROM task WHERE id <= {last} ORDER BY id"  # noqa: S608 - `last` is a number of ours
        for task_id, data in self._stream(query):
            yield task_id, bytes(data)

    def drop_leases(self, ids: list[int]) -> None:
        """Lease rows that hold nothing any more."""
        self._cursor.execute("DELETE FROM lease WHERE id = ANY(%s)", (ids,))

    def _stream(self, query: str) -> Iterator[tuple[Any, ...]]:
        """Rows of a query, a page at a time through a cursor of the server: a million must not lie in memory."""
        with self._cursor.connection.cursor() as plain:
            plain.execute(f"DECLARE stream NO SCROLL CURSOR FOR {query}")
            while True:
                plain.execute(f"FETCH {PAGE} FROM stream")
                page = plain.fetchall()
                if not page:
                    break
                yield from page
            plain.execute("CLOSE stream")


def inputs_of(cursor: Cursor, ids: list[TaskId]) -> dict[TaskId, bytes]:
    """Inputs of live tasks."""
    cursor.execute("SELECT id, input FROM task WHERE id = ANY(%s::bigint[])", (ids,))
    return {row[0]: bytes(row[1]) for row in cursor.fetchall()}
