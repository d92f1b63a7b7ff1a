"""What every journal promises, written once. The real one and the one in memory both pass it.

A subclass gives `open_journal`: a new controller's journal on the same tables as every other of its test.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Iterable
from typing import Any

import pytest

from controller.core.commands import AddNode, Deploy, NewTask, NodeJoined, SubmitTasks, Tick
from controller.core.lives import ReplicaState, TaskState
from controller.core.model import (
    OPERATOR,
    Deployment,
    Limits,
    Node,
    NodeName,
    Product,
    ProductName,
    Replica,
    ReplicaId,
    Rollout,
    Task,
    TaskId,
    TaskOptions,
    Token,
    Version,
)
from controller.core.policy import Policy, Resources
from controller.core.timers import QueueTimedOut, RetryDue
from controller.core.transition import Changes, FinishedTask, LeaseBatch
from controller.journal.errors import JournalCorrupt, LostLead
from tests.at_once import Journal
from tests.integration.journal.histories import ECHO, ROUNDS, WALL_OFFSET_S, Clock, History, OpenJournal


def new_task(number: int, data: bytes = b"{}", **options: Any) -> Task:
    """A task as the core makes one."""
    chosen = TaskOptions(**options) if options else None
    return Task(TaskId(number), ECHO, 0, WALL_OFFSET_S + 1000, data, len(data), options=chosen)


def registered(digest: str = "sha256:1") -> Changes:
    """A deployment to which tasks may belong."""
    version = Version(ECHO, 1, digest, "{}", Policy(), WALL_OFFSET_S)
    return records(Deployment(ECHO, 1, 1, {1: version}), version)


def records(*things: object, removed: Iterable[object] = (), **more: Any) -> Changes:
    """Records to store, and those to remove."""
    changes = Changes(**more)
    for thing in removed:
        changes.remove(thing)
    for thing in things:
        changes.store(thing)
    return changes


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
    def started(self, open_journal: OpenJournal, clock: Clock) -> tuple[Journal, int]:
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
        self, started: tuple[Journal, int], clock: Clock
    ) -> None:
        journal, epoch = started
        journal.take_lead()
        with pytest.raises(LostLead):
            journal.commit(Changes(inserted_tasks=[new_task(1)]), epoch)
        journal.take_lead()
        assert not journal.load(Limits(), clock()).tasks

    def test_empty_commit_still_checks_who_leads(self, started: tuple[Journal, int], clock: Clock) -> None:
        journal, epoch = started
        journal.commit(Changes(), epoch)
        journal.take_lead()
        with pytest.raises(LostLead):
            journal.commit(Changes(), epoch)

    # -------------------------------------------------------------- tasks

    def test_task_lives_and_ends(self, started: tuple[Journal, int], clock: Clock) -> None:
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

    def test_whole_life_in_one_turn(self, started: tuple[Journal, int], clock: Clock) -> None:
        journal, epoch = started
        task = new_task(1)
        end = FinishedTask(task, TaskState.CANCELLED, WALL_OFFSET_S + 1000, error_type="Cancelled")
        journal.commit(Changes(inserted_tasks=[task], finished_tasks=[end]), epoch)
        state = journal.load(Limits(), clock())
        assert not state.tasks
        assert state.next_task == 2

    def test_given_back_task_waits_out_its_backoff(self, started: tuple[Journal, int], clock: Clock) -> None:
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
        assert (back.not_before, RetryDue(TaskId(1))) in [(at, timer) for at, _, timer in state.timers]
        assert state.tasks[TaskId(2)].state is TaskState.LEASED
        assert state.lease_batches == {1: 1}

    def test_task_given_back_and_leased_again_in_one_turn_has_its_new_lease(
        self, started: tuple[Journal, int], clock: Clock
    ) -> None:
        journal, epoch = started
        task, other = new_task(1), new_task(2)
        journal.commit(Changes(inserted_tasks=[task, other], lease_batches=[lease(1, [task, other], epoch)]), epoch)
        again = lease(2, [task], epoch)
        journal.commit(Changes(requeued_tasks=[task], lease_batches=[again]), epoch)
        loaded = journal.load(Limits(), clock()).tasks[TaskId(1)]
        assert (loaded.token, loaded.attempt, loaded.lease_batch) == (task.token, 2, 2)

    def test_cancelling_is_remembered(self, started: tuple[Journal, int], clock: Clock) -> None:
        journal, epoch = started
        task = new_task(1)
        journal.commit(Changes(inserted_tasks=[task], lease_batches=[lease(1, [task], epoch)]), epoch)
        journal.commit(Changes(cancelling_tasks=[task.id]), epoch)
        assert journal.load(Limits(), clock()).tasks[TaskId(1)].is_cancelling

    def test_unknown_task_cannot_end_and_the_whole_turn_is_undone(
        self, started: tuple[Journal, int], clock: Clock
    ) -> None:
        journal, epoch = started
        journal.commit(Changes(inserted_tasks=[new_task(1)]), epoch)
        ghost = FinishedTask(new_task(7), TaskState.SUCCEEDED, WALL_OFFSET_S, b"1")
        with pytest.raises(JournalCorrupt):
            journal.commit(Changes(finished_tasks=[ghost]), epoch)
        journal.take_lead()
        assert set(journal.load(Limits(), clock()).tasks) == {1}

    def test_second_end_of_a_task_is_refused(self, started: tuple[Journal, int], clock: Clock) -> None:
        journal, epoch = started
        task = new_task(1)
        end = FinishedTask(task, TaskState.SUCCEEDED, WALL_OFFSET_S, b"1")
        journal.commit(Changes(inserted_tasks=[task], finished_tasks=[end]), epoch)
        with pytest.raises(JournalCorrupt):
            journal.commit(Changes(finished_tasks=[dataclasses.replace(end, output=b"2")]), epoch)

    def test_inputs_beyond_the_limit_stay_stored(self, started: tuple[Journal, int], clock: Clock) -> None:
        journal, epoch = started
        tasks = [new_task(number, b"x" * 100) for number in range(1, 11)]
        journal.commit(Changes(inserted_tasks=tasks), epoch)
        state = journal.load(Limits(input_memory_bytes=350), clock())
        assert [task.input is not None for task in state.tasks.values()] == [True] * 3 + [False] * 7
        assert state.queued_input_bytes == 300
        assert all(task.input_size == 100 for task in state.tasks.values())
        assert journal.read_inputs([TaskId(9), TaskId(10)]) == {9: b"x" * 100, 10: b"x" * 100}

    def test_queue_timeouts_are_set_again(self, started: tuple[Journal, int], clock: Clock) -> None:
        journal, epoch = started
        journal.commit(Changes(inserted_tasks=[new_task(1, queue_timeout_s=30.0)]), epoch)
        clock.mono += 10
        timers = {timer: at for at, _, timer in journal.load(Limits(), clock()).timers}
        assert timers[QueueTimedOut(TaskId(1))] == pytest.approx(1_030.0, abs=1e-3)

    # -------------------------------------------------------------- what is registered

    def test_replica_ids_never_come_again(self, started: tuple[Journal, int], clock: Clock) -> None:
        journal, epoch = started
        replica = Replica(ReplicaId(41), ECHO, 0, 1)
        journal.commit(records(replica), epoch)
        journal.commit(records(removed=[replica]), epoch)
        journal.take_lead()
        state = journal.load(Limits(), clock())
        assert state.next_replica == 42
        assert not state.replicas

    def test_new_versions_and_news_of_old_ones_are_stored(self, started: tuple[Journal, int], clock: Clock) -> None:
        journal, epoch = started
        policy = Policy(
            Resources(250, 512, 1), concurrency=4, constraints=(("zone", "a"),), capabilities=("avx",),
            products=("BTC-USD",), queue_timeout_s=2.5, exclusive=True,
        )  # fmt: skip
        state = journal.load(Limits(), clock())
        deployment = state.deployments[ECHO]
        deployment.versions[1].has_run = True
        deployment.versions[2] = Version(ECHO, 2, "sha256:2", '{"x": 1}', policy, WALL_OFFSET_S + 5)
        deployment.rollout = Rollout(1, 2, WALL_OFFSET_S + 5, clock.mono + 60, seats_done=1)
        deployment.seat_failures = {0: 2}
        journal.commit(records(deployment, *deployment.versions.values()), epoch)
        loaded = journal.load(Limits(), clock()).deployments[ECHO]
        assert loaded.versions == deployment.versions
        assert loaded.seat_failures == {0: 2}
        assert loaded.rollout is not None
        assert loaded.rollout.deadline == pytest.approx(clock.mono + 60, abs=1e-3)
        assert loaded.rollout.seats_done == 1

    def test_removed_deployment_may_come_again_under_its_name(self, started: tuple[Journal, int], clock: Clock) -> None:
        journal, epoch = started
        [deployment] = journal.load(Limits(), clock()).deployments.values()
        journal.commit(records(removed=[*deployment.versions.values(), deployment]), epoch)
        assert not journal.load(Limits(), clock()).deployments
        journal.commit(registered("sha256:9"), epoch)
        assert journal.load(Limits(), clock()).deployments[ECHO].versions[1].digest == "sha256:9"

    def test_products_are_stored_with_their_nodes(self, started: tuple[Journal, int], clock: Clock) -> None:
        journal, epoch = started
        node = Node(NodeName("n1"), takes_products=True, market_source="coinbase-advanced", metrics_address="n1:9464")
        product = Product(ProductName("BTC-USD"), "coinbase-advanced", 2, {node.name}, WALL_OFFSET_S, missing=1)
        other = Product(ProductName("ETH-USD"), added_at=WALL_OFFSET_S)
        journal.commit(records(node, product, other), epoch)
        state = journal.load(Limits(), clock())
        assert state.products == {it.name: dataclasses.replace(it, missing=0) for it in (product, other)}
        loaded = state.nodes[node.name]
        assert (loaded.takes_products, loaded.market_source, loaded.assigned) == (
            True,
            "coinbase-advanced",
            {"BTC-USD"},
        )
        assert loaded.metrics_address == "n1:9464"
        assert loaded.fed is None
        product.nodes, product.copies = set(), 1
        journal.commit(records(product, removed=[other]), epoch)
        after = journal.load(Limits(), clock())
        assert after.products == {product.name: dataclasses.replace(product, missing=0)}
        assert not after.nodes[node.name].assigned

    def test_product_removed_and_added_in_one_turn_is_there(self, started: tuple[Journal, int], clock: Clock) -> None:
        journal, epoch = started
        name = ProductName("BTC-USD")
        first = Product(name, copies=3, added_at=WALL_OFFSET_S)
        journal.commit(records(first), epoch)
        again = Product(name, added_at=WALL_OFFSET_S + 1)
        journal.commit(records(again, removed=[first]), epoch)
        assert journal.load(Limits(), clock()).products == {name: again}

    def test_products_of_a_task_come_back(self, started: tuple[Journal, int], clock: Clock) -> None:
        journal, epoch = started
        task = new_task(1, products=("BTC-USD", "ETH-USD"))
        journal.commit(Changes(inserted_tasks=[task]), epoch)
        assert journal.load(Limits(), clock()).tasks[TaskId(1)].options == task.options

    # -------------------------------------------------------------- what the core changes

    def test_what_replicas_served_and_where_they_failed_outlives_a_controller(
        self, open_journal: OpenJournal, clock: Clock
    ) -> None:
        history = History(open_journal, clock, random.Random(0))
        history.ask(AddNode(NodeName("n1"), actor=OPERATOR), AddNode(NodeName("n2"), actor=OPERATOR))
        for number in (1, 2):
            history.ask(NodeJoined(NodeName(f"n{number}"), number, "1", 4000, 2048, 0, {}, frozenset(), frozenset(),
                                   None, (), frozenset(), frozenset()))  # fmt: skip
        history.ask(Deploy(ECHO, "sha256:1", "{}", Policy(), replicas=2, actor=OPERATOR))
        good, bad = list(history.state.replicas.values())
        history.report(good, ReplicaState.RUNNING)
        history.ask(SubmitTasks((NewTask(ECHO, b"1"),), actor=OPERATOR))
        [task] = history.state.tasks.values()
        history.end(task)
        history.report(bad, ReplicaState.FAILED)
        clock.mono += 10.0
        history.ask(Tick())
        history.succeed()
        assert history.state.replicas[good.id].served == 1
        assert [node.recent_failures for node in history.state.nodes.values()] == [0, 1]
        assert history.state.deployments[ECHO].seat_failures == {1: 1}

    # -------------------------------------------------------------- histories

    @pytest.mark.parametrize("seed", range(4))
    def test_what_is_read_back_is_what_the_core_has(self, open_journal: OpenJournal, clock: Clock, seed: int) -> None:
        """Random histories of a whole farm: after every few turns, and after every restart, both say the same."""
        history = History(open_journal, clock, random.Random(seed))
        for _ in range(ROUNDS):
            history.turn()
        history.compare()
        assert history.ended > ROUNDS / 4, "a history in which little happens proves little"
