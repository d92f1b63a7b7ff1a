"""What one turn of the engine becomes in PostgreSQL: one transaction of a handful of statements.

Each statement takes whole arrays, so that a turn costs the same number of round trips whether it carries one task or a
thousand. Statements of the happy path are prepared once per connection; their plans are fixed (index lookups), for a
plan made while a table was empty must not meet a million rows.

The order inside: tasks come, change, go; then leases, nodes, deployments, replicas, checkpoints; events last.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from psycopg2.extensions import cursor as Cursor  # noqa: N812 - psycopg2 names a class in lower case
from psycopg2.extras import execute_values

from controller.core.model import Deployment, Node, Replica, ReplicaId, Task, Version
from controller.core.transition import Changes, CheckpointRow, FinishedTask
from controller.journal.encode import (
    TASK_COPY,
    Clock,
    blobs,
    clean,
    numbers,
    optional_words,
    task_rows,
    to_json,
    words,
)
from controller.journal.errors import JournalCorrupt, LostLead

SESSION_SETTINGS: Final = "-c enable_seqscan=off -c enable_hashjoin=off -c enable_mergejoin=off"
FINISH_BYTES_MAX: Final = 16 * 1024 * 1024  # outputs in one statement; more are split, in the same transaction
PAGE_ROWS: Final = 500  # rows in one statement of execute_values

FENCE: Final = "PREPARE fence (bigint) AS SELECT 1 FROM leader WHERE epoch = $1 FOR SHARE"

# Moves rows from the queue to their day partition, and keeps count. Returns how many moved.
FINISH: Final = """
PREPARE finish (bigint[], text[], double precision[], int[], int[], int[], bytea[], text[], text[], text[], int[],
                text[], bigint[], bigint[], double precision[]) AS
WITH ended AS (
    SELECT * FROM unnest($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15) AS ended(
        task, end_state, finished_at, tried, failed, crashed, output, error_type, error_message, error_traceback,
        version, node, replica, token, leased_at)
), moved AS (
    DELETE FROM task USING ended WHERE task.id = ended.task
    RETURNING task.id, task.deployment, task.priority, task.submitted_at, task.input, task.options, ended.*
), stored AS (
    INSERT INTO task_finished (id, deployment, priority, submitted_at, input, options, state, finished_at, attempt,
                               failures, crashes, output, error_type, error_message, error_traceback, version, node,
                               replica, token, leased_at)
    SELECT id, deployment, priority, submitted_at, input, options, end_state, to_timestamp(finished_at), tried,
           failed, crashed, output, error_type, error_message, error_traceback, version, node,
           replica, token, to_timestamp(leased_at)
    FROM moved
), counted AS (
    INSERT INTO task_tally AS tally (day, deployment, state, n)
    SELECT (to_timestamp(finished_at) AT TIME ZONE 'UTC')::date, deployment, end_state, count(*)
    FROM moved GROUP BY 1, 2, 3
    ON CONFLICT (day, deployment, state) DO UPDATE SET n = tally.n + excluded.n
)
SELECT count(*) FROM moved
"""

REQUEUE: Final = """
PREPARE requeue (bigint[], int[], int[], int[], double precision[], boolean[]) AS
UPDATE task SET attempt = r.attempt, failures = r.failures, crashes = r.crashes,
                not_before = to_timestamp(r.not_before), is_cancelling = r.is_cancelling
