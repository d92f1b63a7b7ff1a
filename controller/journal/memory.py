"""A journal without PostgreSQL: the same promises, kept in plain tables in memory.

The simulator and the core's tests run on it; a suite shared with the real journal holds the two together. `Tables` is
the database: it outlives controllers and may be shared by several. `MemoryJournal` is one controller's connection.

Rows are copies made at the commit, never the live objects, so that a state which was not committed cannot leak into
what is read back. Like the real journal it refuses rows that are not as the core believes (JournalCorrupt).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from agentfarm.errors import Unavailable
from controller.core.lives import TaskState
from controller.core.model import DeploymentName, FarmState, Instant, Limits, Replica, Task, TaskId, TaskOptions
from controller.core.parts import TABLE_OF, TABLES
from controller.core.records import Clock, Row, Table
from controller.core.restore import Floors, restore
from controller.core.transition import Changes, CheckpointRow, EndedAttempt, Event, FinishedTask, LeaseBatch
from controller.journal.errors import JournalCorrupt, LostLead, fitting

AS_WALL: Final = Clock(0.0)
T = TypeVar("T")
K = TypeVar("K")
V = TypeVar("V")


@dataclass(slots=True)
class TaskRow:
    """A live task as it is stored: its lease, if any, is in a lease row."""

    id: TaskId
    deployment: DeploymentName
    priority: int
    submitted_at: float
    input: bytes
    options: TaskOptions | None
    attempt: int = 0
    failures: int = 0
    crashes: int = 0
    not_before: float | None = None
    """wall."""
    is_cancelling: bool = False


@dataclass(slots=True)
class Tables:
    """What is durable. Moments of monotonic clocks are stored as wall times."""

    epoch: int = 0
    task_floor: int = 1
    replica_floor: int = 1
    tasks: dict[TaskId, TaskRow] = field(default_factory=dict)
    finished: dict[TaskId, FinishedTask] = field(default_factory=dict)
    attempts: list[EndedAttempt] = field(default_factory=list)
    leases: dict[int, LeaseBatch] = field(default_factory=dict)
    rows: dict[type[Any], dict[Any, Row]] = field(default_factory=lambda: {table.kind: {} for table in TABLES})
    """Rows of records by their keys."""
    keys: dict[str, TaskId] = field(default_factory=dict)
    checkpoints: dict[tuple[str, str, str], CheckpointRow] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    keeps_events: bool = True

    def stored(self, kind: type[T]) -> list[T]:
        """The records of a kind as they are stored, their moments as wall times."""
        table = TABLE_OF[kind]
        return [table.thing(row, AS_WALL) for row in self.rows[kind].values()]

    def find(self, kind: type[T], key: Any) -> T | None:
        """One record as it is stored."""
        row = self.rows[kind].get(key)
        return None if row is None else TABLE_OF[kind].thing(row, AS_WALL)


class MemoryJournal:
    """One controller's view of the tables."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self._epoch = tables.epoch
        self._clock: Clock | None = None

    def take_lead(self) -> int:
        """Become the leader; every earlier leader's commits are refused from now on."""
        self._tables.epoch += 1
        self._epoch = self._tables.epoch
        return self._epoch

    def commit(self, changes: Changes, epoch: int) -> None:
        """Store one turn, all or nothing. Raises LostLead if another leads."""
        if epoch != self._tables.epoch:
            raise LostLead(f"Another controller leads now: epoch {epoch} is over.", epoch=epoch)
        if self._clock is None:
            raise Unavailable("The state was not read since the last error.", remedy="Call take_lead, then load.")
        Commit(self._tables, self._clock).write(changes)

    def commit_here(self, changes: Changes, epoch: int) -> None:
        """Never: `commit` does not block."""

    def load(self, limits: Limits, now: Instant) -> FarmState:
        """The live farm, with leases that hold for reissue_after_s from `now`."""
        self._clock = Clock.at(now)
        with fitting():
            return restore(Snapshot(self._tables), limits, now, self._epoch)

    def find_keys(self, keys: Sequence[str]) -> dict[str, TaskId]:
        """Tasks stored under these idempotency keys."""
        return {key: self._tables.keys[key] for key in keys if key in self._tables.keys}

    def read_inputs(self, ids: Sequence[TaskId]) -> dict[TaskId, bytes]:
        """Inputs of live tasks."""
        return {task: self._tables.tasks[task].input for task in ids}


# ------------------------------------------------------------------ writing


