"""The farm as the core sees it: everything live, nothing finished.

One FarmState belongs to one engine and is changed only by the core. PostgreSQL holds the truth; this is rebuilt from
it at start and after a commit that failed. Hot objects (Task) are slotted and small: a million of them must fit
in 500 MB, so a task's input is dropped from memory when the queues are deep (`input` is None) and read back at
dispatch.

Times: `mono` values are seconds on the controller's monotonic clock and decide; `wall` values are Unix seconds
and are only recorded.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, NewType, TypeVar

from controller.core.lives import NodeState, ProductState, ReplicaState, TaskState
from controller.core.policy import Policy
from controller.core.records import (
    BYTES,
    COUNTS,
    FLAG,
    MOMENT,
    NUMBER,
    NUMBERS,
    TEXT,
    TEXT_BY_NAME,
    WALL,
    live,
    part,
    record,
    stored,
    texts,
    value,
    word,
)

NodeName = NewType("NodeName", str)
DeploymentName = NewType("DeploymentName", str)
ReplicaId = NewType("ReplicaId", int)
TaskId = NewType("TaskId", int)
ProductName = NewType("ProductName", str)
Actor = NewType("Actor", str)  # who acts: an operator, a node, or the farm
T = TypeVar("T")
Token = NewType("Token", int)  # a fencing token: epoch in the high bits, so it grows across restarts too

PRODUCTS_MAX = 2_000  # market products assigned across the farm
COPIES_MAX = 16  # nodes that feed one of them

OPERATOR: Final = Actor("operator")  # the holder of the operators' token
FARM: Final = Actor("farm")  # the farm itself, as time passes


def node_actor(node: NodeName) -> Actor:
    """A node that speaks on its own stream."""
    return Actor(f"node/{node}")


class Instant(NamedTuple):
    """One moment on both clocks, in seconds."""

    mono: float
    wall: float


@dataclass(frozen=True, slots=True)
class Limits:
    """Settings of the core. Each has a name, a unit and a default that suits a LAN."""

    unreachable_after_s: float = 3.0
    reissue_after_s: float = 8.0
    input_memory_bytes: int = 64 * 1024 * 1024
    """Queued inputs kept in memory; the rest stay in PostgreSQL."""
    assign_bytes_max: int = 1024 * 1024
    """Inputs sent to one node in one turn, roughly."""
    prefetch_horizon_s: float = 0.05
    """How much measured work may wait at a replica."""
    prefetch_max: int = 256
    """Attempts per unit of concurrency, at most."""
    recall_after_s: float = 1.0
    """How long an attempt may wait unstarted at a replica while another could take it."""
    poison_after: int = 3
    """A task whose attempts killed this many replicas is dead, whatever its retries say."""
    seat_backoff_s: float = 2.0
    """First wait after a failed placement of a seat; doubles to a minute."""
    cpu_overcommit: float = 8.0
    """Agents mostly wait; CPU may be promised this many times over, memory never."""
    queued_max: int = 2_000_000
    """Tasks waiting in the whole farm; beyond it submits are refused."""

    def __post_init__(self) -> None:
        if not 0 < self.unreachable_after_s < self.reissue_after_s:
            raise ValueError("reissue_after_s must be longer than unreachable_after_s")
        if self.recall_after_s <= self.prefetch_horizon_s:
            raise ValueError("recall_after_s must be longer than prefetch_horizon_s")


@record
class Version:
    """One numbered version of an agent. Nothing of it changes but whether it ever ran."""

    deployment: DeploymentName = stored(TEXT)
    number: int = stored(NUMBER)
    digest: str = stored(TEXT)
    spec_json: str = stored(TEXT, column="spec")
    policy: Policy = stored(value(Policy))
    created_at: float = stored(WALL)
    has_run: bool = stored(FLAG, default=False)
    """One of its replicas became ready: a deployment may fall back to it."""


@record
class Drain:
    """An operator's wish to empty a node."""

    started_at: float = stored(WALL)
    deadline: float = stored(MOMENT)
    """When it is reached, what still runs is interrupted."""
    reason: str = stored(TEXT, default="")
    is_forced: bool = stored(FLAG, default=False)
    """The deadline was reached and work was stopped."""
    is_complete: bool = stored(FLAG, default=False)
    """The daemon confirmed that no process remains, and feeds nothing for us."""
    deadline_s: float | None = stored(NUMBER, default=None)
    """From its start; bounds the deadline where the wall clock jumped meanwhile."""


