"""Waiting for a task to end, and watching it run.

A fast answer never asks the journal: the watch begins in the step of the event loop in which the submit was answered,
and the result comes out of memory. The journal is asked where a task is not live. Both are asked again when the engine
reads its state again in the middle.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing, closing
from copy import copy
from typing import Final

from starlette.types import Receive

from agentfarm.errors import FarmError, NotFound, Unavailable
from agentfarm.service import first_of
from controller.core.lives import FINAL_TASK_STATES, TaskState
from controller.core.model import Task, TaskId
from controller.core.transition import FinishedTask
from controller.gateway.http import sse
from controller.gateway.http.answers import dump
from controller.gateway.http.problems import problem_of
from controller.gateway.scope import Farm, Watch
from controller.gateway.tasks.views import finished_view
from controller.watchers import OutputPiece, StateChange, WatchItem

LOOK_AGAIN_S: Final = 0.25
"""Between two looks for a task that is neither live nor stored: its commit is in flight."""
LOOKS_MAX: Final = 20
SOON_S: Final = 1.0
"""A wait that ends so early never looks whether its caller has left."""


async def wait_for(farm: Farm, task: TaskId, timeout_s: float) -> Task | FinishedTask:
    """The task once it has ended, or as it stands after `timeout_s`. Raises NotFound."""
    try:
        async with asyncio.timeout(timeout_s):
            async with aclosing(follow(farm, task)) as items:
                async for item in items:
                    if isinstance(item, FinishedTask):
                        return item
    except TimeoutError:
        pass
    return await look_at(farm, task)


async def wait_while_wanted(farm: Farm, task: TaskId, timeout_s: float, receive: Receive) -> Task | FinishedTask:
    """As wait_for, but no longer than the caller stays. A short wait does not look whether the caller stays."""
    item = await wait_for(farm, task, min(timeout_s, SOON_S))
    if item.state in FINAL_TASK_STATES or timeout_s <= SOON_S:
        return item
    ended = await first_of(_wait_and_keep(farm, task, timeout_s - SOON_S), sse.disconnected(receive))
    return ended.result() or item  # the latter for a caller who has left


async def _wait_and_keep(farm: Farm, task: TaskId, timeout_s: float) -> Task | FinishedTask:
    """As wait_for. A live task is copied: the engine may change it before the waiting request runs again."""
    item = await wait_for(farm, task, timeout_s)
    return copy(item) if isinstance(item, Task) else item


async def look_at(farm: Farm, task: TaskId) -> Task | FinishedTask:
    """The task as it stands, live or stored. A live one is the engine's own: read it before the next await.

    Raises NotFound.
    """
    live = farm.state.tasks.get(task)
    if live is not None:
        return live
    stored = await farm.history.task(task)
    if stored is None:
        raise no_task(task)
    live = farm.state.tasks.get(task)  # known now, if the state was being read again
    return stored if live is None or isinstance(stored, FinishedTask) else live


async def follow(
    farm: Farm, task: TaskId, after: int = 0, watch: Watch | None = None
) -> AsyncGenerator[WatchItem, None]:
    """What happens to a task; last its FinishedTask.

    watch: one that was begun already; it is closed here.
    """
    for _ in range(LOOKS_MAX):
        watch = watch or farm.engine.watch_task(task, after)
        if watch is not None:
            with closing(watch):
                async for item in watch:
                    after = item.id if isinstance(item, OutputPiece) else after
                    yield item
                    if isinstance(item, FinishedTask):
                        return
            watch = None
        stored = await farm.history.task(task)
        if stored is None:
            raise no_task(task)
        if isinstance(stored, FinishedTask):
            yield stored
            return
        await asyncio.sleep(LOOK_AGAIN_S)
    raise Unavailable(f"Task {task} is stored but not live yet.", remedy="Ask again.")


def task_events(farm: Farm, task: TaskId, after: int = 0) -> AsyncGenerator[bytes, None]:
    """A task's story as server-sent events: `state`, `output` (whose ids can be resumed from), then `end`.

    The watch begins with this call, not with the first step, so that no piece of a short task is missed. An error ends
    the stream with a `problem`; a caller comes back with the id of the last piece.
    """
    live = farm.state.tasks.get(task)
    begin = _state_message(task, live.state, live.attempt) if live is not None else b""
    return _story(farm, task, after, begin, farm.engine.watch_task(task, after))


async def _story(
    farm: Farm, task: TaskId, after: int, begin: bytes, watch: Watch | None
) -> AsyncGenerator[bytes, None]:
    try:
        if begin:
            yield begin
        async with aclosing(follow(farm, task, after, watch)) as items:
            async for item in items:
                yield _message_of(task, item)
    except FarmError as problem:
        yield sse.message("problem", dump(problem_of(problem)))
    finally:
        if watch is not None:
            watch.close()


def _message_of(task: TaskId, item: WatchItem) -> bytes:
    if isinstance(item, OutputPiece):
        return sse.message("output", item.data, str(item.id))
    if isinstance(item, StateChange):
        return _state_message(task, item.state, item.attempt)
    return sse.message("end", dump(finished_view(item)))


def _state_message(task: TaskId, state: TaskState, attempt: int) -> bytes:
    return sse.message("state", dump({"id": task, "state": state, "attempt": attempt}))


def no_task(task: int) -> NotFound:
    """There is no such task."""
    return NotFound(f"There is no task {task}.", remedy="'farmctl task list' shows the newest ones.")
