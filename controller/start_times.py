"""The times of a start, logged once in one event: after kill -9, work stands still for their sum."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from agentfarm.process import age_s


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
        """This was done for the first time now, so long after the process began. Said again: nothing."""
        self._taken_ms.setdefault(f"{name}_ms", _ms(self._age()))

    def fields(self) -> dict[str, int]:
        """For a log event: every step in the order of their ends, then the whole and what it cost."""
        return {**self._taken_ms, "total_ms": _ms(self._age()), "cpu_ms": _ms(self._processor())}


def _ms(seconds: float) -> int:
    return round(seconds * 1_000)
