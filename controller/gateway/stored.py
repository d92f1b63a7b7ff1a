"""History on the journal's Reader and Store, which block: they run on threads of this module's own, a few at once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final, TypeVar

from agentfarm.errors import NotFound
from controller.core.commands import NewTask
from controller.core.lives import TaskState
from controller.core.model import FarmState, Task, TaskId
from controller.core.transition import EndedAttempt, FinishedTask
from controller.gateway.http.times import when
from controller.gateway.tasks.views import error_view, finished_view, live_view

if TYPE_CHECKING:
    from controller.journal.queries.reader import Reader, StoredEvent
    from controller.journal.queries.store import Store

T = TypeVar("T")
READS_AT_ONCE: Final = 4  # as many as the Reader has connections
LIVE_STATES: Final = frozenset({TaskState.QUEUED, TaskState.LEASED, TaskState.RUNNING})


class JournalHistory:
    """What PostgreSQL knows, with what is live laid over it where both have a say.

    reader, store: give the part at its first use, on one of our threads, because making it may take a while.
    settled: returns when all that memory knew at the call is durable.
    """

    def __init__(
        self,
        reader: Callable[[], Reader],
        store: Callable[[], Store],
        state: Callable[[], FarmState],
        settled: Callable[[], Awaitable[object]],
    ) -> None:
        self._reader, self._store, self._state, self._settled = reader, store, state, settled
        self._threads = ThreadPoolExecutor(READS_AT_ONCE, thread_name_prefix="history")

    async def task(self, task: TaskId) -> dict[str, Any] | None:
        """A stored task, without attempts."""
        found = await self._call(lambda: self._reader().task(task))
        if found is None:
            return None
        [found] = await self._with_ends([found])
        return _view(found)

    async def tasks(
        self, states: Sequence[str], agent: str | None, after: int | None, limit: int
    ) -> list[dict[str, Any]]:
        """Newest first, without inputs and outputs. Which of the live states a task is in, memory knows."""
        wanted = frozenset(TaskState(state) for state in states) or frozenset(TaskState)
        if wanted <= LIVE_STATES:
            return self._live_tasks(wanted, agent, after, limit)
        found = await self._call(
            lambda: self._reader().tasks(states=wanted, deployment=agent, after=after, limit=limit)
        )
        views = [self._with_live(item) for item in await self._with_ends(found)]
        return [view for view in views if view["state"] in wanted]

    async def _with_ends(self, found: Sequence[Task | FinishedTask]) -> list[Task | FinishedTask]:
        """With the ends of those that ended while they were read: memory has let go of such a task, and its row, read
        before its end was stored, would say that it waits, as if it had never run."""
        live = self._state().tasks
        ending = [item.id for item in found if isinstance(item, Task) and item.id not in live]
        if not ending:
            return list(found)
        await self._settled()
        ends = await self._call(lambda: {task: self._reader().task(task) for task in ending})
        return [(ends.get(item.id) if isinstance(item, Task) else None) or item for item in found]

    def _live_tasks(
        self, wanted: frozenset[TaskState], agent: str | None, after: int | None, limit: int
    ) -> list[dict[str, Any]]:
        state = self._state()
        ids = state.tasks if TaskState.QUEUED in wanted else sorted(state.by_token.values())
        found: list[dict[str, Any]] = []
        for task_id in reversed(ids):  # live tasks are kept in the order of their ids
            task = state.tasks[task_id]
            if task.state in wanted and agent in (None, task.deployment) and (after is None or task_id < after):
                found.append(live_view(task) | {"input": None})
                if len(found) == limit:
                    break
        return found

    def _with_live(self, item: Task | FinishedTask) -> dict[str, Any]:
        live = self._state().tasks.get(item.id) if isinstance(item, Task) else None
        return _view(live or item) | {"input": None, "output": None}

    async def attempts(self, task: TaskId) -> list[dict[str, Any]]:
        """Attempts that ended, oldest first."""
        return [_attempt(item) for item in await self._call(lambda: self._reader().attempts(task))]

    async def submission(self, task: TaskId) -> NewTask:
        """What was submitted for a task."""
        found = await self._call(lambda: self._reader().task(task))
        if found is None:
            raise NotFound(f"Task {task} is not stored any more.")
        stored = found.task if isinstance(found, FinishedTask) else found
        return NewTask(stored.deployment, stored.input or b"null", stored.priority, stored.options)

    async def events(self, after: int | None, limit: int, filters: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Events, oldest first."""
        found = await self._call(lambda: self._reader().events(after=after, limit=limit, **filters))
        return [_event(item) for item in found]

    async def ended_counts(self) -> dict[str, int]:
        """How many tasks ended in each final state."""
        return {state.value: number for state, number in (await self._call(lambda: self._reader().counts())).items()}

    async def has_bundle(self, digest: str) -> bool:
        """Whether these bytes are stored."""
        return await self._call(lambda: self._reader().has_bundle(digest))

    async def put_bundle(self, digest: str, data: bytes) -> None:
        """Store a bundle."""
        await self._call(lambda: self._store().put_bundle(digest, data))

    async def _call(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)


def _view(item: Task | FinishedTask) -> dict[str, Any]:
    return finished_view(item) if isinstance(item, FinishedTask) else live_view(item)


def _attempt(item: EndedAttempt) -> dict[str, Any]:
    return {
        "attempt": item.attempt,
        "outcome": str(item.outcome),
        "node": item.node,
        "replica": item.replica,
        "leased_at": when(item.leased_at),
        "ended_at": when(item.ended_at),
        "error": error_view(item.error_type, item.error_message),
    }


def _event(stored: StoredEvent) -> dict[str, Any]:
    event = stored.event
    return {
        "id": stored.id,
        "at": when(event.at),
        "kind": event.kind,
        "severity": event.severity,
        "message": event.message,
        "node": event.node,
        "deployment": event.deployment,
        "replica": event.replica,
        "task": event.task,
        "data": event.data,
    }
