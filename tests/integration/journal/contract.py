"""What every journal promises, written once. The real one and the one in memory both pass it.

A subclass gives `open_journal`: a new controller's journal on the same tables as every other of its test.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable
from typing import Any, Protocol

import pytest

from controller.core.commands import (
    AddNode,
    AttemptResult,
    AttemptsEnded,
    AttemptsStarted,
    CancelTask,
    Command,
    Cordon,
    Deploy,
    NewTask,
    NodeBeat,
    NodeJoined,
    NodeStreamEnded,
    Remove,
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
from controller.core.decide import decide
from controller.core.lives import Outcome, ReplicaState, TaskState
from controller.core.model import (
    Deployment,
    DeploymentName,
    FarmState,
    Instant,
    Limits,
    NodeName,
    Policy,
    Replica,
    ReplicaId,
    Resources,
    Rollout,
    Task,
    TaskId,
    TaskOptions,
    Token,
    Version,
)
from controller.core.tasks import thread_id
from controller.core.transition import Changes, FinishedTask, LeaseBatch
from controller.journal.errors import JournalCorrupt, LostLead
from tests.simulation.laws import check_same, check_state

WALL_OFFSET_S = 1_795_000_000.0
ECHO = DeploymentName("echo")
ROUNDS = 120  # turns of one random history


class Port(Protocol):
    """A journal as the engine uses it."""

    def take_lead(self) -> int: ...
    def load(self, limits: Limits, now: Instant) -> FarmState: ...
    def commit(self, changes: Changes, epoch: int) -> None: ...
    def find_keys(self, keys: list[str]) -> dict[str, TaskId]: ...
    def read_inputs(self, ids: list[TaskId]) -> dict[TaskId, bytes]: ...


class Clock:
    """The two clocks of one controller, moved by the test."""

    def __init__(self) -> None:
        self.mono = 1_000.0

    def __call__(self) -> Instant:
        return Instant(self.mono, self.mono + WALL_OFFSET_S)


OpenJournal = Callable[[], Port]


def new_task(number: int, data: bytes = b"{}", **options: Any) -> Task:
    """A task as the core makes one."""
    chosen = TaskOptions(**options) if options else None
    return Task(TaskId(number), ECHO, 0, WALL_OFFSET_S + 1000, data, len(data), options=chosen)


def registered() -> Changes:
    """A deployment to which tasks may belong."""
    version = Version(1, "sha256:1", "{}", Policy(), WALL_OFFSET_S)
    return Changes(deployments={ECHO: Deployment(ECHO, 1, 1, {1: version})})


def lease(batch: int, tasks: list[Task], epoch: int) -> LeaseBatch:
    """Lease tasks, in the objects and as a row."""
    for number, task in enumerate(tasks):
        task.attempt += 1
        task.token, task.node, task.replica = Token((epoch << 40) + batch * 1000 + number), NodeName("n1"), ReplicaId(1)
        task.state, task.leased_at, task.lease_batch = TaskState.LEASED, WALL_OFFSET_S + 1001, batch
    return LeaseBatch(
        batch, NodeName("n1"), WALL_OFFSET_S + 1001, [task.id for task in tasks], [task.attempt for task in tasks],
        [task.token for task in tasks if task.token], [ReplicaId(1)] * len(tasks),
    )  # fmt: skip


class JournalContract:
    """The shared suite."""

    @pytest.fixture
    def clock(self) -> Clock:
        return Clock()

    @pytest.fixture
    def started(self, open_journal: OpenJournal, clock: Clock) -> tuple[Port, int]:
        """A leading journal with one deployment."""
        journal = open_journal()
        epoch = journal.take_lead()
        journal.load(Limits(), clock())
        journal.commit(registered(), epoch)
        return journal, epoch

    # -------------------------------------------------------------- epochs

    def test_each_lead_is_a_new_epoch(self, open_journal: OpenJournal) -> None:
        journal = open_journal()
        assert [journal.take_lead() for _ in range(3)] == [1, 2, 3]

    def test_tokens_of_a_later_leader_are_higher(self, open_journal: OpenJournal, clock: Clock) -> None:
        journal = open_journal()
        journal.take_lead()
        first = journal.load(Limits(), clock())
        journal.take_lead()
        second = journal.load(Limits(), clock())
        assert second.next_token - first.next_token == 1 << 40
        assert first.epoch + 1 == second.epoch

    def test_commit_under_an_old_epoch_is_refused_and_stores_nothing(
        self, started: tuple[Port, int], clock: Clock
    ) -> None:
        journal, epoch = started
        journal.take_lead()
        with pytest.raises(LostLead):
            journal.commit(Changes(inserted_tasks=[new_task(1)]), epoch)
        journal.take_lead()
        assert not journal.load(Limits(), clock()).tasks

    def test_empty_commit_still_checks_who_leads(self, started: tuple[Port, int], clock: Clock) -> None:
        journal, epoch = started
        journal.commit(Changes(), epoch)
        journal.take_lead()
        with pytest.raises(LostLead):
            journal.commit(Changes(), epoch)

    # -------------------------------------------------------------- tasks

    def test_task_lives_and_ends(self, started: tuple[Port, int], clock: Clock) -> None:
        journal, epoch = started
        task = new_task(1, b'{"a": 1}', thread_id="t", labels=(("k", "v"),), idempotency_key="once")
        journal.commit(Changes(inserted_tasks=[task]), epoch)
        state = journal.load(Limits(), clock())
        assert state.tasks[TaskId(1)].input == b'{"a": 1}'
        assert state.tasks[TaskId(1)].options == task.options
        assert list(state.deployments[ECHO].queues[0]) == [1]
        journal.commit(Changes(lease_batches=[lease(1, [task], epoch)]), epoch)
        loaded = journal.load(Limits(), clock())
        assert (loaded.tasks[TaskId(1)].token, loaded.tasks[TaskId(1)].attempt) == (task.token, 1)
        assert loaded.lease_batches == {1: 1}
        assert (loaded.deployments[ECHO].queued, loaded.deployments[ECHO].leased) == (0, 1)
        end = FinishedTask(task, TaskState.SUCCEEDED, WALL_OFFSET_S + 1002, b'"ok"')
        journal.commit(Changes(finished_tasks=[end], ended_lease_batches=[1]), epoch)
        ended = journal.load(Limits(), clock())
        assert not ended.tasks
        assert not ended.lease_batches
        assert ended.next_task == 2
        assert journal.find_keys(["once", "never"]) == {"once": 1}

    def test_whole_life_in_one_turn(self, started: tuple[Port, int], clock: Clock) -> None:
        journal, epoch = started
        task = new_task(1)
        end = FinishedTask(task, TaskState.CANCELLED, WALL_OFFSET_S + 1000, error_type="Cancelled")
        journal.commit(Changes(inserted_tasks=[task], finished_tasks=[end]), epoch)
        state = journal.load(Limits(), clock())
        assert not state.tasks
        assert state.next_task == 2

    def test_given_back_task_waits_out_its_backoff(self, started: tuple[Port, int], clock: Clock) -> None:
        journal, epoch = started
        first, second = new_task(1), new_task(2)
        batch = lease(1, [first, second], epoch)
        journal.commit(Changes(inserted_tasks=[first, second], lease_batches=[batch]), epoch)
        first.failures, first.crashes, first.not_before = 1, 1, clock.mono + 5
        first.token = first.node = first.replica = None
        first.state = TaskState.QUEUED
        journal.commit(Changes(requeued_tasks=[first]), epoch)
        clock.mono += 1
        state = journal.load(Limits(), clock())
        back = state.tasks[TaskId(1)]
        assert (back.state, back.attempt, back.failures, back.crashes) == (TaskState.QUEUED, 1, 1, 1)
        assert back.not_before == pytest.approx(first.not_before, abs=1e-3)
        assert not state.deployments[ECHO].queues
        assert (back.not_before, ("retry", 1)) in [(at, timer) for at, _, timer in state.timers]
        assert state.tasks[TaskId(2)].state is TaskState.LEASED
        assert state.lease_batches == {1: 1}

    def test_task_given_back_and_leased_again_in_one_turn_has_its_new_lease(
        self, started: tuple[Port, int], clock: Clock
    ) -> None:
        journal, epoch = started
        task, other = new_task(1), new_task(2)
        journal.commit(Changes(inserted_tasks=[task, other], lease_batches=[lease(1, [task, other], epoch)]), epoch)
        again = lease(2, [task], epoch)
        journal.commit(Changes(requeued_tasks=[task], lease_batches=[again]), epoch)
        loaded = journal.load(Limits(), clock()).tasks[TaskId(1)]
        assert (loaded.token, loaded.attempt, loaded.lease_batch) == (task.token, 2, 2)

    def test_cancelling_is_remembered(self, started: tuple[Port, int], clock: Clock) -> None:
        journal, epoch = started
        task = new_task(1)
        journal.commit(Changes(inserted_tasks=[task], lease_batches=[lease(1, [task], epoch)]), epoch)
        journal.commit(Changes(cancelling_tasks=[task.id]), epoch)
        assert journal.load(Limits(), clock()).tasks[TaskId(1)].is_cancelling

    def test_unknown_task_cannot_end_and_the_whole_turn_is_undone(
        self, started: tuple[Port, int], clock: Clock
    ) -> None:
        journal, epoch = started
        journal.commit(Changes(inserted_tasks=[new_task(1)]), epoch)
        ghost = FinishedTask(new_task(7), TaskState.SUCCEEDED, WALL_OFFSET_S, b"1")
        with pytest.raises(JournalCorrupt):
            journal.commit(Changes(finished_tasks=[ghost]), epoch)
        journal.take_lead()
        assert set(journal.load(Limits(), clock()).tasks) == {1}

    def test_second_end_of_a_task_is_refused(self, started: tuple[Port, int], clock: Clock) -> None:
        journal, epoch = started
        task = new_task(1)
        end = FinishedTask(task, TaskState.SUCCEEDED, WALL_OFFSET_S, b"1")
        journal.commit(Changes(inserted_tasks=[task], finished_tasks=[end]), epoch)
        with pytest.raises(JournalCorrupt):
            journal.commit(Changes(finished_tasks=[dataclasses.replace(end, output=b"2")]), epoch)

    def test_inputs_beyond_the_limit_stay_stored(self, started: tuple[Port, int], clock: Clock) -> None:
        journal, epoch = started
        tasks = [new_task(number, b"x" * 100) for number in range(1, 11)]
        journal.commit(Changes(inserted_tasks=tasks), epoch)
        state = journal.load(Limits(input_memory_bytes=350), clock())
        assert [task.input is not None for task in state.tasks.values()] == [True] * 3 + [False] * 7
        assert state.queued_input_bytes == 300
        assert all(task.input_size == 100 for task in state.tasks.values())
        assert journal.read_inputs([TaskId(9), TaskId(10)]) == {9: b"x" * 100, 10: b"x" * 100}

    def test_queue_timeouts_are_set_again(self, started: tuple[Port, int], clock: Clock) -> None:
        journal, epoch = started
        journal.commit(Changes(inserted_tasks=[new_task(1, queue_timeout_s=30.0)]), epoch)
        clock.mono += 10
        timers = {timer: at for at, _, timer in journal.load(Limits(), clock()).timers}
        assert timers["queue_timeout", 1] == pytest.approx(1_030.0, abs=1e-3)

    # -------------------------------------------------------------- what is registered

    def test_replica_ids_never_come_again(self, started: tuple[Port, int], clock: Clock) -> None:
        journal, epoch = started
        replica = Replica(ReplicaId(41), ECHO, 0, 1)
        journal.commit(Changes(replicas={replica.id: replica}), epoch)
        journal.commit(Changes(ended_replicas=[replica.id]), epoch)
        journal.take_lead()
        state = journal.load(Limits(), clock())
        assert state.next_replica == 42
        assert not state.replicas

    def test_new_versions_and_news_of_old_ones_are_stored(self, started: tuple[Port, int], clock: Clock) -> None:
        journal, epoch = started
        policy = Policy(
            Resources(250, 512, 1), concurrency=4, constraints=(("zone", "a"),), capabilities=("avx",),
            products=("BTC-USD",), queue_timeout_s=2.5, exclusive=True,
        )  # fmt: skip
        state = journal.load(Limits(), clock())
        deployment = state.deployments[ECHO]
        deployment.versions[1].has_run = True
        deployment.versions[2] = Version(2, "sha256:2", '{"x": 1}', policy, WALL_OFFSET_S + 5)
        deployment.rollout = Rollout(1, 2, WALL_OFFSET_S + 5, clock.mono + 60, seats_done=1)
        deployment.seat_failures = {0: 2}
        journal.commit(Changes(deployments={ECHO: deployment}), epoch)
        loaded = journal.load(Limits(), clock()).deployments[ECHO]
        assert loaded.versions == deployment.versions
        assert loaded.seat_failures == {0: 2}
        assert loaded.rollout is not None
        assert loaded.rollout.deadline == pytest.approx(clock.mono + 60, abs=1e-3)
        assert loaded.rollout.seats_done == 1

    def test_removed_deployment_may_come_again_under_its_name(self, started: tuple[Port, int], clock: Clock) -> None:
        journal, epoch = started
        journal.commit(Changes(forgotten_deployments=[ECHO]), epoch)
        assert not journal.load(Limits(), clock()).deployments
        fresh = registered()
        fresh.deployments[ECHO].versions[1] = Version(1, "sha256:9", "{}", Policy(), WALL_OFFSET_S)
        journal.commit(fresh, epoch)
        assert journal.load(Limits(), clock()).deployments[ECHO].versions[1].digest == "sha256:9"

    # -------------------------------------------------------------- histories

    @pytest.mark.parametrize("seed", range(4))
    def test_what_is_read_back_is_what_the_core_has(self, open_journal: OpenJournal, clock: Clock, seed: int) -> None:
        """Random histories of a whole farm: after every few turns, and after every restart, both say the same."""
        history = History(open_journal, clock, random.Random(seed))
        for _ in range(ROUNDS):
            history.turn()
        history.compare()
        assert history.ended > ROUNDS / 4, "a history in which little happens proves little"


class History:
    """A farm whose nodes and operators do random things."""

    def __init__(self, open_journal: OpenJournal, clock: Clock, chance: random.Random) -> None:
        self._open, self._clock, self._chance = open_journal, clock, chance
        self._sessions = 0
        self.ended = 0
        self._journal = open_journal()
        self._lead()

    def _lead(self) -> None:
        self._epoch = self._journal.take_lead()
        self.state = self._journal.load(Limits(input_memory_bytes=2_000), self._clock())

    def compare(self) -> None:
        """The core's state against what the journal reads back."""
        check_state(self.state)
        loaded = self._journal.load(self.state.limits, self._clock())
        check_state(loaded)
        check_same(self.state, loaded, self._clock())

    def turn(self) -> None:
        """Some commands, one commit; now and then a comparison, or another controller takes over."""
        self._clock.mono += self._chance.choice((0.01, 0.2, 1.0, 1.0, 2.5))
        beats: list[Command] = [
            NodeBeat(node.name, node.session)
            for node in self.state.nodes.values()
            if node.session and self._chance.random() < 0.9
        ]
        commands = beats + [self._command() for _ in range(self._chance.randint(1, 6))]
        out = decide(self.state, commands, self._clock())
        self._journal.commit(out.changes, self._epoch)
        self.ended += len(out.changes.finished_tasks)
        for task in out.forget_inputs:
            task.input = None
        if self._chance.random() < 0.2:
            self.compare()
        if self._chance.random() < 0.05:
            self._journal = self._open()
            self._lead()

    def _command(self) -> Command:
        chance, state = self._chance, self.state
        makers: list[tuple[int, Callable[[], Command]]] = [
            (2, lambda: AddNode(self._node())),
            (4, self._hello),
            (6, self._report),
            (6, self._submit),
            (3, lambda: CancelTask(chance.choice([*state.tasks, TaskId(1)]))),
            (4, self._begin),
            (14, self._end),
            (2, self._checkpoint),
            (2, self._deploy),
            (1, lambda: Scale(self._name(), chance.randint(0, 4))),
            (1, lambda: Rollback(self._name())),
            (1, lambda: Remove(self._name()) if chance.random() < 0.2 else Tick()),
            (1, lambda: Cordon(self._node(), "why not")),
            (1, lambda: Uncordon(self._node())),
            (1, lambda: StartDrain(self._node(), chance.choice((0.5, 20.0)), "disk")),
            (1, self._break),
        ]
        maker = chance.choices([it for _, it in makers], [weight for weight, _ in makers])[0]
        return maker()

    def _node(self) -> NodeName:
        return NodeName(self._chance.choice(("n1", "n2", "n3")))

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
            frozenset({"avx"}), frozenset(), None, news, frozenset(running), frozenset(),
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
        return SubmitTasks(new)

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
        return StoreCheckpoint(task.id, task.token, thread_id(task), "", "c1", "", b"state", (("w", 0, b"data"),))

    def _deploy(self) -> Command:
        digest = f"sha256:{self._chance.randint(1, 3)}"
        policy = Policy(max_attempts=3, concurrency=self._chance.randint(1, 4), backoff_s=0.5)
        return Deploy(self._name(), digest, f'{{"d": "{digest}"}}', policy, replicas=self._chance.randint(1, 3))

    def _break(self) -> Command:
        node = self.state.nodes.get(self._node())
        return NodeStreamEnded(node.name, node.session) if node is not None else Tick()
