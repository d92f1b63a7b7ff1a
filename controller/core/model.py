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
from typing import Any, Final, NamedTuple, NewType

from controller.core.lives import NodeState, ProductState, ReplicaState, TaskState

NodeName = NewType("NodeName", str)
DeploymentName = NewType("DeploymentName", str)
ReplicaId = NewType("ReplicaId", int)
TaskId = NewType("TaskId", int)
ProductName = NewType("ProductName", str)
Actor = NewType("Actor", str)  # who wants or says something: see below
Token = NewType("Token", int)  # a fencing token: epoch in the high bits, so it grows across restarts too

PRIORITY_MIN, PRIORITY_MAX = -5, 5
PRODUCTS_MAX = 2_000  # market products assigned across the farm
COPIES_MAX = 16  # nodes that feed one of them
PRODUCT_NAME_MAX_CHARS = 64

OPERATOR: Final = Actor("operator")  # whoever holds the operators' token
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
    backoff_base_s: float = 1.0
    backoff_max_s: float = 60.0
    input_memory_bytes: int = 64 * 1024 * 1024  # queued inputs kept in memory; the rest stay in PostgreSQL
    assign_bytes_max: int = 1024 * 1024  # inputs sent to one node in one turn, roughly
    prefetch_horizon_s: float = 0.05  # how much measured work may wait at a replica
    prefetch_max: int = 256  # attempts per unit of concurrency, at most
    recall_after_s: float = 1.0  # how long an attempt may wait unstarted at a replica while another could take it
    poison_after: int = 3  # a task whose attempts killed this many replicas is dead, whatever its retries say
    seat_backoff_s: float = 2.0  # first wait after a failed placement of a seat; doubles to a minute
    cpu_overcommit: float = 8.0  # agents mostly wait; CPU may be promised this many times over, memory never
    queued_max: int = 2_000_000  # tasks waiting in the whole farm; beyond it submits are refused

    def __post_init__(self) -> None:
        if not 0 < self.unreachable_after_s < self.reissue_after_s:
            raise ValueError("reissue_after_s must be longer than unreachable_after_s")
        if self.recall_after_s <= self.prefetch_horizon_s:
            raise ValueError("recall_after_s must be longer than prefetch_horizon_s")


@dataclass(frozen=True, slots=True)
class Resources:
    """What one replica needs."""

    cpu_millicores: int = 100
    memory_mib: int = 128
    gpus: int = 0


@dataclass(frozen=True, slots=True)
class Policy:
    """The part of an agent's spec on which the core decides. Made from AgentSpec once, at the edge."""

    resources: Resources = Resources()
    concurrency: int = 1
    priority: int = 0
    max_attempts: int = 3
    backoff_s: float = 1.0
    backoff_max_s: float = 60.0
    queue_timeout_s: float | None = None
    run_timeout_s: float | None = 600.0
    exclusive: bool = False
    strategy: str = "spread"  # or "pack"
    constraints: tuple[tuple[str, str], ...] = ()  # node labels that must match
    capabilities: tuple[str, ...] = ()
    products: tuple[str, ...] = ()  # market products it reads: a preference for nodes that hold them
    healthy_deadline_s: float = 120.0


@dataclass(slots=True)
class Version:
    """One numbered version of an agent. Nothing of it changes but whether it ever ran."""

    number: int
    digest: str
    spec_json: str
    policy: Policy
    created_at: float  # wall
    has_run: bool = False  # one of its replicas became ready: fit to fall back to


@dataclass(slots=True)
class Node:
    """One machine, as last heard of."""

    name: NodeName
    state: NodeState = NodeState.JOINING
    is_cordoned: bool = False
    cordon_reason: str = ""
    drain: Drain | None = None
    session: int = 0  # the stream we talk to; 0 is none. Messages of other sessions are ignored
    last_heard: float = 0.0  # mono
    cpu_millicores: int = 0
    memory_mib: int = 0
    gpus: int = 0
    labels: dict[str, str] = field(default_factory=dict)
    capabilities: frozenset[str] = frozenset()
    products: frozenset[str] = frozenset()  # that its own settings name: fed whatever we say
    takes_products: bool = False  # it has a feed that takes more of them from us
    market_source: str = ""  # where its feed gets them; empty without one
    metrics_address: str = ""  # host:port of its daemon's metrics; empty where there are none
    assigned: set[ProductName] = field(default_factory=set)  # products that name it in their `nodes`
    fed: dict[str, ProductStatus] | None = None  # what its feed serves now; None: not said since its Hello
    daemon_version: str = ""
    measured: Measured | None = None
    replicas: set[ReplicaId] = field(default_factory=set)
    strays: set[ReplicaId] = field(default_factory=set)  # its processes that are not ours any more, until they are gone
    desired_generation: int = 0
    recent_failures: int = 0  # of replicas, halved each minute; a score, not a verdict


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


@dataclass(slots=True)
class Product:
    """A market product that the operator wants fed by `copies` nodes, and the nodes that were told to.

    What a node's own settings name is a copy too, and never stands in `nodes`. A node that leaves (drain) stays there
    until as many copies as wanted are good without it, so `nodes` may hold more than `copies` for a while.
    """

    name: ProductName
    source: str = ""  # the market_source a node must have; "": any
    copies: int = 1
    nodes: set[NodeName] = field(default_factory=set)
    added_at: float = 0.0  # wall
    missing: int = 0  # copies that no node could take at the last look; in memory only


