"""When to stop: the signals of a person or a service manager, as a flag that every wait looks at.

It is a flag and not an exception, because an exception could come between the start of a process and its record.
"""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Final

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(Exception):
    """A wait was ended by the wish to stop."""


class StopWish:
    """Counts the wishes to stop: the first means in order, the second faster. A context that owns the signals."""

    def __init__(self) -> None:
        self.count = 0
        self._woken = threading.Event()
        self._before: dict[int, object] = {}

    def __enter__(self) -> StopWish:
        self._before = {number: signal.signal(number, self._hear) for number in _SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)  # type: ignore[arg-type]  # it is what signal.signal gave us

    @property
    def is_wished(self) -> bool:
        return self.count > 0

    @property
    def is_urgent(self) -> bool:
        return self.count > 1

    def wish(self) -> None:
        """Ask to stop, as a signal does."""
        self.count += 1
        self._woken.set()

    def pause(self, seconds: float) -> None:
        """Wait; raises Interrupted at once when stopping is wished."""
        if self._woken.wait(seconds):
            raise Interrupted

    def wait_for_more(self, seconds: float) -> None:
        """Wait while stopping; returns early when a further wish comes."""
        self._woken.clear()
        if not self.is_urgent:
            self._woken.wait(seconds)
        else:
            threading.Event().wait(seconds)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        self.wish()
