"""Stories of tasks: accepted, leased, ended, tried again."""

from __future__ import annotations

from typing import Any

import pytest

from agentfarm.errors import FarmError, InvalidRequest, NotFound, StaleToken, Unavailable
from controller.core.commands import CancelTask, NewTask, Remove, StoreCheckpoint, SubmitTasks
from controller.core.lives import Outcome, ReplicaState, TaskState
from controller.core.model import OPERATOR, Limits, ReplicaId, Task, TaskId, Token
from tests.unit.core.farm import ECHO, LEASED, QUEUED, RUNNING, Farm


@pytest.fixture
def farm() -> Farm:
    return Farm()


def test_task_is_leased_in_the_turn_that_accepts_it_and_ends_once(farm: Farm) -> None:
    farm.service()
    [task] = farm.submit()
    assert task.state is LEASED
    assert [batch.tasks for batch in farm.out.changes.lease_batches] == [[task.id]]
    farm.start(task)
    assert task.state is RUNNING
    token = task.token
    farm.end(task, output=b'{"answer": 42}')
    last = farm.finished(task)
    assert (last.state, last.output) == (TaskState.SUCCEEDED, b'{"answer": 42}')
    assert farm.acked() == {token}
    assert not farm.tables.leases, "the lease row goes with its last lease"


@pytest.mark.parametrize("stranger", [{"node": "n2"}, {"replica": ReplicaId(99)}, {"token": Token(1)}], ids=str)
def test_result_of_another_than_the_holder_is_refused_and_acknowledged(farm: Farm, stranger: dict[str, Any]) -> None:
    farm.service("n1", "n2")
    [task] = farm.submit()
    assert task.token is not None
    who = {"node": task.node, "replica": task.replica, "token": task.token} | stranger
    farm.end_as(who["node"], task.id, who["token"], replica=who["replica"])
    assert task.id in farm.state.tasks
    assert who["token"] in farm.acked()
    assert task.node is not None
    farm.end_as(task.node, task.id, task.token, replica=task.replica)
    assert farm.finished(task).state is TaskState.SUCCEEDED


def test_task_for_an_unknown_agent_is_refused_with_the_known_ones(farm: Farm) -> None:
    farm.service()
    with pytest.raises(NotFound) as problem:
        farm.submit(name="ecco")
    assert problem.value.data["known"] == ["echo"]


def test_priority_outside_its_range_is_refused(farm: Farm) -> None:
    farm.service()
    with pytest.raises(InvalidRequest, match="priority is 6"):
        farm.submit(priority=6)


def test_farm_full_of_tasks_refuses_more() -> None:
    farm = Farm(Limits(queued_max=3))
    farm.deploy()
    farm.submit(3)
    with pytest.raises(Unavailable, match="limit"):
        farm.submit()


def test_each_task_of_one_command_gets_its_own_answer(farm: Farm) -> None:
    farm.service()
    answers = farm.turn(
        SubmitTasks((NewTask(ECHO, b"1"), NewTask(ECHO, b"2", priority=99), NewTask(ECHO, b"3")), actor=OPERATOR)
    ).answers[0]
    assert isinstance(answers, list)
    assert [isinstance(answer, FarmError) for answer in answers] == [False, True, False]


# ------------------------------------------------------------------ idempotency


def test_same_idempotency_key_gives_the_same_task(farm: Farm) -> None:
    farm.service()
    [task] = farm.submit(idempotency_key="k")
    farm.end(task)
    again = farm.ask(
        SubmitTasks((NewTask(ECHO, b"{}", None, task.options),), farm.journal.find_keys(["k"]), actor=OPERATOR)
    )
    assert again == [task.id]
    assert len(farm.tables.finished) == 1
    assert not farm.state.tasks


def test_same_key_twice_in_one_turn_is_one_task(farm: Farm) -> None:
    farm.service()
    [first] = farm.submit(idempotency_key="a")
    new = NewTask(ECHO, b"{}", None, first.options)
    known = {"a": first.id}
    out = farm.turn(SubmitTasks((new, new), known, actor=OPERATOR), SubmitTasks((new,), known, actor=OPERATOR))
    assert out.answers == {0: [first.id, first.id], 1: [first.id]}
    assert len(farm.state.tasks) == 1


