"""Who hears of committed turns: watchers of a task, and followers of the farm's events.

Pieces of output live in memory only, while the task lives, and their number is bounded. Only the result is durable. A
watcher that comes back with the id of its last piece gets the later pieces that are still kept.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from controller.core.lives import TaskState
from controller.core.model import Task, TaskId
from controller.core.transition import Event, FinishedTask, Transition

OUTPUT_PIECES_MAX: Final = 1_000
"""Pieces kept for one live task."""
OUTPUT_TASKS_MAX: Final = 10_000
"""Live tasks whose pieces are kept."""
WATCH_QUEUE_MAX: Final = 4_000
"""Items that one slow watcher may leave unread before it misses pieces."""
FOLLOWER_QUEUE_MAX: Final = 10_000
"""Events that one follower may leave unread before it is ended."""


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
        self.missed = 0
        """Pieces dropped because this watcher was too slow."""

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
        """No more items follow: the engine reads its state again, or stops."""
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
        """Watch a live task. The kept pieces with an id greater than `after` come first."""
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

    def hear(self, transition: Transition, tasks: Mapping[TaskId, Task]) -> None:
        """A turn is durable. `tasks`: the live ones."""
        for task in transition.changes.requeued_tasks:
            self._changed(task)
        for task_id in transition.started:
            if task_id in tasks:
                self._changed(tasks[task_id])
        for item in transition.finished:
            ended = item.task.id
            self._pieces.pop(ended, None)
            self._next_id.pop(ended, None)
            for watch in self._watches.pop(ended, ()):
                watch.put(item)

    def _changed(self, task: Task) -> None:
        watches = self._watches.get(task.id)
        if watches:
            change = StateChange(task.state, task.attempt)
            for watch in watches:
                watch.put(change)

    def end_all(self) -> None:
        """End every watch. Its owner looks at the journal and comes again."""
        watches = [watch for held in self._watches.values() for watch in held]
        self._watches.clear()
        self._pieces.clear()
        self._next_id.clear()
        for watch in watches:
            watch.end()


class EventBus:
    """Committed events, for those who follow them live. A slow follower is ended, not waited for."""

    def __init__(self) -> None:
        self._followers: set[asyncio.Queue[Event | None]] = set()

    def follow(self) -> asyncio.Queue[Event | None]:
        """A queue of events as they are committed; None means that the follower was too slow or the engine stops."""
        queue: asyncio.Queue[Event | None] = asyncio.Queue(FOLLOWER_QUEUE_MAX)
        self._followers.add(queue)
        return queue

    def unfollow(self, queue: asyncio.Queue[Event | None]) -> None:
        """Stop following. Safe twice."""
        self._followers.discard(queue)

    def publish(self, events: Sequence[Event]) -> None:
        """Called by the engine after the commit."""
        for queue in list(self._followers):
            if queue.qsize() + len(events) >= FOLLOWER_QUEUE_MAX:
                self._followers.discard(queue)
                queue.put_nowait(None)
                continue
            for event in events:
                queue.put_nowait(event)

    def end(self) -> None:
        """Tell every follower that no more will come."""
        for queue in self._followers:
            queue.put_nowait(None)
        self._followers.clear()
