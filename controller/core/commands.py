"""Everything that can change the farm. A command says what happened or what is wanted; `decide` says what follows.

A command marked *answered* gets exactly one answer, a value or a FarmError, after the commit. The others are facts from
nodes: they need none, and one that is stale is dropped.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from controller.core.lives import Outcome, ReplicaState
from controller.core.model import (
    FARM,
    Actor,
    DeploymentName,
    Measured,
    NodeName,
    ProductName,
    ProductStatus,
    ReplicaId,
    TaskId,
    TaskOptions,
    Token,
    node_actor,
)
from controller.core.policy import Policy


@dataclass(frozen=True, slots=True)
class Wish:
    """What somebody asks for. Who that is stands in every event that follows from it."""

    actor: Actor = field(kw_only=True)


class NodeReport:
    """What a node says on its own stream. The stream proves the name of the node, and so the node is who acts."""

    __slots__ = ()
    node: NodeName

    @property
    def actor(self) -> Actor:
        """The node."""
        return node_actor(self.node)


# ------------------------------------------------------------------ tasks


@dataclass(frozen=True, slots=True)
class NewTask:
    """One task to accept. `input` is JSON, checked by the gateway."""

    deployment: DeploymentName
    input: bytes
    priority: int | None = None
    options: TaskOptions | None = None


class KnownTask(int):
    """The id of the task that was submitted before under this idempotency key. It may be other work."""


@dataclass(frozen=True, slots=True)
class SubmitTasks(Wish):
    """Answered with list[TaskId | KnownTask | FarmError], one for each task in order.

    known_keys: task ids already stored under an idempotency key of this command; the engine looks them up.
    """

    tasks: tuple[NewTask, ...]
    known_keys: dict[str, TaskId] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class CancelTask(Wish):
    """Answered with TaskState: cancelled, or the state it is in while its attempt is being stopped."""

    task: TaskId


@dataclass(frozen=True, slots=True)
class StoreCheckpoint(Wish):
    """Answered with None once durable; StaleToken if the attempt lost its lease."""

    task: TaskId
    token: Token
    thread_id: str
    namespace: str
    checkpoint_id: str
    parent_id: str
    payload: bytes | None
    """None: only writes are added."""
    writes: tuple[tuple[str, int, bytes], ...] = ()
    """(writer id, index, payload)."""


# ------------------------------------------------------------------ deployments


@dataclass(frozen=True, slots=True)
class Deploy(Wish):
    """Answered with DeployAnswer. Makes the deployment, or a new version of it, and rolls it out.

    if_generation: refuse (Conflict) unless the deployment's generation is this; 0 means it must not exist yet.
    """

    name: DeploymentName
    digest: str
    spec_json: str
    policy: Policy
    replicas: int | None = None
    """None: as it is, or as the spec says for a new one."""
    spec_replicas: int = 1
    if_generation: int | None = None


@dataclass(frozen=True, slots=True)
class DeployAnswer:
    version: int
    generation: int
    is_changed: bool


@dataclass(frozen=True, slots=True)
class Scale(Wish):
    """Answered with the new generation."""

    name: DeploymentName
    replicas: int
    if_generation: int | None = None


@dataclass(frozen=True, slots=True)
class Rollback(Wish):
    """Answered with DeployAnswer. to_version None: the newest earlier version that ran well."""

    name: DeploymentName
    to_version: int | None = None
    if_generation: int | None = None


@dataclass(frozen=True, slots=True)
class Remove(Wish):
    """Answered with None. Queued tasks are cancelled; running ones may finish."""

    name: DeploymentName


# ------------------------------------------------------------------ nodes, by operators


@dataclass(frozen=True, slots=True)
class AddNode(Wish):
    """Answered with None. The node is known by name from its invitation on; known already: nothing changes."""

    node: NodeName


@dataclass(frozen=True, slots=True)
class Cordon(Wish):
    """Answered with None."""

    node: NodeName
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Uncordon(Wish):
    """Answered with None. Ends a drain too."""

    node: NodeName


@dataclass(frozen=True, slots=True)
class StartDrain(Wish):
    """Answered with None; progress is in the node's view and in events."""

    node: NodeName
    deadline_s: float
    reason: str = ""


