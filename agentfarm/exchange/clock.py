"""The venue's time."""

from __future__ import annotations

import time

from agentfarm.exchange.events import NS


class VenueClock:
    """The venue's time: the content's start, advanced by the real clock times speed, with pauses and steps."""

    def __init__(self, start_ns: int, speed: float) -> None:
        self._start_ns = start_ns
        self._speed = speed
        self._began_s = time.monotonic()
        self._paused_at_s: float | None = None
        self._step_ns = 0
        self._told_ns = start_ns

    def start(self) -> None:
        """The story begins now."""
        self._began_s = time.monotonic()

    def pause(self) -> None:
        """Stand still."""
        self._paused_at_s = self._paused_at_s or time.monotonic()

    def resume(self) -> None:
        """Go on from where it stood."""
        if self._paused_at_s is not None:
            self._began_s += time.monotonic() - self._paused_at_s
            self._paused_at_s = None

    def step(self, seconds: float) -> None:
        """Jump."""
        self._step_ns += int(seconds * NS)

    def told(self, sent_at_ns: int) -> None:
        """Something that happened at this time has been told."""
        self._told_ns = max(self._told_ns, sent_at_ns)

    def now_ns(self) -> int:
        """At speed 0 it is as late as what was last told."""
        if self._speed == 0:
            return self._told_ns + self._step_ns
        return self._content_ns() + self._step_ns

    def wait_s(self, sent_at_ns: int) -> float:
        """Real seconds until then."""
        return 0.0 if self._speed == 0 else (sent_at_ns - self._content_ns()) / NS / self._speed

    def _content_ns(self) -> int:
        until_s = self._paused_at_s or time.monotonic()
        return self._start_ns + int((until_s - self._began_s) * self._speed * NS)
