"""A farm in memory: the real turns behind a small engine, and one node that does what its agents' names say.

Agents: `echo` answers with its input; `fail` raises each time; `slow` never ends until `release`d; `stream` gives
three pieces of output first. Used by the tests of the gateway and of farmctl.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Collection, Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson

from agentfarm.agents.bundle import digest_of
from agentfarm.agents.spec import AgentSpec
from agentfarm.errors import FarmError, NotFound, Unavailable
from controller.core.commands import (
    AddNode,
    AttemptResult,
    AttemptsEnded,
    AttemptsStarted,
    Command,
    Deploy,
    MarketReported,
    NewTask,
    NodeJoined,
    ReplicaNews,
    ReplicasReported,
    Tick,
)
from controller.core.lives import Outcome, ProductState, ReplicaState, TaskState
from controller.core.model import (
    OPERATOR,
    DeploymentName,
    FarmState,
    Limits,
    Measured,
    NodeName,
    ProductStatus,
    Replica,
    ReplicaId,
    Task,
    TaskId,
)
from controller.core.transition import (
    Assign,
    CancelAttempts,
    Changes,
    Effect,
    EndedAttempt,
    FinishedTask,
    Lease,
    SetDesired,
    Transition,
)
from controller.gateway.agents.deployments import policy_of
from controller.gateway.app import app_of
from controller.gateway.history import EventFilter
from controller.gateway.nodes.models import InviteAnswer, JoinAnswer, JoinBody
from controller.gateway.scope import Farm
from controller.gateway.settings import GatewaySettings
from controller.journal.queries.reader import StoredEvent
from controller.metrics import EngineMetrics
from controller.turns import Turns
from controller.watchers import EventBus, TaskWatch, Watchers
from tests.at_once import Silence, one_turn

TOKEN = "operator-token-of-the-tests"
DIGEST = digest_of(b"a bundle")


class SmallEngine(Silence):
    """Commands are decided at once, in order; nodes answer in the next step of the loop."""

    def __init__(self) -> None:
        self.watchers = Watchers()
        self.events = EventBus()
        self.metrics = EngineMetrics()
        self.turns = Turns(self, Limits(), self.metrics, mono=time.monotonic, wall=time.time)
        self.live = FarmState(epoch=1, limits=Limits())
        self.memory = MemoryHistory(self)
        self.nodes: dict[str, SmallNode] = {}
        self.refusal: FarmError | None = None  # what every ask raises, when PostgreSQL is "away"
        self.commands: list[Command] = []

    @property
    def live(self) -> FarmState | None:
        """The state; None while another controller leads."""
        return self.turns.state

    @live.setter
    def live(self, state: FarmState | None) -> None:
        self.turns.state = state

    @property
    def state(self) -> FarmState:
        if self.live is None:
            raise Unavailable("This controller does not lead now.", remedy="Try again.")
        return self.live

    async def ask(self, command: Command, *, deadline_s: float = 10.0) -> Any:
        await asyncio.sleep(0)
        if self.refusal is not None:
            raise self.refusal
        answer = self.do(command)
        if isinstance(answer, FarmError):
            raise answer
        return answer

    async def flushed(self) -> None:
        await self.ask(Tick())

    def do(self, command: Command) -> Any:
        """Decide one command and let everything that follows happen."""
        self.commands.append(command)
        return one_turn(self.turns, self.memory, command).answers[0]

    def watch_task(self, task: TaskId, after: int = 0) -> TaskWatch | None:
        return self.watchers.watch(task, after) if task in self.state.tasks else None

    def send(self, effects: Sequence[Effect]) -> None:
        for effect in effects:
            node = self.nodes.get(effect.node)
            if node is not None:
                asyncio.get_running_loop().call_soon(node.receive, effect)

    def tell(self, transition: Transition, state: FarmState) -> None:
        self.watchers.hear(transition, state.tasks)
        self.events.publish(transition.changes.events)


class SmallNode:
    """A daemon that starts every replica and runs every attempt at once."""

    def __init__(self, engine: SmallEngine, name: str) -> None:
        self.engine, self.name, self.session = engine, NodeName(name), 1
        self.held: dict[int, Lease] = {}
        self.replicas: set[int] = set()
        self.stopping: set[int] = set()
        self.import_error = ""
        self.source = ""  # of a feed that takes products; joins without one
        self.product_state = ProductState.GOOD  # of every product it is told to feed
        self.stays_silent = False  # about replicas that should stop: a drain then waits

    def join(self, memory_mib: int = 4096) -> None:
        self.engine.nodes[self.name] = self
        self.engine.do(AddNode(self.name, actor=OPERATOR))
        self.engine.do(NodeJoined(
            self.name, self.session, "0.1.0", 4000, memory_mib, 0, {"rack": "a"}, frozenset(),
            frozenset({"BTC-USD"}), Measured(memory_mib, 10, 1000, 120, 5, "simulated"), (), frozenset(), frozenset(),
            bool(self.source), self.source, "127.0.0.1:9601",
        ))  # fmt: skip

    def receive(self, effect: object) -> None:
        if isinstance(effect, SetDesired):
            self._settle(effect)
        elif isinstance(effect, Assign):
            for lease in effect.leases:
                self._run(lease)
        elif isinstance(effect, CancelAttempts):
            for token in effect.tokens:
                self._end(token, Outcome.CANCELLED if effect.reason == "requested" else Outcome.INTERRUPTED)

    def _settle(self, desired: SetDesired) -> None:
        if desired.products is not None:
            fed = dict.fromkeys((*desired.products, "BTC-USD"), ProductStatus(self.product_state))
            self.engine.do(MarketReported(self.name, self.session, fed))
        news = []
        for item in desired.replicas:
            if item.is_stopping:
                self.stopping.add(item.replica)
            elif item.replica not in self.replicas:
                self.replicas.add(item.replica)
                if self.import_error:
                    news.append(ReplicaNews(item.replica, ReplicaState.FAILED, "import_failed", self.import_error))
                else:
                    news.append(ReplicaNews(item.replica, ReplicaState.RUNNING, pid=4000 + item.replica, ready_ms=12))
        if news:
            self.engine.do(ReplicasReported(self.name, self.session, tuple(news)))
        self._stop_idle()

    def _stop_idle(self) -> None:
        """Replicas that should stop do so once they hold no attempt."""
        busy = {lease.replica for lease in self.held.values()}
        done = [] if self.stays_silent else sorted(self.stopping & self.replicas - busy)
        self.replicas -= set(done)
        if done:
            news = tuple(ReplicaNews(ReplicaId(replica), ReplicaState.STOPPED) for replica in done)
            self.engine.do(ReplicasReported(self.name, self.session, news))

    def _run(self, lease: Lease) -> None:
        self.engine.do(AttemptsStarted(self.name, self.session, (lease.token,)))
        self.held[lease.token] = lease
        agent = self.engine.state.tasks[lease.task].deployment
        if agent == "slow":
            return
        if agent == "stream":
            for piece in (b'"one"', b'"two"', b'"three"'):
                self.engine.watchers.piece(lease.task, piece)
        self._end(lease.token, Outcome.FAILED if agent == "fail" else Outcome.SUCCEEDED)

    def release(self) -> None:
        """End everything that runs, well."""
        for token in list(self.held):
            self._end(token, Outcome.SUCCEEDED)

    def _end(self, token: int, outcome: Outcome) -> None:
        lease = self.held.pop(token, None)
        if lease is None:
            return
        error = ("ValueError", "it fails", "Traceback: it fails") if outcome is Outcome.FAILED else ("", "", "")
        output = lease.input or b"null"
        result = AttemptResult(lease.task, lease.token, outcome, output, *error, duration_s=0.001)
        self.engine.do(AttemptsEnded(self.name, self.session, (result,)))
        self._stop_idle()


class MemoryHistory:
    """What PostgreSQL would hold."""

    def __init__(self, engine: SmallEngine) -> None:
        self.engine = engine
        self.inputs: dict[int, NewTask] = {}
        self.ended: dict[int, FinishedTask] = {}
        self.tries: dict[int, list[EndedAttempt]] = {}
        self.keys: dict[str, TaskId] = {}
        self.stored_events: list[StoredEvent] = []
        self.bundles: dict[str, bytes] = {DIGEST: b"a bundle"}
        self.is_away = False

    def find_keys(self, keys: list[str]) -> dict[str, TaskId]:
        return {key: self.keys[key] for key in keys if key in self.keys}

    def read_inputs(self, ids: list[TaskId]) -> dict[TaskId, bytes]:
        return {task: self.inputs[task].input for task in ids}

    def commit(self, changes: Changes, epoch: int) -> None:
        for task in changes.inserted_tasks:
            self.inputs[task.id] = NewTask(task.deployment, task.input or b"null", task.priority, task.options)
            if task.options is not None and task.options.idempotency_key is not None:
                self.keys[task.options.idempotency_key] = task.id
        for ended in changes.ended_attempts:
            self.tries.setdefault(ended.task, []).append(ended)
        for item in changes.finished_tasks:
            self.ended[item.task.id] = item
        for event in changes.events:
            self.stored_events.append(StoredEvent(len(self.stored_events) + 1, event))

    def _reach(self) -> None:
        if self.is_away:
            raise Unavailable("PostgreSQL cannot be reached.", remedy="Start it.")

    async def task(self, task: TaskId) -> Task | FinishedTask | None:
        self._reach()
        return self.ended.get(task) or self.engine.state.tasks.get(task)

    async def tasks(
        self, states: Collection[TaskState], agent: str | None, after: int | None, limit: int
    ) -> list[Task | FinishedTask]:
        self._reach()
        items = [await self.task(TaskId(task)) for task in sorted(self.inputs, reverse=True)]
        page: list[Task | FinishedTask] = []
        for item in items:
            task = item.task if isinstance(item, FinishedTask) else item
            if item is None or task is None or (states and item.state not in states):
                continue
            if agent in (None, task.deployment) and (after is None or task.id < after):
                page.append(item)
        return page[:limit]

    async def attempts(self, task: TaskId) -> list[EndedAttempt]:
        self._reach()
        last, rows = self.ended.get(task), list(self.tries.get(task, []))
        if last is not None and last.task.token is not None:
            rows.append(EndedAttempt(
                task, last.task.attempt, last.task.token, last.task.node, last.task.replica, last.task.leased_at,
                last.finished_at, last.state.value, last.error_type, last.error_message,
            ))  # fmt: skip
        return rows

    async def submission(self, task: TaskId) -> NewTask:
        self._reach()
        if task not in self.inputs:
            raise NotFound(f"There is no task {task}.")
        return self.inputs[task]

    async def events(self, after: int | None, limit: int, about: EventFilter) -> list[StoredEvent]:
        self._reach()
        wanted = {key: value for key, value in asdict(about).items() if value is not None}
        kept = [row for row in self.stored_events if all(getattr(row.event, key) == wanted[key] for key in wanted)]
        return kept[-limit:] if after is None else [row for row in kept if row.id > after][:limit]

    async def ended_counts(self) -> dict[TaskState, int]:
        self._reach()
        return dict(Counter(item.state for item in self.ended.values()))

    async def has_bundle(self, digest: str) -> bool:
        self._reach()
        return digest in self.bundles

    async def put_bundle(self, digest: str, data: bytes) -> None:
        self._reach()
        self.bundles.setdefault(digest, data)


class MemoryJoining:
    """Invitations without certificates."""

    def __init__(self) -> None:
        self.invited: list[str] = []

    async def invite(self, name: str) -> InviteAnswer:
        self.invited.append(name)
        soon = datetime.now(UTC) + timedelta(minutes=15)
        return InviteAnswer(name=name, token=f"token-of-{name}", expires_at=soon)

    async def join(self, body: JoinBody) -> JoinAnswer:
        return JoinAnswer(certificate_pem="cert", ca_pem="ca", proof="proof")

    async def forget(self, node: NodeName) -> None:
        self.invited = [name for name in self.invited if name != node]


class MemoryLogs:
    """Two lines of log for every replica; a third comes when it is followed."""

    async def read(self, replica: Replica, *, tail_lines: int, follow: bool) -> AsyncIterator[bytes]:
        lines = [b"first line\n", b"second line of %d\n" % replica.id][-tail_lines:]
        yield b"".join(lines)
        if follow:
            yield b"third line\n"


class SmallFarm:
    """The engine, its node, its history, and the application over them."""

    def __init__(self, *nodes: str, payload_max_bytes: int = 64 * 1024) -> None:
        self.engine = SmallEngine()
        self.memory = self.engine.memory
        self.joining = MemoryJoining()
        self.nodes = {name: SmallNode(self.engine, name) for name in nodes or ("node-1",)}
        self.settings = GatewaySettings(
            operator_token=TOKEN, payload_max_bytes=payload_max_bytes, allowed_hosts=("farm",)
        )
        self.app = app_of(Farm(self.engine, self.memory, self.joining, MemoryLogs(), self.settings))

    async def start(self, *agents: str) -> None:
        """Join the nodes, deploy the agents, and let them come up."""
        for node in self.nodes.values():
            node.join()
        for agent in agents or ("echo", "fail", "slow", "stream"):
            self.deploy(agent)
        await self.settle()

    def deploy(self, agent: str, digest: str = DIGEST, replicas: int | None = None) -> None:
        spec = AgentSpec(name=agent, retries={"max_attempts": 2, "backoff_s": 0.0})
        self.engine.do(
            Deploy(DeploymentName(agent), digest, spec.canonical_json(), policy_of(spec), replicas, actor=OPERATOR)
        )

    async def settle(self, steps: int = 20) -> None:
        """Let what was set off happen."""
        for _ in range(steps):
            await asyncio.sleep(0)


def spec_json(name: str, **more: object) -> dict[str, Any]:
    """A spec as farmctl sends it."""
    spec: dict[str, Any] = orjson.loads(AgentSpec(name=name).canonical_json())
    return spec | more
