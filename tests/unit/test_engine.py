"""The engine's promises: nothing is answered or sent before it is durable, and a failed commit leaves no trace."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence

import pytest
import pytest_asyncio

from agentfarm.errors import NotFound, Unavailable
from controller.core.commands import (
    AddNode,
    AttemptResult,
    AttemptsEnded,
    Deploy,
    NewTask,
    NodeJoined,
    ReplicaNews,
    ReplicasReported,
    SubmitTasks,
)
from controller.core.lives import Outcome, ReplicaState, TaskState
from controller.core.model import OPERATOR, DeploymentName, FarmState, Instant, Limits, NodeName, TaskId, TaskOptions
from controller.core.policy import Policy
from controller.core.transition import Assign, Changes, Effect, FinishedTask
from controller.engine import Engine
from controller.turns import recover_wait_s

AGENT, NODE = DeploymentName("echo"), NodeName("n1")


class Journal:
    """A journal that remembers what was committed, can be held in mid-commit, and can fail."""

    def __init__(self) -> None:
        self.epoch = 0
        self.commits: list[Changes] = []
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()  # a commit with tasks waits at the gate
        self.fail_next = False
        self.leads = True  # else another controller does
        self.keys: dict[str, TaskId] = {}
        self.inputs: dict[TaskId, bytes] = {}

    def take_lead(self) -> int:
        if not self.leads:
            raise Unavailable("Another controller leads.")
        self.epoch += 1
        return self.epoch

    def load(self, limits: Limits, now: Instant) -> FarmState:
        return FarmState(self.epoch, limits, next_token=self.epoch << 40)

    def commit(self, changes: Changes, epoch: int) -> None:
        if changes.inserted_tasks:
            self.entered.set()
        assert self.gate.wait(10)
        if self.fail_next:
            self.fail_next = False
            raise Unavailable("The database went away.")
        for task in changes.inserted_tasks:
            assert task.input is not None
            self.inputs[task.id] = task.input
            if task.options is not None and task.options.idempotency_key is not None:
                self.keys[task.options.idempotency_key] = task.id
        self.commits.append(changes)

    def commit_here(self, changes: Changes, epoch: int) -> None:
        """Never: so that a commit can be held on its thread."""

    def find_keys(self, keys: Sequence[str]) -> dict[str, TaskId]:
        return {key: self.keys[key] for key in keys if key in self.keys}

    def read_inputs(self, ids: Sequence[TaskId]) -> dict[TaskId, bytes]:
        return {task: self.inputs[task] for task in ids}


class Nodes:
    """The streams of nodes: what was sent, and how often all were closed."""

    def __init__(self) -> None:
        self.sent: list[Effect] = []
        self.resets = 0

    def deliver(self, effect: Effect) -> None:
        self.sent.append(effect)

    def close_all(self, reason: str) -> None:
        self.resets += 1


class Farm:
    """An engine with one node and one running replica."""

    def __init__(self, limits: Limits) -> None:
        self.journal, self.nodes = Journal(), Nodes()
        self.engine = Engine(self.journal, self.nodes, limits)

    async def start(self) -> None:
        await self.engine.start()
        await self.engine.leading.wait()
        await self.populate()

    async def populate(self) -> None:
        await self.engine.ask(AddNode(NODE, actor=OPERATOR))
        none: frozenset[str] = frozenset()
        await self.engine.ask(
            NodeJoined(NODE, 1, "0", 4000, 8000, 0, {}, none, none, None, (), frozenset(), frozenset())
        )
        await self.engine.ask(Deploy(AGENT, "sha256:0", "{}", Policy(concurrency=100), actor=OPERATOR))
        events = self.engine.events.follow()
        replica = next(iter(self.engine.state.replicas))
        self.engine.tell(ReplicasReported(NODE, 1, (ReplicaNews(replica, ReplicaState.RUNNING),)))
        while (event := await events.get()) is not None and event.kind != "deployment.complete":
            pass
        self.engine.events.unfollow(events)

    async def hold(self) -> asyncio.Task[list[TaskId]]:
        """Submit one task and stop its commit in the middle."""
        self.journal.gate.clear()
        self.journal.entered.clear()
        submit = asyncio.create_task(self.submit(b"0"))
        assert await asyncio.to_thread(self.journal.entered.wait, 10)
        return submit

    async def submit(self, *inputs: bytes, key: str | None = None) -> list[TaskId]:
        options = TaskOptions(idempotency_key=key) if key is not None else None
        answer: list[TaskId] = await self.engine.ask(
            SubmitTasks(tuple(NewTask(AGENT, i, None, options) for i in inputs), actor=OPERATOR)
        )
        return answer

    def leases(self) -> list[Assign]:
        return [effect for effect in self.nodes.sent if isinstance(effect, Assign)]


@pytest_asyncio.fixture
async def farm(request: pytest.FixtureRequest) -> AsyncIterator[Farm]:
    farm = Farm(getattr(request, "param", Limits()))
    await farm.start()
    yield farm
    farm.journal.gate.set()
    await farm.engine.stop()


async def test_nothing_is_answered_or_sent_before_it_is_durable(farm: Farm) -> None:
    submit = await farm.hold()
    assert farm.engine.state.tasks, "the core has decided"
    assert not submit.done()
    assert not farm.leases()
    farm.journal.gate.set()
    assert await submit == [1]
    assert [lease.task for assign in farm.leases() for lease in assign.leases] == [1]


async def test_commands_gather_while_a_commit_is_in_flight(farm: Farm) -> None:
    before = len(farm.journal.commits)
    first = await farm.hold()
    rest = [asyncio.create_task(farm.submit(b"1")) for _ in range(50)]
    await asyncio.sleep(0)
    farm.journal.gate.set()
    await asyncio.gather(first, *rest)
    with_tasks = [changes for changes in farm.journal.commits[before:] if changes.inserted_tasks]
    assert [len(changes.inserted_tasks) for changes in with_tasks] == [1, 50]


async def test_failed_commit_leaves_no_trace_and_a_new_epoch(farm: Farm) -> None:
    epoch = farm.engine.state.epoch
    farm.journal.fail_next = True
    with pytest.raises(Unavailable, match="Not known whether this was stored"):
        await farm.submit(b"1")
    await farm.engine.leading.wait()
    assert farm.engine.state.epoch == epoch + 1
    assert not farm.engine.state.tasks
    assert not farm.leases()
    assert farm.nodes.resets == 1
    await farm.populate()
    assert await farm.submit(b"1") == [1]


async def test_equal_keys_in_one_turn_and_later_are_one_task(farm: Farm) -> None:
    blocker = await farm.hold()
    both = [asyncio.create_task(farm.submit(b"1", key="k")) for _ in range(2)]
    await asyncio.sleep(0)
    farm.journal.gate.set()
    await blocker
    first, second = await asyncio.gather(*both)
    assert first == second
    assert await farm.submit(b"1", key="k") == first


@pytest.mark.parametrize("farm", [Limits(input_memory_bytes=10)], indirect=True)
async def test_inputs_beyond_the_memory_limit_are_read_back_at_dispatch(farm: Farm) -> None:
    ids = await farm.submit(*[b"x" * 8 for _ in range(150)])  # the replica takes 100
    queued = [farm.engine.state.tasks[i] for i in ids if farm.engine.state.tasks[i].state is TaskState.QUEUED]
    assert len(queued) == 50
    assert sum(task.input is not None for task in queued) <= 1
    sent = [lease for assign in farm.leases() for lease in assign.leases]
    results = tuple(AttemptResult(lease.task, lease.token, Outcome.SUCCEEDED, b"1", duration_s=1) for lease in sent)
    farm.engine.tell(AttemptsEnded(NODE, 1, results))
    for _ in range(2):  # answered in later turns: what came before is done
        await farm.engine.ask(AddNode(NODE, actor=OPERATOR))
    assert sum(len(assign.leases) for assign in farm.leases()) == 150
    assert all(lease.input == b"x" * 8 for assign in farm.leases() for lease in assign.leases)


async def test_watcher_sees_pieces_of_the_lease_holder_only_then_the_end(farm: Farm) -> None:
    (task,) = await farm.submit(b"1")
    watch = farm.engine.watch_task(task)
    assert watch is not None
    token = farm.engine.state.tasks[task].token
    assert token is not None
    farm.engine.output(NODE, task, token, b'"a"')
    farm.engine.output(NodeName("n2"), task, token, b'"of another node"')
    farm.engine.output(NODE, task, type(token)(token + 1), b'"stale"')
    farm.engine.tell(AttemptsEnded(NODE, 1, (AttemptResult(task, token, Outcome.SUCCEEDED, b"2"),)))
    items = [item async for item in watch]
    assert [getattr(item, "data", None) for item in items[:-1]] == [b'"a"']
    assert isinstance(items[-1], FinishedTask)
    assert items[-1].output == b"2"
    assert farm.engine.watch_task(task) is None


async def test_refusals_are_raised_and_a_stopped_engine_is_unavailable(farm: Farm) -> None:
    answer = await farm.engine.ask(SubmitTasks((NewTask(DeploymentName("nobody"), b"1"),), actor=OPERATOR))
    assert isinstance(answer[0], NotFound)
    await farm.engine.stop()
    with pytest.raises(Unavailable):
        await farm.submit(b"1")


async def test_an_engine_that_stops_does_not_lead_again(farm: Farm) -> None:
    """Its last turn failed, as with a database that is killed just then. No task waits for it to come back."""
    asked = await farm.hold()
    stopping = asyncio.ensure_future(farm.engine.stop())
    await asyncio.sleep(0)
    farm.journal.leads, farm.journal.fail_next = False, True
    farm.journal.gate.set()
    await asyncio.wait_for(stopping, 60.0)
    with pytest.raises(Unavailable):
        await asked


async def test_an_engine_stops_although_its_database_stands_still(farm: Farm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("controller.engine.LAST_TURN_S", 0.05)
    asked = await farm.hold()
    await asyncio.wait_for(farm.engine.stop(), 60.0)
    with pytest.raises(Unavailable):
        await asked


async def test_a_database_that_refuses_every_commit_is_asked_more_and_more_slowly(
    farm: Farm, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited_for: list[int] = []

    def wait_s(failures_in_row: int) -> float:
        waited_for.append(failures_in_row)
        return 0.01 * recover_wait_s(failures_in_row)

    monkeypatch.setattr("controller.turns.recover_wait_s", wait_s)
    for _ in range(4):
        await farm.engine.leading.wait()
        farm.journal.fail_next = True
        with pytest.raises(Unavailable):
            await farm.engine.ask(AddNode(NodeName("n2"), actor=OPERATOR))
    await farm.engine.leading.wait()
    assert waited_for == [1, 2, 3, 4]
    await farm.engine.ask(
        AddNode(NodeName("n2"), actor=OPERATOR)
    )  # it works again, and so the next failure is a first one
    farm.journal.fail_next = True
    with pytest.raises(Unavailable):
        await farm.engine.ask(AddNode(NodeName("n3"), actor=OPERATOR))
    await farm.engine.leading.wait()
    assert waited_for == [1, 2, 3, 4, 1]


def test_the_wait_for_a_database_is_bounded() -> None:
    waits = [recover_wait_s(failures) for failures in (1, 2, 3, 4, 5, 6, 7, 100, 100_000)]
    assert waits[0] == 0.0
    assert waits == sorted(waits)
    assert waits[-1] == 2.0
