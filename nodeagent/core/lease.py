"""Until when this node may trust its leases. Pure: the clock is an argument.

A lease holds from before the beat was sent whose answer came (the controller counts from later), so a node that hears
nothing stops its exclusive attempts before the controller gives them to others. See River's leadership terms.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

from nodeagent.core.clock import Clock, Timer

FIRST_STOP_AFTER_S: Final = 6.0
"""Until the first Welcome; the controller's default. This room imports no limits, so a test compares them."""


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
