"""Stories of nodes: silent, lost, back again, and what was promised to them meanwhile."""

from __future__ import annotations

import pytest

from agentfarm.errors import Conflict, Forbidden, NotFound
from controller.core.commands import (
    AttemptResult,
    AttemptsEnded,
    CancelTask,
    Cordon,
    ForgetNode,
    NodeBeat,
    NodeStreamEnded,
    ReplicaNews,
    ReplicasReported,
    Uncordon,
)
from controller.core.lives import NodeState, Outcome, ReplicaState
from controller.core.model import FARM, OPERATOR, Actor, Limits, NodeName, ReplicaId, TaskId, Token, node_actor
from controller.core.transition import AckBeat, CloseSession, SetDesired
from tests.unit.core.farm import ECHO, LEASED, Farm, big

N1 = NodeName("n1")


@pytest.fixture
def farm() -> Farm:
    return Farm()


def test_unknown_node_may_not_join(farm: Farm) -> None:
    with pytest.raises(Forbidden):
        farm.hello("stranger")


# ------------------------------------------------------------------ silence


def test_silent_node_is_unreachable_then_lost_and_its_work_issued_again(farm: Farm) -> None:
    farm.service("n1", "n2", replicas=2)
    [task] = farm.submit()
    home = farm.state.nodes[NodeName(str(task.node))]
    token = task.token
    farm.silent.add(home.name)
    farm.wait(2.75)
    assert home.state is NodeState.READY
    farm.wait(0.25)
    assert home.state is NodeState.UNREACHABLE
    farm.wait(4.75)
    assert task.token == token, "the lease holds until reissue_after_s"
    farm.wait(0.5)
    assert home.state is NodeState.LOST
    assert task.node != home.name
    assert task.state is LEASED
    assert CloseSession(home.name, 1, "the node was silent for too long") in farm.effects or home.session == 0


def test_node_that_beats_again_in_time_keeps_its_work(farm: Farm) -> None:
    farm.service()
    [task] = farm.submit()
    token = task.token
    farm.silent.add("n1")
    farm.wait(5)
    farm.silent.clear()
    farm.wait(1)
    assert farm.state.nodes[N1].state is NodeState.READY
    assert task.token == token


def test_unreachable_node_gets_no_new_work_until_it_beats(farm: Farm) -> None:
    farm.service()
    farm.silent.add("n1")
    farm.wait(4)
    [task] = farm.submit()
    assert task.token is None
    farm.silent.clear()
    farm.wait(0.25)
    assert task.state is LEASED


def test_a_controller_that_stood_still_blames_nobody(farm: Farm) -> None:
    farm.service("n1", "n2", replicas=2)
    [task] = farm.submit()
    token = task.token
    farm.mono += 60.0
    farm.turn()
    assert all(node.state is NodeState.READY for node in farm.state.nodes.values())
    assert task.token == token
    farm.silent |= {"n1", "n2"}
    farm.wait(9)
    assert all(node.state is NodeState.LOST for node in farm.state.nodes.values()), "the clock runs again"


def test_leases_found_at_start_hold_for_the_whole_time(farm: Farm) -> None:
    farm.service("n1", "n2", replicas=2)
    [task] = farm.submit()
    token, home = task.token, str(task.node)
    farm.silent |= {"n1", "n2"}
    farm.wait(7)
    farm.restart()
    farm.wait(7.5)
    assert farm.state.tasks[task.id].token == token
    farm.hello(home, **farm.holding(home))
    farm.silent.discard(home)
    farm.wait(2)
    assert farm.state.tasks[task.id].token == token


# ------------------------------------------------------------------ beats and sessions


def test_beat_is_acknowledged_on_its_session(farm: Farm) -> None:
    farm.service()
    session = farm.state.nodes[N1].session
    farm.turn(NodeBeat(N1, session, seq=7))
    assert AckBeat(N1, session, 7) in farm.out.effects


def test_messages_of_an_earlier_session_change_nothing(farm: Farm) -> None:
    farm.service()
    old = farm.state.nodes[N1].session
    farm.hello("n1", **farm.holding("n1"))
    [replica] = farm.replicas()
    heard = farm.state.nodes[N1].last_heard
    farm.mono += 0.5
    farm.turn(
        NodeBeat(N1, old, seq=8),
        ReplicasReported(N1, old, (ReplicaNews(replica.id, ReplicaState.FAILED, "crash_loop"),)),
        NodeStreamEnded(N1, old),
    )
    assert not any(isinstance(effect, AckBeat) for effect in farm.out.effects)
    assert farm.state.nodes[N1].last_heard == heard
    assert farm.state.nodes[N1].session != 0
    assert replica.state is ReplicaState.RUNNING