@record
class Node:
    """One machine, as last heard of."""

    name: NodeName = stored(TEXT)
    state: NodeState = stored(word(NodeState), default=NodeState.JOINING)
    is_cordoned: bool = stored(FLAG, default=False)
    cordon_reason: str = stored(TEXT, default="")
    drain: Drain | None = stored(part(Drain), default=None)
    session: int = live(default=0)
    """The stream we talk to; 0 is none. Messages of other sessions are ignored."""
    last_heard: float = live(default=0.0)
    """mono"""
    cpu_millicores: int = stored(NUMBER, default=0)
    memory_mib: int = stored(NUMBER, default=0)
    gpus: int = stored(NUMBER, default=0)
    labels: dict[str, str] = stored(TEXT_BY_NAME, default_factory=dict)
    capabilities: frozenset[str] = stored(texts(frozenset), default=frozenset())
    products: frozenset[str] = stored(texts(frozenset), default=frozenset())
    """Those that its own settings name: its feed serves them whatever we say."""
    takes_products: bool = stored(FLAG, default=False)
    """It has a feed that takes more of them from us."""
    market_source: str = stored(TEXT, default="")
    """Where its feed gets them; empty without one."""
    metrics_address: str = stored(TEXT, default="")
    """host:port of its daemon's metrics; empty where there are none."""
    assigned: set[ProductName] = live(default_factory=set)
    """Products that name it in their `nodes`."""
    fed: dict[str, ProductStatus] | None = live(default=None)
    """What its feed serves now; None: it has said nothing of it since its Hello."""
    daemon_version: str = stored(TEXT, default="")
    measured: Measured | None = live(default=None)
    replicas: set[ReplicaId] = live(default_factory=set)
    strays: set[ReplicaId] = live(default_factory=set)
    """Its processes that are not ours any more, until they are gone."""
    desired_generation: int = live(default=0)
    """Of its list. The epoch makes it grow across controllers: see agents/seats.py."""
    recent_failures: int = stored(NUMBER, default=0)
    """Of replicas, halved each minute; a score, not a verdict."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What the daemon measured at its last beat."""

    memory_available_mib: int = 0
    cpu_used_millicores: int = 0
    disk_free_mib: int = 0
    market_rows: int = 0
    market_lag_ms: int = 0
    market_state: str = ""


@dataclass(frozen=True, slots=True)
class ProductStatus:
    """What a feed says of one product."""

    state: ProductState
    reason: str = ""


@record
class Product:
    """A market product that the operator wants fed by `copies` nodes, and the nodes that must feed it.

    What a node's own settings name is a copy too, and never stands in `nodes`. A node that leaves (drain) stays there
    until as many copies as wanted are good without it, so `nodes` may hold more than `copies` for a while.
    """

    name: ProductName = stored(TEXT)
    source: str = stored(TEXT, default="")
    """The market_source a node must have; "": any."""
    copies: int = stored(NUMBER, default=1)
    nodes: set[NodeName] = stored(texts(set), default_factory=set)
    added_at: float = stored(WALL, default=0.0)
    missing: int = live(default=0)
    """Copies that no node could take at the last look."""


@record
class Replica:
    """One occupant of a deployment's numbered seat. Its id is never used again, so it is its own fence."""

    id: ReplicaId = stored(NUMBER)
    deployment: DeploymentName = stored(TEXT)
    seat: int = stored(NUMBER)
    version: int = stored(NUMBER)
    state: ReplicaState = stored(word(ReplicaState), default=ReplicaState.PENDING)
    node: NodeName | None = stored(TEXT, default=None)
    is_retiring: bool = stored(FLAG, default=False)
    """It gets no new task, and stops once it holds none."""
    reason: str = stored(TEXT, default="")
    detail: str = stored(TEXT, default="")
    restarts: int = stored(NUMBER, default=0)
    pid: int = stored(NUMBER, default=0)
    private_mib: int = stored(NUMBER, default=0)
    ready_ms: int = stored(NUMBER, default=0)
    since: float = stored(WALL, default=0.0)
    """Of its last move."""
    not_before: float = stored(MOMENT, default=0.0)
    """A seat whose placements failed waits."""
    tokens: set[Token] = live(default_factory=set)
    served: int = stored(NUMBER, default=0)
    """Attempts that succeeded, counted up now and then."""
    served_lately: int = live(default=0)
    """Attempts that succeeded since `served` was counted up."""
    progressed_at: float = live(default=0.0)
    """mono; when it last ended an attempt, or was given one with nothing in hand."""
    recalled_at: float = live(default=0.0)
    """mono; when it was last asked to give back what it has not begun."""


@dataclass(frozen=True, slots=True)
class TaskOptions:
    """What a caller set for one task, over the policy of its agent. None means: as the policy says."""

    max_attempts: int | None = None
    queue_timeout_s: float | None = None
    run_timeout_s: float | None = None
    thread_id: str | None = None
    idempotency_key: str | None = None
    retry_of: int | None = None
    labels: tuple[tuple[str, str], ...] = ()
    products: tuple[str, ...] = ()
    """Replicas whose nodes hold all of them are preferred."""


