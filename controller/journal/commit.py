"""What one turn of the engine becomes in PostgreSQL: one transaction, which costs the same number of round trips
whether it carries one task or a thousand.

The order inside: fence; tasks come, change, go; leases; records; checkpoints; events last.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from psycopg2.extensions import cursor as Cursor  # noqa: N812 - psycopg2 names a class in lower case

from controller.core.model import Replica, Task
from controller.core.records import Clock
from controller.core.transition import Changes, CheckpointRow, FinishedTask
from controller.journal import rows, statements
from controller.journal.encode import (
    TASK_COPY,
    Blobs,
    clean,
    numbers,
    optional_words,
    options_json,
    task_rows,
    to_json,
    words,
)
from controller.journal.statements import Batch

FINISH_BYTES_MAX: Final = 16 * 1024 * 1024  # outputs in one statement; more are split, in the same transaction
COPY_FROM: Final = 16  # tasks; fewer travel in the turn's own message


class Committer:
    """Writes Changes on a connection that has run statements.PREPARED."""

    def __init__(self, replica_floor: int) -> None:
        self._clock = Clock(0.0)
        """That of the turn in progress."""
        self._replica_floor = replica_floor

    def write(self, cursor: Cursor, changes: Changes, epoch: int, clock: Clock) -> None:
        """One transaction. The guards in PostgreSQL end it when `epoch` is over or rows are not as expected."""
        self._clock = clock
        batch = Batch(cursor)
        batch.execute("fence", epoch)
        self._tasks(batch, changes)
        _leases(batch, changes)
        if changes.records or changes.removed:
            self._keep_ids(batch, changes)
            rows.store(batch, changes, clock)
        _checkpoints(batch, changes)
        if changes.events:
            batch.insert("event", statements.EVENT, [
                (event.kind, event.severity, event.at, event.node, event.deployment, event.replica, event.task,
                 clean(event.message), to_json(event.data), clean(event.actor))
                for event in changes.events
            ])  # fmt: skip
        batch.commit()

    # -------------------------------------------------------------- tasks

    def _tasks(self, batch: Batch, changes: Changes) -> None:
        if changes.inserted_tasks:
            _insert(batch, changes.inserted_tasks)
        if changes.requeued_tasks:
            self._requeue(batch, list({task.id: task for task in changes.requeued_tasks}.values()))
        if changes.cancelling_tasks:
            ids = set(changes.cancelling_tasks)
            batch.execute("cancel", numbers(ids), len(ids))
        for part in _parts(changes.finished_tasks):
            _finish(batch, part)
        if changes.ended_attempts:
            batch.insert("attempt", statements.ATTEMPT, [
                (attempt.task, attempt.attempt, attempt.token, attempt.node, attempt.replica, attempt.leased_at,
                 attempt.ended_at, attempt.outcome, clean(attempt.error_type), clean(attempt.error_message))
                for attempt in changes.ended_attempts
            ])  # fmt: skip

    def _requeue(self, batch: Batch, tasks: list[Task]) -> None:
        """A task leased again in the same turn keeps the count from before: its lease row bears the new attempt."""
        wall = self._clock.wall
        batch.execute(
            "requeue",
            numbers(task.id for task in tasks),
            numbers(task.attempt - (task.token is not None) for task in tasks),
            numbers(task.failures for task in tasks),
            numbers(task.crashes for task in tasks),
            numbers(wall(task.not_before) for task in tasks),
            numbers(task.is_cancelling for task in tasks),
            len(tasks),
        )

    # -------------------------------------------------------------- replicas

    def _keep_ids(self, batch: Batch, changes: Changes) -> None:
        """The id of a replica is a fence: it must not come again after its row is gone."""
        ids = [replica.id for replica in (*changes.stored(Replica), *changes.gone(Replica))]
        if ids and max(ids) >= self._replica_floor:
            self._replica_floor = max(ids) + 1
            batch.add("UPDATE leader SET replica_floor = %s", self._replica_floor)


# ------------------------------------------------------------------ rows


def _insert(batch: Batch, tasks: Sequence[Task]) -> None:
    if len(tasks) >= COPY_FROM:
        batch.copy(TASK_COPY, task_rows(tasks))
    else:
        inputs = Blobs.of([task.input or b"" for task in tasks])
        batch.execute(
            "insert_tasks",
            numbers(task.id for task in tasks),
            words(task.deployment for task in tasks),
            numbers(task.priority for task in tasks),
            numbers(task.submitted_at for task in tasks),
            numbers(inputs.at),
            numbers(inputs.sizes),
            words(options_json(task.options) for task in tasks),
            inputs.all,
        )
    keyed = [
        (clean(task.options.idempotency_key), task.id, task.submitted_at)
        for task in tasks
        if task.options is not None and task.options.idempotency_key is not None
    ]
    batch.insert("idempotency", statements.IDEMPOTENCY, keyed)


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


def _finish(batch: Batch, finished: Sequence[FinishedTask]) -> None:
    tasks = [item.task for item in finished]
    outputs = Blobs.of([item.output for item in finished])
    batch.execute(
        "finish",
        numbers(task.id for task in tasks),
        "{" + ",".join([item.state.value for item in finished]) + "}",
        numbers(item.finished_at for item in finished),
        numbers(task.attempt for task in tasks),
        numbers(task.failures for task in tasks),
        numbers(task.crashes for task in tasks),
        numbers(outputs.at),
        numbers(outputs.sizes),
        optional_words([item.error_type for item in finished]),
        optional_words([item.error_message for item in finished]),
        optional_words([item.error_traceback for item in finished]),
        numbers(item.version for item in finished),
        words(task.node for task in tasks),
        numbers(task.replica for task in tasks),
        numbers(task.token for task in tasks),
        numbers(task.leased_at if task.token is not None else None for task in tasks),
        len(tasks),
        outputs.all,
    )


def _leases(batch: Batch, changes: Changes) -> None:
    for row in changes.lease_batches:
        batch.execute(
            "lease", row.id, row.node, row.leased_at, numbers(row.tasks), numbers(row.attempts), numbers(row.tokens),
            numbers(row.replicas),
        )  # fmt: skip
    if changes.ended_lease_batches:
        batch.execute("end_leases", numbers(changes.ended_lease_batches), len(changes.ended_lease_batches))


def _checkpoints(batch: Batch, changes: Changes) -> None:
    """Of a turn that both stores and drops a thread: a run that has ended needs it no more, so dropping wins."""
    whole = {_checkpoint_key(row): row for row in changes.checkpoints if row.payload is not None}
    stored = [(*key, clean(row.parent_id), row.payload) for key, row in whole.items()]
    batch.insert("checkpoint", statements.CHECKPOINT, stored, key=("thread_id", "namespace", "checkpoint_id"))
    writes = {
        (*_checkpoint_key(row), clean(writer), index): payload
        for row in changes.checkpoints
        for writer, index, payload in row.writes
    }
    parts = [(*key, payload) for key, payload in writes.items()]
    batch.insert("checkpoint_write", statements.WRITE, parts, key=tuple(statements.WRITE)[:5])
    if changes.dropped_threads:
        threads = [clean(thread) for thread in changes.dropped_threads]
        batch.add("DELETE FROM checkpoint_write WHERE thread_id = ANY(%s)", threads)
        batch.add("DELETE FROM checkpoint WHERE thread_id = ANY(%s)", threads)


def _checkpoint_key(row: CheckpointRow) -> tuple[str, str, str]:
    return clean(row.thread_id), clean(row.namespace), clean(row.checkpoint_id)