FROM unnest($1, $2, $3, $4, $5, $6) AS r(id, attempt, failures, crashes, not_before, is_cancelling)
WHERE task.id = r.id
"""

LEASE: Final = """
PREPARE lease (bigint, text, double precision, bigint[], int[], bigint[], bigint[]) AS
INSERT INTO lease (id, node, leased_at, tasks, attempts, tokens, replicas)
VALUES ($1, $2, to_timestamp($3), $4, $5, $6, $7)
"""

PREPARED: Final = ";".join((FENCE, FINISH, REQUEUE, LEASE))


class Committer:
    """Writes Changes on a cursor whose connection has run PREPARED. Knows which versions are stored, and as what."""

    def __init__(self, versions: Mapping[tuple[str, int], bool], replica_floor: int) -> None:
        self._clock = Clock(0.0)  # that of the turn in progress
        self._versions = dict(versions)
        self._replica_floor = replica_floor

    def write(self, cursor: Cursor, changes: Changes, epoch: int, clock: Clock) -> None:
        """One transaction. Raises LostLead if `epoch` is over, JournalCorrupt if rows are not as expected."""
        self._clock = clock
        cursor.execute("BEGIN; EXECUTE fence(%s)", (epoch,))
        if cursor.fetchone() is None:
            raise LostLead(
                f"Another controller leads now: epoch {epoch} is over.",
                remedy="This one stands by, or stops.",
                epoch=epoch,
            )
        self._tasks(cursor, changes)
        self._leases(cursor, changes)
        self._nodes(cursor, changes)
        self._deployments(cursor, changes)
        self._replicas(cursor, changes)
        if changes.checkpoints or changes.dropped_threads:
            _checkpoints(cursor, changes)
        if changes.events:
            _events(cursor, changes)
        cursor.execute("COMMIT")

    # -------------------------------------------------------------- tasks

    def _tasks(self, cursor: Cursor, changes: Changes) -> None:
        if changes.inserted_tasks:
            cursor.copy_expert(TASK_COPY, io.BytesIO(task_rows(changes.inserted_tasks)))
            _idempotency(cursor, changes.inserted_tasks)
        if changes.requeued_tasks:
            self._requeue(cursor, list({task.id: task for task in changes.requeued_tasks}.values()))
        if changes.cancelling_tasks:
            ids = set(changes.cancelling_tasks)
            cursor.execute("UPDATE task SET is_cancelling = true WHERE id = ANY(%s::bigint[])", (numbers(ids),))
            _expect(cursor.rowcount, len(ids), "tasks to cancel")
        for part in _parts(changes.finished_tasks):
            _finish(cursor, part)
        if changes.ended_attempts:
            _attempts(cursor, changes)

    def _requeue(self, cursor: Cursor, tasks: list[Task]) -> None:
        """A task leased again in the same turn keeps the count from before: its lease row bears the new attempt."""
        wall = self._clock.wall
        cursor.execute(
            "EXECUTE requeue(%s, %s, %s, %s, %s, %s)",
            (
                numbers(task.id for task in tasks),
                numbers(task.attempt - (task.token is not None) for task in tasks),
                numbers(task.failures for task in tasks),
                numbers(task.crashes for task in tasks),
                numbers(wall(task.not_before) for task in tasks),
                numbers(task.is_cancelling for task in tasks),
            ),
        )
        _expect(cursor.rowcount, len(tasks), "tasks to give back to the queue")

    # -------------------------------------------------------------- leases

    @staticmethod
    def _leases(cursor: Cursor, changes: Changes) -> None:
        for batch in changes.lease_batches:
            cursor.execute(
                "EXECUTE lease(%s, %s, %s, %s, %s, %s, %s)",
                (
                    batch.id, batch.node, batch.leased_at, numbers(batch.tasks), numbers(batch.attempts),
                    numbers(batch.tokens), numbers(batch.replicas),
                ),
            )  # fmt: skip
        if changes.ended_lease_batches:
            cursor.execute("DELETE FROM lease WHERE id = ANY(%s::bigint[])", (numbers(changes.ended_lease_batches),))
            _expect(cursor.rowcount, len(changes.ended_lease_batches), "lease rows to end")

    # -------------------------------------------------------------- what is registered

    def _nodes(self, cursor: Cursor, changes: Changes) -> None:
        if changes.forgotten_nodes:
            cursor.execute("DELETE FROM node WHERE name = ANY(%s)", (list(changes.forgotten_nodes),))
        if changes.nodes:
            _upsert(cursor, "node", NODE_COLUMNS, ("name",), [self._node(node) for node in changes.nodes.values()])

    def _node(self, node: Node) -> tuple[Any, ...]:
        return (
            node.name, node.state.value, node.is_cordoned, clean(node.cordon_reason),
            self._clock.drain_json(node.drain), node.cpu_millicores, node.memory_mib, node.gpus, to_json(node.labels),
            sorted(map(clean, node.capabilities)), sorted(map(clean, node.products)), clean(node.daemon_version),
            node.desired_generation, node.recent_failures,
        )  # fmt: skip

    def _deployments(self, cursor: Cursor, changes: Changes) -> None:
        if changes.forgotten_deployments:
            gone = set(changes.forgotten_deployments)
            cursor.execute("DELETE FROM deployment WHERE name = ANY(%s)", (list(gone),))  # and its versions
            self._versions = {key: it for key, it in self._versions.items() if key[0] not in gone}
        if not changes.deployments:
            return
        rows = [self._deployment(it) for it in changes.deployments.values()]
        _upsert(cursor, "deployment", DEPLOYMENT_COLUMNS, ("name",), rows)
        new = [
            (it.name, version)
            for it in changes.deployments.values()
            for version in it.versions.values()
            if self._versions.get((it.name, version.number)) is not version.has_run
        ]
        if new:
            rows = [_version(name, version) for name, version in new]
            _upsert(cursor, "version", VERSION_COLUMNS, ("deployment", "number"), rows)
            self._versions.update({(name, version.number): version.has_run for name, version in new})

    def _deployment(self, it: Deployment) -> tuple[Any, ...]:
        return (
            it.name, it.replicas_wanted, it.version, it.generation, self._clock.rollout_json(it.rollout),
            it.is_removed, it.is_halted, to_json(it.seat_failures),
        )  # fmt: skip

    def _replicas(self, cursor: Cursor, changes: Changes) -> None:
        highest = max([*changes.replicas, *changes.ended_replicas], default=0)
        if highest >= self._replica_floor:
            self._replica_floor = highest + 1  # an id is a fence: it must not come again after its row is gone
            cursor.execute("UPDATE leader SET replica_floor = %s", (self._replica_floor,))
        ended: set[ReplicaId] = set(changes.ended_replicas)
        rows = [self._replica(it) for it in changes.replicas.values() if it.id not in ended]
        if rows:
            _upsert(cursor, "replica", REPLICA_COLUMNS, ("id",), rows)
        if ended:
            cursor.execute("DELETE FROM replica WHERE id = ANY(%s::bigint[])", (numbers(ended),))

    def _replica(self, it: Replica) -> tuple[Any, ...]:
        return (
            it.id, it.deployment, it.seat, it.version, it.state.value, it.node, it.is_retiring, clean(it.reason),
            clean(it.detail), it.restarts, it.pid, it.private_mib, it.ready_ms, it.since,
            self._clock.wall(it.not_before), it.served,
        )  # fmt: skip


# ------------------------------------------------------------------ statements


def _parts(finished: Sequence[FinishedTask]) -> Iterable[Sequence[FinishedTask]]:
    """Cut where the outputs of one statement would grow too large."""
    start, size = 0, 0
    for index, item in enumerate(finished):
        size += len(item.output)
        if size > FINISH_BYTES_MAX and index > start:
            yield finished[start:index]
            start, size = index, len(item.output)
    if start < len(finished):
        yield finished[start:]


def _finish(cursor: Cursor, finished: Sequence[FinishedTask]) -> None:
    tasks = [item.task for item in finished]
    cursor.execute(
        "EXECUTE finish(%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
        (
            numbers(task.id for task in tasks),
            "{" + ",".join([item.state.value for item in finished]) + "}",
            numbers(item.finished_at for item in finished),
            numbers(task.attempt for task in tasks),
            numbers(task.failures for task in tasks),
            numbers(task.crashes for task in tasks),
            blobs(item.output for item in finished),
            optional_words([item.error_type for item in finished]),
            optional_words([item.error_message for item in finished]),
            optional_words([item.error_traceback for item in finished]),
            numbers(item.version for item in finished),
            words(task.node for task in tasks),
            numbers(task.replica for task in tasks),
            numbers(task.token for task in tasks),
            numbers(task.leased_at if task.token is not None else None for task in tasks),
        ),
    )
    row = cursor.fetchone()
    _expect(row[0] if row else 0, len(finished), "tasks to finish")


def _idempotency(cursor: Cursor, tasks: Sequence[Task]) -> None:
    keyed = [
        (clean(task.options.idempotency_key), task.id, task.submitted_at)
        for task in tasks
        if task.options is not None and task.options.idempotency_key is not None
    ]
    if keyed:
        execute_values(
            cursor, "INSERT INTO idempotency (key, task, at) VALUES %s", keyed, "(%s, %s, to_timestamp(%s))", PAGE_ROWS
        )


def _attempts(cursor: Cursor, changes: Changes) -> None:
    execute_values(
        cursor,
        "INSERT INTO attempt (task, attempt, token, node, replica, leased_at, ended_at, outcome, error_type,"
        " error_message) VALUES %s",
        [
            (
                it.task, it.attempt, it.token, it.node, it.replica, it.leased_at, it.ended_at, it.outcome,
                clean(it.error_type), clean(it.error_message),
            )
            for it in changes.ended_attempts
        ],
        "(%s, %s, %s, %s, %s, to_timestamp(%s), to_timestamp(%s), %s, %s, %s)",
        PAGE_ROWS,
    )  # fmt: skip


def _version(name: str, it: Version) -> tuple[Any, ...]:
    return name, it.number, it.digest, clean(it.spec_json), to_json(it.policy), it.created_at, it.has_run


def _checkpoints(cursor: Cursor, changes: Changes) -> None:
    """Of a turn that both stores and drops a thread: a run that has ended needs it no more, so dropping wins."""
    whole = {_checkpoint_key(row): row for row in changes.checkpoints if row.payload is not None}
    if whole:
        rows = [(*key, clean(row.parent_id), row.payload) for key, row in whole.items()]
        _upsert(cursor, "checkpoint", CHECKPOINT_COLUMNS, ("thread_id", "namespace", "checkpoint_id"), rows)
    writes = {
        (*_checkpoint_key(row), clean(writer), index): payload
        for row in changes.checkpoints
        for writer, index, payload in row.writes
    }
    if writes:
        parts = [(*key, payload) for key, payload in writes.items()]
        _upsert(cursor, "checkpoint_write", WRITE_COLUMNS, tuple(WRITE_COLUMNS)[:5], parts)
    if changes.dropped_threads:
        threads = [clean(thread) for thread in changes.dropped_threads]
        cursor.execute(
            "DELETE FROM checkpoint_write WHERE thread_id = ANY(%s); DELETE FROM checkpoint WHERE thread_id = ANY(%s)",
            (threads, threads),
        )


def _checkpoint_key(row: CheckpointRow) -> tuple[str, str, str]:
    return clean(row.thread_id), clean(row.namespace), clean(row.checkpoint_id)


def _events(cursor: Cursor, changes: Changes) -> None:
    execute_values(
        cursor,
        "INSERT INTO event (kind, severity, at, node, deployment, replica, task, message, data) VALUES %s",
        [
            (it.kind, it.severity, it.at, it.node, it.deployment, it.replica, it.task, clean(it.message),
             to_json(it.data))
            for it in changes.events
        ],
        "(%s, %s, to_timestamp(%s), %s, %s, %s, %s, %s, %s)",
        PAGE_ROWS,
    )  # fmt: skip


# Column -> its place in a VALUES list.
NODE_COLUMNS: Final = {
    "name": "%s", "state": "%s", "is_cordoned": "%s", "cordon_reason": "%s", "drain": "%s::jsonb",
    "cpu_millicores": "%s", "memory_mib": "%s", "gpus": "%s", "labels": "%s::jsonb", "capabilities": "%s::text[]",
    "products": "%s::text[]", "daemon_version": "%s", "desired_generation": "%s", "recent_failures": "%s",
}  # fmt: skip
DEPLOYMENT_COLUMNS: Final = {
    "name": "%s", "replicas_wanted": "%s", "version": "%s", "generation": "%s", "rollout": "%s::jsonb",
    "is_removed": "%s", "is_halted": "%s", "seat_failures": "%s::jsonb",
}  # fmt: skip
VERSION_COLUMNS: Final = {
    "deployment": "%s", "number": "%s", "digest": "%s", "spec": "%s", "policy": "%s::jsonb",
    "created_at": "to_timestamp(%s)", "has_run": "%s",
}  # fmt: skip
REPLICA_COLUMNS: Final = {
    "id": "%s", "deployment": "%s", "seat": "%s", "version": "%s", "state": "%s", "node": "%s", "is_retiring": "%s",
    "reason": "%s", "detail": "%s", "restarts": "%s", "pid": "%s", "private_mib": "%s", "ready_ms": "%s",
    "since": "to_timestamp(%s)", "not_before": "to_timestamp(%s)", "served": "%s",
}  # fmt: skip
CHECKPOINT_COLUMNS: Final = {
    "thread_id": "%s", "namespace": "%s", "checkpoint_id": "%s", "parent_id": "%s", "payload": "%s",
}  # fmt: skip
WRITE_COLUMNS: Final = {
    "thread_id": "%s", "namespace": "%s", "checkpoint_id": "%s", "writer_id": "%s", "index": "%s", "payload": "%s",
}  # fmt: skip


def _upsert(
    cursor: Cursor, table: str, columns: dict[str, str], key: tuple[str, ...], rows: Sequence[tuple[Any, ...]]
) -> None:
    changed = ", ".join(f"{name} = excluded.{name}" for name in columns if name not in key)
    statement = (
        f"INSERT INTO {table} ({', '.join(columns)}) VALUES %s"  # noqa: S608 - names are ours, values are arguments
        f" ON CONFLICT ({', '.join(key)}) DO UPDATE SET {changed}"
    )
    execute_values(cursor, statement, rows, f"({', '.join(columns.values())})", PAGE_ROWS)


def _expect(found: int, expected: int, what: str) -> None:
    if found != expected:
        raise JournalCorrupt(f"PostgreSQL has {found} of {expected} {what}.", found=found, expected=expected)
