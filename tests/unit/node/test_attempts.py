"""The table of attempts, and what is reported of each."""

from __future__ import annotations

import pytest

from agentfarm.wire import link_pb2 as wire
from nodeagent.core.attempts import Attempt, Attempts, Ending, report, report_gone
from nodeagent.runner.protocol.frames import Outcome, Result


def attempt(token: int, *, replica_id: int = 1, timeout_s: float = 0.0, exclusive: bool = False) -> Attempt:
    return Attempt(token, token * 10, replica_id, timeout_s, exclusive)


def table(*items: Attempt) -> Attempts:
    attempts = Attempts()
    for item in items:
        attempts.add(item)
    return attempts


def test_time_counts_from_the_start_and_not_from_the_assignment() -> None:
    attempts = table(attempt(1, timeout_s=5.0))
    assert attempts.sweep(100.0).next_at is None
    fresh, due_at = attempts.start([1, 1, 99], 100.0, 1)
    assert (fresh, due_at) == ([1], 105.0)
    assert not attempts.sweep(104.9).timed_out
    assert [item.token for item in attempts.sweep(105.0).timed_out] == [1]


def test_one_told_to_end_kills_its_replica_when_it_does_not() -> None:
    attempts = table(attempt(1), attempt(2, replica_id=2))
    for replica_id in (1, 2):
        attempts.start([1, 2], 0.0, replica_id)
    assert [item.token for item in attempts.end([1, 77], Ending.CANCELLED, kill_at=10.0)] == [1]
    assert attempts.sweep(9.0) == attempts.sweep(9.0)
    assert attempts.sweep(9.0).next_at == 10.0
    assert attempts.sweep(10.0).replicas_to_kill == {1}


def test_the_first_decision_stays_unless_nobody_wants_to_hear_of_it() -> None:
    attempts = table(attempt(1))
    attempts.end([1], Ending.TIMED_OUT, 10.0)
    assert attempts.end([1], Ending.CANCELLED, 20.0) == []
    item = attempts.get(1)
    assert item is not None
    assert (item.ending, item.kill_at) == (Ending.TIMED_OUT, 10.0)
    attempts.end([1], Ending.STALE, 20.0)
    assert item.ending is Ending.STALE


@pytest.mark.parametrize(
    ("ending", "said", "told"),
    [
        (None, Outcome.SUCCEEDED, wire.OUTCOME_SUCCEEDED),
        (None, Outcome.FAILED, wire.OUTCOME_FAILED),
        (None, Outcome.CANCELLED, wire.OUTCOME_INTERRUPTED),
        (None, Outcome.INTERRUPTED, wire.OUTCOME_INTERRUPTED),
        (Ending.CANCELLED, Outcome.CANCELLED, wire.OUTCOME_CANCELLED),
        (Ending.CANCELLED, Outcome.FAILED, wire.OUTCOME_CANCELLED),
        (Ending.CANCELLED, Outcome.SUCCEEDED, wire.OUTCOME_SUCCEEDED),
        (Ending.TIMED_OUT, Outcome.CANCELLED, wire.OUTCOME_TIMED_OUT),
        (Ending.INTERRUPTED, Outcome.CANCELLED, wire.OUTCOME_INTERRUPTED),
    ],
)
def test_what_was_decided_wins_over_what_the_agent_says_unless_it_succeeded(
    ending: Ending | None, said: Outcome, told: int
) -> None:
    item = attempt(1)
    item.ending = ending
    result = report(item, Result(10, 1, said, 5, b"{}" if said is Outcome.SUCCEEDED else b"", "E", "m", "t"))
    assert result is not None
    assert (result.outcome, result.fencing_token, result.task_id) == (told, 1, 10)


def test_nothing_is_told_of_a_stale_attempt() -> None:
    item = attempt(1)
    item.ending = Ending.STALE
    assert report(item, Result(10, 1, Outcome.SUCCEEDED, 5, b"{}")) is None
    assert report_gone([item], frozenset({1}), was_ours=False, why="") == []


def test_a_crash_costs_those_it_worked_on_and_nobody_else() -> None:
    """What it worked on stands in its mapped file: messages on their way are lost with it."""
    items = [attempt(token) for token in (1, 2, 3, 4)]
    items[1].started_at = 5.0  # we heard that it started, and the file says that it had ended since
    items[3].ending = Ending.CANCELLED
    told = report_gone(items, frozenset({1, 3}), was_ours=False, why="SIGSEGV")
    assert [(result.fencing_token, result.outcome) for result in told] == [
        (1, wire.OUTCOME_FAILED), (2, wire.OUTCOME_INTERRUPTED), (3, wire.OUTCOME_FAILED), (4, wire.OUTCOME_CANCELLED),
    ]  # fmt: skip
    assert told[0].error_type == "ReplicaCrashed"


def test_without_the_file_what_we_heard_counts() -> None:
    items = [attempt(1), attempt(2)]
    items[0].started_at = 5.0
    told = report_gone(items, None, was_ours=False, why="")
    assert [result.outcome for result in told] == [wire.OUTCOME_FAILED, wire.OUTCOME_INTERRUPTED]


def test_bystanders_of_a_kill_of_ours_are_interrupted() -> None:
    items = [attempt(1), attempt(2)]
    items[0].ending = Ending.TIMED_OUT
    told = report_gone(items, frozenset({1, 2}), was_ours=True, why="")
    assert [result.outcome for result in told] == [wire.OUTCOME_TIMED_OUT, wire.OUTCOME_INTERRUPTED]


def test_the_table_forgets_what_is_removed() -> None:
    attempts = table(attempt(1, exclusive=True), attempt(2))
    assert attempts.exclusive == {1}
    assert attempts.remove(1) is not None
    assert attempts.remove(1) is None
    assert (len(attempts), attempts.exclusive, attempts.has_work(1)) == (1, set(), True)
    attempts.remove(2)
    assert not attempts.has_work(1)
