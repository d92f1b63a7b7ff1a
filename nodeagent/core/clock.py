"""Time, as the core asks for it. A border: the daemon passes asyncio's event loop, the simulation passes its world.

The core plans its own timers by this, so no driver repeats when something must be looked at again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol


class Timer(Protocol):
    """A planned call."""

    def cancel(self) -> None: ...
    def when(self) -> float: ...


class Clock(Protocol):
    """The machine's monotonic clock, in seconds, and calls at moments of it. asyncio's own event loop is one."""

    def time(self) -> float: ...
    def call_at(self, when: float, callback: Callable[[], object], /) -> Timer: ...