# ------------------------------------------------------------------ results that come late


def test_late_result_cannot_finish_a_reassigned_attempt(farm: Farm) -> None:
    farm.service("n1", "n2", replicas=2)
    [task] = farm.submit()
    old_node, old_token = task.node, task.token
    assert old_node is not None
    assert old_token is not None
    farm.silent.add(old_node)
    farm.wait(9)
    assert task.node != old_node
    assert task.token is not None
    assert task.token > old_token
    farm.end_as(old_node, task.id, old_token, output=b'"late"')
    assert task.state is LEASED
    assert farm.told("attempt.refused")[0].data["fencing_token"] == old_token
    farm.end(task, output=b'"right"')
    assert farm.finished(task).output == b'"right"'


def test_result_with_a_token_of_another_nodes_lease_is_refused(farm: Farm) -> None:
    farm.service("n1", "n2", replicas=2)
    [task] = farm.submit()
    assert task.token is not None
    stranger = "n1" if task.node == "n2" else "n2"
    farm.end_as(stranger, task.id, task.token)
    assert task.state is LEASED
    assert task.token in farm.acked(), "refused for ever, so the stranger may forget it"


def test_result_of_an_ended_task_is_acknowledged_and_changes_nothing(farm: Farm) -> None:
    farm.service()
    [task] = farm.submit()
    node, token = task.node, task.token
    assert node is not None
    assert token is not None
    farm.end(task, output=b'"first"')
    farm.end_as(node, task.id, token, output=b'"again"')
    assert farm.finished(task).output == b'"first"'


def test_tokens_grow_across_a_restart(farm: Farm) -> None:
    farm.service()
    [task] = farm.submit()
    before = task.token
    farm.end(task)
    farm.restart()
    farm.hello("n1", replicas={1: ReplicaState.RUNNING})
    [task] = farm.submit()
    assert before is not None
    assert task.token is not None
    assert task.token > before


# ------------------------------------------------------------------ retries


def test_failed_attempt_is_tried_again_after_its_backoff(farm: Farm) -> None:
    farm.service(backoff_s=4.0)
    [task] = farm.submit()
    farm.end(task, Outcome.FAILED, "ValueError")
    assert task.state is QUEUED
    assert 2.0 <= task.not_before - farm.mono < 4.0
    farm.wait(1.75)
    assert task.state is QUEUED
    farm.wait(2.5)
    assert task.state is LEASED
    assert (task.attempt, task.failures) == (2, 1)


def test_backoff_grows_is_capped_and_jittered(farm: Farm) -> None:
    farm.service(max_attempts=100, backoff_s=1.0, backoff_max_s=8.0)
    [task] = farm.submit()
    waits = []
    for _ in range(8):
        farm.end(task, Outcome.FAILED, "ValueError")
        waits.append(task.not_before - farm.mono)
        farm.wait(8.25)
    for wait, cap in zip(waits, [1, 2, 4, 8, 8, 8, 8, 8], strict=True):
        assert cap / 2 <= wait < cap
    assert len({round(wait, 6) for wait in waits[3:]}) > 1, "equal waits would come back as one crowd"


def test_task_is_dead_when_its_attempts_are_used_up(farm: Farm) -> None:
    farm.service(max_attempts=2, backoff_s=0.0)
    [task] = farm.submit()
    farm.end(task, Outcome.FAILED, "ValueError")
    farm.end(task, Outcome.TIMED_OUT, "TimeoutError")
    last = farm.finished(task)
    assert (last.state, last.error_type, last.task.attempt) == (TaskState.DEAD, "TimeoutError", 2)
    assert [row.outcome for row in farm.tables.attempts] == ["failed"]


def test_a_tasks_own_number_of_attempts_wins_over_its_agents(farm: Farm) -> None:
    farm.service(max_attempts=5)
    [task] = farm.submit(max_attempts=1)
    farm.end(task, Outcome.FAILED, "ValueError")
    assert farm.finished(task).state is TaskState.DEAD


