"""What waits behind work that turned out long is called back, given back, and done by others."""

from __future__ import annotations

import pytest

from agentfarm.limits import GIVEN_BACK
from controller.core.commands import AttemptResult, AttemptsEnded, CancelTask, Remove, StartDrain
from controller.core.lives import Outcome, ReplicaState, TaskState
from controller.core.model import OPERATOR, Limits, NodeName, Replica, Task, Token
from controller.core.tasks.dispatch import room_at
from controller.explain.replicas import explain_replica
from controller.explain.tasks import explain_task
from tests.unit.core.farm import LEASED, RUNNING, Farm

WAIT_S = Limits().recall_after_s + 0.5


def parked(count: int = 6, **policy: object) -> tuple[Farm, Replica, list[Task]]:
    """A replica whose first attempt turned out long, and another that has done all its own work."""
    farm = Farm()
    deployment = farm.service("n1", "n2", replicas=2, **policy)
    deployment.service_s = 0.001
    tasks = farm.submit(count)
    busy = farm.replicas()[0]
    mine = held_by(farm, busy)
    farm.start(mine[0])
    for task in tasks:
        if task.replica != busy.id:
            farm.end(task, duration_s=0.001)
    return farm, busy, mine


def held_by(farm: Farm, replica: Replica) -> list[Task]:
    return [farm.state.tasks[farm.state.by_token[token]] for token in sorted(replica.tokens)]


def give_back(farm: Farm, tasks: list[Task]) -> None:
    """The node's answer to a recall."""
    node = farm.state.nodes[tasks[0].node or NodeName("")]
    results = tuple(
        AttemptResult(task.id, task.token or Token(0), Outcome.INTERRUPTED, error_type=GIVEN_BACK) for task in tasks
    )
    farm.turn(AttemptsEnded(node.name, node.session, results))


def test_what_waits_behind_a_long_attempt_is_recalled_once_it_waited_too_long() -> None:
    farm, busy, [first, *waiting] = parked()
    assert waiting
    farm.wait(0.75)
    assert not farm.recalled(), "it may still be short"
    farm.wait(WAIT_S - 0.75)
    assert farm.recalled() == {task.token for task in waiting}
    [event] = farm.told("attempts.recalled")
    assert (event.node, event.replica, event.task, event.data["attempts"]) == ("n1", busy.id, first.id, len(waiting))


def test_given_back_work_goes_to_another_replica_at_no_cost_and_in_its_order() -> None:
    farm, busy, [first, *waiting] = parked()
    farm.wait(WAIT_S)
    give_back(farm, waiting)
    assert {task.replica for task in waiting} == {farm.replicas()[1].id}
    assert [task.id for task in sorted(waiting, key=lambda it: it.token or 0)] == [task.id for task in waiting]
    assert all((task.failures, task.crashes, task.attempt) == (0, 0, 2) for task in waiting)
    assert [first.state, first.replica] == [RUNNING, busy.id]


def test_given_back_work_stands_before_what_was_submitted_later() -> None:
    farm, _, [_, *waiting] = parked()
    farm.wait(WAIT_S)
    other = farm.replicas()[1]
    farm.report(other, ReplicaState.UNHEALTHY)
    later = farm.submit(3)
    give_back(farm, waiting)
    farm.report(other, ReplicaState.RUNNING)
    order = sorted(waiting + later, key=lambda it: it.token or 0)
    assert [task.id for task in order] == [task.id for task in waiting + later]


def test_nothing_more_is_parked_at_a_replica_that_stands_still() -> None:
    farm, busy, held = parked()
    deployment = farm.state.deployments[busy.deployment]
    farm.wait(0.25)
    assert room_at(farm.state, deployment, busy, farm.mono) == 1
    assert busy.id not in {task.replica for task in farm.submit(40)}
    farm.end(held[0], duration_s=0.3)
    deployment.service_s = 0.001
    assert room_at(farm.state, deployment, busy, farm.mono) > 1, "it has ended something: it is as quick as ever"


def test_giving_back_is_no_progress() -> None:
    farm, busy, [_, *waiting] = parked()
    farm.wait(WAIT_S)
    give_back(farm, waiting)
    assert busy.id not in {task.replica for task in farm.submit(20)}


def test_nothing_is_recalled_while_every_replica_is_as_slow() -> None:
    farm = Farm()
    deployment = farm.service("n1", "n2", replicas=2)
    deployment.service_s = 0.001
    farm.submit(10)
    farm.wait(5.0)
    assert not farm.recalled()
    second = farm.replicas()[1]
    for task in held_by(farm, second):
        farm.end(task, duration_s=0.001)
    farm.wait(0.5)
    assert farm.recalled() == {task.token for task in held_by(farm, farm.replicas()[0])[1:]}


def test_nothing_is_recalled_from_the_only_replica() -> None:
    farm = Farm()
    deployment = farm.service()
    deployment.service_s = 0.001
    farm.submit(10)
    farm.wait(5.0)
    assert not farm.recalled()


def test_work_that_became_slower_does_not_wait_in_a_long_line() -> None:
    farm = Farm()
    deployment = farm.service("n1", "n2", replicas=2)
    deployment.service_s = 0.001
    farm.submit(80)
    slow, quick = farm.replicas()
    for task in held_by(farm, quick):
        farm.end(task, duration_s=0.001)
    for task in held_by(farm, slow)[:4]:  # each ends, but takes half a second
        farm.wait(0.5)
        farm.end(task, duration_s=0.5)
    assert farm.recalled() >= {task.token for task in held_by(farm, slow)[5:]}


