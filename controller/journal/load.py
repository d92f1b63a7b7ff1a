"""The live farm, read back from PostgreSQL.

What is only in memory while the farm runs is given its careful value: a node that was ready is unreachable, last heard
of now, so that its leases hold for as long as it may need to come back; a leased task may be running; every timer is
set again.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterator
from typing import Any, Final

from psycopg2.extensions import connection as Connection  # noqa: N812 - psycopg2 names a class in lower case
from psycopg2.extensions import cursor as Cursor  # noqa: N812
from psycopg2.extras import NamedTupleCursor

from controller.core.lives import NodeState, ReplicaState, TaskState
from controller.core.model import (
    Deployment,
    FarmState,
    Instant,
    Limits,
    Node,
    Product,
    Replica,
    Task,
    TaskId,
    Version,
)
from controller.core.tasks.life import queue_timeout_s
from controller.core.waits import bound_waits
from controller.journal.encode import Clock, options_of, policy_of

TOKEN_EPOCH_SHIFT: Final = 40  # a token is epoch << 40 | counter
PAGE: Final = 5_000  # rows fetched at once


def load_state(connection: Connection, limits: Limits, now: Instant, epoch: int) -> FarmState:
    """Everything live, in one snapshot. Drivers' errors pass through."""
    state = FarmState(epoch=epoch, limits=limits, next_token=epoch << TOKEN_EPOCH_SHIFT, last_turn=now.mono,
                      failures_halved_at=now.mono)  # fmt: skip
    clock = Clock.at(now)
    cursor: Any  # of rows with names, which the driver's types do not know
    with connection.cursor(cursor_factory=NamedTupleCursor) as cursor:
        cursor.execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SET LOCAL statement_timeout = 0;"
                       " SET LOCAL enable_seqscan = on; SET LOCAL enable_hashjoin = on")  # fmt: skip
        _ids(cursor, state)
        _nodes(cursor, state, clock, now)
        _products(cursor, state)
        _deployments(cursor, state, clock)
        _replicas(cursor, state, clock)
        _tasks(cursor, state, clock)
        empty = _leases(cursor, state)
        if empty:
            cursor.execute("DELETE FROM lease WHERE id = ANY(%s)", (empty,))
        _inputs(cursor, state)
        cursor.execute("COMMIT")
    _queue(state)
    bound_waits(state, now)
    _timers(state, now)
    return state


# ------------------------------------------------------------------ rows


def _ids(cursor: Any, state: FarmState) -> None:
    """The next ids: above every row there is, and above every row there ever was."""
    cursor.execute(
        "SELECT GREATEST(task_floor, COALESCE((SELECT max(id) FROM task), 0) + 1,"
        " COALESCE((SELECT max(id) FROM task_finished), 0) + 1) AS task,"
        " GREATEST(replica_floor, COALESCE((SELECT max(id) FROM replica), 0) + 1) AS replica,"
        " COALESCE((SELECT max(id) FROM lease), 0) + 1 AS batch FROM leader"
    )
    row = cursor.fetchone()
    assert row is not None
    state.next_task, state.next_replica, state.next_batch = row.task, row.replica, row.batch


def _nodes(cursor: Any, state: FarmState, clock: Clock, now: Instant) -> None:
    cursor.execute("SELECT * FROM node")
    for row in cursor:
        stored = NodeState(row.state)
        state.nodes[row.name] = Node(
            name=row.name,
            state=NodeState.UNREACHABLE if stored is NodeState.READY else stored,
            is_cordoned=row.is_cordoned,
            cordon_reason=row.cordon_reason,
            drain=clock.drain_of(row.drain),
            last_heard=now.mono if stored in (NodeState.READY, NodeState.UNREACHABLE) else 0.0,
            cpu_millicores=row.cpu_millicores,
            memory_mib=row.memory_mib,
            gpus=row.gpus,
            labels=row.labels,
            capabilities=frozenset(row.capabilities),
            products=frozenset(row.products),
            takes_products=row.takes_products,
            market_source=row.market_source,
            metrics_address=row.metrics_address,
            daemon_version=row.daemon_version,
            desired_generation=row.desired_generation,
            recent_failures=row.recent_failures,
        )


