"""Tasks that end while they are read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from controller.core.lives import TaskState
from controller.core.model import DeploymentName, FarmState, Limits, Task, TaskId
from controller.core.transition import FinishedTask
from controller.gateway.history import JournalHistory


class SlowJournal:
    """A Reader whose answer is old by the time it arrives: `meanwhile` happens after the row was read."""

    def __init__(self, state: FarmState) -> None:
        self.state = state
        self.rows: dict[int, Task | FinishedTask] = {}
        self.in_flight: list[Task] = []  # ended in memory, and not stored yet
        self.reads = 0

    def submit(self, number: int, state: TaskState) -> None:
        task = Task(TaskId(number), DeploymentName("echo"), 0, 1.0, b"{}", 2, state=state)
        self.state.tasks[task.id] = task
        self.rows[number] = Task(task.id, task.deployment, 0, 1.0, b"{}", 2)  # a row does not say who works on it

    def end_all(self) -> None:
        """In memory, in a turn whose commit is on its way."""
        self.in_flight += self.state.tasks.values()
        self.state.tasks.clear()

    async def settled(self) -> None:
        for task in self.in_flight:
            self.rows[task.id] = FinishedTask(task, TaskState.SUCCEEDED, 2.0, b"1")
        self.in_flight.clear()

    def task(self, task: TaskId) -> Task | FinishedTask | None:
        self.reads += 1
        row = self.rows.get(task)
        self.end_all()
        return row

    def tasks(self, **_: Any) -> Sequence[Task | FinishedTask]:
        rows = [self.rows[number] for number in sorted(self.rows, reverse=True)]
        self.end_all()
        return rows


def history_of(journal: SlowJournal) -> JournalHistory:
    return JournalHistory(lambda: cast(Any, journal), lambda: cast(Any, None), lambda: journal.state, journal.settled)


async def test_a_task_that_ends_while_it_is_read_has_ended_and_never_waits() -> None:
    journal = SlowJournal(FarmState(1, Limits()))
    journal.submit(1, TaskState.RUNNING)
    item = await history_of(journal).task(TaskId(1))
    assert isinstance(item, FinishedTask)
    assert item.state is TaskState.SUCCEEDED


async def test_tasks_that_end_while_they_are_listed_are_listed_as_ended() -> None:
    journal = SlowJournal(FarmState(1, Limits()))
    for number in (1, 2, 3):
        journal.submit(number, TaskState.RUNNING)
    page = await history_of(journal).tasks((), None, None, 10)
    ended = [(item.task.id, item.state) for item in page if isinstance(item, FinishedTask)]
    assert ended == [(n, TaskState.SUCCEEDED) for n in (3, 2, 1)]
    journal.submit(4, TaskState.RUNNING)
    page = await history_of(journal).tasks([TaskState.QUEUED, TaskState.SUCCEEDED], None, None, 10)
    assert {item.state for item in page} == {TaskState.SUCCEEDED}, "a task that ran does not wait"


async def test_a_task_that_has_ended_is_read_once() -> None:
    journal = SlowJournal(FarmState(1, Limits()))
    journal.submit(1, TaskState.RUNNING)
    journal.end_all()
    await journal.settled()
    await history_of(journal).task(TaskId(1))
    assert journal.reads == 1