def test_an_attempt_that_begins_while_it_is_recalled_goes_on() -> None:
    farm, _, [first, second, *waiting] = parked()
    farm.wait(WAIT_S)
    farm.end(first, duration_s=1.5)
    farm.start(second)
    give_back(farm, waiting)
    farm.end(second, duration_s=0.01)
    assert farm.finished(second).state is TaskState.SUCCEEDED
    assert {task.replica for task in waiting} == {farm.replicas()[1].id}


def test_a_recall_that_was_lost_is_made_again_and_not_more_often_than_it_is_answered() -> None:
    farm, _, [_, *waiting] = parked()
    farm.wait(WAIT_S)
    assert len(farm.recalls()) == 1
    farm.wait(3.0)
    assert 3 <= len(farm.recalls()) <= 5
    assert {task.token for task in waiting} == farm.recalled()
    assert len(farm.told("attempts.recalled")) == 1


def test_a_new_stream_is_asked_again_and_so_is_a_node_by_a_new_leader() -> None:
    farm, _, [_, *waiting] = parked()
    farm.wait(WAIT_S)
    asked = len(farm.recalls())
    farm.hello("n1", **farm.holding("n1"))
    farm.wait(0.25)
    assert len(farm.recalls()) == asked + 1
    farm.restart()
    farm.hello("n1", **farm.holding("n1"))
    farm.hello("n2", **farm.holding("n2"))
    farm.effects.clear()
    farm.wait(WAIT_S)
    assert farm.recalled() == {farm.state.tasks[task.id].token for task in waiting}


def test_a_late_answer_to_a_recall_is_refused_like_any_other() -> None:
    farm, _, [_, *waiting] = parked()
    farm.wait(WAIT_S)
    token, task = waiting[0].token, waiting[0]
    assert token is not None
    give_back(farm, waiting)
    again = task.token
    farm.end_as("n1", task.id, token, Outcome.INTERRUPTED, GIVEN_BACK)
    assert (task.token, task.state) == (again, LEASED)
    assert token in farm.acked()


def test_what_is_being_cancelled_is_not_recalled_and_ends_when_it_is_given_back() -> None:
    farm, _, [_, *waiting] = parked()
    farm.ask(CancelTask(waiting[0].id, actor=OPERATOR))
    farm.wait(WAIT_S)
    assert waiting[0].token not in farm.recalled()
    farm.ask(CancelTask(waiting[1].id, actor=OPERATOR))
    give_back(farm, waiting[1:])
    assert farm.finished(waiting[1]).state is TaskState.CANCELLED


def test_what_waits_at_a_draining_node_is_recalled_too() -> None:
    farm, busy, [_, *waiting] = parked()
    farm.node("n3")
    farm.turn(StartDrain(NodeName("n1"), 600.0, actor=OPERATOR))
    farm.wait(WAIT_S)
    assert busy.is_retiring or busy.state is ReplicaState.RUNNING
    assert farm.recalled() == {task.token for task in waiting}


def test_exclusive_work_is_given_back_before_it_is_given_to_others() -> None:
    farm, _, [_, *waiting] = parked(exclusive=True)
    tokens = {task.token for task in waiting}
    farm.wait(5.0)
    assert {task.token for task in waiting} == tokens, "the lease stands until the node has answered"
    give_back(farm, waiting)
    assert not {task.token for task in waiting} & tokens


def test_slots_that_get_on_do_the_work_behind_one_that_does_not() -> None:
    farm = Farm()
    deployment = farm.service("n1", "n2", replicas=2, concurrency=2)
    deployment.service_s = 0.001
    farm.submit(24)
    busy = farm.replicas()[0]
    long, *others = held_by(farm, busy)
    for task in others:
        farm.wait(0.25)
        farm.end(task, duration_s=0.001)
        if farm.recalled():
            break
    assert long.token not in farm.recalled()
    assert long.token in busy.tokens


def test_work_of_a_removed_agent_is_left_where_it_is() -> None:
    farm, busy, [first, *waiting] = parked()
    farm.ask(Remove(busy.deployment, actor=OPERATOR))
    farm.wait(5.0)
    assert not farm.recalled()
    assert all(task.id in farm.state.tasks for task in [first, *waiting])


def test_explain_names_what_a_task_waits_behind() -> None:
    farm, busy, [first, *waiting] = parked()
    farm.wait(0.5)
    because = explain_task(farm.state, waiting[1].id, farm.now).because
    assert f"behind task {first.id}" in because
    assert "0.5 s" in because
    assert "behind" not in explain_task(farm.state, first.id, farm.now).because
    verdicts = {each.replica: each.sentence for each in explain_task(farm.state, first.id, farm.now).replicas}
    assert f"task {first.id}" in verdicts[busy.id]
    assert explain_replica(farm.state, busy.id, farm.now).state == "running"


def test_a_limit_shorter_than_the_horizon_is_refused() -> None:
    with pytest.raises(ValueError, match="recall_after_s"):
        Limits(prefetch_horizon_s=2.0)