@record
class Task:
    """One live task. Its current attempt, if any, is in the last five fields, which a row of `lease` holds."""

    id: TaskId = stored(NUMBER)
    deployment: DeploymentName = stored(TEXT)
    priority: int = stored(NUMBER)
    submitted_at: float = stored(WALL)
    input: bytes | None = stored(BYTES)
    """None where memory is short: then it is in PostgreSQL alone."""
    input_size: int = live(default=0)
    attempt: int = stored(NUMBER, default=0)
    """Attempts begun."""
    failures: int = stored(NUMBER, default=0)
    """Attempts that cost one: failed or timed out."""
    crashes: int = stored(NUMBER, default=0)
    """Attempts that ended with the death of their replica or node."""
    state: TaskState = live(default=TaskState.QUEUED)
    """A task with a lease is LEASED to the next controller, which does not know whether it runs."""
    options: TaskOptions | None = stored(value(TaskOptions), default=None)
    """None: the version's own policy."""
    not_before: float = stored(MOMENT, default=0.0)
    """Backoff."""
    is_cancelling: bool = stored(FLAG, default=False)
    has_checkpoints: bool = live(default=False)
    """True also where it may have some: then dropping them is tried in vain."""
    token: Token | None = stored(NUMBER, default=None, column="tokens", table="lease")
    replica: ReplicaId | None = stored(NUMBER, default=None, column="replicas", table="lease")
    node: NodeName | None = stored(TEXT, default=None, table="lease")
    leased_at: float = stored(WALL, default=0.0, table="lease")
    lease_batch: int = stored(NUMBER, default=0, column="id", table="lease")


@record
class Rollout:
    """A deployment on its way from one version to another."""

    from_version: int | None = stored(NUMBER)
    to_version: int = stored(NUMBER)
    started_at: float = stored(WALL)
    deadline: float = stored(MOMENT)
    """Of the step in progress."""
    state: str = stored(TEXT, default="progressing")
    """Then "complete", "reverted" or "failed"."""
    reason: str = stored(TEXT, default="")
    detail: str = stored(TEXT, default="")
    seats_done: int = stored(NUMBER, default=0)
    vacated: list[int] = stored(NUMBERS, default_factory=list)
    """Seats whose old replica stopped first, for want of room."""


@record
class Deployment:
    """What should run of one agent, and its queue."""

    name: DeploymentName = stored(TEXT)
    replicas_wanted: int = stored(NUMBER)
    version: int = stored(NUMBER)
    """The version new replicas get."""
    versions: dict[int, Version] = live(default_factory=dict)
    """Records of their own, by number."""
    generation: int = stored(NUMBER, default=1)
    """Grows with every change by an operator: the guard of --if-version."""
    rollout: Rollout | None = stored(part(Rollout), default=None)
    is_removed: bool = stored(FLAG, default=False)
    """It takes no tasks, and is forgotten once nothing of it is left."""
    is_halted: bool = stored(FLAG, default=False)
    """Its only version cannot run; nothing is placed until the next deploy or scale."""
    replicas: set[ReplicaId] = live(default_factory=set)
    queues: dict[int, deque[TaskId]] = live(default_factory=dict)
    """Priority -> first come, first served."""
    queued: int = live(default=0)
    leased: int = live(default=0)
    service_s: float | None = live(default=None)
    """What an attempt takes: a decaying maximum, not a mean."""
    seat_failures: dict[int, int] = stored(COUNTS, default_factory=dict)


@dataclass(slots=True)
class FarmState:
    """Everything live."""

    epoch: int
    limits: Limits
    nodes: dict[NodeName, Node] = field(default_factory=dict)
    deployments: dict[DeploymentName, Deployment] = field(default_factory=dict)
    replicas: dict[ReplicaId, Replica] = field(default_factory=dict)
    tasks: dict[TaskId, Task] = field(default_factory=dict)
    products: dict[ProductName, Product] = field(default_factory=dict)
    by_token: dict[Token, TaskId] = field(default_factory=dict)
    timers: list[tuple[float, int, Any]] = field(default_factory=list)
    """Heap of (mono, sequence, timer)."""
    timer_sequence: int = 0
    next_task: int = 1
    next_replica: int = 1
    next_token: int = 0
    next_batch: int = 1
    lease_batches: dict[int, int] = field(default_factory=dict)
    """Lease batch -> leases still held."""
    queued_input_bytes: int = 0
    pending: dict[ReplicaId, None] = field(default_factory=dict)
    """Replicas that want a node, oldest first."""
    undispatched: set[DeploymentName] = field(default_factory=set)
    """Held back by a turn's byte limit."""
    ahead: set[ReplicaId] = field(default_factory=set)
    """Replicas that were given more than they can work on at once."""
    last_turn: float = 0.0
    """mono."""
    seed: int = 0
    """Of the jitter; given by the shell at start."""
    parts: dict[type[Any], Any] = field(default_factory=dict)
    """What only one part knows: see `own`."""

    def own(self, kind: type[T]) -> T:
        """What one part keeps for itself between turns: a dataclass in its folder, new where there is none yet."""
        held: T | None = self.parts.get(kind)
        if held is None:
            held = self.parts[kind] = kind()
        return held
