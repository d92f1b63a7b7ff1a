"""A turn that can never be stored costs the one command at fault: all else of it is done, and streams stay open."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from agentfarm.errors import FarmError, Unavailable
from controller import turns
from controller.core.commands import (
    AddNode,
    AttemptResult,
    AttemptsEnded,
    AttemptsStarted,
    Command,
    Deploy,
    NewTask,
    NodeBeat,
    NodeJoined,
    ReplicaNews,
    ReplicasReported,
    SubmitTasks,
)
from controller.core.lives import NodeState, Outcome, ReplicaState, TaskState
from controller.core.model import OPERATOR, DeploymentName, FarmState, Limits, Node, NodeName, Replica, Task
from controller.core.parts import HANDLERS
from controller.core.policy import Policy
from controller.core.transition import AckBeat, AckResults, Assign, Changes, CloseSession
from controller.journal.errors import DataRefused
from controller.journal.memory import MemoryJournal, Tables
from controller.metrics import EngineMetrics
from tests.at_once import Sent
from tests.simulation.laws import check_same, check_state

AGENT, NODE, OTHER = DeploymentName("echo"), NodeName("n1"), NodeName("n2")
NOBODY: frozenset[Any] = frozenset()
Holds = Callable[[Changes], bool]


class Writer(Sent):
    """A writer on a journal that cannot hold what a test says. Its commands are told to it all in one turn."""

    def __init__(self) -> None:
        super().__init__()
        self.tables = Tables()
        self.journal = MemoryJournal(self.tables)
        self.cannot_hold: Holds = lambda changes: False
        self.answers: dict[str, object] = {}
        self.refusals: list[list[str]] = []
        self.resets = 0
        self.loads = 0
        self.mono = 100.0
        self.turns = turns.Turns(self, Limits(), EngineMetrics(), mono=lambda: self.mono, wall=lambda: self.mono)
        self._life = self.turns.life()
        self._request: turns.Request = next(self._life)
        self.run()

    @property
    def state(self) -> FarmState:
        assert self.turns.state is not None
        return self.turns.state

    def do(self, *commands: Command) -> dict[str, object]:
        """All of these in one turn, and what follows. Returns the answers by number."""
        self.answers.clear()
        for number, command in enumerate(commands):
            self.turns.ask(command, str(number))
        self._request = self._life.send(None)
        self.run()
        check_state(self.state)
        now = self.turns.now
        check_same(self.state, MemoryJournal(self.tables).load(Limits(), now), now)
        return self.answers

    def run(self) -> None:
        """Up to the next rest."""
        while not isinstance(self._request, turns.Rest):
            try:
                result = self._carry_out(self._request)
            except FarmError as problem:
                self._request = self._life.throw(problem)
            else:
                self._request = self._life.send(result)

    def _carry_out(self, request: turns.Request) -> Any:
        if isinstance(request, turns.TakeLead):
            return self.journal.take_lead()
        if isinstance(request, turns.Load):
            self.loads += 1
            return self.journal.load(request.limits, request.now)
        if isinstance(request, turns.FindKeys):
            return self.journal.find_keys(request.keys)
        if isinstance(request, turns.ReadInputs):
            return self.journal.read_inputs(request.tasks)
        if isinstance(request, turns.Commit):
            if self.cannot_hold(request.changes):
                raise DataRefused("A value is beyond what a column holds.")
            self.journal.commit(request.changes, request.epoch)
        return None

    def answer(self, answers: Sequence[tuple[str, object]]) -> None:
        self.answers |= dict(answers)

    def refused(self, problem: Exception, commands: Sequence[Command]) -> None:
        self.refusals.append([type(command).__name__ for command in commands])

    def reset(self, problem: Exception, commands: Sequence[Command]) -> None:
        self.resets += 1

    def told(self, kind: str) -> list[Any]:
        return [event for event in self.tables.events if event.kind == kind]


def joined(node: NodeName, session: int, cpu_millicores: int = 4000) -> NodeJoined:
    return NodeJoined(node, session, "1", cpu_millicores, 4096, 0, {}, NOBODY, NOBODY, None, (), NOBODY, NOBODY)


def submit(*inputs: bytes) -> SubmitTasks:
    return SubmitTasks(tuple(NewTask(AGENT, it) for it in inputs), actor=OPERATOR)


def result(task: Task, output: bytes = b"1") -> AttemptResult:
    assert task.token is not None
    return AttemptResult(task.id, task.token, Outcome.SUCCEEDED, output)


@pytest.fixture
def writer() -> Writer:
    """One node with a running replica, and three tasks leased to it; two of them run."""
    writer = Writer()
    policy = Policy(concurrency=10, max_attempts=1)
    writer.do(AddNode(NODE, actor=OPERATOR), AddNode(OTHER, actor=OPERATOR))
    writer.do(joined(NODE, 1), Deploy(AGENT, "sha256:0", "{}", policy, actor=OPERATOR))
    (replica,) = writer.state.replicas
    writer.do(ReplicasReported(NODE, 1, (ReplicaNews(replica, ReplicaState.RUNNING),)))
    writer.do(submit(b"1", b"2", b"3"))
    first, second, _ = writer.state.tasks.values()
    assert first.token is not None
    assert second.token is not None
    writer.do(AttemptsStarted(NODE, 1, (first.token, second.token)))
    writer.effects.clear()
    return writer


def holds_no_output(bad: bytes) -> Holds:
    return lambda changes: any(item.output == bad for item in changes.finished_tasks)


def test_the_caller_at_fault_alone_hears_the_error(writer: Writer) -> None:
    writer.cannot_hold = lambda changes: any(task.input == b"bad" for task in changes.inserted_tasks)
    answers = writer.do(submit(b"a"), submit(b"bad"), submit(b"b"), AddNode(NodeName("n3"), actor=OPERATOR))
    assert isinstance(answers.pop("1"), DataRefused)
    assert answers == {"0": [4], "2": [5], "3": None}
    assert {row.input for row in writer.tables.tasks.values()} == {b"1", b"2", b"3", b"a", b"b"}
    assert writer.tables.find(Node, "n3") is not None
    assert writer.resets == 0


def test_streams_stay_open_and_what_was_said_on_them_stays_known(writer: Writer) -> None:
    token, running = writer.state.next_token, {it.id: it.state for it in writer.state.tasks.values()}
    writer.cannot_hold = lambda changes: bool(changes.inserted_tasks)
    writer.do(submit(b"bad"))
    node = writer.state.nodes[NODE]
    assert (node.session, node.state) == (1, NodeState.READY)
    assert {it.id: it.state for it in writer.state.tasks.values()} == running
    assert set(running.values()) == {TaskState.RUNNING, TaskState.LEASED}
    assert writer.state.next_token >= token
    writer.effects.clear()
    writer.cannot_hold = lambda changes: False
    writer.do(NodeBeat(NODE, 1, 7), submit(b"good"))
    assert AckBeat(NODE, 1, 7) in writer.effects
    (assign,) = (effect for effect in writer.effects if isinstance(effect, Assign))
    assert (assign.node, assign.session) == (NODE, 1)
    assert all(lease.token >= token for lease in assign.leases), "a token is never given twice"


def test_result_that_cannot_be_stored_fails_its_attempt_and_is_acknowledged(writer: Writer) -> None:
    good, bad, other = writer.state.tasks.values()
    tokens = {good.token, bad.token, other.token}
    writer.cannot_hold = holds_no_output(b"bad")
    writer.do(AttemptsEnded(NODE, 1, (result(good), result(bad, b"bad"))), AttemptsEnded(NODE, 1, (result(other),)))
    ends = {task: (row.state, row.error_type) for task, row in writer.tables.finished.items()}
    assert ends == {
        good.id: (TaskState.SUCCEEDED, ""), bad.id: (TaskState.DEAD, "ResultRefused"),
        other.id: (TaskState.SUCCEEDED, ""),
    }  # fmt: skip
    acks = {token for effect in writer.effects if isinstance(effect, AckResults) for token in effect.tokens}
    assert acks == tokens
    assert [event.node for event in writer.told("fact.set_aside")] == [NODE]
    assert writer.resets == 0
    loads = writer.loads
    writer.do(AttemptsEnded(NODE, 1, (result(bad, b"bad"),)))  # the outbox says it again
    assert writer.loads == loads


def test_hello_that_cannot_be_stored_is_refused_and_others_are_served(writer: Writer) -> None:
    writer.cannot_hold = lambda changes: any(node.cpu_millicores == 2**32 - 1 for node in changes.stored(Node))
    answers = writer.do(joined(OTHER, 2, 2**32 - 1), submit(b"4"), NodeBeat(NODE, 1, 3))
    assert isinstance(answers["0"], DataRefused)
    assert answers["1"] == [4]
    assert AckBeat(NODE, 1, 3) in writer.effects
    assert writer.state.nodes[OTHER].state is NodeState.JOINING


def test_hello_beside_a_command_at_fault_keeps_its_new_stream_and_ends_the_old_one(writer: Writer) -> None:
    writer.cannot_hold = lambda changes: any(task.input == b"bad" for task in changes.inserted_tasks)
    writer.do(joined(NODE, 2), submit(b"bad"))
    assert writer.state.nodes[NODE].session == 2
    assert {effect.session for effect in writer.effects if isinstance(effect, CloseSession)} == {1}


def test_news_of_one_replica_does_not_take_the_others_with_it(writer: Writer) -> None:
    writer.do(Deploy(DeploymentName("two"), "sha256:0", "{}", Policy(), replicas=2, actor=OPERATOR))
    bad, good = (it for it in writer.state.replicas.values() if it.state is ReplicaState.STARTING)
    assert (bad.node, good.node) == (NODE, NODE)
    writer.cannot_hold = lambda changes: any(it.pid == 2**32 - 1 for it in changes.stored(Replica))
    news = [ReplicaNews(bad.id, ReplicaState.RUNNING, pid=2**32 - 1), ReplicaNews(good.id, ReplicaState.RUNNING, pid=7)]
    writer.do(ReplicasReported(NODE, 1, tuple(news)))
    assert writer.state.replicas[good.id].state is ReplicaState.RUNNING
    assert writer.state.replicas[bad.id].state is ReplicaState.STARTING
    assert len(writer.told("fact.set_aside")) == 1


def test_mistake_of_ours_costs_its_command_alone(writer: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    def stumble(turn: Any, command: AddNode) -> None:
        raise KeyError(command.node)

    monkeypatch.setitem(HANDLERS, AddNode, stumble)
    answers = writer.do(submit(b"a"), AddNode(NodeName("n3"), actor=OPERATOR))
    assert answers["0"] == [4]
    assert isinstance(answers["1"], FarmError)
    assert "mistake" in str(answers["1"])
    assert writer.resets == 0


def test_fault_that_is_of_no_command_begins_again(writer: Writer) -> None:
    """The database refuses whatever comes: the commands are not to blame, and there is an end to the trying."""
    left = [2]

    def cannot_hold(changes: Changes) -> bool:
        left[0] -= 1
        return left[0] >= 0

    writer.cannot_hold = cannot_hold
    answers = writer.do(submit(b"a"), submit(b"b"))
    assert [type(answer) for answer in answers.values()] == [Unavailable, Unavailable]
    assert writer.resets == 1


def test_many_faults_in_one_turn_begin_again(writer: Writer) -> None:
    writer.cannot_hold = lambda changes: bool(changes.inserted_tasks)
    answers = writer.do(*[submit(b"bad") for _ in range(turns.FAULTS_MAX + 3)])
    kinds = [type(answer) for answer in answers.values()]
    assert kinds == [DataRefused] * turns.FAULTS_MAX + [Unavailable] * 3
    assert writer.resets == 1


def test_database_that_goes_away_meanwhile_begins_again(writer: Writer) -> None:
    def cannot_hold(changes: Changes) -> bool:
        if writer.refusals:
            writer.cannot_hold = lambda changes: False
            raise Unavailable("It is away.")
        return True

    writer.cannot_hold = cannot_hold
    answers = writer.do(submit(b"a"), submit(b"b"))
    assert [type(answer) for answer in answers.values()] == [Unavailable, Unavailable]
    assert writer.resets == 1
