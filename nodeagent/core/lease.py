"""Until when this node may trust its leases, and the heartbeat that renews them. Pure: the clock is an argument.

A lease holds from before the beat was sent whose answer came (the controller counts from later), so a node that hears
nothing stops its exclusive attempts before the controller gives them to others. See River's leadership terms.

A beat leaves when the last one was answered and its time has come. A beat that is not answered for long says that the
stream is dead, whatever TCP says.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

from nodeagent.core.clock import Clock, Timer

FIRST_STOP_AFTER_S: Final = 6.0
"""Until the first Welcome; the controller's default. This room imports no limits, so a test compares them."""
UNANSWERED_INTERVALS_MAX: Final = 5
"""A stream on which a beat waits for its answer for this many intervals is given up."""


class Lease:
    """Calls `on_over` once each time `stop_after_s` has passed since the newest proof."""

    def __init__(self, clock: Clock, on_over: Callable[[], None]) -> None:
        self.stop_after_s = FIRST_STOP_AFTER_S
        self._clock = clock
        self._on_over = on_over
        self._proven_at = -math.inf  # a daemon's own start proves nothing
        self._timer: Timer | None = None

    @property
    def is_over(self) -> bool:
        """Whether the controller may have given our work to others."""
        return self._clock.time() >= self._proven_at + self.stop_after_s

    @property
    def until_s(self) -> float:
        """The end of the lease, on the machine's monotonic clock; 0 if it is over."""
        return 0.0 if self.is_over else self._proven_at + self.stop_after_s

    def granted(self, sent_at: float, stop_after_s: float) -> None:
        """The controller said Welcome to a Hello that was sent at this moment, and for how long a proof holds."""
        self.stop()
        self.stop_after_s = stop_after_s
        self.proven(sent_at)

    def proven(self, sent_at: float) -> None:
        """The controller answered something that was sent at this moment."""
        self._proven_at = max(self._proven_at, sent_at)
        if self._timer is None:
            self._timer = self._clock.call_at(self._proven_at + self.stop_after_s, self._look)

    def stop(self) -> None:
        """Stop watching."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        """The timer is not moved with each proof; it looks when it fires whether it is time yet."""
        self._timer = None
        if self.is_over:
            self._on_over()
        else:
            self._timer = self._clock.call_at(self._proven_at + self.stop_after_s, self._look)


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
