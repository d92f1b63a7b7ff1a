"""How often something may happen. Pure: time is an argument."""

from __future__ import annotations

from collections import deque
from typing import Protocol


class Limit(Protocol):
    """Any of them."""

    def take(self, now_s: float, amount: int = 1) -> bool:
        """Take so much if there is so much."""


class TokenBucket:
    """`per_s` a second on average, `burst` at once."""

    def __init__(self, per_s: float, burst: int) -> None:
        self._per_s = per_s
        self._burst = float(burst)
        self._tokens = float(burst)
        self._at_s: float | None = None

    def take(self, now_s: float, amount: int = 1) -> bool:
        """Take so much if there is so much."""
        if self._at_s is not None:
            self._tokens = min(self._burst, self._tokens + (now_s - self._at_s) * self._per_s)
        self._at_s = now_s
        if self._tokens < amount:
            return False
        self._tokens -= amount
        return True


class SlidingWindow:
    """At most `most` in any `span_s`: stricter than a bucket, which lets a burst and its refill follow each other."""

    def __init__(self, most: int, span_s: float) -> None:
        self.most = most
        self.used = 0
        """In the span that ended with the last question."""
        self._span_s = span_s
        self._taken: deque[tuple[float, int]] = deque()

    def take(self, now_s: float, amount: int = 1) -> bool:
        """Take so much if there is so much."""
        while self._taken and self._taken[0][0] <= now_s - self._span_s:
            self.used -= self._taken.popleft()[1]
        if self.used + amount > self.most:
            return False
        self._taken.append((now_s, amount))
        self.used += amount
        return True

    def wait_s(self, now_s: float) -> float:
        """Seconds until something taken is given back; 0 when nothing was."""
        return max(0.0, self._taken[0][0] + self._span_s - now_s) if self._taken else 0.0
