"""The venue's clock against ours, from the fastest frames.

Receipt minus venue time is transit time plus the difference of the clocks; transit is never negative, so the smallest
difference of the last minute is the best estimate of the clocks'. Source: the minimum filter of NTP (RFC 5905,
section 10), over two rotating windows. A step of our own clock shows as a difference between wall and monotonic clock
and moves the estimate at once; where a recording has no monotonic clock, agreement of several frames does.
"""

from __future__ import annotations

from typing import Final

from nodeagent.market.model.times import MS_NS, NS

WINDOW_NS: Final = 30 * NS
STEP_MIN_NS: Final = 500 * MS_NS
"""Wall against monotonic clock: less is drift or adjustment, more is a step."""
FAR_NS: Final = 300 * NS
AGREEMENT_NS: Final = 10 * NS
AGREEING_FRAMES: Final = 8


class Skew:
    """The running estimate. A receipt time less `offset_ns` is the venue's time at that moment."""

    __slots__ = (
        "_current",
        "_far_count",
        "_far_offset",
        "_monotonic_ns",
        "_previous",
        "_wall_ns",
        "_window_end",
        "offset_ns",
    )

    def __init__(self) -> None:
        self.offset_ns = 0
        self._current: int | None = None
        self._previous: int | None = None
        self._window_end = 0
        self._far_offset = 0
        self._far_count = 0
        self._wall_ns = 0
        self._monotonic_ns = 0

    def venue_time(self, received_at_ns: int) -> int:
        """The venue's clock at a moment of ours; 0 before the first frame with a time."""
        return received_at_ns - self.offset_ns if self._current is not None else 0

    def observe(self, received_at_ns: int, monotonic_ns: int, venue_ns: int) -> int:
        """Take a frame's times: both of our clocks at its receipt, and the venue's. 0: there is no such time.

        Returns the venue's clock at the receipt.
        """
        if monotonic_ns:
            if self._monotonic_ns:
                step_ns = (received_at_ns - self._wall_ns) - (monotonic_ns - self._monotonic_ns)
                if abs(step_ns) >= STEP_MIN_NS:
                    self._shift(step_ns)
            self._wall_ns = received_at_ns
            self._monotonic_ns = monotonic_ns
        current = self._current
        if venue_ns:
            offset = received_at_ns - venue_ns
            if current is not None and current <= offset < current + FAR_NS and received_at_ns < self._window_end:
                self._far_count = 0  # by far the commonest: slower than the fastest frame of the running window
            else:
                self._learn(received_at_ns, offset)
        elif current is None:
            return 0
        return received_at_ns - self.offset_ns

    def _learn(self, received_at_ns: int, offset: int) -> None:
        """Take an offset that may change the estimate."""
        if self._current is None or self._is_new_truth(offset):
            self._current = offset
            self._previous = None
            self._window_end = received_at_ns + WINDOW_NS
            self.offset_ns = offset
            return
        if abs(offset - self.offset_ns) >= FAR_NS:
            return
        if received_at_ns >= self._window_end:
            self._previous = self._current
            self._current = offset
            self._window_end = received_at_ns + WINDOW_NS
            self.offset_ns = min(offset, self._previous)
        elif offset < self._current:
            self._current = offset
            self.offset_ns = min(self.offset_ns, offset)

    def _is_new_truth(self, offset: int) -> bool:
        """Several frames in a row that agree with one another, far from the estimate: the estimate is wrong."""
        if abs(offset - self.offset_ns) < FAR_NS:
            self._far_count = 0
            return False
        if self._far_count and abs(offset - self._far_offset) < AGREEMENT_NS:
            self._far_count += 1
        else:
            self._far_count = 1
        self._far_offset = offset
        if self._far_count < AGREEING_FRAMES:
            return False
        self._far_count = 0
        return True

    def _shift(self, step_ns: int) -> None:
        self.offset_ns += step_ns
        if self._current is not None:
            self._current += step_ns
        if self._previous is not None:
            self._previous += step_ns
        self._window_end += step_ns
