"""Which replica takes which task."""

from __future__ import annotations

from collections import Counter

from controller.core.commands import NodeStreamEnded
from controller.core.lives import Outcome, ReplicaState
from controller.core.model import Limits, NodeName
from controller.core.tasks.dispatch import window
from tests.unit.core.farm import ECHO, LEASED, QUEUED, Farm, leases_of


def test_higher_priority_goes_first_and_equals_in_order() -> None:
    farm = Farm()
    farm.deploy(concurrency=1)
    low, high = farm.submit(2, priority=-1), farm.submit(2, priority=3)
    farm.node("n1")
    farm.run_all()
    order = []
    for _ in range(4):
        [task] = [task for task in farm.state.tasks.values() if task.state is LEASED]
        order.append(task.id)
        farm.end(task)
    assert order == [task.id for task in high + low]


def test_work_goes_to_the_replica_that_holds_least() -> None:
    farm = Farm()
    farm.service("n1", "n2", replicas=2, concurrency=4)
    farm.submit(6)
    assert [len(replica.tokens) for replica in farm.replicas()] == [3, 3]
    first = farm.replicas()[0]
    for token in sorted(first.tokens)[:2]:
        farm.end(farm.state.tasks[farm.state.by_token[token]])
    farm.submit(2)
    assert [len(replica.tokens) for replica in farm.replicas()] == [3, 3]


def test_replica_holds_no_more_than_its_concurrency() -> None:
    farm = Farm()
    farm.service(concurrency=2)
    tasks = farm.submit(5)
    assert Counter(task.state for task in tasks) == {LEASED: 2, QUEUED: 3}


def test_one_turn_is_one_lease_row_per_node_and_it_goes_with_its_last_lease() -> None:
    farm = Farm()
    farm.service("n1", "n2", replicas=2, concurrency=4)
    tasks = farm.submit(8)
    assert sorted(batch.node for batch in farm.out.changes.lease_batches) == ["n1", "n2"]
    for task in tasks[:-1]:
        farm.end(task)
    assert len(farm.tables.leases) == 1
    farm.end(tasks[-1])
    assert not farm.tables.leases


def test_short_work_waits_at_the_replica_and_long_work_never_does() -> None:
    farm = Farm(Limits(prefetch_horizon_s=0.05))
    deployment = farm.service(concurrency=2)
    assert window(farm.limits, deployment, 2) == 2, "nothing measured yet"
    deployment.service_s = 0.001
    assert window(farm.limits, deployment, 2) == 2 * 51
    deployment.service_s = 1e-9
    assert window(farm.limits, deployment, 2) == 2 * farm.limits.prefetch_max
    deployment.service_s = 0.05
    assert window(farm.limits, deployment, 2) == 2


def test_measured_service_time_opens_and_closes_the_window() -> None:
    farm = Farm()
    deployment = farm.service()
    [task] = farm.submit()
    farm.end(task, duration_s=0.01)
    assert window(farm.limits, deployment, 1) == 6
    tasks = farm.submit(6)
    assert all(task.state is LEASED for task in tasks)
    for task in tasks:
        farm.end(task, duration_s=3.0)
    assert window(farm.limits, deployment, 1) == 1


def test_one_long_attempt_ends_prefetching_and_many_short_ones_begin_it_again() -> None:
    farm = Farm()
    deployment = farm.service()

    def serve(duration_s: float) -> None:
        [task] = farm.submit()
        farm.end(task, duration_s=duration_s)

    for _ in range(20):
        serve(0.001)
    assert window(farm.limits, deployment, 1) > 1
    serve(0.2)
    assert window(farm.limits, deployment, 1) == 1, "a mean would still believe in short work"
    serve(0.001)
    assert window(farm.limits, deployment, 1) == 1
    for _ in range(60):
        serve(0.001)
    assert window(farm.limits, deployment, 1) > 1


def test_a_turn_sends_a_node_no_more_bytes_than_its_limit_and_goes_on_at_once() -> None:
    farm = Farm(Limits(assign_bytes_max=200))
    farm.service(concurrency=10)
    tasks = farm.submit(10)
    sent = sum(task.state is LEASED for task in tasks)
    assert 0 < sent < 10
    assert farm.out.next_due == farm.mono, "the rest does not wait for the clock"
    for _ in range(10):
        farm.turn()
    assert all(task.state is LEASED for task in tasks)


def test_nothing_is_leased_to_a_node_without_a_stream() -> None:
    farm = Farm()
    farm.service()
    farm.turn(NodeStreamEnded(NodeName("n1"), farm.state.nodes[NodeName("n1")].session))
    [task] = farm.submit()
    assert task.state is QUEUED


def test_what_waited_for_a_stream_is_leased_when_it_is_back() -> None:
    farm = Farm()
    farm.service()
    farm.turn(NodeStreamEnded(NodeName("n1"), farm.state.nodes[NodeName("n1")].session))
    [task] = farm.submit()
    farm.hello("n1", **farm.holding("n1"))
    assert task.state is LEASED


def test_what_waits_when_a_controller_starts_is_leased_when_its_node_is_back() -> None:
    farm = Farm()
    farm.service()
    farm.turn(NodeStreamEnded(NodeName("n1"), farm.state.nodes[NodeName("n1")].session))
    [task] = farm.submit()
    farm.restart()
    farm.hello("n1", **farm.holding("n1"))
    assert farm.state.tasks[task.id].state is LEASED


def test_unhealthy_replica_gets_nothing_until_it_is_well() -> None:
    farm = Farm()
    farm.service()
    [replica] = farm.replicas()
    farm.report(replica, ReplicaState.UNHEALTHY, "unhealthy")
    [task] = farm.submit()
    assert task.state is QUEUED
    farm.report(replica, ReplicaState.RUNNING)
    assert task.state is LEASED


def test_attempts_given_back_together_keep_their_order() -> None:
    farm = Farm()
    farm.service("n1", concurrency=3)
    tasks = farm.submit(5)
    [replica] = farm.replicas()
    farm.report(replica, ReplicaState.FAILED, "crash_loop")
    assert list(farm.state.deployments[ECHO].queues[0]) == [task.id for task in tasks]


def test_inputs_beyond_the_memory_for_them_are_left_in_the_journal() -> None:
    farm = Farm(Limits(input_memory_bytes=5))
    farm.deploy(concurrency=10)
    tasks = farm.submit(4)  # 2 bytes each
    assert [task.id for task in farm.out.forget_inputs] == [tasks[3].id, tasks[2].id]
    farm.node("n1")
    farm.run_all()
    assert [lease.input for lease in leases_of(farm.out.effects)] == [b"{}", b"{}", None, None], "as decided"
    assert [lease.input for lease in farm.leases()] == [b"{}"] * 4, "as sent"
    farm.end(tasks[3], Outcome.INTERRUPTED)
    assert tasks[3].state is LEASED
