"""The statements of a turn. Those of the happy path are prepared once per connection and take whole arrays.

Plans are made once and fixed to index lookups (SESSION_SETTINGS): one made while a table was empty must not meet a
million rows, and PostgreSQL left to itself plans `finish` for each turn, which costs more than running it.

They are gathered and sent together: a turn is one message to PostgreSQL, not one for each statement. Guards inside
PostgreSQL check what must hold between two of them (the epoch still leads, as many rows moved as must), and end the
transaction where it does not: see errors.py.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any, Final

from psycopg2.extensions import cursor as Cursor  # noqa: N812 - psycopg2 names a class in lower case

SESSION_SETTINGS: Final = (
    "-c enable_seqscan=off -c enable_hashjoin=off -c enable_mergejoin=off -c plan_cache_mode=force_generic_plan"
)

# COPY is cheaper per row, but needs round trips of its own; this is cheaper for a few tasks. Inputs come as one value
# that is cut here (see encode.Blobs): an array of bytea is quoted twice, and cost more than all the rest.
INSERT: Final = """
PREPARE insert_tasks (bigint[], text[], int[], double precision[], int[], int[], text[], bytea) AS
INSERT INTO task (id, deployment, priority, submitted_at, input, options)
SELECT id, deployment, priority, to_timestamp(submitted_at), substr($8, input_at, input_size), options::jsonb
FROM unnest($1, $2, $3, $4, $5, $6, $7) AS t(id, deployment, priority, submitted_at, input_at, input_size, options)
"""

# Moves rows from the queue to their day partition, and keeps count. The last argument is how many must move.
FINISH: Final = """
PREPARE finish (bigint[], text[], double precision[], int[], int[], int[], int[], int[], text[], text[], text[], int[],
                text[], bigint[], bigint[], double precision[], bigint, bytea) AS
WITH ended AS (
    SELECT * FROM unnest($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16) AS ended(
        task, end_state, finished_at, tried, failed, crashed, output_at, output_size, error_type, error_message,
        error_traceback, version, node, replica, token, leased_at)
), moved AS (
    DELETE FROM task USING ended WHERE task.id = ended.task
    RETURNING task.id, task.deployment, task.priority, task.submitted_at, task.input, task.options, ended.*
), stored AS (
    INSERT INTO task_finished (id, deployment, priority, submitted_at, input, options, state, finished_at, attempt,
                               failures, crashes, output, error_type, error_message, error_traceback, version, node,
                               replica, token, leased_at)
    SELECT id, deployment, priority, submitted_at, input, options, end_state, to_timestamp(finished_at), tried,
           failed, crashed, substr($18, output_at, output_size), error_type, error_message, error_traceback,
           version, node, replica, token, to_timestamp(leased_at)
    FROM moved
), counted AS (
    INSERT INTO task_tally AS tally (day, deployment, state, n)
    SELECT (to_timestamp(finished_at) AT TIME ZONE 'UTC')::date, deployment, end_state, count(*)
    FROM moved GROUP BY 1, 2, 3
    ON CONFLICT (day, deployment, state) DO UPDATE SET n = tally.n + excluded.n
)
SELECT expect(count(*), $17, 'tasks to finish') FROM moved
"""

REQUEUE: Final = """
PREPARE requeue (bigint[], int[], int[], int[], double precision[], boolean[], bigint) AS
WITH changed AS (
    UPDATE task SET attempt = r.attempt, failures = r.failures, crashes = r.crashes,
                    not_before = to_timestamp(r.not_before), is_cancelling = r.is_cancelling
    FROM unnest($1, $2, $3, $4, $5, $6) AS r(id, attempt, failures, crashes, not_before, is_cancelling)
    WHERE task.id = r.id RETURNING 1
)
SELECT expect(count(*), $7, 'tasks to give back to the queue') FROM changed
"""

CANCEL: Final = """
PREPARE cancel (bigint[], bigint) AS
WITH changed AS (UPDATE task SET is_cancelling = true WHERE id = ANY($1) RETURNING 1)
SELECT expect(count(*), $2, 'tasks to cancel') FROM changed
"""

LEASE: Final = """
PREPARE lease (bigint, text, double precision, bigint[], int[], bigint[], bigint[]) AS
INSERT INTO lease (id, node, leased_at, tasks, attempts, tokens, replicas)
VALUES ($1, $2, to_timestamp($3), $4, $5, $6, $7)
"""

END_LEASES: Final = """
PREPARE end_leases (bigint[], bigint) AS
WITH gone AS (DELETE FROM lease WHERE id = ANY($1) RETURNING 1)
SELECT expect(count(*), $2, 'lease rows to end') FROM gone
"""

PREPARED: Final = ";".join(
    ("PREPARE fence (bigint) AS SELECT fence($1)", INSERT, FINISH, REQUEUE, CANCEL, LEASE, END_LEASES)
)

# Column -> its place in a VALUES list.
IDEMPOTENCY: Final = {"key": "%s", "task": "%s", "at": "to_timestamp(%s)"}
ATTEMPT: Final = {
    "task": "%s", "attempt": "%s", "token": "%s", "node": "%s", "replica": "%s", "leased_at": "to_timestamp(%s)",
    "ended_at": "to_timestamp(%s)", "outcome": "%s", "error_type": "%s", "error_message": "%s",
}  # fmt: skip
CHECKPOINT: Final = {
    "thread_id": "%s", "namespace": "%s", "checkpoint_id": "%s", "parent_id": "%s", "payload": "%s",
}  # fmt: skip
WRITE: Final = {
    "thread_id": "%s", "namespace": "%s", "checkpoint_id": "%s", "writer_id": "%s", "index": "%s", "payload": "%s",
}  # fmt: skip
EVENT: Final = {
    "kind": "%s", "severity": "%s", "at": "to_timestamp(%s)", "node": "%s", "deployment": "%s", "replica": "%s",
    "task": "%s", "message": "%s", "data": "%s::jsonb", "actor": "%s",
}  # fmt: skip

# ------------------------------------------------------------------ sent together

MESSAGE_BYTES_MAX: Final = 32 * 1024 * 1024
"""Beyond it, what was gathered is sent; the transaction goes on."""
ROWS_MAX: Final = 1_000
"""In one VALUES list."""


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