def test_new_stream_closes_the_old_one(farm: Farm) -> None:
    farm.service()
    old = farm.state.nodes[N1].session
    farm.hello("n1", **farm.holding("n1"))
    assert [e.session for e in farm.out.effects if isinstance(e, CloseSession)] == [old]


def test_a_node_may_not_speak_for_anothers_replica(farm: Farm) -> None:
    farm.service("n1", "n2", replicas=2)
    [first, second] = farm.replicas()
    farm.turn(
        ReplicasReported(
            NodeName(str(first.node)), farm.state.nodes[NodeName(str(first.node))].session,
            (ReplicaNews(second.id, ReplicaState.FAILED, "crash_loop"),),
        )
    )  # fmt: skip
    assert second.state is ReplicaState.RUNNING


# ------------------------------------------------------------------ hello settles every difference


def test_hello_keeps_what_runs_and_gives_back_what_never_arrived(farm: Farm) -> None:
    farm.service("n1", concurrency=3)
    runs, ended, lost = farm.submit(3)
    tokens = [runs.token, ended.token, lost.token]
    assert all(tokens)
    [replica] = farm.replicas()
    farm.hello(
        "n1", running=[t for t in [runs.token] if t], finished=[t for t in [ended.token] if t],
        replicas={replica.id: ReplicaState.RUNNING},
    )  # fmt: skip
    assert (runs.token, ended.token) == (tokens[0], tokens[1])
    assert lost.state is LEASED
    assert lost.token not in tokens, "issued again, under a new token"


def test_hello_stops_attempts_whose_lease_is_gone(farm: Farm) -> None:
    farm.service("n1", "n2", replicas=2)
    [task] = farm.submit()
    home, token = str(task.node), task.token
    assert token is not None
    farm.silent.add(home)
    farm.wait(9)
    farm.hello(home, running=[token])
    assert farm.cancelled("stale") == {token}


def test_replica_that_the_node_does_not_know_is_started_again(farm: Farm) -> None:
    farm.service()
    [replica] = farm.replicas()
    farm.hello("n1")
    assert replica.state is ReplicaState.STARTING
    assert [item.replica for item in farm.desired("n1").replicas] == [replica.id]


def test_stopping_replica_that_the_node_does_not_know_is_gone(farm: Farm) -> None:
    farm.service("n1", replicas=1)
    [replica] = farm.replicas()
    farm.deploy(replicas=0)
    assert replica.state is ReplicaState.STOPPING
    farm.hello("n1")
    assert not farm.replicas()


def test_replica_that_the_controller_does_not_know_is_not_on_the_list(farm: Farm) -> None:
    farm.node("n1")
    farm.hello("n1", replicas={99: ReplicaState.RUNNING})
    assert farm.desired("n1").replicas == []


def test_generation_of_a_nodes_list_grows_across_restarts(farm: Farm) -> None:
    """A daemon that outlives the controller ignores older lists; the count itself is not stored at each step."""
    farm.service()
    farm.deploy(replicas=2)
    farm.run_all()
    before = farm.desired("n1").generation
    farm.restart()
    farm.hello("n1", **farm.holding("n1"))
    [after] = [effect.generation for effect in farm.out.effects if isinstance(effect, SetDesired)]
    assert after > before


# ------------------------------------------------------------------ operators


def test_nothing_is_placed_on_a_cordoned_node_and_what_runs_stays(farm: Farm) -> None:
    farm.service()
    farm.ask(Cordon(N1, "disk", actor=OPERATOR))
    farm.deploy(replicas=2)
    assert [replica.state for replica in farm.replicas()] == [ReplicaState.RUNNING, ReplicaState.PENDING]
    [task] = farm.submit()
    assert task.state is LEASED, "what runs there still works"
    farm.ask(Uncordon(N1, actor=OPERATOR))
    assert [replica.node for replica in farm.replicas()] == ["n1", "n1"]


