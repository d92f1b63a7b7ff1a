"""A small farm for stories about the core: the real turns, a clock that only the test moves, obedient nodes.

Every turn is committed to an in-memory journal. After every turn all laws of the state are checked, and the state is
compared with what the journal would read back.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from agentfarm.errors import FarmError
from controller.core.commands import (
    AddNode,
    AddProducts,
    AttemptResult,
    AttemptsEnded,
    AttemptsStarted,
    Command,
    Deploy,
    MarketReported,
    NewProduct,
    NewTask,
    NodeBeat,
    NodeJoined,
    ReplicaNews,
    ReplicasReported,
    SubmitTasks,
    Tick,
)
from controller.core.decide import TICK_S
from controller.core.lives import Outcome, ProductState, ReplicaState, TaskState
from controller.core.model import (
    OPERATOR,
    Deployment,
    DeploymentName,
    FarmState,
    Instant,
    Limits,
    Node,
    NodeName,
    Product,
    ProductName,
    ProductStatus,
    Replica,
    ReplicaId,
    Task,
    TaskId,
    TaskOptions,
    Token,
)
from controller.core.policy import Policy, Resources
from controller.core.transition import (
    AckResults,
    Assign,
    CancelAttempts,
    Effect,
    Event,
    FinishedTask,
    Lease,
    RecallAttempts,
    SetDesired,
    Transition,
)
from controller.journal.memory import MemoryJournal, Tables
from controller.metrics import EngineMetrics
from controller.turns import Turns
from tests.at_once import Sent, carry_out, one_turn
from tests.simulation.laws import Ledger, check_same, check_state

ECHO = DeploymentName("echo")
WALL_OFFSET_S = 1_700_000_000.0


class Farm:
    """`turn` is one turn of the engine; `out` the last Transition; `effects` everything sent so far."""

    def __init__(self, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        self.tables = Tables()
        self.mono = 1_000.0
        self.wall_offset_s = WALL_OFFSET_S
        self.journal = MemoryJournal(self.tables)
        self.ledger = Ledger(self.tables)
        self.silent: set[str] = set()
        self.world = Sent()
        self.sessions = 0
        self.restart()

    @property
    def effects(self) -> list[Effect]:
        return self.world.effects

    @property
    def state(self) -> FarmState:
        assert self.turns.state is not None
        return self.turns.state

    @property
    def now(self) -> Instant:
        return Instant(self.mono, self.mono + self.wall_offset_s)

    def restart(self, *, clock_jump_s: float = 0.0) -> None:
        """The controller dies; another takes over what the journal holds. Meanwhile the wall clock may have jumped."""
        self.wall_offset_s += clock_jump_s
        self.turns = Turns(
            self.world, self.limits, EngineMetrics(), mono=lambda: self.now.mono, wall=lambda: self.now.wall
        )
        carry_out(self.turns.lead(), self.journal)

    def turn(self, *commands: Command) -> Transition:
        """One turn, then all checks."""
        out = self.out = one_turn(self.turns, self.journal, *commands)
        self.ledger.committed([token for batch in out.changes.lease_batches for token in batch.tokens])
        self.ledger.check()
        check_state(self.state)
        loaded = MemoryJournal(self.tables).load(self.limits, self.now)
        check_same(self.state, loaded, self.now, clock_jumped=self.wall_offset_s != WALL_OFFSET_S)
        return out

    def ask(self, command: Command) -> Any:
        """The answer to one command. Raises the FarmError it was answered with."""
        answer = self.turn(command).answers[0]
        if isinstance(answer, FarmError):
            raise answer
        return answer

    def wait(self, seconds: float) -> None:
        """Time passes; nodes beat unless they are silent."""
        end = self.mono + seconds
        while self.mono < end - 1e-9:
            self.mono = min(end, self.mono + TICK_S)
            beats: list[Command] = [
                NodeBeat(node.name, node.session)
                for node in self.state.nodes.values()
                if node.session and node.name not in self.silent
            ]
            self.turn(*(beats or [Tick()]))

    # -------------------------------------------------------------- nodes

    def node(self, name: str, *, memory_mib: int = 4096, cpu: int = 4000, labels: dict[str, str] | None = None) -> Node:
        """A node is invited and joins."""
        self.turn(AddNode(NodeName(name), actor=OPERATOR))
        self.hello(name, memory_mib=memory_mib, cpu=cpu, labels=labels)
        return self.state.nodes[NodeName(name)]

    def hello(
        self,
        name: str,
        *,
        running: list[Token] | None = None,
        finished: list[Token] | None = None,
        replicas: dict[int, ReplicaState] | None = None,
        memory_mib: int = 4096,
        cpu: int = 4000,
        labels: dict[str, str] | None = None,
        source: str = "",
        own: tuple[str, ...] = (),
    ) -> int:
        """A new stream of a node; what it says it holds. With a source its feed takes products. Returns the session."""
        self.sessions += 1
        news = tuple(ReplicaNews(ReplicaId(number), state) for number, state in (replicas or {}).items())
        answer = self.turn(
            NodeJoined(
                NodeName(name), self.sessions, "1", cpu, memory_mib, 0, labels or {}, frozenset(), frozenset(own), None,
                news, frozenset(running or ()), frozenset(finished or ()), bool(source), source,
            )
        ).answers[0]  # fmt: skip
        if isinstance(answer, FarmError):
            raise answer
        return self.sessions

    def feeding(self, *names: str, source: str = "a") -> None:
        """Nodes with feeds join; none feeds anything yet."""
        for name in names:
            self.turn(AddNode(NodeName(name), actor=OPERATOR))
            self.hello(name, source=source)
            self.feeds(name)

    def feed(self, *names: str, copies: int | None = None, source: str | None = None) -> list[Product]:
        """Products are added; returns them."""
        products = [ProductName(name) for name in names]
        self.ask(AddProducts(tuple(NewProduct(name, source, copies) for name in products), actor=OPERATOR))
        return [self.state.products[name] for name in products]

    def feeds(self, node: str, **states: str) -> None:
        """A node's feed says how its products are, `_` for `-`; without any: all it was told to feed are good."""
        said = {name.replace("_", "-"): ProductStatus(ProductState(state)) for name, state in states.items()}
        known = self.state.nodes[NodeName(node)]
        good = dict.fromkeys(known.assigned | known.products, ProductStatus(ProductState.GOOD))
        self.turn(MarketReported(known.name, known.session, said or good))

    def holding(self, name: str) -> dict[str, Any]:
        """What an honest node of that name would say in its Hello if it runs all it was given."""
        node = self.state.nodes[NodeName(name)]
        return {
            "running": [token for replica in node.replicas for token in self.state.replicas[replica].tokens],
            "replicas": {replica: self.state.replicas[replica].state for replica in node.replicas},
        }

    def report(self, replica: Replica, state: ReplicaState, reason: str = "", detail: str = "") -> Transition:
        """The node of a replica says how it is."""
        assert replica.node is not None
        node = self.state.nodes[replica.node]
        return self.turn(ReplicasReported(node.name, node.session, (ReplicaNews(replica.id, state, reason, detail),)))

    def report_stray(self, name: str, replica: ReplicaId, state: ReplicaState) -> Transition:
        """A node says how a process is that the controller has written off."""
        node = self.state.nodes[NodeName(name)]
        return self.turn(ReplicasReported(node.name, node.session, (ReplicaNews(replica, state),)))

    # -------------------------------------------------------------- deployments

    def deploy(self, name: str = "echo", *, replicas: int = 1, digest: str = "sha256:1", **policy: Any) -> Deployment:
        """Deploy without waiting for anything."""
        chosen = Policy(**policy)
        self.ask(Deploy(DeploymentName(name), digest, f"{{{digest}}}", chosen, replicas=replicas, actor=OPERATOR))
        return self.state.deployments[DeploymentName(name)]

    def run_all(self) -> None:
        """Every node obeys its list: what should start runs, what should stop has stopped, until nothing changes."""
        for _ in range(100):
            news: list[tuple[Replica, ReplicaState]] = []
            for replica in self.state.replicas.values():
                if replica.state is ReplicaState.STARTING:
                    news.append((replica, ReplicaState.RUNNING))
                elif replica.state is ReplicaState.STOPPING and not replica.tokens:
                    news.append((replica, ReplicaState.STOPPED))
            news = [(r, s) for r, s in news if r.node is not None and self.state.nodes[r.node].session]
            if not news:
                return
            for replica, said in news:
                self.report(replica, said)
        raise AssertionError("the farm does not settle")

    def service(self, *nodes: str, replicas: int = 1, **policy: Any) -> Deployment:
        """Nodes and a deployment that runs on them."""
        for name in nodes or ("n1",):
            self.node(name)
        self.deploy(replicas=replicas, **policy)
        self.run_all()
        return self.state.deployments[ECHO]

    def replicas(self, name: str = "echo") -> list[Replica]:
        """The live replicas of a deployment by seat and id."""
        found = [self.state.replicas[r] for r in self.state.deployments[DeploymentName(name)].replicas]
        return sorted(found, key=lambda it: (it.seat, it.id))

    # -------------------------------------------------------------- tasks

    def submit(self, count: int = 1, *, name: str = "echo", priority: int | None = None, **options: Any) -> list[Task]:
        """Submit tasks in one command; returns the live ones."""
        chosen = TaskOptions(**options) if options else None
        new = tuple(NewTask(DeploymentName(name), b"{}", priority, chosen) for _ in range(count))
        answers = self.ask(SubmitTasks(new, actor=OPERATOR))
        for answer in answers:
            if isinstance(answer, FarmError):
                raise answer
        return [self.state.tasks[answer] for answer in answers if answer in self.state.tasks]

    def start(self, task: Task) -> None:
        """The node says that a leased task's attempt has begun."""
        assert task.node is not None
        assert task.token is not None
        self.turn(AttemptsStarted(task.node, self.state.nodes[task.node].session, (task.token,)))

    def end(self, task: Task, outcome: Outcome = Outcome.SUCCEEDED, error_type: str = "", **more: Any) -> Transition:
        """The node reports a leased task's attempt as ended."""
        assert task.node is not None
        assert task.token is not None
        return self.end_as(task.node, task.id, task.token, outcome, error_type, **more)

    def end_as(
        self, node: str, task: TaskId, token: Token, outcome: Outcome = Outcome.SUCCEEDED, error_type: str = "",
        *, output: bytes = b'"done"', duration_s: float = 1.0, replica: ReplicaId | None = None,
    ) -> Transition:  # fmt: skip
        """Any node reports any token as ended."""
        result = AttemptResult(task, token, outcome, output if outcome is Outcome.SUCCEEDED else b"", error_type,
                               duration_s=duration_s, replica=replica)  # fmt: skip
        known = self.state.nodes.get(NodeName(node))
        return self.turn(AttemptsEnded(NodeName(node), known.session if known is not None else 0, (result,)))

    def finished(self, task: Task | TaskId) -> FinishedTask:
        """A task's last word, as stored."""
        return self.tables.finished[task.id if isinstance(task, Task) else task]

    # -------------------------------------------------------------- what was sent

    def leases(self) -> list[Lease]:
        """All leases ever sent, in order."""
        return leases_of(self.effects)

    def acked(self) -> set[Token]:
        """All result tokens ever acknowledged."""
        return {token for effect in self.effects if isinstance(effect, AckResults) for token in effect.tokens}

    def cancelled(self, reason: str) -> set[Token]:
        """All attempts ever called back for a reason."""
        return {
            token
            for effect in self.effects
            if isinstance(effect, CancelAttempts) and effect.reason == reason
            for token in effect.tokens
        }

    def recalls(self) -> list[RecallAttempts]:
        """Every request to give back what has not begun."""
        return [effect for effect in self.effects if isinstance(effect, RecallAttempts)]

    def recalled(self) -> set[Token]:
        """All attempts ever asked to be given back."""
        return {token for effect in self.recalls() for token in effect.tokens}

    def desired(self, node: str) -> SetDesired:
        """The newest list sent to a node."""
        return [e for e in self.effects if isinstance(e, SetDesired) and e.node == node][-1]

    def told(self, kind: str) -> list[Event]:
        """Events of a kind, as stored."""
        return [event for event in self.tables.events if event.kind == kind]


def leases_of(effects: Iterable[Effect]) -> list[Lease]:
    """All leases in some effects, in order."""
    return [lease for effect in effects if isinstance(effect, Assign) for lease in effect.leases]


def big(memory_mib: int) -> Resources:
    """Replicas of which few fit."""
    return Resources(cpu_millicores=100, memory_mib=memory_mib)


QUEUED, LEASED, RUNNING = TaskState.QUEUED, TaskState.LEASED, TaskState.RUNNING