def test_permanent_error_fails_at_once(farm: Farm) -> None:
    farm.service(max_attempts=5)
    [task] = farm.submit()
    farm.end(task, Outcome.FAILED, "Reject")
    assert farm.finished(task).state is TaskState.FAILED


def test_interrupted_attempt_costs_nothing_and_goes_first(farm: Farm) -> None:
    farm.service(max_attempts=1)
    first, _second = farm.submit(2)
    farm.end(first, Outcome.INTERRUPTED)
    assert first.state is LEASED, "ahead of the second, which waited behind it"
    assert (first.attempt, first.failures) == (2, 0)


def test_task_that_keeps_killing_its_replica_is_quarantined_whatever_its_retries_say(farm: Farm) -> None:
    farm.service(max_attempts=50, backoff_s=0.0)
    [task] = farm.submit()
    for _ in range(3):
        assert task.id in farm.state.tasks
        farm.end(task, Outcome.FAILED, "ReplicaCrashed")
    last = farm.finished(task)
    assert (last.state, last.error_type) == (TaskState.DEAD, "Poison")


def test_task_that_takes_its_node_down_is_quarantined_too() -> None:
    farm = Farm(Limits(poison_after=2))
    farm.service("n1", "n2", "n3", replicas=3)
    [task] = farm.submit()
    for _ in range(2):
        farm.start(task)
        farm.silent.add(str(task.node))
        farm.wait(9)
    assert farm.finished(task).state is TaskState.DEAD


def test_task_that_never_began_is_not_blamed_for_its_nodes_end() -> None:
    farm = Farm(Limits(poison_after=1))
    farm.service("n1", "n2", replicas=2)
    [task] = farm.submit()
    farm.silent.add(str(task.node))
    farm.wait(9)
    assert (task.state, task.crashes) == (LEASED, 0)


# ------------------------------------------------------------------ waiting limits


def test_task_fails_when_no_replica_was_free_in_time(farm: Farm) -> None:
    farm.service(queue_timeout_s=5.0)
    busy, waiting = farm.submit(2)
    farm.wait(4.75)
    assert waiting.state is QUEUED
    farm.wait(0.5)
    assert farm.finished(waiting).error_type == "QueueTimeout"
    assert busy.state is LEASED, "the limit ends with the first lease"


def test_queue_limit_of_a_retried_task_is_over(farm: Farm) -> None:
    farm.service(queue_timeout_s=2.0, backoff_s=10.0)
    [task] = farm.submit()
    farm.end(task, Outcome.FAILED, "ValueError")
    farm.wait(4.0)
    assert task.state is QUEUED


# ------------------------------------------------------------------ cancelling


def cancel(farm: Farm, task: Task) -> TaskState:
    answer = farm.ask(CancelTask(task.id, actor=OPERATOR))
    assert isinstance(answer, TaskState)
    return answer


def test_queued_task_is_cancelled_at_once(farm: Farm) -> None:
    farm.deploy()
    [task] = farm.submit()
    assert cancel(farm, task) is TaskState.CANCELLED
    assert farm.finished(task).state is TaskState.CANCELLED


def test_task_that_waits_out_its_backoff_is_cancelled_at_once(farm: Farm) -> None:
    farm.service()
    [task] = farm.submit()
    farm.end(task, Outcome.FAILED, "ValueError")
    assert cancel(farm, task) is TaskState.CANCELLED
    farm.wait(5)
    assert farm.finished(task).state is TaskState.CANCELLED


@pytest.mark.parametrize("is_running", [False, True])
def test_leased_task_is_cancelled_when_its_node_says_so(farm: Farm, is_running: bool) -> None:
    farm.service()
    [task] = farm.submit()
    if is_running:
        farm.start(task)
    assert cancel(farm, task) is (RUNNING if is_running else LEASED)
    assert farm.cancelled("requested") == {task.token}
    farm.end(task, Outcome.CANCELLED)
    assert farm.finished(task).state is TaskState.CANCELLED