def test_only_a_node_that_is_gone_can_be_forgotten(farm: Farm) -> None:
    farm.service()
    with pytest.raises(Conflict):
        farm.ask(ForgetNode(N1, actor=OPERATOR))
    farm.silent.add("n1")
    farm.wait(9)
    farm.ask(ForgetNode(N1, actor=OPERATOR))
    assert N1 not in farm.state.nodes
    with pytest.raises(Forbidden):
        farm.hello("n1")
    with pytest.raises(NotFound):
        farm.ask(Cordon(N1, actor=OPERATOR))


def test_results_of_a_forgotten_node_are_dropped(farm: Farm) -> None:
    """Its half-open stream may still deliver; that must not stop the farm."""
    farm.service()
    farm.silent.add("n1")
    farm.wait(9)
    farm.ask(ForgetNode(N1, actor=OPERATOR))
    farm.turn(AttemptsEnded(N1, 1, (AttemptResult(TaskId(1), Token(5), Outcome.SUCCEEDED),)))
    assert not farm.out.effects


def test_cancel_reaches_an_attempt_only_where_it_is_heard(farm: Farm) -> None:
    farm.service()
    [task] = farm.submit()
    farm.turn(NodeStreamEnded(N1, farm.state.nodes[N1].session))
    farm.ask(CancelTask(task.id, actor=OPERATOR))
    assert not farm.cancelled("requested")
    farm.hello("n1", **farm.holding("n1"))
    assert farm.cancelled("requested") == {task.token}


# ------------------------------------------------------------------ failures are remembered, for a while


def test_each_event_names_who_made_it_happen(farm: Farm) -> None:
    farm.service("n1")
    farm.ask(Cordon(N1, "disk", actor=Actor("account/ada")))
    farm.silent.add("n1")
    farm.wait(5)
    actors = {event.kind: event.actor for event in farm.tables.events}
    assert actors["node.added"] == actors["deployment.rollout"] == OPERATOR
    assert actors["node.cordoned"] == "account/ada"
    assert actors["replica.running"] == node_actor(N1)
    assert actors["replica.placed"] == actors["node.unreachable"] == FARM


def test_nodes_failures_are_halved_each_minute(farm: Farm) -> None:
    farm.node("n1")
    node = farm.state.nodes[N1]
    farm.deploy(replicas=5)
    for replica in farm.replicas():
        farm.report(replica, ReplicaState.FAILED, "out_of_memory")
    assert node.recent_failures == 5
    farm.wait(61)
    assert node.recent_failures == 2
    farm.wait(60)
    assert node.recent_failures == 1
    farm.wait(60)
    assert node.recent_failures == 0


def test_replica_avoids_the_node_where_others_just_failed(farm: Farm) -> None:
    farm.node("n1")
    farm.node("n2")
    farm.deploy(replicas=1)
    [replica] = farm.replicas()
    assert replica.node == "n1"
    farm.report(replica, ReplicaState.FAILED, "out_of_memory")
    farm.wait(3)
    assert [it.node for it in farm.replicas()] == ["n2"]


def test_seat_waits_longer_after_each_failure(farm: Farm) -> None:
    farm = Farm(Limits(seat_backoff_s=2.0))
    farm.node("n1")
    farm.deploy(replicas=1)
    waits = []
    for _ in range(4):
        [replica] = farm.replicas()
        farm.report(replica, ReplicaState.FAILED, "out_of_memory")
        [replica] = farm.replicas()
        waits.append(replica.not_before - farm.mono)
        farm.wait(waits[-1] + 0.5)
        assert replica.state is ReplicaState.STARTING
    assert waits == [2.0, 4.0, 8.0, 16.0]


def test_seat_that_served_has_its_failures_forgiven(farm: Farm) -> None:
    farm.service()
    [replica] = farm.replicas()
    farm.report(replica, ReplicaState.FAILED, "out_of_memory")
    farm.wait(3)
    farm.run_all()
    assert farm.state.deployments[ECHO].seat_failures == {0: 1}
    [task] = farm.submit()
    farm.end(task)
    assert farm.state.deployments[ECHO].seat_failures == {}


def test_promised_memory_is_never_exceeded_by_what_comes_and_goes(farm: Farm) -> None:
    farm.node("n1", memory_mib=1000)
    farm.deploy(replicas=4, resources=big(400))
    assert [replica.node for replica in farm.replicas()] == ["n1", "n1", None, None]
    farm.report(farm.replicas()[0], ReplicaState.FAILED, "out_of_memory")
    assert sum(replica.node is not None for replica in farm.replicas()) == 2
    assert ReplicaId(1) not in farm.state.replicas