def _products(cursor: Any, state: FarmState) -> None:
    cursor.execute("SELECT name, source, copies, nodes, extract(epoch from added_at)::float AS added_at FROM product")
    for row in cursor:
        state.products[row.name] = Product(row.name, row.source, row.copies, set(row.nodes), row.added_at)
        for name in row.nodes:
            state.nodes[name].assigned.add(row.name)


def _deployments(cursor: Any, state: FarmState, clock: Clock) -> None:
    cursor.execute("SELECT * FROM deployment")
    for row in cursor.fetchall():
        state.deployments[row.name] = Deployment(
            name=row.name,
            replicas_wanted=row.replicas_wanted,
            version=row.version,
            versions={},
            generation=row.generation,
            rollout=clock.rollout_of(row.rollout),
            is_removed=row.is_removed,
            is_halted=row.is_halted,
            seat_failures={int(seat): count for seat, count in row.seat_failures.items()},
        )
    cursor.execute(
        "SELECT deployment, number, digest, spec, policy, extract(epoch from created_at)::float AS created_at,"
        " has_run FROM version ORDER BY deployment, number"
    )
    for row in cursor:
        state.deployments[row.deployment].versions[row.number] = Version(
            row.number, row.digest, row.spec, policy_of(row.policy), row.created_at, row.has_run
        )


def _replicas(cursor: Any, state: FarmState, clock: Clock) -> None:
    cursor.execute(
        "SELECT id, deployment, seat, version, state, node, is_retiring, reason, detail, restarts, pid, private_mib,"
        " ready_ms, extract(epoch from since)::float AS since, extract(epoch from not_before)::float AS not_before,"
        " served FROM replica ORDER BY id"
    )
    for row in cursor:
        replica = Replica(
            id=row.id, deployment=row.deployment, seat=row.seat, version=row.version, state=ReplicaState(row.state),
            node=row.node, is_retiring=row.is_retiring, reason=row.reason, detail=row.detail, restarts=row.restarts,
            pid=row.pid, private_mib=row.private_mib, ready_ms=row.ready_ms, since=row.since,
            not_before=clock.mono(row.not_before), served=row.served,
        )  # fmt: skip
        state.replicas[replica.id] = replica
        state.deployments[replica.deployment].replicas.add(replica.id)
        if replica.node is not None and replica.node in state.nodes:
            state.nodes[replica.node].replicas.add(replica.id)
        if replica.state is ReplicaState.PENDING:
            state.pending[replica.id] = None


def _tasks(cursor: Any, state: FarmState, clock: Clock) -> None:
    """Tasks without their inputs, in the order of their ids. The hot loop of a restart: plain tuples, no keywords."""
    query = (
        "SELECT id, deployment, priority, extract(epoch from submitted_at)::float, octet_length(input),"
        " attempt, failures, crashes, extract(epoch from not_before)::float, is_cancelling, options"
        " FROM task ORDER BY id"
    )
    tasks, names, queued = state.tasks, {name: name for name in state.deployments}, TaskState.QUEUED
    for row in _stream(cursor.connection, query):
        task_id, name, priority, at, size, attempt, failures, crashes, not_before, is_cancelling, options = row
        tasks[task_id] = Task(
            task_id, names[name], priority, at, None, size, attempt, failures, crashes, queued,
            options_of(options) if options is not None else None,
            clock.mono(not_before) if not_before is not None else 0.0, is_cancelling, True,
        )  # fmt: skip


def _stream(connection: Connection, query: str) -> Iterator[tuple[Any, ...]]:
    """Rows of a query, a page at a time through a cursor of the server: a million of them must not lie in memory."""
    with connection.cursor() as plain:
        plain.execute(f"DECLARE stream NO SCROLL CURSOR FOR {query}")
        while True:
            plain.execute(f"FETCH {PAGE} FROM stream")
            rows = plain.fetchall()
            if not rows:
                break
            yield from rows
        plain.execute("CLOSE stream")


