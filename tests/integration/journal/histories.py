"""Random histories of a whole farm on a journal: what it reads back must be what the core has."""

from __future__ import annotations

import random
from collections.abc import Callable

from controller.core.commands import (
    AddNode,
    AddProducts,
    AttemptResult,
    AttemptsEnded,
    AttemptsStarted,
    CancelTask,
    Command,
    Cordon,
    Deploy,
    MarketReported,
    NewProduct,
    NewTask,
    NodeBeat,
    NodeJoined,
    NodeStreamEnded,
    Remove,
    RemoveProducts,
    ReplicaNews,
    ReplicasReported,
    Rollback,
    Scale,
    StartDrain,
    StoreCheckpoint,
    SubmitTasks,
    Tick,
    Uncordon,
)
from controller.core.lives import Outcome, ProductState, ReplicaState
from controller.core.model import (
    OPERATOR,
    DeploymentName,
    FarmState,
    Instant,
    Limits,
    NodeName,
    ProductName,
    ProductStatus,
    Replica,
    Task,
    TaskId,
    TaskOptions,
)
from controller.core.policy import Policy
from controller.core.tasks.life import thread_id
from controller.metrics import EngineMetrics
from controller.turns import Turns
from tests.at_once import Journal, Silence, carry_out, one_turn
from tests.simulation.laws import check_same, check_state

WALL_OFFSET_S = 1_795_000_000.0
ECHO = DeploymentName("echo")
ROUNDS = 120  # turns of one random history


class Clock:
    """The two clocks of one controller, moved by the test."""

    def __init__(self) -> None:
        self.mono = 1_000.0

    def __call__(self) -> Instant:
        return Instant(self.mono, self.mono + WALL_OFFSET_S)


OpenJournal = Callable[[], Journal]


