"""Stories of drained nodes."""

from __future__ import annotations

import pytest

from agentfarm.errors import InvalidRequest, NotFound
from controller.core.commands import NodeBeat, StartDrain, Uncordon
from controller.core.lives import NodeState, Outcome, ReplicaState
from controller.core.model import OPERATOR, Drain, NodeName
from tests.unit.core.farm import LEASED, Farm, big

N1, N2 = NodeName("n1"), NodeName("n2")


@pytest.fixture
def farm() -> Farm:
    return Farm()


def drain(farm: Farm, node: NodeName = N1, deadline_s: float = 60.0) -> Drain:
    farm.ask(StartDrain(node, deadline_s, "kernel", actor=OPERATOR))
    found = farm.state.nodes[node].drain
    assert found is not None
    return found


def test_drained_node_is_emptied_seat_by_seat_and_says_so(farm: Farm) -> None:
    farm.service("n1", replicas=2)
    farm.node("n2")
    it = drain(farm)
    [old, new] = [replica for replica in farm.replicas() if replica.seat == 0]
    assert (old.state, old.is_retiring) == (ReplicaState.RUNNING, False), "it serves until its successor runs"
    assert new.node == "n2"
    farm.run_all()
    assert [replica.node for replica in farm.replicas()] == ["n2", "n2"]
    assert it.is_complete
    assert not it.is_forced
    assert farm.told("node.drained")


def test_drained_node_receives_no_new_placement(farm: Farm) -> None:
    farm.node("n1")
    drain(farm)
    farm.deploy(replicas=1)
    farm.wait(5)
    assert [replica.node for replica in farm.replicas()] == [None]


def test_attempts_on_a_drained_node_finish_before_their_replica_stops(farm: Farm) -> None:
    farm.service("n1")
    farm.node("n2")
    [task] = farm.submit()
    it = drain(farm)
    farm.run_all()
    [old] = [replica for replica in farm.replicas() if replica.node == "n1"]
    assert (old.state, old.is_retiring) == (ReplicaState.STOPPING, True)
    assert task.token in old.tokens
    assert farm.desired("n1").replicas[0].is_stopping
    assert not it.is_complete
    farm.end(task)
    farm.run_all()
    assert it.is_complete


def test_drain_at_its_deadline_interrupts_what_still_runs(farm: Farm) -> None:
    farm.service("n1")
    farm.node("n2")
    [task] = farm.submit()
    token = task.token
    it = drain(farm, deadline_s=10)
    farm.run_all()
    farm.wait(9.5)
    assert farm.desired("n1").replicas, "still listed: it may finish"
    farm.wait(1)
    assert it.is_forced
    assert farm.cancelled("moved") == {token}
    assert farm.desired("n1").replicas == [], "not listed: stop now"
    farm.end(task, Outcome.INTERRUPTED)
    assert (task.state, task.node, task.failures) == (LEASED, "n2", 0)
    farm.run_all()
    assert it.is_complete


def test_drain_with_no_room_elsewhere_waits_for_its_deadline(farm: Farm) -> None:
    farm.node("n1", memory_mib=1000)
    farm.node("n2", memory_mib=100)
    farm.deploy(replicas=1, resources=big(500))
    farm.run_all()
    it = drain(farm, deadline_s=5)
    farm.wait(4.5)
    assert [r.state for r in farm.replicas()] == [ReplicaState.RUNNING, ReplicaState.PENDING]
    farm.wait(1)
    farm.run_all()
    assert it.is_complete
    assert [r.state for r in farm.replicas()] == [ReplicaState.PENDING]


def test_undrain_keeps_what_has_not_moved_and_takes_back_its_successor(farm: Farm) -> None:
    farm.service("n1")
    farm.node("n2")
    drain(farm)
    [old, _new] = farm.replicas()
    farm.ask(Uncordon(N1, actor=OPERATOR))
    farm.run_all()
    assert farm.replicas() == [old]
    assert old.state is ReplicaState.RUNNING
    assert farm.state.nodes[N1].drain is None
    farm.wait(70)
    assert farm.replicas() == [old], "the old deadline means nothing any more"


def test_second_drain_sets_a_new_deadline(farm: Farm) -> None:
    farm.service("n1")
    drain(farm, deadline_s=5)
    it = drain(farm, deadline_s=30)
    farm.wait(10)
    assert not it.is_forced
    farm.wait(21)
    assert it.is_forced


def test_drain_of_an_empty_node_is_complete_at_once(farm: Farm) -> None:
    farm.node("n1")
    assert drain(farm).is_complete


def test_drain_survives_the_controller(farm: Farm) -> None:
    farm.service("n1")
    [_] = farm.submit()
    drain(farm, deadline_s=10)
    farm.restart()
    farm.hello("n1", **farm.holding("n1"))
    it = farm.state.nodes[N1].drain
    assert it is not None
    farm.wait(11)
    assert it.is_forced


def test_drain_is_complete_though_its_node_was_silent_when_the_last_replica_went(farm: Farm) -> None:
    farm.service("n1")
    farm.node("n2")
    it = drain(farm)
    farm.report(next(r for r in farm.replicas() if r.node == "n2"), ReplicaState.RUNNING)
    [old] = [r for r in farm.replicas() if r.node == "n1"]
    farm.silent.add("n1")
    farm.wait(4)
    assert farm.state.nodes[N1].state is NodeState.UNREACHABLE
    farm.report(old, ReplicaState.STOPPED)
    farm.turn(NodeBeat(N1, farm.state.nodes[N1].session))
    assert it.is_complete


def test_drain_of_a_node_that_was_lost_waits_for_the_processes_it_still_has(farm: Farm) -> None:
    """Its replicas were written off, not stopped: only its daemon can say that none remains."""
    farm.service("n1", "n2", replicas=2)
    [mine] = [replica for replica in farm.replicas() if replica.node == "n1"]
    farm.silent.add("n1")
    farm.wait(9)
    it = drain(farm)
    assert not it.is_complete
    farm.silent.clear()
    farm.hello("n1", replicas={mine.id: ReplicaState.RUNNING})
    assert not it.is_complete
    farm.report_stray("n1", mine.id, ReplicaState.STOPPING)
    assert not it.is_complete
    farm.report_stray("n1", mine.id, ReplicaState.STOPPED)
    assert it.is_complete


def test_drain_into_the_past_or_of_nobody_is_refused(farm: Farm) -> None:
    farm.node("n1")
    with pytest.raises(InvalidRequest):
        farm.ask(StartDrain(N1, -1.0, actor=OPERATOR))
    with pytest.raises(NotFound):
        farm.ask(StartDrain(NodeName("n9"), 1.0, actor=OPERATOR))


def test_takeovers_for_a_drain_are_few_at_once(farm: Farm) -> None:
    farm.service("n1", replicas=8)
    farm.node("n2")
    drain(farm)
    assert sum(replica.state is ReplicaState.STARTING for replica in farm.replicas()) == 2, "a quarter of the seats"