def _leases(cursor: Any, state: FarmState) -> list[int]:
    """Give each task its current lease. Returns lease rows that hold nothing any more.

    A lease is over when its task is, or when the task was given back since: then the row's attempt is already counted
    in the task's own. The newest row that holds a task wins.
    """
    cursor.execute(
        "SELECT id, node, extract(epoch from leased_at)::float AS leased_at, tasks, attempts, tokens, replicas"
        " FROM lease ORDER BY id DESC"
    )
    empty = []
    for row in cursor:
        held = 0
        for task_id, attempt, token, replica_id in zip(row.tasks, row.attempts, row.tokens, row.replicas, strict=True):
            task = state.tasks.get(task_id)
            if task is None or task.token is not None or attempt <= task.attempt:
                continue
            held += 1
            task.state, task.attempt, task.not_before = TaskState.LEASED, attempt, 0.0
            task.token, task.replica, task.node = token, replica_id, row.node
            task.leased_at, task.lease_batch = row.leased_at, row.id
            state.by_token[token] = task_id
            if replica_id in state.replicas:
                state.replicas[replica_id].tokens.add(token)
        if held:
            state.lease_batches[row.id] = held
        else:
            empty.append(row.id)
    return empty


def _inputs(cursor: Cursor, state: FarmState) -> None:
    """Inputs of queued tasks, oldest first, as far as the limit of memory goes; the rest stay in PostgreSQL."""
    room = state.limits.input_memory_bytes
    last = 0  # the newest task whose input is kept
    for task in state.tasks.values():
        if task.state is TaskState.QUEUED:
            if task.input_size > room:
                break
            room -= task.input_size
            last = task.id
    query = f"SELECT id, input FROM task WHERE id <= {last} ORDER BY id"  # noqa: S608 - `last` is a number of ours
    for task_id, data in _stream(cursor.connection, query):
        task = state.tasks[task_id]
        if task.state is TaskState.QUEUED:
            task.input = bytes(data)
            state.queued_input_bytes += len(data)


# ------------------------------------------------------------------ what follows from the rows


def _queue(state: FarmState) -> None:
    for task in state.tasks.values():  # in the order of their ids
        deployment = state.deployments[task.deployment]
        if task.state is not TaskState.QUEUED:
            deployment.leased += 1
            continue
        deployment.queued += 1
        if not task.not_before:
            queue = deployment.queues.get(task.priority)
            if queue is None:
                queue = deployment.queues[task.priority] = deque()
            queue.append(task.id)


def _timers(state: FarmState, now: Instant) -> None:
    """The timers of controller/core/decide.py, as they were when each was set."""
    timers: list[tuple[float, tuple[Any, ...]]] = [(now.mono, ("place",))]
    for task in state.tasks.values():
        if task.state is not TaskState.QUEUED:
            continue
        if task.not_before:
            timers.append((task.not_before, ("retry", task.id)))
        if not task.attempt:
            deployment = state.deployments[task.deployment]
            wait_s = queue_timeout_s(deployment.versions[deployment.version].policy, task.options)
            if wait_s is not None:
                timers.append((now.mono + task.submitted_at + wait_s - now.wall, ("queue_timeout", task.id)))
    timers += [(it.drain.deadline, ("drain_deadline", it.name)) for it in state.nodes.values() if it.drain is not None]
    timers += [
        (it.rollout.deadline, ("rollout_deadline", it.name))
        for it in state.deployments.values()
        if it.rollout is not None and it.rollout.state == "progressing"
    ]
    timers += [(it.not_before, ("place",)) for it in state.replicas.values() if it.not_before]
    for at, timer in timers:
        state.timer_sequence += 1
        state.timers.append((at, state.timer_sequence, timer))
    heapq.heapify(state.timers)


def versions_of(state: FarmState) -> dict[tuple[str, int], bool]:
    """Every stored version, and whether it ever ran."""
    return {(it.name, n): version.has_run for it in state.deployments.values() for n, version in it.versions.items()}


def inputs_of(cursor: Cursor, ids: list[TaskId]) -> dict[TaskId, bytes]:
    """Inputs of live tasks."""
    cursor.execute("SELECT id, input FROM task WHERE id = ANY(%s::bigint[])", (ids,))
    return {row[0]: bytes(row[1]) for row in cursor.fetchall()}
