"""The life of a part of a process: started, stopped, and the owner of every task that it runs meanwhile.

    class Mailbox(Service):
        async def _begin(self) -> None:      # what `start` does
            self.run_task(self._deliver(), name="deliver")

        async def _finish(self) -> None:     # what `stop` does before the tasks that still run are cancelled
            ...

Every service keeps the promises of tests/service_contract.py: `start` and `stop` are safe twice, `stop` also unstarted
and while another call stops it. After `stop` none of its tasks runs. A task that dies of an exception takes its service
down, loudly: the loop's exception handler reports it, and `wait` raises what killed it. So does `wait` of the service's
owner, up to the program, which then stops everything in order.

No task of the farm is started elsewhere: tests/unit/test_tasks_have_owners.py. What lost: asyncio.TaskGroup. One task
must enter and leave it, so each service would need one more task that only waits.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from enum import Enum, auto
from typing import Any, TypeVar

T = TypeVar("T")


class Tasks:
    """Owns background tasks: each is awaited in the end, and its death is never silent.

    on_failure: called once for a task of `run` that dies of an exception, after it was reported.
    """

    __slots__ = ("_name", "_on_failure", "_running")

    def __init__(self, name: str, on_failure: Callable[[BaseException], None] | None = None) -> None:
        self._name = name
        self._on_failure = on_failure
        self._running: set[asyncio.Task[Any]] = set()

    def __len__(self) -> int:
        return len(self._running)

    def run(self, work: Coroutine[Any, Any, T], *, name: str = "") -> asyncio.Task[T]:
        """Run what the owner cannot be without. It may end by itself; it must not fail."""
        return self._own(work, name, self._ended)

    def errand(self, work: Coroutine[Any, Any, T], *, name: str = "") -> asyncio.Task[T]:
        """Run something for one caller, such as an answer. Its failure is reported, and harms no other caller."""
        return self._own(work, name, self._errand_ended)

    def awaited(self, work: Coroutine[Any, Any, T], *, name: str = "") -> asyncio.Task[T]:
        """Run what the caller awaits. The caller gets its failure."""
        return self._own(work, name, self._running.discard)

    def cancel(self) -> None:
        """Ask all to end."""
        for task in self._running:
            task.cancel()

    async def end(self) -> None:
        """Cancel what runs, and wait until nothing does. A task that calls this is left alone."""
        caller = asyncio.current_task()
        while running := [task for task in self._running if task is not caller]:
            for task in running:
                task.cancel()
            await asyncio.wait(running)

    def _own(
        self, work: Coroutine[Any, Any, T], name: str, on_end: Callable[[asyncio.Task[Any]], object]
    ) -> asyncio.Task[T]:
        task = asyncio.get_running_loop().create_task(work, name=name or self._name)
        self._running.add(task)
        task.add_done_callback(on_end)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        problem = self._errand_ended(task)
        if problem is not None and self._on_failure is not None:
            self._on_failure(problem)

    def _errand_ended(self, task: asyncio.Task[Any]) -> BaseException | None:
        self._running.discard(task)
        problem = None if task.cancelled() else task.exception()
        if problem is not None:
            message = f"{self._name}: the task {task.get_name()} died: {problem!r}"
            task.get_loop().call_exception_handler({"message": message, "exception": problem, "task": task})
        return problem


class _Phase(Enum):
    NEW = auto()
    UP = auto()
    ENDING = auto()
    DOWN = auto()


class Service:
    """A part with a life of its own. Subclasses write `_begin` and `_finish`, and start tasks by `run_task`."""

    def __init__(self, name: str = "") -> None:
        self._tasks = Tasks(name or type(self).__name__, self._die)
        self._phase = _Phase.NEW
        self._is_over = asyncio.Event()
        self._owner: Service | None = None
        self.failure: BaseException | None = None
        """What killed one of its tasks."""

    @property
    def is_up(self) -> bool:
        """Whether it was started and no stop has been asked for."""
        return self._phase is _Phase.UP

    async def start(self) -> None:
        """Begin; does nothing once it is up. If it cannot begin, it ends what had begun and raises the error."""
        if self._phase in (_Phase.UP, _Phase.ENDING):
            return
        self._phase = _Phase.UP
        self._is_over.clear()
        self.failure = None
        try:
            await self._begin()
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """End in order. Safe twice and safe unstarted. While another call ends it, this one waits for that call."""
        if self._phase is _Phase.NEW:
            return
        if self._phase is not _Phase.UP:
            await self._is_over.wait()
            return
        self._phase = _Phase.ENDING
        try:
            await self._finish()
        finally:
            await self._tasks.end()
            self._phase = _Phase.DOWN
            self._is_over.set()

    async def wait(self) -> None:
        """Return when it is stopped. Raises what killed one of its tasks, or one of a part that it owns."""
        await self._is_over.wait()
        if self.failure is not None:
            raise self.failure

    def own(self, part: Service) -> None:
        """The failure of a part is its owner's failure too."""
        part._owner = self

    def run_task(self, work: Coroutine[Any, Any, T], *, name: str = "") -> asyncio.Task[T]:
        """Run what the service cannot be without, until it ends or the service does."""
        return self._tasks.run(work, name=name)

    async def _begin(self) -> None:
        """What `start` does."""

    async def _finish(self) -> None:
        """What `stop` does first, in order; tasks that still run are cancelled after it."""

    def _die(self, problem: BaseException) -> None:
        if self.failure is not None or self._phase is not _Phase.UP:
            return
        self.failure = problem
        self._is_over.set()
        if self._owner is not None:
            self._owner._die(problem)


async def first_of(*works: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
    """Run together until the first ends; the others are cancelled and awaited. Returns the one that ended first.

    Of several that end together it returns the first in the order of the arguments. The caller looks at its error
    (`result()`).
    """
    loop = asyncio.get_running_loop()
    tasks = [loop.create_task(work) for work in works]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return next(task for task in tasks if task in done)
