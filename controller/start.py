"""What a start needs: parts that are made at their first use, and the times of its steps.

After kill -9 all work stands still until the controller is back. So it makes nothing before it is needed, and one event
says where the time went. README.md draws the start.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

from agentfarm.process import age_s

T = TypeVar("T")


class Late(Generic[T]):
    """`late()` is the thing. The first call makes it, and calls that come meanwhile wait for it. From any thread.

    If it cannot be made, the call raises the error, and the next call tries again.
    """

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._made: T | None = None

    def __call__(self) -> T:
        if self._made is None:
            with self._lock:
                if self._made is None:
                    self._made = self._make()
        return self._made

    @property
    def made(self) -> T | None:
        """The thing, if it was made."""
        return self._made


class StartTimes:
    """How long each step took. Steps may overlap, so they need not add up to the whole.

    age: seconds since the process began; processor: CPU seconds it used, threads included.
    """

    def __init__(self, *, age: Callable[[], float] = age_s, processor: Callable[[], float] = time.process_time) -> None:
        self._age, self._processor = age, processor
        self._taken_ms: dict[str, int] = {}

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Count what happens inside as this step, also where it fails."""
        began = self._age()
        try:
            yield
        finally:
            self._taken_ms[f"{name}_ms"] = _ms(self._age() - began)

    def reached(self, name: str) -> None:
        """Count from the beginning of the process until now. Only the first call for a name counts."""
        self._taken_ms.setdefault(f"{name}_ms", _ms(self._age()))

    def fields(self) -> dict[str, int]:
        """Fields of a log event: each step, in the order in which they ended, then the whole time and its CPU time."""
        return {**self._taken_ms, "total_ms": _ms(self._age()), "cpu_ms": _ms(self._processor())}


def _ms(seconds: float) -> int:
    return round(seconds * 1_000)
