"""Reading what is stored, for the gateway and the link. Nothing here writes, and every list has a limit with a name.

What a live task is doing now is in the engine's memory, not here: here it is queued until it has ended.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar, cast

from sqlalchemy import Column, Connection, Float, Select, Table, extract, func, literal, null, select
from sqlalchemy import cast as sql_cast

from agentfarm.errors import NotFound
from controller.core.lives import FINAL_TASK_STATES, Outcome, TaskState
from controller.core.model import DeploymentName, NodeName, ReplicaId, Task, TaskId, Token, Version
from controller.core.policy import Policy
from controller.core.records import value_of
from controller.core.transition import CheckpointRow, EndedAttempt, Event, FinishedTask
from controller.journal import schema
from controller.journal.encode import options_of
from controller.journal.queries.pool import Pool

T = TypeVar("T")
TASKS_MAX: Final = 1_000
EVENTS_MAX: Final = 10_000
ATTEMPTS_SHOWN_MAX: Final = 1_000
CHECKPOINTS_MAX: Final = 1_000
CHUNKS_AT_ONCE: Final = 2  # of 1 MiB each


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """An event with the id by which a follower resumes. Ids grow in the order of commits."""

    id: int
    event: Event


class Reader:
    """Queries from any thread, on a small pool. Each raises Unavailable while PostgreSQL is away.

    A question of several statements sees one snapshot: a task that ends between two of them is not listed twice.
    """

    def __init__(self, dsn: str, *, connections_max: int = 4) -> None:
        self._pool = Pool(dsn, "reader", connections_max, isolation="REPEATABLE READ")

    def close(self) -> None:
        """Close every connection. Safe twice."""
        self._pool.close()

    # -------------------------------------------------------------- tasks

    def task(self, task: TaskId) -> Task | FinishedTask | None:
        """One stored task with its input and output; None if it never was, or is older than retention."""

        def read(connection: Connection) -> Task | FinishedTask | None:
            live = connection.execute(_live_tasks().where(schema.task.c.id == task)).first()
            if live is not None:
                return _live(live)
            row = connection.execute(_finished_tasks().where(schema.task_finished.c.id == task)).first()
            return _finished(row) if row is not None else None

        return self._read(read)

    def tasks(
        self,
        *,
        states: Collection[TaskState] = (),
        deployment: str | None = None,
        after: int | None = None,
        limit: int = 100,
    ) -> list[Task | FinishedTask]:
        """Newest first, ids below `after`, without inputs and outputs (both are empty or None), at most TASKS_MAX.

        states: any if empty. Live states all mean "not ended": ask the engine which.
        """
        limit = min(limit, TASKS_MAX)
        asked = set(states) or set(TaskState)
        final = asked & FINAL_TASK_STATES

        def read(connection: Connection) -> list[Task | FinishedTask]:
            tasks: list[Task | FinishedTask] = []
            if asked - FINAL_TASK_STATES:
                query = _page(_live_tasks(with_data=False), schema.task, deployment, after, limit)
                tasks += [_live(row) for row in connection.execute(query)]
            if final:
                query = _page(_finished_tasks(with_data=False), schema.task_finished, deployment, after, limit)
                if final != FINAL_TASK_STATES:
                    query = query.where(schema.task_finished.c.state.in_(sorted(final)))
                if TaskState.SUCCEEDED not in final:  # a plain word, so that the index of the unhappy ones serves
                    query = query.where(schema.task_finished.c.state != literal("succeeded", literal_execute=True))
                tasks += [_finished(row) for row in connection.execute(query)]
            return sorted(tasks, key=_id_of, reverse=True)[:limit]

        return self._read(read)

    def attempts(self, task: TaskId) -> list[EndedAttempt]:
        """The attempts of a task that have ended, oldest first; of an ended task the last one too."""
        attempt, finished = schema.attempt.c, schema.task_finished.c
        earlier = (
            select(
                attempt.attempt, attempt.token, attempt.node, attempt.replica, _seconds(attempt.leased_at),
                _seconds(attempt.ended_at), attempt.outcome, attempt.error_type, attempt.error_message,
            )
            .where(attempt.task == task).order_by(attempt.token).limit(ATTEMPTS_SHOWN_MAX)
        )  # fmt: skip
        last = select(
            finished.attempt, finished.token, finished.node, finished.replica, _seconds(finished.leased_at),
            _seconds(finished.finished_at), finished.state, finished.error_type, finished.error_message,
        ).where(finished.id == task, finished.token.is_not(null()))  # fmt: skip

        def read(connection: Connection) -> list[EndedAttempt]:
            attempts = [EndedAttempt(task, *row[:7], row[7] or "", row[8] or "") for row in connection.execute(earlier)]
            for row in connection.execute(last):
                outcome = _LAST_OUTCOME.get(row[6], row[6])
                attempts.append(EndedAttempt(task, *row[:6], outcome, row[7] or "", row[8] or ""))
            return attempts

        return self._read(read)

    def counts(self) -> dict[TaskState, int]:
        """How many tasks ended in each final state since the farm began."""
        tally = schema.task_tally.c
        query = select(tally.state, func.sum(tally.n)).group_by(tally.state)

        def read(connection: Connection) -> dict[TaskState, int]:
            counts = {TaskState(state): int(n) for state, n in connection.execute(query)}
            return {state: counts.get(state, 0) for state in sorted(FINAL_TASK_STATES)}

        return self._read(read)

    # -------------------------------------------------------------- events

    def events(
        self,
        *,
        after: int | None = None,
        limit: int = 100,
        kinds: Sequence[str] = (),
        severities: Sequence[str] = (),
        node: str | None = None,
        deployment: str | None = None,
        replica: int | None = None,
        task: int | None = None,
    ) -> list[StoredEvent]:
        """Oldest first: those with ids above `after`, or with None the newest ones. At most EVENTS_MAX.

        kinds: exact words, or with a dot at the end a family, such as "node.".
        """
        event = schema.event.c
        query = select(
            event.id, event.kind, _seconds(event.at), event.message, event.node, event.deployment, event.replica,
            event.task, event.severity, event.data, event.actor,
        ).limit(min(limit, EVENTS_MAX))  # fmt: skip
        query = query.order_by(event.id.desc()) if after is None else query.where(event.id > after).order_by(event.id)
        for column, value in (
            (event.node, node), (event.deployment, deployment), (event.replica, replica), (event.task, task),
        ):  # fmt: skip
            if value is not None:
                query = query.where(column == value)
        if severities:
            query = query.where(event.severity.in_(severities))
        if kinds:
            families = [event.kind.startswith(kind, autoescape=True) for kind in kinds if kind.endswith(".")]
            exact = [kind for kind in kinds if not kind.endswith(".")]
            query = query.where(_any_of([*families, event.kind.in_(exact)]))

        def read(connection: Connection) -> list[StoredEvent]:
            events = [StoredEvent(row[0], Event(*tuple(row)[1:])) for row in connection.execute(query)]
            return sorted(events, key=lambda event: event.id)

        return self._read(read)

    # -------------------------------------------------------------- deployments and bundles

    def versions(self, deployment: str) -> list[Version]:
        """Every stored version of a deployment, newest first."""
        column = schema.version.c
        query = (
            select(
                column.number, column.digest, column.spec, column.policy, _seconds(column.created_at), column.has_run
            )
            .where(column.deployment == deployment).order_by(column.number.desc())
        )  # fmt: skip

        def read(connection: Connection) -> list[Version]:
            rows = connection.execute(query)
            return [
                Version(DeploymentName(deployment), row[0], row[1], row[2], value_of(Policy, row[3]), row[4], row[5])
                for row in rows
            ]

        return self._read(read)

    def has_bundle(self, digest: str) -> bool:
        """Whether these bytes are stored, whole."""
        query = select(schema.bundle.c.digest).where(schema.bundle.c.digest == digest)
        return self._read(lambda connection: connection.execute(query).first() is not None)

    def bundle_chunks(self, digest: str, offset: int = 0) -> tuple[int, list[bytes]]:
        """(total size, the next chunks from a byte offset on); no chunks at the end. Raises NotFound."""
        chunk_bytes = schema.BUNDLE_CHUNK_BYTES
        first, skip = divmod(max(offset, 0), chunk_bytes)
        chunk = schema.bundle_chunk.c
        size = select(schema.bundle.c.size).where(schema.bundle.c.digest == digest)
        query = (
            select(chunk.data)
            .where(chunk.digest == digest, chunk.number >= first, chunk.number < first + CHUNKS_AT_ONCE)
            .order_by(chunk.number)
        )

        def read(connection: Connection) -> tuple[int, list[bytes]]:
            total = connection.execute(size).scalar()
            if total is None:
                raise NotFound(f"No bundle {digest} is stored.", remedy="Deploy the agent again.")
            chunks = [bytes(row[0]) for row in connection.execute(query)] if offset < total else []
            if chunks:
                chunks[0] = chunks[0][skip:]
            return int(total), chunks

        return self._read(read)

    # -------------------------------------------------------------- checkpoints

    def checkpoints(
        self, thread_id: str, namespace: str, checkpoint_id: str = "", before_id: str = "", limit: int = 1
    ) -> list[CheckpointRow]:
        """Checkpoints of a thread with their writes, newest first.

        checkpoint_id: only that one, if not empty. before_id: only older ones, if not empty.
        """
        column, write = schema.checkpoint.c, schema.checkpoint_write.c
        query = select(column.checkpoint_id, column.parent_id, column.payload).where(
            column.thread_id == thread_id, column.namespace == namespace
        )
        if checkpoint_id:
            query = query.where(column.checkpoint_id == checkpoint_id)
        if before_id:
            query = query.where(column.checkpoint_id < before_id)
        query = query.order_by(column.checkpoint_id.desc()).limit(min(limit, CHECKPOINTS_MAX))

        def read(connection: Connection) -> list[CheckpointRow]:
            rows = connection.execute(query).all()
            writes: dict[str, list[tuple[str, int, bytes]]] = {row.checkpoint_id: [] for row in rows}
            if rows:
                theirs = (
                    select(write.checkpoint_id, write.writer_id, write.index, write.payload)
                    .where(write.thread_id == thread_id, write.namespace == namespace)
                    .where(write.checkpoint_id.in_(list(writes)))
                    .order_by(write.checkpoint_id, write.writer_id, write.index)
                )
                for row in connection.execute(theirs):
                    writes[row[0]].append((row[1], row[2], bytes(row[3])))
            return [
                CheckpointRow(thread_id, namespace, row[0], row[1], bytes(row[2]), tuple(writes[row[0]]))
                for row in rows
            ]

        return self._read(read)

    def _read(self, query: Callable[[Connection], T]) -> T:
        return self._pool.run(query, may_repeat=True)


# ------------------------------------------------------------------ rows

_LAST_OUTCOME: Final = {TaskState.DEAD: Outcome.FAILED}  # the word for a task is not always one for its last attempt


def _seconds(column: Column[Any]) -> Any:
    return sql_cast(extract("epoch", column), Float(53)).label(column.name)


def _any_of(conditions: list[Any]) -> Any:
    joined = conditions[0]
    for condition in conditions[1:]:
        joined = joined | condition
    return joined


def _page(query: Select[Any], table: Table, deployment: str | None, after: int | None, limit: int) -> Select[Any]:
    if deployment is not None:
        query = query.where(table.c.deployment == deployment)
    if after is not None:
        query = query.where(table.c.id < after)
    return query.order_by(table.c.id.desc()).limit(limit)


def _common(table: Table, *, with_data: bool) -> list[Any]:
    column = table.c
    return [
        column.id, column.deployment, column.priority, _seconds(column.submitted_at),
        column.input if with_data else null().label("input"), func.octet_length(column.input).label("input_size"),
        column.attempt, column.failures, column.crashes, column.options,
    ]  # fmt: skip


def _live_tasks(*, with_data: bool = True) -> Select[Any]:
    return select(*_common(schema.task, with_data=with_data), schema.task.c.is_cancelling)


def _finished_tasks(*, with_data: bool = True) -> Select[Any]:
    column = schema.task_finished.c
    return select(
        *_common(schema.task_finished, with_data=with_data), column.state, _seconds(column.finished_at),
        column.output if with_data else null().label("output"), column.error_type, column.error_message,
        column.error_traceback if with_data else null().label("error_traceback"),
        column.version, column.node, column.replica, column.token, _seconds(column.leased_at),
    )  # fmt: skip


def _live(row: Any) -> Task:
    return Task(
        id=TaskId(row.id), deployment=DeploymentName(row.deployment), priority=row.priority,
        submitted_at=row.submitted_at, input=bytes(row.input) if row.input is not None else None,
        input_size=row.input_size, attempt=row.attempt, failures=row.failures, crashes=row.crashes,
        options=options_of(row.options), is_cancelling=getattr(row, "is_cancelling", False),
    )  # fmt: skip


def _finished(row: Any) -> FinishedTask:
    task = _live(row)
    task.state = TaskState(row.state)
    task.node = cast("NodeName | None", row.node)
    task.replica = cast("ReplicaId | None", row.replica)
    task.token = cast("Token | None", row.token)
    task.leased_at = row.leased_at or 0.0
    return FinishedTask(
        task, task.state, row.finished_at, bytes(row.output or b""), row.error_type or "", row.error_message or "",
        row.error_traceback or "", row.version,
    )  # fmt: skip


def _id_of(item: Task | FinishedTask) -> int:
    return item.task.id if isinstance(item, FinishedTask) else item.id