@dataclass(frozen=True, slots=True)
class ForgetNode(Wish):
    """Answered with None. Only a node that is lost or never joined can be forgotten."""

    node: NodeName


# ------------------------------------------------------------------ market products


@dataclass(frozen=True, slots=True)
class NewProduct:
    """A product to feed. None: as it is, or for a new one any source and one copy."""

    name: ProductName
    source: str | None = None
    copies: int | None = None


@dataclass(frozen=True, slots=True)
class AddProducts(Wish):
    """Answered with list[ProductName]: those that are new or changed. Known already and the same: nothing changes.

    All or none. CannotPlace if no node has a feed that could ever take one of them.
    """

    products: tuple[NewProduct, ...]


@dataclass(frozen=True, slots=True)
class RemoveProducts(Wish):
    """Answered with None. All or none: NotFound if one of them is not assigned across the farm."""

    products: tuple[ProductName, ...]


# ------------------------------------------------------------------ nodes, by their streams


@dataclass(frozen=True, slots=True)
class NodeJoined(NodeReport):
    """A node's Hello on a new stream. Answered with None before Welcome is sent."""

    node: NodeName
    session: int
    daemon_version: str
    cpu_millicores: int
    memory_mib: int
    gpus: int
    labels: dict[str, str]
    capabilities: frozenset[str]
    products: frozenset[str]
    measured: Measured | None
    replicas: tuple[ReplicaNews, ...]
    running: frozenset[Token]
    finished: frozenset[Token]
    takes_products: bool = False
    market_source: str = ""
    metrics_address: str = ""


@dataclass(frozen=True, slots=True)
class ReplicaNews:
    """What a node says of one replica."""

    replica: ReplicaId
    state: ReplicaState
    reason: str = ""
    detail: str = ""
    pid: int = 0
    restarts: int = 0
    private_mib: int = 0
    ready_ms: int = 0


@dataclass(frozen=True, slots=True)
class NodeBeat(NodeReport):
    """Renews every lease of the node. Acknowledged with its `seq` after the turn: by a leader only."""

    node: NodeName
    session: int
    seq: int = 0
    measured: Measured | None = None


@dataclass(frozen=True, slots=True)
class NodeStreamEnded(NodeReport):
    """The stream broke. The node's leases hold on until it has been silent for too long."""

    node: NodeName
    session: int


@dataclass(frozen=True, slots=True)
class ReplicasReported(NodeReport):
    node: NodeName
    session: int
    replicas: tuple[ReplicaNews, ...]


@dataclass(frozen=True, slots=True)
class MarketReported(NodeReport):
    """Every product that the node's feed serves now."""

    node: NodeName
    session: int
    products: dict[str, ProductStatus]


@dataclass(frozen=True, slots=True)
class AttemptsStarted(NodeReport):
    node: NodeName
    session: int
    tokens: tuple[Token, ...]


@dataclass(frozen=True, slots=True)
class AttemptResult:
    task: TaskId
    token: Token
    outcome: Outcome
    output: bytes = b""
    error_type: str = ""
    error_message: str = ""
    error_traceback: str = ""
    duration_s: float = 0.0
    replica: ReplicaId | None = None
    """The replica that held the attempt, as its daemon knows it. None: a node of 0.1 does not say."""


@dataclass(frozen=True, slots=True)
class AttemptsEnded(NodeReport):
    """Results of a node. Every token in it is acknowledged to the node after the commit, stale ones too."""

    node: NodeName
    session: int
    results: tuple[AttemptResult, ...]


@dataclass(frozen=True, slots=True)
class FactSetAside(NodeReport):
    """What the node said can never be stored. Of a result the attempt fails, and the node may forget it."""

    node: NodeName
    fact: str
    """The kind of the command."""
    why: str
    result: AttemptResult | None = None


@dataclass(frozen=True, slots=True)
class Tick:
    """Time passed. Sent by the engine when the next timer is due, at least once a second."""

    @property
    def actor(self) -> Actor:
        """The farm itself."""
        return FARM


Command = Wish | NodeReport | Tick