class Commit:
    """Applies one turn's changes to the tables, in the order of the real journal."""

    def __init__(self, tables: Tables, clock: Clock) -> None:
        self._tables = tables
        self._clock = clock

    def write(self, changes: Changes) -> None:
        """Everything of the turn."""
        self._tasks(changes)
        self._leases(changes)
        self._records(changes)
        for row in changes.checkpoints:
            self._checkpoint(row)
        for thread in changes.dropped_threads:
            for key in [key for key in self._tables.checkpoints if key[0] == thread]:
                del self._tables.checkpoints[key]
        if self._tables.keeps_events:
            self._tables.events.extend(changes.events)

    def _tasks(self, changes: Changes) -> None:
        tables = self._tables
        for task in changes.inserted_tasks:
            self._insert(task)
        for task in changes.requeued_tasks:
            row = _row(tables.tasks, task.id, "tasks to give back to the queue")
            row.attempt = task.attempt - (task.token is not None)  # leased again in the same turn: its lease row counts
            row.failures, row.crashes = task.failures, task.crashes
            row.not_before, row.is_cancelling = self._clock.wall(task.not_before), task.is_cancelling
        for task_id in changes.cancelling_tasks:
            _row(tables.tasks, task_id, "tasks to cancel").is_cancelling = True
        for item in changes.finished_tasks:
            _row(tables.tasks, item.task.id, "tasks to finish")
            if item.task.id in tables.finished:
                raise JournalCorrupt(f"Task {item.task.id} was finished before.")
            del tables.tasks[item.task.id]
            tables.finished[item.task.id] = dataclasses.replace(item, task=dataclasses.replace(item.task))
        tables.attempts.extend(changes.ended_attempts)

    def _insert(self, task: Task) -> None:
        tables = self._tables
        if task.id in tables.tasks or task.id in tables.finished:
            raise JournalCorrupt(f"Task {task.id} was stored before.")
        if task.input is None:
            raise JournalCorrupt(f"The input of task {task.id} was forgotten before it was stored.")
        tables.tasks[task.id] = TaskRow(
            task.id, task.deployment, task.priority, task.submitted_at, task.input, task.options
        )
        tables.task_floor = max(tables.task_floor, task.id + 1)
        key = task.options.idempotency_key if task.options is not None else None
        if key is not None:
            if key in tables.keys:
                raise JournalCorrupt(f"Two tasks have the idempotency key {key!r}.")
            tables.keys[key] = task.id

    def _leases(self, changes: Changes) -> None:
        tables = self._tables
        for batch in changes.lease_batches:
            if batch.id in tables.leases:
                raise JournalCorrupt(f"Lease row {batch.id} was stored before.")
            tables.leases[batch.id] = dataclasses.replace(
                batch, tasks=list(batch.tasks), attempts=list(batch.attempts), tokens=list(batch.tokens),
                replicas=list(batch.replicas),
            )  # fmt: skip
        for number in changes.ended_lease_batches:
            _row(tables.leases, number, "lease rows to end")
            del tables.leases[number]

    def _records(self, changes: Changes) -> None:
        tables = self._tables
        for thing in changes.removed.values():
            table = TABLE_OF[type(thing)]
            tables.rows[table.kind].pop(table.key_of(thing), None)
        for thing in changes.records.values():
            table = TABLE_OF[type(thing)]
            tables.rows[table.kind][table.key_of(thing)] = table.row(thing, self._clock)
        ids = [replica.id for replica in (*changes.stored(Replica), *changes.gone(Replica))]
        tables.replica_floor = max([tables.replica_floor, *(number + 1 for number in ids)])

    def _checkpoint(self, row: CheckpointRow) -> None:
        key = (row.thread_id, row.namespace, row.checkpoint_id)
        held = self._tables.checkpoints.get(key)
        writes = {(writer, index): payload for writer, index, payload in held.writes} if held is not None else {}
        writes |= {(writer, index): payload for writer, index, payload in row.writes}
        payload = row.payload if row.payload is not None or held is None else held.payload
        self._tables.checkpoints[key] = dataclasses.replace(
            row, payload=payload, writes=tuple((writer, index, data) for (writer, index), data in writes.items())
        )


# ------------------------------------------------------------------ reading


class Snapshot:
    """The rows, as they are: see `Rows` of controller/core/restore.py."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    def floors(self) -> Floors:
        """The next ids."""
        tables = self._tables
        return Floors(tables.task_floor, tables.replica_floor, max(tables.leases, default=0) + 1)

    def records(self, table: Table[Any]) -> list[Row]:
        """Rows of a table."""
        return [row for _, row in sorted(self._tables.rows[table.kind].items())]

    def tasks(self, names: Mapping[str, DeploymentName], clock: Clock) -> Iterator[Task]:
        """Tasks without their inputs."""
        for row in sorted(self._tables.tasks.values(), key=lambda row: row.id):
            yield Task(
                row.id, names[row.deployment], row.priority, row.submitted_at, None, len(row.input), row.attempt,
                row.failures, row.crashes, TaskState.QUEUED, row.options, clock.mono(row.not_before),
                row.is_cancelling, row.attempt > 0,
            )  # fmt: skip

    def leases(self) -> list[LeaseBatch]:
        """Lease rows, the newest first."""
        return sorted(self._tables.leases.values(), key=lambda batch: batch.id, reverse=True)

    def inputs(self, last: TaskId) -> list[tuple[TaskId, bytes]]:
        """Inputs of the tasks up to `last`."""
        return [(row.id, row.input) for row in self._tables.tasks.values() if row.id <= last]

    def drop_leases(self, ids: list[int]) -> None:
        """Lease rows that hold nothing any more."""
        for number in ids:
            del self._tables.leases[number]


def _row(table: Mapping[K, V], key: K, what: str) -> V:
    try:
        return table[key]
    except KeyError:
        raise JournalCorrupt(f"There is no {key!r} among the {what}.") from None