def test_cancel_is_asked_once(farm: Farm) -> None:
    farm.service()
    [task] = farm.submit()
    cancel(farm, task)
    cancel(farm, task)
    assert not farm.out.effects


def test_result_that_was_faster_than_its_cancel_wins(farm: Farm) -> None:
    farm.service()
    [task] = farm.submit()
    cancel(farm, task)
    farm.end(task)
    assert farm.finished(task).state is TaskState.SUCCEEDED


def test_cancelled_attempt_that_failed_is_not_tried_again(farm: Farm) -> None:
    farm.service()
    [task] = farm.submit()
    cancel(farm, task)
    farm.end(task, Outcome.FAILED, "ValueError")
    assert farm.finished(task).state is TaskState.CANCELLED


def test_cancel_survives_controller_and_node(farm: Farm) -> None:
    farm.service()
    [task] = farm.submit()
    cancel(farm, task)
    farm.restart()
    farm.hello("n1", **farm.holding("n1"))
    assert farm.cancelled("requested") == {task.token}
    live = farm.state.tasks[task.id]
    farm.silent.add("n1")
    farm.wait(9)
    assert farm.finished(live).state is TaskState.CANCELLED


def test_cancel_of_a_task_that_is_not_live_is_not_found(farm: Farm) -> None:
    with pytest.raises(NotFound):
        farm.ask(CancelTask(TaskId(7), actor=OPERATOR))


# ------------------------------------------------------------------ removal


def test_removed_agents_tasks_end(farm: Farm) -> None:
    farm.service()
    running, waiting = farm.submit(2)
    farm.ask(Remove(ECHO, actor=OPERATOR))
    assert farm.finished(waiting).state is TaskState.CANCELLED
    farm.end(running)
    assert farm.finished(running).state is TaskState.SUCCEEDED
    farm.run_all()
    assert ECHO not in farm.state.deployments


@pytest.mark.parametrize(("outcome", "error"), [(Outcome.FAILED, "ValueError"), (Outcome.INTERRUPTED, "")])
def test_attempt_of_a_removed_agent_is_not_tried_again(farm: Farm, outcome: Outcome, error: str) -> None:
    farm.service()
    [task] = farm.submit()
    farm.ask(Remove(ECHO, actor=OPERATOR))
    farm.end(task, outcome, error)
    assert farm.finished(task).state is TaskState.CANCELLED
    farm.run_all()
    assert ECHO not in farm.state.deployments


def test_removed_agent_takes_no_task(farm: Farm) -> None:
    farm.service()
    [_] = farm.submit()
    farm.ask(Remove(ECHO, actor=OPERATOR))
    with pytest.raises(NotFound):
        farm.submit()


# ------------------------------------------------------------------ checkpoints


def checkpoint(task: Task, token: Token | None, thread: str = "") -> StoreCheckpoint:
    assert token is not None
    return StoreCheckpoint(task.id, token, thread or f"task-{task.id}", "", "c1", "", b"state", actor=OPERATOR)


def test_checkpoint_is_stored_under_a_valid_token_and_dropped_with_its_task(farm: Farm) -> None:
    farm.service()
    [task] = farm.submit()
    farm.ask(checkpoint(task, task.token))
    assert len(farm.tables.checkpoints) == 1
    farm.end(task)
    assert not farm.tables.checkpoints


def test_checkpoints_of_a_callers_thread_are_kept(farm: Farm) -> None:
    farm.service()
    [task] = farm.submit(thread_id="talk")
    farm.ask(checkpoint(task, task.token, "talk"))
    farm.end(task)
    assert len(farm.tables.checkpoints) == 1


def test_checkpoint_under_a_void_token_is_refused(farm: Farm) -> None:
    farm.service()
    [task] = farm.submit()
    old = task.token
    farm.end(task, Outcome.INTERRUPTED)
    with pytest.raises(StaleToken):
        farm.ask(checkpoint(task, old))


def test_checkpoint_in_anothers_thread_is_refused(farm: Farm) -> None:
    farm.service()
    [task] = farm.submit()
    with pytest.raises(InvalidRequest, match="does not belong"):
        farm.ask(checkpoint(task, task.token, "task-999"))
