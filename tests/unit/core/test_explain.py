"""Explanations and plans: every node by name with all its reasons, and a plan that comes true."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from agentfarm.errors import NotFound
from controller.core.agents.placement import Reason
from controller.core.commands import CancelTask, Cordon, Scale, StartDrain
from controller.core.lives import Outcome, ReplicaState
from controller.core.model import OPERATOR, DeploymentName, NodeName, ReplicaId, TaskId
from controller.core.policy import Policy
from controller.explain.deployments import DeploymentCause, explain_deployment, plan_replicas
from controller.explain.drains import plan_drain
from controller.explain.nodes import NodeFit
from controller.explain.replicas import Verdict, explain_replica
from controller.explain.tasks import TaskCause, explain_task
from tests.unit.core.farm import ECHO, Farm, big


@pytest.fixture
def farm() -> Farm:
    return Farm()


def reasons(fits: Iterable[NodeFit]) -> dict[str, list[str]]:
    return {fit.node: [str(reason) for reason in fit.reasons] for fit in fits}


def test_pending_replica_is_explained_by_every_node_and_every_reason(farm: Farm) -> None:
    farm.node("full", memory_mib=100)
    farm.node("shut")
    farm.node("gone")
    farm.ask(Cordon(NodeName("shut"), "disk", actor=OPERATOR))
    farm.silent.add("gone")
    farm.wait(9)
    farm.deploy(resources=big(200), capabilities=("questdb",))
    [replica] = farm.replicas()
    answer = explain_replica(farm.state, replica.id, farm.now)
    assert answer.because == "no node can seat it now"
    by_node = reasons(answer.nodes)
    assert sorted(by_node) == ["full", "gone", "shut"]
    lacks = f"{Reason.CAPABILITY_MISSING}: questdb"
    assert by_node["full"] == [lacks, f"{Reason.MEMORY_PROMISED}: needs 200 MiB, 100 MiB left"]
    assert by_node["shut"] == [f"{Reason.CORDONED}: disk", lacks]
    assert by_node["gone"] == [f"{Reason.NOT_READY}: lost", lacks]


def test_task_is_explained_by_what_it_waits_for(farm: Farm) -> None:
    farm.service(backoff_s=30.0)
    first, second, third = farm.submit(3)

    def because(task: TaskId) -> str:
        return explain_task(farm.state, task, farm.now).because

    assert because(first.id) == "attempt 1 is at replica 1 on n1"
    assert because(second.id) == "every replica is busy"
    assert explain_task(farm.state, third.id, farm.now).ahead == 1
    farm.ask(CancelTask(first.id, actor=OPERATOR))
    assert "asked to stop" in because(first.id)
    farm.end(first, Outcome.CANCELLED)
    farm.end(second, Outcome.FAILED, "ValueError")
    assert "failed 1 times; the next attempt is in" in because(second.id)
    farm.ask(Scale(ECHO, 0, actor=OPERATOR))
    farm.end(third)
    farm.run_all()
    [fourth] = farm.submit()
    assert because(fourth.id) == "echo has no replica: scaled to 0"
    assert reasons(explain_task(farm.state, fourth.id, farm.now).nodes) == {"n1": []}


def test_task_of_a_halted_agent_says_so(farm: Farm) -> None:
    farm.node("n1")
    farm.deploy()
    [task] = farm.submit()
    farm.report(farm.replicas()[0], ReplicaState.FAILED, "import_failed")
    assert explain_task(farm.state, task.id, farm.now).because == "version 1 of echo cannot run"
    assert "cannot run: import_failed" in explain_deployment(farm.state, ECHO, farm.now).because


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
    farm.ask(Scale(ECHO, 4, actor=OPERATOR))
    placed = {r.seat: r.node for r in farm.replicas() if r.node is not None and r.seat > 0}
    assert {seat.seat: seat.node for seat in plan.placed} == placed
    assert list(plan.refused) == [r.seat for r in farm.replicas() if r.node is None]
    assert plan.before == 1


def test_plan_of_a_drain_names_each_replica_and_whether_it_fits(farm: Farm) -> None:
    farm.service("n1", replicas=2, resources=big(300))
    farm.node("n2", memory_mib=400)
    plan = plan_drain(farm.state, [NodeName("n1")])
    assert [(move.seat, move.target) for move in plan.replicas] == [(0, "n2"), (1, None)]
    assert plan.fits is False
    farm.ask(StartDrain(NodeName("n1"), 60.0, actor=OPERATOR))
    assert [r.node for r in farm.replicas() if r.node != "n1"] == ["n2"]


def test_a_plan_that_does_not_fit_says_what_is_full_then(farm: Farm) -> None:
    farm.node("n1", memory_mib=1000)
    deployment = farm.deploy(replicas=1, resources=big(400))
    plan = plan_replicas(farm.state, ECHO, deployment.versions[1].policy, 3)
    assert (len(plan.placed), plan.refused) == (1, (2,))
    assert reasons(plan.nodes) == {"n1": [f"{Reason.MEMORY_PROMISED}: needs 400 MiB, 200 MiB left"]}


def test_a_program_reads_causes_and_verdicts_not_sentences(farm: Farm) -> None:
    farm.service("n1", backoff_s=30.0)
    first, second = farm.submit(2)
    busy = explain_task(farm.state, second.id, farm.now)
    assert (busy.cause, [replica.verdict for replica in busy.replicas]) == (TaskCause.ALL_BUSY, [Verdict.FULL])
    farm.end(first, Outcome.FAILED, "ValueError")
    assert explain_task(farm.state, first.id, farm.now).cause is TaskCause.BACKOFF
    farm.silent.add("n1")
    farm.wait(4)
    [third] = farm.submit()
    away = explain_task(farm.state, third.id, farm.now)
    assert (away.cause, away.replicas[0].verdict) == (TaskCause.NONE_WORKS, Verdict.UNREACHABLE)
    assert explain_deployment(farm.state, ECHO, farm.now).cause is DeploymentCause.SEATED
