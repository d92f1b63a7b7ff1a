"""The venue's time."""

from __future__ import annotations

import time

from nodeagent.market.exchange.events import NS


class VenueClock:
    """The venue's time: the content's start, advanced by the real clock times speed, with pauses and steps."""

    def __init__(self, start_ns: int, speed: float) -> None:
        self._start_ns = start_ns
        self._speed = speed
        self._began_s = time.monotonic()
        self._paused_at_s: float | None = None
        self._step_ns = 0
        self._event_ns = start_ns
        self._event_at_s = self._began_s

    def start(self) -> None:
        """The story begins now."""
        self._began_s = time.monotonic()

    def pause(self) -> None:
        """Let no event become due."""
        self._paused_at_s = self._paused_at_s or time.monotonic()

    def resume(self) -> None:
        """Let events continue where they stood; time steps back to them."""
        if self._paused_at_s is not None:
            self._began_s += time.monotonic() - self._paused_at_s
            self._paused_at_s = None

    def step(self, seconds: float) -> None:
        """Jump."""
        self._step_ns += int(seconds * NS)

    def happened(self, sent_at_ns: int) -> None:
        """Clients have been sent an event of this time."""
        if sent_at_ns > self._event_ns:
            self._event_ns, self._event_at_s = sent_at_ns, time.monotonic()

    def now_ns(self) -> int:
        """At speed 0 it runs on from the last event sent. A pause holds back events, not time."""
        if self._speed == 0:
            return self._event_ns + int((time.monotonic() - self._event_at_s) * NS) + self._step_ns
        return self._content_ns(time.monotonic()) + self._step_ns

    def wait_s(self, sent_at_ns: int) -> float:
        """Real seconds until then."""
        return (
            0.0
            if self._speed == 0
            else (sent_at_ns - self._content_ns(self._paused_at_s or time.monotonic())) / NS / self._speed
        )

    def _content_ns(self, until_s: float) -> int:
        return self._start_ns + int((until_s - self._began_s) * self._speed * NS)
