"""The event loop's thread pool, with a count of threads at work for each attempt.

Cancelling an await on a thread does not end the thread. The farm promises that a cancelled attempt is reported only
when nothing works on it any more, so the threads are counted; that is all this class adds to the standard pool.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import ContextVar
from threading import Lock
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

CURRENT_TOKEN: ContextVar[int] = ContextVar("agentfarm_token", default=0)


class AttemptThreads(ThreadPoolExecutor):
    """A pool that knows for which attempt its threads work; `on_idle` hears of each attempt whose last one ended."""

    def __init__(self, max_workers: int, on_idle: Callable[[int], None]) -> None:
        super().__init__(max_workers, thread_name_prefix="agent")
        self._at_work: dict[int, int] = {}
        self._count_lock = Lock()
        self._on_idle = on_idle

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """As the standard pool, for the attempt of the calling context."""
        token = CURRENT_TOKEN.get()
        future = super().submit(fn, *args, **kwargs)
        if token:
            with self._count_lock:
                self._at_work[token] = self._at_work.get(token, 0) + 1
            future.add_done_callback(lambda _: self._left(token))
        return future

    def is_working(self, token: int) -> bool:
        """Whether a thread still works for this attempt."""
        return token in self._at_work

    def _left(self, token: int) -> None:
        with self._count_lock:
            count = self._at_work[token] - 1
            if count:
                self._at_work[token] = count
                return
            del self._at_work[token]
        self._on_idle(token)