@dataclass(slots=True)
class Drain:
    """An operator's wish to empty a node."""

    started_at: float  # wall
    deadline: float  # mono; when reached, what still runs is interrupted
    reason: str = ""
    is_forced: bool = False  # the deadline was hit and work was stopped
    is_complete: bool = False  # the daemon confirmed that no process remains, and feeds nothing for us
    deadline_s: float | None = None  # from its start; bounds the deadline where the clock jumped meanwhile


@dataclass(slots=True)
class Replica:
    """One occupant of a deployment's numbered seat. Its id is never used again, so it is its own fence."""

    id: ReplicaId
    deployment: DeploymentName
    seat: int
    version: int
    state: ReplicaState = ReplicaState.PENDING
    node: NodeName | None = None
    is_retiring: bool = False  # gets no new task; stops once it holds none
    reason: str = ""
    detail: str = ""
    restarts: int = 0
    pid: int = 0
    private_mib: int = 0
    ready_ms: int = 0
    since: float = 0.0  # wall time of its last move
    not_before: float = 0.0  # mono; a seat whose placements failed waits
    tokens: set[Token] = field(default_factory=set)
    served: int = 0  # attempts that succeeded, as stored
    served_lately: int = 0  # and those since
    progressed_at: float = 0.0  # mono; when it last ended an attempt, or was given one with nothing in hand
    recalled_at: float = 0.0  # mono; when it was last asked to give back what it has not begun


@dataclass(slots=True)
class Task:
    """One live task. Its current attempt, if any, is in the last five fields."""

    id: TaskId
    deployment: DeploymentName
    priority: int
    submitted_at: float  # wall
    input: bytes | None
    input_size: int
    attempt: int = 0  # attempts begun
    failures: int = 0  # attempts that cost one: failed or timed out
    crashes: int = 0  # attempts that ended with the death of their replica or node
    state: TaskState = TaskState.QUEUED
    options: TaskOptions | None = None  # None: the version's own policy
    not_before: float = 0.0  # mono; backoff
    is_cancelling: bool = False
    has_checkpoints: bool = False  # true also when unknown: then dropping them is tried in vain
    token: Token | None = None
    replica: ReplicaId | None = None
    node: NodeName | None = None
    leased_at: float = 0.0  # wall
    lease_batch: int = 0


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
    products: tuple[str, ...] = ()  # replicas whose nodes hold all of them are preferred


@dataclass(slots=True)
class Rollout:
    """A deployment on its way from one version to another."""

    from_version: int | None
    to_version: int
    started_at: float  # wall
    deadline: float  # mono; of the step in progress
    state: str = "progressing"  # then "complete" or "reverted"
    reason: str = ""
    detail: str = ""
    seats_done: int = 0
    vacated: list[int] = field(default_factory=list)  # seats whose old replica stopped first, for want of room


@dataclass(slots=True)
class Deployment:
    """What should run of one agent, and its queue."""

    name: DeploymentName
    replicas_wanted: int
    version: int  # the version new replicas get
    versions: dict[int, Version]
    generation: int = 1  # grows with every change by an operator: the guard of --if-version
    rollout: Rollout | None = None
    is_removed: bool = False  # takes no tasks; forgotten once nothing of it is left
    is_halted: bool = False  # its only version cannot run; nothing is placed until the next deploy or scale
    replicas: set[ReplicaId] = field(default_factory=set)
    queues: dict[int, deque[TaskId]] = field(default_factory=dict)  # priority -> FIFO
    queued: int = 0
    leased: int = 0
    service_s: float | None = None  # what an attempt takes: a decaying maximum, not a mean
    seat_failures: dict[int, int] = field(default_factory=dict)


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
    timers: list[tuple[float, int, Any]] = field(default_factory=list)  # heap of (mono, sequence, timer)
    timer_sequence: int = 0
    next_task: int = 1
    next_replica: int = 1
    next_token: int = 0
    next_batch: int = 1
    lease_batches: dict[int, int] = field(default_factory=dict)  # lease batch -> leases still held
    queued_input_bytes: int = 0
    pending: dict[ReplicaId, None] = field(default_factory=dict)  # replicas that want a node, oldest first
    undispatched: set[DeploymentName] = field(default_factory=set)  # held back by a turn's byte limit
    ahead: set[ReplicaId] = field(default_factory=set)  # replicas that were given more than they can work on at once
    token_marks: deque[tuple[float, Token]] = field(
        default_factory=deque
    )  # mono, newest token then: how old a lease is
    next_recall_check: float = 0.0  # mono
    last_turn: float = 0.0  # mono
    next_silence_check: float = 0.0  # mono
    last_placement: float = 0.0  # mono
    served_stored_at: float = 0.0  # mono; of every replica's count
    failures_halved_at: float = 0.0  # mono; of every node's recent_failures
    seed: int = 0  # of the jitter; given by the shell at start
