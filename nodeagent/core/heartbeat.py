"""Beats of a stream: the next leaves when the last was answered and its time has come. Pure.

A beat that is not answered for long says that the stream is dead, whatever TCP says.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from nodeagent.core.clock import Clock, Timer

UNANSWERED_INTERVALS_MAX: Final = 5
"""A stream on which a beat waits for its answer for this many intervals is given up."""


class Heartbeat:
    """`beat(seq)` sends one; `proven(sent_at)` is called when it was answered."""

    def __init__(self, clock: Clock, beat: Callable[[int], None], proven: Callable[[float], None]) -> None:
        self.round_trip_s = 0.0
        self._clock = clock
        self._beat = beat
        self._proven = proven
        self._seq = 0
        self._sent_at = 0.0
        self._next_at = 0.0
        self._interval_s = 1.0
        self._is_answered = True
        self._on_silence: Callable[[float], None] | None = None
        self._timer: Timer | None = None

    def start(self, interval_s: float, on_silence: Callable[[float], None]) -> None:
        """A new stream. `on_silence` is called with how long a beat went unanswered, at most once."""
        self.stop()
        self._interval_s = interval_s
        self._on_silence = on_silence
        self._next_at = self._clock.time()
        self._send()

    def stop(self) -> None:
        """The stream is gone. Safe twice, and unstarted."""
        self._is_answered = True
        self._on_silence = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def answered(self, seq: int) -> None:
        """An answer came. The leases hold from the moment before its beat was sent, not from now."""
        if seq != self._seq or self._is_answered or self._timer is None:
            return
        self._is_answered = True
        self._timer.cancel()
        now = self._clock.time()
        self.round_trip_s = now - self._sent_at
        self._next_at = max(self._next_at + self._interval_s, now)  # a stall is not made up for by a burst
        self._timer = self._clock.call_at(self._next_at, self._send)
        self._proven(self._sent_at)

    def _send(self) -> None:
        self._seq += 1
        self._is_answered = False
        self._sent_at = self._clock.time()
        self._timer = self._clock.call_at(self._sent_at + UNANSWERED_INTERVALS_MAX * self._interval_s, self._silent)
        self._beat(self._seq)

    def _silent(self) -> None:
        now = self._clock.time()
        if self._timer is not None and now - self._timer.when() > self._interval_s:
            # We stood still ourselves: what waits in the socket, an answer or an order, is read first.
            self._timer = self._clock.call_at(now + self._interval_s, self._silent)
            return
        self._timer = None
        if self._on_silence is not None:
            self._on_silence(UNANSWERED_INTERVALS_MAX * self._interval_s)
