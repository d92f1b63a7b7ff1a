"""What the gateway reads and writes beside the engine: ended tasks, events, bundles. Never on the hot path.

The journal's Reader and Store block, so they run on threads of this module's own, a few at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

from agentfarm.errors import NotFound
from controller.core.commands import NewTask
from controller.core.lives import TaskState
from controller.core.model import DeploymentName, FarmState, NodeName, Task, TaskId
from controller.core.transition import EndedAttempt, FinishedTask

if TYPE_CHECKING:
    from controller.journal.queries.reader import Reader, StoredEvent
    from controller.journal.queries.store import Store

T = TypeVar("T")
READS_AT_ONCE: Final = 4
"""As many as the Reader has connections."""
LIVE_STATES: Final = frozenset({TaskState.QUEUED, TaskState.LEASED, TaskState.RUNNING})


@dataclass(frozen=True, slots=True)
class EventFilter:
    """What events must be about. None: anything."""

    node: NodeName | None = None
    deployment: DeploymentName | None = None
    task: TaskId | None = None


class History(Protocol):
    """Stored facts. Every call may raise Unavailable: PostgreSQL may be away.

    A Task among the answers has not ended. It may be the engine's own live one: read it before the next await.
    """

    async def task(self, task: TaskId) -> Task | FinishedTask | None:
        """A stored task. One that has not ended is `queued` here."""

    async def tasks(
        self, states: Collection[TaskState], agent: str | None, after: int | None, limit: int
    ) -> Sequence[Task | FinishedTask]:
        """Tasks, newest first, older than `after`. Their inputs and outputs may be missing. states: any if empty."""

    async def attempts(self, task: TaskId) -> Sequence[EndedAttempt]:
        """Attempts that ended, oldest first, the task's last one too."""

    async def submission(self, task: TaskId) -> NewTask:
        """What was submitted for a task. Raises NotFound."""

    async def events(self, after: int | None, limit: int, about: EventFilter) -> Sequence[StoredEvent]:
        """Events, oldest first: those after an id, or with None the newest ones."""

    async def ended_counts(self) -> dict[TaskState, int]:
        """How many tasks ended in each final state since the farm began."""

    async def has_bundle(self, digest: str) -> bool:
        """Whether these bytes are stored."""

    async def put_bundle(self, digest: str, data: bytes) -> None:
        """Store a bundle; where it is stored already, nothing changes."""


class JournalHistory:
    """What PostgreSQL knows, with the live state laid over it where both know a task.

    reader, store: give the part at its first use, on one of our threads, because making it may take a while.
    settled: returns when all that memory held at the call is durable.
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

    async def task(self, task: TaskId) -> Task | FinishedTask | None:
        """A stored task."""
        row = await self._call(lambda: self._reader().task(task))
        if row is None:
            return None
        [item] = await self._with_ends([row])
        return item

    async def tasks(
        self, states: Collection[TaskState], agent: str | None, after: int | None, limit: int
    ) -> list[Task | FinishedTask]:
        """Newest first. Memory knows in which of the live states a task is."""
        chosen = frozenset(states) or frozenset(TaskState)
        if chosen <= LIVE_STATES:
            return self._live_tasks(chosen, agent, after, limit)
        rows = await self._call(lambda: self._reader().tasks(states=chosen, deployment=agent, after=after, limit=limit))
        items = [self._live_or(item) for item in await self._with_ends(rows)]
        return [item for item in items if item.state in chosen]

    async def attempts(self, task: TaskId) -> list[EndedAttempt]:
        """Attempts that ended, oldest first."""
        return await self._call(lambda: self._reader().attempts(task))

    async def submission(self, task: TaskId) -> NewTask:
        """What was submitted for a task."""
        row = await self._call(lambda: self._reader().task(task))
        if row is None:
            raise NotFound(f"Task {task} is not stored any more.")
        stored = row.task if isinstance(row, FinishedTask) else row
        return NewTask(stored.deployment, stored.input or b"null", stored.priority, stored.options)

    async def events(self, after: int | None, limit: int, about: EventFilter) -> list[StoredEvent]:
        """Events, oldest first."""
        return await self._call(
            lambda: self._reader().events(
                after=after, limit=limit, node=about.node, deployment=about.deployment, task=about.task
            )
        )

    async def ended_counts(self) -> dict[TaskState, int]:
        """How many tasks ended in each final state."""
        return await self._call(lambda: self._reader().counts())

    async def has_bundle(self, digest: str) -> bool:
        """Whether these bytes are stored."""
        return await self._call(lambda: self._reader().has_bundle(digest))

    async def put_bundle(self, digest: str, data: bytes) -> None:
        """Store a bundle."""
        await self._call(lambda: self._store().put_bundle(digest, data))

    async def _with_ends(self, rows: Sequence[Task | FinishedTask]) -> list[Task | FinishedTask]:
        """The same with the ends of tasks that ended while they were read.

        Memory has let go of such a task. Its row was read before its end was stored, and would say that it waits.
        """
        live = self._state().tasks
        ending = [item.id for item in rows if isinstance(item, Task) and item.id not in live]
        if not ending:
            return list(rows)
        await self._settled()
        ends = await self._call(lambda: {task: self._reader().task(task) for task in ending})
        return [(ends.get(item.id) if isinstance(item, Task) else None) or item for item in rows]

    def _live_tasks(
        self, states: frozenset[TaskState], agent: str | None, after: int | None, limit: int
    ) -> list[Task | FinishedTask]:
        state = self._state()
        ids = state.tasks if TaskState.QUEUED in states else sorted(state.by_token.values())
        page: list[Task | FinishedTask] = []
        for task_id in reversed(ids):  # live tasks are kept in the order of their ids
            task = state.tasks[task_id]
            if task.state in states and agent in (None, task.deployment) and (after is None or task_id < after):
                page.append(task)
                if len(page) == limit:
                    break
        return page

    def _live_or(self, item: Task | FinishedTask) -> Task | FinishedTask:
        return (self._state().tasks.get(item.id) if isinstance(item, Task) else None) or item

    async def _call(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)
