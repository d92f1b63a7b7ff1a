"""Waiting for a task to end, and watching it run.

The way of a fast answer: the watch is registered in the same step of the event loop in which the submit was
answered, and the result comes out of memory. Where a task is not live the journal is asked; where the engine
starts anew in the middle, both are.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing, closing
from typing import Any, Final

from agentfarm.errors import NotFound, Unavailable
from controller.core.model import TaskId
from controller.core.transition import FinishedTask
from controller.gateway import sse
from controller.gateway.answers import dump
from controller.gateway.farm import Farm
from controller.gateway.views.tasks import finished_view, live_view
from controller.watching import OutputPiece, StateChange, WatchItem

LOOK_AGAIN_S: Final = 0.25  # between looks for a task that is neither live nor stored: its commit is in flight
LOOKS_MAX: Final = 20


async def wait_for(farm: Farm, task: TaskId, timeout_s: float) -> dict[str, Any]:
    """The task's view once it has ended, or as it stands after `timeout_s`. Raises NotFound."""
    try:
        async with asyncio.timeout(timeout_s):
            async with aclosing(follow(farm, task)) as items:
                async for item in items:
                    if isinstance(item, FinishedTask):
                        return finished_view(item)
                    if isinstance(item, dict):
                        return item
    except TimeoutError:
        pass
    return await look_at(farm, task)


async def look_at(farm: Farm, task: TaskId) -> dict[str, Any]:
    """The task as it stands, live or stored. Raises NotFound."""
    live = farm.state.tasks.get(task)
    if live is not None:
        return live_view(live)
    stored = await farm.history.task(task)
    if stored is None:
        raise no_task(task)
    return stored


async def follow(farm: Farm, task: TaskId, after: int = 0) -> AsyncGenerator[WatchItem | dict[str, Any], None]:
    """What happens to a task; last its FinishedTask, or, where it had ended before, its stored view."""
    for _ in range(LOOKS_MAX):
        watch = farm.engine.watch_task(task, after)
        if watch is not None:
            with closing(watch):
                async for item in watch:
                    after = item.id if isinstance(item, OutputPiece) else after
                    yield item
                    if isinstance(item, FinishedTask):
                        return
        stored = await farm.history.task(task)
        if stored is None:
            raise no_task(task)
        if stored["is_final"]:
            yield stored
            return
        await asyncio.sleep(LOOK_AGAIN_S)
    raise Unavailable(f"Task {task} is stored but not live yet.", remedy="Ask again.")


async def task_events(farm: Farm, task: TaskId, after: int) -> AsyncGenerator[bytes, None]:
    """A task's story as server-sent events: `state`, `output` (whose ids can be resumed from) and `end`."""
    live = farm.state.tasks.get(task)
    if live is not None:
        yield sse.message("state", dump({"state": live.state, "attempt": live.attempt}))
    async with aclosing(follow(farm, task, after)) as items:
        async for item in items:
            if isinstance(item, OutputPiece):
                yield sse.message("output", item.data, str(item.id))
            elif isinstance(item, StateChange):
                yield sse.message("state", dump({"state": item.state, "attempt": item.attempt}))
            else:
                yield sse.message("end", dump(finished_view(item) if isinstance(item, FinishedTask) else item))


def no_task(task: int) -> NotFound:
    """There is no such task."""
    return NotFound(f"There is no task {task}.", remedy="'farmctl task list' shows the newest ones.")
