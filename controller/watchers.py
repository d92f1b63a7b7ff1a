"""Those who wait for a task, and the pieces of output they see meanwhile.

Pieces live in memory only, bounded per task, and only while the task lives: the result is what is durable. A watcher
that comes back with the id of the last piece it saw goes on from there if the piece is still kept.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from typing import Final

from controller.core.lives import TaskState
from controller.core.model import TaskId
from controller.core.transition import FinishedTask

OUTPUT_PIECES_MAX: Final = 1_000  # kept per live task
OUTPUT_TASKS_MAX: Final = 10_000  # live tasks whose pieces are kept
WATCH_QUEUE_MAX: Final = 4_000  # what one slow watcher may leave unread before it misses pieces


@dataclass(frozen=True, slots=True)
class OutputPiece:
    """One piece of output. `id` grows within the task, over all its attempts; `data` is JSON."""

    id: int
    data: bytes


@dataclass(frozen=True, slots=True)
class StateChange:
    """The task moved: leased, running, or back to queued."""

    state: TaskState
    attempt: int


WatchItem = OutputPiece | StateChange | FinishedTask


class TaskWatch:
    """An async iterator of what happens to one task; it ends after the FinishedTask. Close it when done early."""

    def __init__(self, watchers: Watchers, task: TaskId, earlier: Iterable[WatchItem]) -> None:
        self._watchers = watchers
        self._task = task
        self._items: deque[WatchItem] = deque(earlier)
        self._wake = asyncio.Event()
        self._is_over = False
        self.missed = 0  # pieces dropped because this watcher was too slow

    def put(self, item: WatchItem) -> None:
        """Called by the engine."""
        if len(self._items) >= WATCH_QUEUE_MAX and isinstance(item, OutputPiece):
            self.missed += 1
            return
        self._items.append(item)
        self._wake.set()

    def __aiter__(self) -> AsyncIterator[WatchItem]:
        return self

    async def __anext__(self) -> WatchItem:
        while not self._items:
            if self._is_over:
                raise StopAsyncIteration
            self._wake.clear()
            await self._wake.wait()
        item = self._items.popleft()
        if isinstance(item, FinishedTask):
            self._is_over = True
        return item

    def end(self) -> None:
        """No more will come: the engine lost the task from sight (it reloads, or stops)."""
        self._is_over = True
        self._wake.set()

    def close(self) -> None:
        """Stop watching. Safe twice."""
        self._watchers.drop(self._task, self)


class Watchers:
    """All watches of the controller, by task."""

    def __init__(self) -> None:
        self._watches: dict[TaskId, list[TaskWatch]] = {}
        self._pieces: dict[TaskId, deque[OutputPiece]] = {}
        self._next_id: dict[TaskId, int] = {}

    def watch(self, task: TaskId, after: int = 0) -> TaskWatch:
        """Watch a live task, beginning with the kept pieces whose id is greater than `after`."""
        watch = TaskWatch(self, task, [p for p in self._pieces.get(task, ()) if p.id > after])
        self._watches.setdefault(task, []).append(watch)
        return watch

    def drop(self, task: TaskId, watch: TaskWatch) -> None:
        """Forget one watch."""
        held = self._watches.get(task)
        if held is not None and watch in held:
            held.remove(watch)
            if not held:
                del self._watches[task]

    def piece(self, task: TaskId, data: bytes) -> None:
        """A running task gave a piece of output."""
        pieces = self._pieces.get(task)
        if pieces is None:
            if len(self._pieces) >= OUTPUT_TASKS_MAX:
                return
            pieces = self._pieces[task] = deque(maxlen=OUTPUT_PIECES_MAX)
        number = self._next_id[task] = self._next_id.get(task, 0) + 1
        piece = OutputPiece(number, data)
        pieces.append(piece)
        for watch in self._watches.get(task, ()):
            watch.put(piece)

    def changed(self, task: TaskId, change: StateChange) -> None:
        """A live task moved."""
        for watch in self._watches.get(task, ()):
            watch.put(change)

    def finished(self, items: Iterable[FinishedTask]) -> None:
        """These tasks ended, durably."""
        for item in items:
            task = item.task.id
            self._pieces.pop(task, None)
            self._next_id.pop(task, None)
            for watch in self._watches.pop(task, ()):
                watch.put(item)

    def end_all(self) -> None:
        """End every watch; their owners look at the journal and come again."""
        watches = [watch for held in self._watches.values() for watch in held]
        self._watches.clear()
        self._pieces.clear()
        self._next_id.clear()
        for watch in watches:
            watch.end()