class History:
    """A farm whose nodes and operators do random things."""

    def __init__(self, open_journal: OpenJournal, clock: Clock, chance: random.Random) -> None:
        self._open, self._clock, self._chance = open_journal, clock, chance
        self._sessions = 0
        self.ended = 0
        self._journal = open_journal()
        self._lead()

    def _lead(self) -> None:
        clock, limits = self._clock, Limits(input_memory_bytes=2_000)
        self._turns = Turns(
            Silence(), limits, EngineMetrics(), mono=lambda: clock.mono, wall=lambda: clock.mono + WALL_OFFSET_S
        )
        carry_out(self._turns.lead(), self._journal)

    @property
    def state(self) -> FarmState:
        """The live state."""
        assert self._turns.state is not None
        return self._turns.state

    def compare(self) -> None:
        """The core's state against what the journal reads back."""
        check_state(self.state)
        loaded = self._journal.load(self.state.limits, self._clock())
        check_state(loaded)
        check_same(self.state, loaded, self._clock())

    def succeed(self) -> None:
        """Another controller takes over what is stored."""
        self._journal = self._open()
        self._lead()

    def ask(self, *commands: Command) -> None:
        """One turn with these commands."""
        one_turn(self._turns, self._journal, *commands)

    def report(self, replica: Replica, state: ReplicaState) -> None:
        """The node of a replica says how it is."""
        assert replica.node is not None
        session = self.state.nodes[replica.node].session
        self.ask(ReplicasReported(replica.node, session, (ReplicaNews(replica.id, state, "crashed"),)))

    def end(self, task: Task) -> None:
        """A leased task succeeds."""
        assert task.node is not None
        assert task.token is not None
        result = AttemptResult(task.id, task.token, Outcome.SUCCEEDED, b"1")
        self.ask(AttemptsEnded(task.node, self.state.nodes[task.node].session, (result,)))

    def turn(self) -> None:
        """Some commands, one commit; now and then a comparison, or another controller takes over."""
        self._clock.mono += self._chance.choice((0.01, 0.2, 1.0, 1.0, 2.5))
        beats: list[Command] = [
            NodeBeat(node.name, node.session)
            for node in self.state.nodes.values()
            if node.session and self._chance.random() < 0.9
        ]
        commands = beats + [self._command() for _ in range(self._chance.randint(1, 6))]
        out = one_turn(self._turns, self._journal, *commands)
        self.ended += len(out.changes.finished_tasks)
        if self._chance.random() < 0.2:
            self.compare()
        if self._chance.random() < 0.05:
            self.succeed()

    def _command(self) -> Command:
        chance, state = self._chance, self.state
        makers: list[tuple[int, Callable[[], Command]]] = [
            (2, lambda: AddNode(self._node(), actor=OPERATOR)),
            (4, self._hello),
            (6, self._report),
            (6, self._submit),
            (3, lambda: CancelTask(chance.choice([*state.tasks, TaskId(1)]), actor=OPERATOR)),
            (4, self._begin),
            (14, self._end),
            (2, self._checkpoint),
            (2, self._deploy),
            (1, lambda: Scale(self._name(), chance.randint(0, 4), actor=OPERATOR)),
            (1, lambda: Rollback(self._name(), actor=OPERATOR)),
            (1, lambda: Remove(self._name(), actor=OPERATOR) if chance.random() < 0.2 else Tick()),
            (1, lambda: Cordon(self._node(), "why not", actor=OPERATOR)),
            (1, lambda: Uncordon(self._node(), actor=OPERATOR)),
            (1, lambda: StartDrain(self._node(), chance.choice((0.5, 20.0)), "disk", actor=OPERATOR)),
            (1, self._break),
            (2, self._feed),
            (1, lambda: RemoveProducts((self._product(),), actor=OPERATOR)),
            (3, self._market),
        ]
        maker = chance.choices([it for _, it in makers], [weight for weight, _ in makers])[0]
        return maker()

    def _node(self) -> NodeName:
        return NodeName(self._chance.choice(("n1", "n2", "n3")))

    def _product(self) -> ProductName:
        return ProductName(self._chance.choice(("BTC-USD", "ETH-USD", "SOL-USD")))

    def _feed(self) -> Command:
        return AddProducts(
            (NewProduct(self._product(), self._chance.choice((None, "", "b")), self._chance.randint(1, 3)),),
            actor=OPERATOR,
        )

    def _market(self) -> Command:
        node = self.state.nodes.get(self._node())
        if node is None:
            return Tick()
        said = {it: ProductStatus(self._chance.choice(tuple(ProductState))) for it in node.assigned | node.products}
        return MarketReported(node.name, node.session, said)

    def _name(self) -> DeploymentName:
        return DeploymentName(self._chance.choice(("echo", "brief")))

    def _hello(self) -> Command:
        self._sessions += 1
        node = self.state.nodes.get(self._node())
        held = [self.state.replicas[it] for it in sorted(node.replicas)] if node is not None else []
        running = [token for replica in held for token in sorted(replica.tokens) if self._chance.random() < 0.8]
        news = tuple(ReplicaNews(it.id, it.state) for it in held if self._chance.random() < 0.8)
        return NodeJoined(
            node.name if node is not None else self._node(), self._sessions, "1.0", 4000, 2048, 0, {"zone": "ü"},
            frozenset({"avx"}), self._chance.choice((frozenset(), frozenset({"BTC-USD"}))), None, news,
            frozenset(running), frozenset(), self._chance.random() < 0.8, self._chance.choice("aab"),
        )  # fmt: skip

    def _report(self) -> Command:
        placed = [it for it in self.state.replicas.values() if it.node is not None]
        if not placed:
            return Tick()
        replica = self._chance.choice(placed)
        said = self._chance.choice((ReplicaState.RUNNING,) * 8 + tuple(ReplicaState))
        assert replica.node is not None
        news = ReplicaNews(replica.id, said, "crashed", "it died", 4711, 1, 12, 34)
        return ReplicasReported(replica.node, self.state.nodes[replica.node].session, (news,))

    def _submit(self) -> Command:
        options = TaskOptions(
            max_attempts=self._chance.choice((2, 4)),
            queue_timeout_s=self._chance.choice((None, None, 5.0)),
            labels=(("who", "mé"),) if self._chance.random() < 0.3 else (),
        )
        data = b'"' + b"x" * self._chance.randint(0, 200) + b'"'
        chosen = options if self._chance.random() < 0.5 else None
        new = tuple(
            NewTask(self._name(), data, self._chance.randint(-5, 5), chosen) for _ in range(self._chance.randint(1, 8))
        )
        return SubmitTasks(new, actor=OPERATOR)

    def _leased(self) -> Task | None:
        leased = [task for task in self.state.tasks.values() if task.token is not None]
        return self._chance.choice(leased) if leased else None

    def _begin(self) -> Command:
        task = self._leased()
        if task is None or task.node is None or task.token is None:
            return Tick()
        return AttemptsStarted(task.node, self.state.nodes[task.node].session, (task.token,))

    def _end(self) -> Command:
        task = self._leased()
        if task is None or task.node is None or task.token is None:
            return Tick()
        outcome = self._chance.choice((Outcome.SUCCEEDED,) * 5 + tuple(Outcome))
        if outcome is Outcome.LOST:
            outcome = Outcome.INTERRUPTED
        error = self._chance.choice(("ValueError", "Reject", "ReplicaCrashed"))
        result = AttemptResult(task.id, task.token, outcome, b'{"out": 1}', error, 'no "way"\\ %s', "line\n{}", 0.01)
        return AttemptsEnded(task.node, self.state.nodes[task.node].session, (result,))

    def _checkpoint(self) -> Command:
        task = self._leased()
        if task is None or task.token is None:
            return Tick()
        return StoreCheckpoint(task.id, task.token, thread_id(task), "", "c1", "", b"state", (("w", 0, b"data"),),
                               actor=OPERATOR)  # fmt: skip

    def _deploy(self) -> Command:
        digest = f"sha256:{self._chance.randint(1, 3)}"
        policy = Policy(max_attempts=3, concurrency=self._chance.randint(1, 4), backoff_s=0.5)
        return Deploy(
            self._name(), digest, f'{{"d": "{digest}"}}', policy, replicas=self._chance.randint(1, 3), actor=OPERATOR
        )

    def _break(self) -> Command:
        node = self.state.nodes.get(self._node())
        return NodeStreamEnded(node.name, node.session) if node is not None else Tick()
