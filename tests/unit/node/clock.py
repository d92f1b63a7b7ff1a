"""Time that the test moves."""

from __future__ import annotations

from collections.abc import Callable


class Timer:
    """A planned call."""

    def __init__(self, when: float, callback: Callable[[], object]) -> None:
        self._when = when
        self.callback: Callable[[], object] | None = callback

    def cancel(self) -> None:
        self.callback = None

    def when(self) -> float:
        return self._when


class Clock:
    """See `nodeagent.core.clock`."""

    def __init__(self) -> None:
        self.now = 100.0
        self._timers: list[Timer] = []

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, callback: Callable[[], object]) -> Timer:
        self._timers.append(Timer(when, callback))
        return self._timers[-1]

    def advance(self, to: float) -> None:
        while due := sorted((timer for timer in self._timers if timer.when() <= to), key=Timer.when):
            self._timers.remove(due[0])
            self.now = max(self.now, due[0].when())
            if due[0].callback is not None:
                due[0].callback()
        self.now = max(self.now, to)
