"""What follows from a batch of commands: rows to write, then answers to give and effects to send.

The order is a promise: `changes` are committed in one transaction; only then do `answers` reach callers and `effects`
reach nodes. If the commit fails, the state that made them is thrown away and read again.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any, TypeVar

from agentfarm.errors import FarmError
from controller.core.lives import TaskState
from controller.core.model import (
    FARM,
    Actor,
    DeploymentName,
    NodeName,
    ProductName,
    ReplicaId,
    Task,
    TaskId,
    Token,
)

T = TypeVar("T")

# ------------------------------------------------------------------ rows


@dataclass(slots=True)
class LeaseBatch:
    """One row for all the leases given to one node in one turn: what makes a lease durable and cheap."""

    id: int
    node: NodeName
    leased_at: float
    """wall."""
    tasks: list[TaskId]
    attempts: list[int]
    tokens: list[Token]
    replicas: list[ReplicaId]


@dataclass(frozen=True, slots=True)
class FinishedTask:
    """A task's last word. `task` still holds its last attempt's token, replica and node."""

    task: Task
    state: TaskState
    finished_at: float
    """wall."""
    output: bytes = b""
    error_type: str = ""
    error_message: str = ""
    error_traceback: str = ""
    version: int | None = None


@dataclass(frozen=True, slots=True)
class EndedAttempt:
    """An attempt that was not its task's last, kept for `farmctl task show`."""

    task: TaskId
    attempt: int
    token: Token
    node: NodeName | None
    replica: ReplicaId | None
    leased_at: float
    ended_at: float
    outcome: str
    error_type: str = ""
    error_message: str = ""


@dataclass(frozen=True, slots=True)
class Event:
    """One fact of the farm's story. `kind` is a fixed word such as "node.lost"; `data` is small and JSON."""

    kind: str
    at: float
    """wall."""
    message: str
    node: NodeName | None = None
    deployment: DeploymentName | None = None
    replica: ReplicaId | None = None
    task: TaskId | None = None
    severity: str = "info"
    """Or "warning", "error"."""
    data: dict[str, object] = field(default_factory=dict)
    actor: Actor = FARM
    """Who made it happen; "" in what releases before 0.2 stored."""


@dataclass(slots=True)
class Changes:
    """Rows of one transaction. The objects are the live ones: the core rests while the journal reads them."""

    inserted_tasks: list[Task] = field(default_factory=list)
    requeued_tasks: list[Task] = field(default_factory=list)
    """Attempt, crashes and backoff changed."""
    finished_tasks: list[FinishedTask] = field(default_factory=list)
    ended_attempts: list[EndedAttempt] = field(default_factory=list)
    lease_batches: list[LeaseBatch] = field(default_factory=list)
    ended_lease_batches: list[int] = field(default_factory=list)
    cancelling_tasks: list[TaskId] = field(default_factory=list)
    records: dict[int, Any] = field(default_factory=dict)
    """Records to store as they are now, by their identity. A row that is there takes the new values."""
    removed: dict[int, Any] = field(default_factory=dict)
    """Records whose rows go, before any is stored: another may come under the same key in the same turn."""
    checkpoints: list[CheckpointRow] = field(default_factory=list)
    dropped_threads: list[str] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)

    def store(self, thing: Any) -> None:
        """Store a record as it is when the turn is over."""
        self.records[id(thing)] = thing

    def remove(self, thing: Any) -> None:
        """The record is no more."""
        self.records.pop(id(thing), None)
        self.removed[id(thing)] = thing

    def stored(self, kind: type[T]) -> list[T]:
        """The records of a kind to store."""
        return [thing for thing in self.records.values() if type(thing) is kind]

    def gone(self, kind: type[T]) -> list[T]:
        """The records of a kind whose rows go."""
        return [thing for thing in self.removed.values() if type(thing) is kind]

    def is_empty(self) -> bool:
        """Whether nothing has to be written."""
        return not any(_every_field(self))


_every_field = attrgetter(*Changes.__slots__)
"""Every turn asks whether it changed anything, so this is one call into C."""


@dataclass(frozen=True, slots=True)
class CheckpointRow:
    """A checkpoint, or writes added to one (payload None)."""

    thread_id: str
    namespace: str
    checkpoint_id: str
    parent_id: str
    payload: bytes | None
    writes: tuple[tuple[str, int, bytes], ...]


# ------------------------------------------------------------------ effects, sent to nodes after the commit


@dataclass(frozen=True, slots=True)
class Assign:
    """Leases to hand to a node. A task whose `input` is None has it in PostgreSQL: the engine reads it back first."""

    node: NodeName
    session: int
    leases: list[Lease]


@dataclass(frozen=True, slots=True)
class Lease:
    task: TaskId
    attempt: int
    token: Token
    replica: ReplicaId
    input: bytes | None
    run_timeout_s: float | None
    thread_id: str
    is_exclusive: bool


@dataclass(frozen=True, slots=True)
class CancelAttempts:
    node: NodeName
    session: int
    tokens: list[Token]
    reason: str
    """One of "requested", "stale" and "moved"."""


@dataclass(frozen=True, slots=True)
class RecallAttempts:
    """Give back those of these that no replica has begun. One that was begun goes on; its result is the answer."""

    node: NodeName
    session: int
    tokens: list[Token]


@dataclass(frozen=True, slots=True)
class AckResults:
    node: NodeName
    session: int
    tokens: list[Token]


@dataclass(frozen=True, slots=True)
class AckBeat:
    node: NodeName
    session: int
    seq: int


@dataclass(frozen=True, slots=True)
class SetDesired:
    """The whole list of replicas a node should run, and of products its feed should serve beside its own.

    products: None for a node that takes none.
    """

    node: NodeName
    session: int
    generation: int
    replicas: list[DesiredReplica]
    products: tuple[ProductName, ...] | None = None


@dataclass(frozen=True, slots=True)
class DesiredReplica:
    replica: ReplicaId
    deployment: DeploymentName
    seat: int
    version: int
    digest: str
    spec_json: str
    is_stopping: bool


@dataclass(frozen=True, slots=True)
class CloseSession:
    """The stream is not the node's any more (it reconnected, or was forgotten)."""

    node: NodeName
    session: int
    reason: str


Effect = Assign | CancelAttempts | RecallAttempts | AckResults | AckBeat | SetDesired | CloseSession


@dataclass(slots=True)
class Transition:
    """The whole of what follows."""

    changes: Changes = field(default_factory=Changes)
    answers: dict[int, object | FarmError] = field(default_factory=dict)
    """Index of the command -> answer."""
    effects: list[Effect] = field(default_factory=list)
    finished: list[FinishedTask] = field(default_factory=list)
    """For those who wait on a task."""
    started: list[TaskId] = field(default_factory=list)
    forget_inputs: list[Task] = field(default_factory=list)
    """Memory is short: drop `input` once it is durable."""
    next_due: float | None = None
    """mono; when to send the next Tick at the latest."""
