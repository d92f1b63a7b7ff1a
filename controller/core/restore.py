"""The live farm, made of what is stored: for both journals, which only read rows.

What only memory knew is given its careful value: a node that was ready is unreachable, last heard of now, so that its
leases hold for as long as it may need to come back; a leased task may be running; every timer is set again.

Waits are stored as wall times. A wall clock may have jumped since. Then a moment can come too early, which costs
little, or far too late: a backoff of a second must not become a day. So what is left of a wait is bounded by what it
can be at most; nothing is made longer.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

from controller.core.agents.rollouts import SEAT_BACKOFF_MAX_S
from controller.core.lives import NodeState, ReplicaState, TaskState
from controller.core.model import DeploymentName, FarmState, Instant, Limits, Node, Task, TaskId
from controller.core.nodes.life import Silence
from controller.core.parts import TABLES
from controller.core.policy import Policy
from controller.core.records import Clock, Table
from controller.core.tasks.life import queue_timeout_s
from controller.core.timers import DrainDeadline, PlaceAgain, QueueTimedOut, RetryDue, RolloutDeadline, Timer
from controller.core.transition import LeaseBatch

TOKEN_EPOCH_SHIFT: Final = 40
"""A token is epoch << 40 | counter."""


@dataclass(frozen=True, slots=True)
class Floors:
    """The next ids: above every id that there is, and that there ever was."""

    task: int
    replica: int
    lease_batch: int


class Rows(Protocol):
    """What is stored, as a journal reads it in one snapshot."""

    def floors(self) -> Floors: ...
    def records(self, table: Table[Any]) -> Iterable[Mapping[str, Any]]:
        """Rows of a table, in the order of its key."""

    def tasks(self, names: Mapping[str, DeploymentName], clock: Clock) -> Iterable[Task]:
        """Queued tasks without inputs, in the order of their ids. `names` has one string for each deployment."""

    def leases(self) -> Iterable[LeaseBatch]:
        """The newest first."""

    def inputs(self, last: TaskId) -> Iterable[tuple[TaskId, bytes]]:
        """Of the tasks up to `last`."""

    def drop_leases(self, ids: list[int]) -> None:
        """Rows that hold nothing any more."""


def restore(rows: Rows, limits: Limits, now: Instant, epoch: int) -> FarmState:
    """Everything live."""
    floors, clock = rows.floors(), Clock.at(now)
    state = FarmState(
        epoch=epoch, limits=limits, next_token=first_token(epoch), last_turn=now.mono,
        next_task=floors.task, next_replica=floors.replica, next_batch=floors.lease_batch,
    )  # fmt: skip
    for table in TABLES:
        for row in rows.records(table):
            table.put(state, table.thing(row, clock))
    _hear(state, now)
    _join(state)
    state.tasks = {task.id: task for task in rows.tasks({name: name for name in state.deployments}, clock)}
    empty = _lease(state, rows.leases())
    if empty:
        rows.drop_leases(empty)
    _keep_inputs(state, rows)
    _bound_waits(state, now)
    timers = [(now.mono, PlaceAgain()), *_line_up(state, now, clock), *_other_timers(state)]
    state.timers = [(at, number, timer) for number, (at, timer) in enumerate(timers, 1)]
    state.timer_sequence = len(timers)
    heapq.heapify(state.timers)
    return state


def keep_live(state: FarmState, before: FarmState) -> None:
    """The same controller goes on with a state that it read again: what only its memory knew stays true.

    Streams are open, and nodes have said on them what they will not repeat. `before` is the state of which the last
    turn was not stored. What that turn changed there is either decided again, or no more than a moment or a count.
    """
    state.seed, state.parts, state.last_turn = before.seed, before.parts, before.last_turn
    state.next_token = max(state.next_token, before.next_token)
    state.undispatched = set(state.deployments)
    state.ahead = {number for number in before.ahead if number in state.replicas}
    for node in state.nodes.values():
        if (seen := before.nodes.get(node.name)) is not None:
            _go_on(node, seen)
    for replica in state.replicas.values():
        if (held := before.replicas.get(replica.id)) is not None:
            replica.progressed_at, replica.recalled_at = held.progressed_at, held.recalled_at
            replica.served_lately = held.served_lately
    for deployment in state.deployments.values():
        if (earlier := before.deployments.get(deployment.name)) is not None:
            deployment.service_s = earlier.service_s
    for product in state.products.values():
        if (was := before.products.get(product.name)) is not None:
            product.missing = was.missing
    for token, task_id in state.by_token.items():
        task = before.tasks.get(task_id)
        if task is not None and task.token == token and task.state is TaskState.RUNNING:
            state.tasks[task_id].state = TaskState.RUNNING


def _go_on(node: Node, seen: Node) -> None:
    node.session, node.last_heard, node.desired_generation = seen.session, seen.last_heard, seen.desired_generation
    node.measured, node.fed, node.strays = seen.measured, seen.fed, seen.strays
    if seen.state is NodeState.READY and node.state is NodeState.UNREACHABLE:
        node.state = NodeState.READY


def first_token(epoch: int) -> int:
    """Below every token of this epoch, and above every one of those before."""
    return epoch << TOKEN_EPOCH_SHIFT


# ------------------------------------------------------------------ records


def _hear(state: FarmState, now: Instant) -> None:
    """A node may be there, and believe in its leases."""
    state.own(Silence).failures_halved_at = now.mono
    for node in state.nodes.values():
        if node.state in (NodeState.READY, NodeState.UNREACHABLE):
            node.state, node.last_heard = NodeState.UNREACHABLE, now.mono


def _join(state: FarmState) -> None:
    """What records know of one another."""
    for product in state.products.values():
        for name in product.nodes:
            state.nodes[name].assigned.add(product.name)
    for replica in state.replicas.values():
        state.deployments[replica.deployment].replicas.add(replica.id)
        if replica.node is not None and replica.node in state.nodes:
            state.nodes[replica.node].replicas.add(replica.id)
        if replica.state is ReplicaState.PENDING:
            state.pending[replica.id] = None


# ------------------------------------------------------------------ tasks


def _lease(state: FarmState, batches: Iterable[LeaseBatch]) -> list[int]:
    """Give each task its current lease. Returns lease rows that hold nothing any more.

    A lease is over when its task is, or when the task was given back since: then the row's attempt is already counted
    in the task's own. The newest row that holds a task wins.
    """
    empty = []
    for row in batches:
        held = 0
        for task_id, attempt, token, replica_id in zip(row.tasks, row.attempts, row.tokens, row.replicas, strict=True):
            task = state.tasks.get(task_id)
            if task is None or task.token is not None or attempt <= task.attempt:
                continue
            held += 1
            task.state, task.attempt, task.not_before, task.has_checkpoints = TaskState.LEASED, attempt, 0.0, True
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


def _keep_inputs(state: FarmState, rows: Rows) -> None:
    """Inputs of queued tasks, oldest first, as far as the limit of memory goes; the rest stay in the journal."""
    room, last = state.limits.input_memory_bytes, TaskId(0)
    for task in state.tasks.values():
        if task.state is TaskState.QUEUED:
            if task.input_size > room:
                break
            room -= task.input_size
            last = task.id
    for task_id, data in rows.inputs(last):
        task = state.tasks[task_id]
        if task.state is TaskState.QUEUED:
            task.input = data
            state.queued_input_bytes += len(data)


def _line_up(state: FarmState, now: Instant, clock: Clock) -> list[tuple[float, Timer]]:
    """Put queued tasks into their lines, in the order of their ids. Returns their timers. The hot loop of a restart."""
    policies: dict[DeploymentName, Policy] = {
        owner.name: owner.versions[owner.version].policy for owner in state.deployments.values()
    }
    timers: list[tuple[float, Timer]] = []
    for task in state.tasks.values():
        deployment = state.deployments[task.deployment]
        if task.state is not TaskState.QUEUED:
            deployment.leased += 1
            continue
        deployment.queued += 1
        policy = policies[task.deployment]
        if task.not_before:
            task.not_before = min(task.not_before, now.mono + policy.backoff_max_s)
            timers.append((task.not_before, RetryDue(task.id)))
        else:
            queue = deployment.queues.get(task.priority)
            if queue is None:
                queue = deployment.queues[task.priority] = deque()
            queue.append(task.id)
        if not task.attempt:
            wait_s = queue_timeout_s(policy, task.options)
            if wait_s is not None:
                timers.append((clock.mono(task.submitted_at + wait_s), QueueTimedOut(task.id)))
    return timers


# ------------------------------------------------------------------ waits


def _bound_waits(state: FarmState, now: Instant) -> None:
    for replica in state.replicas.values():
        replica.not_before = min(replica.not_before, now.mono + SEAT_BACKOFF_MAX_S)
    for deployment in state.deployments.values():
        if deployment.rollout is not None:
            longest_s = deployment.versions[deployment.version].policy.healthy_deadline_s
            deployment.rollout.deadline = min(deployment.rollout.deadline, now.mono + longest_s)
    for node in state.nodes.values():
        if node.drain is not None and node.drain.deadline_s is not None:
            node.drain.deadline = min(node.drain.deadline, now.mono + node.drain.deadline_s)


def _other_timers(state: FarmState) -> list[tuple[float, Timer]]:
    """Of drains, rollouts and seats, as they were when each was set."""
    return [
        *((node.drain.deadline, DrainDeadline(node.name)) for node in state.nodes.values() if node.drain is not None),
        *(
            (deployment.rollout.deadline, RolloutDeadline(deployment.name))
            for deployment in state.deployments.values()
            if deployment.rollout is not None and deployment.rollout.state == "progressing"
        ),
        *((replica.not_before, PlaceAgain()) for replica in state.replicas.values() if replica.not_before),
    ]
