"""Explanations and plans: every node by name with all its reasons, and a plan that comes true."""

from __future__ import annotations

from typing import Any

import pytest

from agentfarm.errors import NotFound
from controller.core.agents.placement import Reason
from controller.core.commands import CancelTask, Cordon, Scale, StartDrain
from controller.core.lives import Outcome, ReplicaState
from controller.core.model import DeploymentName, NodeName, Policy, ReplicaId, TaskId
from controller.explain.reasons import explain_deployment, explain_replica, explain_task, plan_drain, plan_replicas
from tests.unit.core.farm import ECHO, Farm, big


@pytest.fixture
def farm() -> Farm:
    return Farm()


def reasons(rows: list[dict[str, Any]]) -> dict[str, list[str]]:
    return {row["node"]: row["reasons"] for row in rows}


def test_pending_replica_is_explained_by_every_node_and_every_reason(farm: Farm) -> None:
    farm.node("full", memory_mib=100)
    farm.node("shut")
    farm.node("gone")
    farm.ask(Cordon(NodeName("shut"), "disk"))
    farm.silent.add("gone")
    farm.wait(9)
    farm.deploy(resources=big(200), capabilities=("questdb",))
    [replica] = farm.replicas()
    told = explain_replica(farm.state, replica.id, farm.now)
    assert told["because"] == "no node can seat it now"
    found = reasons(told["nodes"])
    assert sorted(found) == ["full", "gone", "shut"]
    lacks = f"{Reason.CAPABILITY_MISSING}: questdb"
    assert found["full"] == [lacks, f"{Reason.MEMORY_PROMISED}: needs 200 MiB, 100 MiB left"]
    assert found["shut"] == [f"{Reason.CORDONED}: disk", lacks]
    assert found["gone"] == [f"{Reason.NOT_READY}: lost", lacks]


def test_task_is_explained_by_what_it_waits_for(farm: Farm) -> None:
    farm.service(backoff_s=30.0)
    first, second, third = farm.submit(3)

    def because(task: TaskId) -> str:
        return str(explain_task(farm.state, task, farm.now)["because"])

    assert because(first.id) == "attempt 1 is at replica 1 on n1"
    assert because(second.id) == "every replica is busy"
    assert explain_task(farm.state, third.id, farm.now)["ahead"] == 1
    farm.ask(CancelTask(first.id))
    assert "asked to stop" in because(first.id)
    farm.end(first, Outcome.CANCELLED)
    farm.end(second, Outcome.FAILED, "ValueError")
    assert "failed 1 times; the next attempt is in" in because(second.id)
    farm.ask(Scale(ECHO, 0))
    farm.end(third)
    farm.run_all()
    [fourth] = farm.submit()
    assert because(fourth.id) == "echo has no replica: scaled to 0"
    assert reasons(explain_task(farm.state, fourth.id, farm.now)["nodes"]) == {"n1": []}


def test_task_of_a_halted_agent_says_so(farm: Farm) -> None:
    farm.node("n1")
    farm.deploy()
    [task] = farm.submit()
    farm.report(farm.replicas()[0], ReplicaState.FAILED, "import_failed")
    assert explain_task(farm.state, task.id, farm.now)["because"] == "version 1 of echo cannot run"
    assert "cannot run: import_failed" in explain_deployment(farm.state, ECHO, farm.now)["because"]


def test_what_is_not_there_is_not_found(farm: Farm) -> None:
    for ask in (
        lambda: explain_task(farm.state, TaskId(1), farm.now),
        lambda: explain_replica(farm.state, ReplicaId(1), farm.now),
        lambda: explain_deployment(farm.state, DeploymentName("x"), farm.now),
        lambda: plan_drain(farm.state, [NodeName("x")]),
    ):
        with pytest.raises(NotFound):
            ask()


def test_asking_changes_nothing(farm: Farm) -> None:
    farm.service("n1", "n2", replicas=2)
    [task] = farm.submit()
    before = repr(farm.state)
    explain_task(farm.state, task.id, farm.now)
    explain_replica(farm.state, farm.replicas()[0].id, farm.now)
    explain_deployment(farm.state, ECHO, farm.now)
    plan_replicas(farm.state, ECHO, Policy(), 5)
    plan_drain(farm.state, [NodeName("n1")])
    assert repr(farm.state) == before


def test_plan_of_a_scale_comes_true(farm: Farm) -> None:
    farm.node("n1", memory_mib=1000)
    farm.node("n2", memory_mib=500)
    deployment = farm.deploy(replicas=1, resources=big(400))
    farm.run_all()
    plan = plan_replicas(farm.state, ECHO, deployment.versions[1].policy, 4)
    farm.ask(Scale(ECHO, 4))
    placed = {r.seat: r.node for r in farm.replicas() if r.node is not None and r.seat > 0}
    assert {row["seat"]: row["node"] for row in plan["placed"]} == placed
    assert plan["refused"] == [r.seat for r in farm.replicas() if r.node is None]
    assert plan["before"] == 1


def test_plan_of_a_drain_names_each_replica_and_whether_it_fits(farm: Farm) -> None:
    farm.service("n1", replicas=2, resources=big(300))
    farm.node("n2", memory_mib=400)
    plan = plan_drain(farm.state, [NodeName("n1")])
    assert [(row["seat"], row["to"]) for row in plan["replicas"]] == [(0, "n2"), (1, None)]
    assert plan["fits"] is False
    farm.ask(StartDrain(NodeName("n1"), 60.0))
    assert [r.node for r in farm.replicas() if r.node != "n1"] == ["n2"]


def test_a_plan_that_does_not_fit_says_what_is_full_then(farm: Farm) -> None:
    farm.node("n1", memory_mib=1000)
    deployment = farm.deploy(replicas=1, resources=big(400))
    plan = plan_replicas(farm.state, ECHO, deployment.versions[1].policy, 3)
    assert (len(plan["placed"]), plan["refused"]) == (1, [2])
    assert reasons(plan["nodes"]) == {"n1": [f"{Reason.MEMORY_PROMISED}: needs 400 MiB, 200 MiB left"]}
