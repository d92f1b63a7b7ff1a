"""A journal without PostgreSQL: the same promises, kept in plain tables in memory.

The simulator and the core's tests run on it; a suite shared with the real journal holds the two together. `Tables` is
the database: it outlives controllers and may be shared by several. `MemoryJournal` is one controller's connection.

Rows are copies made at the commit, never the live objects, so that a state which was not committed cannot leak into
what is read back. Like the real journal it refuses rows that are not as the core believes (JournalCorrupt).
"""

from __future__ import annotations

import dataclasses
import heapq
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from agentfarm.errors import Unavailable
from controller.core.lives import NodeState, ReplicaState, TaskState
from controller.core.model import (
    Deployment,
    DeploymentName,
    Drain,
    FarmState,
    Instant,
    Limits,
    Node,
    NodeName,
    Product,
    ProductName,
    Replica,
    ReplicaId,
    Rollout,
    Task,
    TaskId,
    TaskOptions,
)
from controller.core.tasks.life import queue_timeout_s
from controller.core.transition import Changes, CheckpointRow, EndedAttempt, Event, FinishedTask, LeaseBatch
from controller.core.waits import bound_waits
from controller.journal.encode import Clock
from controller.journal.errors import JournalCorrupt, LostLead

TOKEN_EPOCH_SHIFT: Final = 40  # a token is epoch << 40 | counter
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
    not_before: float | None = None  # wall
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
    nodes: dict[NodeName, Node] = field(default_factory=dict)
    deployments: dict[DeploymentName, Deployment] = field(default_factory=dict)
    replicas: dict[ReplicaId, Replica] = field(default_factory=dict)
    products: dict[ProductName, Product] = field(default_factory=dict)
    keys: dict[str, TaskId] = field(default_factory=dict)
    checkpoints: dict[tuple[str, str, str], CheckpointRow] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    keeps_events: bool = True


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
        return Load(self._tables, limits, now, self._epoch).state()

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
        self._registered(changes)
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

    def _registered(self, changes: Changes) -> None:
        tables = self._tables
        for name in changes.forgotten_nodes:
            tables.nodes.pop(name, None)
        for node in changes.nodes.values():
            tables.nodes[node.name] = dataclasses.replace(
                node, drain=self._drain(node.drain), session=0, last_heard=0.0, measured=None, replicas=set(),
                labels=dict(node.labels), assigned=set(), fed=None,
            )  # fmt: skip
        for removed in changes.forgotten_products:
            tables.products.pop(removed, None)
        for product in changes.products.values():
            tables.products[product.name] = dataclasses.replace(product, nodes=set(product.nodes), missing=0)
        for gone in changes.forgotten_deployments:
            tables.deployments.pop(gone, None)
        for it in changes.deployments.values():
            tables.deployments[it.name] = dataclasses.replace(
                it, versions={n: dataclasses.replace(version) for n, version in it.versions.items()},
                rollout=self._rollout(it.rollout), replicas=set(), queues={}, queued=0, leased=0, service_s=None,
                seat_failures=dict(it.seat_failures),
            )  # fmt: skip
        for replica in changes.replicas.values():
            tables.replicas[replica.id] = dataclasses.replace(
                replica,
                tokens=set(),
                served_lately=0,
                progressed_at=0.0,
                recalled_at=0.0,
                not_before=self._clock.wall(replica.not_before) or 0.0,
            )
        for ended in changes.ended_replicas:
            tables.replicas.pop(ended, None)
        highest = max([*changes.replicas, *changes.ended_replicas], default=0)
        tables.replica_floor = max(tables.replica_floor, highest + 1)

    def _drain(self, drain: Drain | None) -> Drain | None:
        return drain and dataclasses.replace(drain, deadline=self._clock.wall(drain.deadline) or 0.0)

    def _rollout(self, rollout: Rollout | None) -> Rollout | None:
        return rollout and dataclasses.replace(rollout, deadline=self._clock.wall(rollout.deadline) or 0.0)

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


