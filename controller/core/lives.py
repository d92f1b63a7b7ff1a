"""The lives of nodes, replicas and tasks, as tables. The tables are the specification: a move outside them raises.

The database repeats the same words in its CHECK constraints, and docs/architecture.md is checked against this file.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final, TypeVar


class NodeState(StrEnum):
    """Where a node stands. Cordoned and draining are marks beside it, not states."""

    JOINING = "joining"  # known by name, no stream yet
    READY = "ready"
    UNREACHABLE = "unreachable"  # silent; its leases still hold
    LOST = "lost"  # silent for too long; its leases are void


class ReplicaState(StrEnum):
    """Where one seat's occupant stands."""

    PENDING = "pending"  # wants a node
    STARTING = "starting"
    RUNNING = "running"
    UNHEALTHY = "unhealthy"
    STOPPING = "stopping"
    STOPPED = "stopped"
    FAILED = "failed"


class TaskState(StrEnum):
    """Where a task stands. The last four are final: nothing ever changes after them."""

    QUEUED = "queued"
    LEASED = "leased"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"  # refused for good: a permanent error, or its queue-wait limit passed
    CANCELLED = "cancelled"
    DEAD = "dead"  # every attempt was used up: a dead letter, kept for `farmctl task retry`


class Outcome(StrEnum):
    """How one attempt ended, as its node reports it; LOST is the controller's own verdict."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    CANCELLED = "cancelled"
    INTERRUPTED = "interrupted"
    LOST = "lost"


class ProductState(StrEnum):
    """How a node's feed serves a product, by its own word. Held in memory only: the feed knows better at any moment."""

    STARTING = "starting"  # not yet: the feed starts, connects, or waits for the first snapshot
    GOOD = "good"  # live, its book trusted, no trade missing
    DOUBTFUL = "doubtful"  # fed, but something is missing or in doubt
    FAILED = "failed"  # not fed


class IllegalMove(Exception):
    """A move that the tables do not hold. Only our own mistake can cause it."""


NODE_MOVES: Final = {
    (NodeState.JOINING, "hello"): NodeState.READY,
    (NodeState.READY, "hello"): NodeState.READY,  # a new stream replaced the old one
    (NodeState.READY, "silent"): NodeState.UNREACHABLE,
    (NodeState.UNREACHABLE, "hello"): NodeState.READY,
    (NodeState.UNREACHABLE, "beat"): NodeState.READY,
    (NodeState.UNREACHABLE, "lease_expired"): NodeState.LOST,
    (NodeState.LOST, "hello"): NodeState.READY,
}

REPLICA_MOVES: Final = {
    (ReplicaState.PENDING, "placed"): ReplicaState.STARTING,
    (ReplicaState.PENDING, "stop"): ReplicaState.STOPPED,
    (ReplicaState.STARTING, "ready"): ReplicaState.RUNNING,
    (ReplicaState.STARTING, "failed"): ReplicaState.FAILED,
    (ReplicaState.STARTING, "stop"): ReplicaState.STOPPING,
    (ReplicaState.STARTING, "gone"): ReplicaState.STOPPED,
    (ReplicaState.RUNNING, "restarting"): ReplicaState.STARTING,
    (ReplicaState.RUNNING, "unhealthy"): ReplicaState.UNHEALTHY,
    (ReplicaState.RUNNING, "failed"): ReplicaState.FAILED,
    (ReplicaState.RUNNING, "stop"): ReplicaState.STOPPING,
    (ReplicaState.RUNNING, "gone"): ReplicaState.STOPPED,
    (ReplicaState.UNHEALTHY, "ready"): ReplicaState.RUNNING,
    (ReplicaState.UNHEALTHY, "restarting"): ReplicaState.STARTING,
    (ReplicaState.UNHEALTHY, "failed"): ReplicaState.FAILED,
    (ReplicaState.UNHEALTHY, "stop"): ReplicaState.STOPPING,
    (ReplicaState.UNHEALTHY, "gone"): ReplicaState.STOPPED,
    (ReplicaState.STOPPING, "gone"): ReplicaState.STOPPED,
    (ReplicaState.STOPPING, "failed"): ReplicaState.STOPPED,
}

TASK_MOVES: Final = {
    (TaskState.QUEUED, "leased"): TaskState.LEASED,
    (TaskState.QUEUED, "cancelled"): TaskState.CANCELLED,
    (TaskState.QUEUED, "queue_timeout"): TaskState.FAILED,
    (TaskState.LEASED, "started"): TaskState.RUNNING,
    (TaskState.LEASED, "retry"): TaskState.QUEUED,
    (TaskState.LEASED, "succeeded"): TaskState.SUCCEEDED,
    (TaskState.LEASED, "failed"): TaskState.FAILED,
    (TaskState.LEASED, "exhausted"): TaskState.DEAD,
    (TaskState.LEASED, "cancelled"): TaskState.CANCELLED,
    (TaskState.RUNNING, "retry"): TaskState.QUEUED,
    (TaskState.RUNNING, "succeeded"): TaskState.SUCCEEDED,
    (TaskState.RUNNING, "failed"): TaskState.FAILED,
    (TaskState.RUNNING, "exhausted"): TaskState.DEAD,
    (TaskState.RUNNING, "cancelled"): TaskState.CANCELLED,
}

FINAL_TASK_STATES: Final = frozenset({TaskState.SUCCEEDED, TaskState.FAILED, TaskState.CANCELLED, TaskState.DEAD})
LIVE_REPLICA_STATES: Final = frozenset(
    {ReplicaState.STARTING, ReplicaState.RUNNING, ReplicaState.UNHEALTHY, ReplicaState.STOPPING}
)
ENDED_REPLICA_STATES: Final = frozenset({ReplicaState.STOPPED, ReplicaState.FAILED})


def move_node(state: NodeState, event: str) -> NodeState:
    """The state after `event`. Raises IllegalMove for a move outside the table."""
    return _move(NODE_MOVES, state, event)


def move_replica(state: ReplicaState, event: str) -> ReplicaState:
    """The state after `event`. Raises IllegalMove for a move outside the table."""
    return _move(REPLICA_MOVES, state, event)


def move_task(state: TaskState, event: str) -> TaskState:
    """The state after `event`. Raises IllegalMove for a move outside the table."""
    return _move(TASK_MOVES, state, event)


S = TypeVar("S")


def _move(table: dict[tuple[S, str], S], state: S, event: str) -> S:
    try:
        return table[state, event]
    except KeyError:
        raise IllegalMove(f"{state} does not move on {event!r}") from None