class Load:
    """Reads the live farm back, giving careful values to what only memory knew: see controller/journal/load.py."""

    def __init__(self, tables: Tables, limits: Limits, now: Instant, epoch: int) -> None:
        self._tables = tables
        self._clock = Clock.at(now)
        self._now = now
        self._state = FarmState(
            epoch=epoch, limits=limits, next_token=epoch << TOKEN_EPOCH_SHIFT, last_turn=now.mono,
            failures_halved_at=now.mono,
            next_task=tables.task_floor, next_replica=tables.replica_floor,
            next_batch=max(tables.leases, default=0) + 1,
        )  # fmt: skip

    def state(self) -> FarmState:
        """The whole of it. Lease rows that hold nothing any more are deleted."""
        self._registered()
        self._tasks()
        self._leases()
        self._queue()
        bound_waits(self._state, self._now)
        self._timers()
        return self._state

    def _registered(self) -> None:
        state, clock = self._state, self._clock
        for row in self._tables.nodes.values():
            is_heard = row.state in (NodeState.READY, NodeState.UNREACHABLE)
            state.nodes[row.name] = dataclasses.replace(
                row,
                state=NodeState.UNREACHABLE if is_heard else row.state,
                last_heard=self._now.mono if is_heard else 0.0,
                drain=row.drain and dataclasses.replace(row.drain, deadline=clock.mono(row.drain.deadline)),
                labels=dict(row.labels),
                replicas=set(),
                assigned=set(),
            )
        for product in self._tables.products.values():
            state.products[product.name] = dataclasses.replace(product, nodes=set(product.nodes))
            for node in product.nodes:
                state.nodes[node].assigned.add(product.name)
        for it in self._tables.deployments.values():
            state.deployments[it.name] = dataclasses.replace(
                it,
                versions={number: dataclasses.replace(version) for number, version in it.versions.items()},
                rollout=it.rollout and dataclasses.replace(it.rollout, deadline=clock.mono(it.rollout.deadline)),
                seat_failures=dict(it.seat_failures),
                replicas=set(),
                queues={},
            )
        for stored in sorted(self._tables.replicas.values(), key=lambda it: it.id):
            replica = dataclasses.replace(stored, tokens=set(), not_before=clock.mono(stored.not_before or None))
            state.replicas[replica.id] = replica
            state.deployments[replica.deployment].replicas.add(replica.id)
            if replica.node is not None and replica.node in state.nodes:
                state.nodes[replica.node].replicas.add(replica.id)
            if replica.state is ReplicaState.PENDING:
                state.pending[replica.id] = None

    def _tasks(self) -> None:
        state, room = self._state, self._state.limits.input_memory_bytes
        for row in sorted(self._tables.tasks.values(), key=lambda it: it.id):
            room -= len(row.input)
            state.tasks[row.id] = Task(
                row.id, row.deployment, row.priority, row.submitted_at, row.input if room >= 0 else None,
                len(row.input), row.attempt, row.failures, row.crashes, TaskState.QUEUED, row.options,
                self._clock.mono(row.not_before), row.is_cancelling, has_checkpoints=True,
            )  # fmt: skip

    def _leases(self) -> None:
        """The newest row that holds a task wins; one whose attempt the task has counted already was given back."""
        state = self._state
        for number in sorted(self._tables.leases, reverse=True):
            row, held = self._tables.leases[number], 0
            for task_id, attempt, token, replica in zip(row.tasks, row.attempts, row.tokens, row.replicas, strict=True):
                task = state.tasks.get(task_id)
                if task is None or task.token is not None or attempt <= task.attempt:
                    continue
                held += 1
                task.state, task.attempt, task.not_before = TaskState.LEASED, attempt, 0.0
                task.token, task.replica, task.node = token, replica, row.node
                task.leased_at, task.lease_batch = row.leased_at, number
                state.by_token[token] = task_id
                if replica in state.replicas:
                    state.replicas[replica].tokens.add(token)
            if held:
                state.lease_batches[number] = held
            else:
                del self._tables.leases[number]

    def _queue(self) -> None:
        state = self._state
        for task in state.tasks.values():
            deployment = state.deployments[task.deployment]
            if task.state is not TaskState.QUEUED:
                deployment.leased += 1
                continue
            deployment.queued += 1
            state.queued_input_bytes += len(task.input or b"")
            if not task.not_before:
                deployment.queues.setdefault(task.priority, deque()).append(task.id)

    def _timers(self) -> None:
        """The timers of controller/core/decide.py, as they were when each was set."""
        state, now = self._state, self._now
        timers: list[tuple[float, tuple[Any, ...]]] = [(now.mono, ("place",))]
        for task in state.tasks.values():
            if task.state is not TaskState.QUEUED:
                continue
            if task.not_before:
                timers.append((task.not_before, ("retry", task.id)))
            deployment = state.deployments[task.deployment]
            wait_s = queue_timeout_s(deployment.versions[deployment.version].policy, task.options)
            if wait_s is not None and not task.attempt:
                timers.append((self._clock.mono(task.submitted_at + wait_s), ("queue_timeout", task.id)))
        for node in state.nodes.values():
            if node.drain is not None:
                timers.append((node.drain.deadline, ("drain_deadline", node.name)))
        for it in state.deployments.values():
            if it.rollout is not None and it.rollout.state == "progressing":
                timers.append((it.rollout.deadline, ("rollout_deadline", it.name)))
        timers += [(it.not_before, ("place",)) for it in state.replicas.values() if it.not_before]
        for at, timer in timers:
            state.timer_sequence += 1
            state.timers.append((at, state.timer_sequence, timer))
        heapq.heapify(state.timers)


def _row(table: Mapping[K, V], key: K, what: str) -> V:
    try:
        return table[key]
    except KeyError:
        raise JournalCorrupt(f"There is no {key!r} among the {what}.") from None
