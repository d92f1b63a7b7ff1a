"""How long to wait before the next attempt: growing, bounded, jittered. One rule for the whole farm.

The longest wait doubles with each failure until it meets its maximum. The wait itself lies between half and all of
that. At least half: a wait near zero would let one caller knock without a pause. At most all: a maximum in the settings
is a promise. Spread over the upper half: callers that failed together do not come back together. What lost: "full
jitter" (from zero) and a spread around the wait (above the maximum).

`backoff_s` and `longest_s` are pure: chance is an argument. `Backoff` counts failures and asks for chance itself.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final

DOUBLINGS_MAX: Final = 62
"""More would only overflow: every maximum is reached long before."""


def longest_s(attempt: int, first_s: float, max_s: float, growth: float = 2.0) -> float:
    """The wait before chance shortens it. It is the whole wait where only one waits, because nothing can collide then.

    attempt: how often it has failed; 0 does not wait.
    """
    return min(max_s, first_s * growth ** min(attempt - 1, DOUBLINGS_MAX)) if attempt > 0 else 0.0


def backoff_s(attempt: int, first_s: float, max_s: float, chance: float, growth: float = 2.0) -> float:
    """The wait after `attempt` failures: from half to all of `longest_s`. chance: uniform in [0, 1)."""
    return longest_s(attempt, first_s, max_s, growth) * (0.5 + chance / 2)


class Backoff:
    """Counts failures in a row, and says how long to wait after each.

    chance: gives numbers uniform in [0, 1); tests pass their own.
    """

    __slots__ = ("_chance", "_first_s", "_max_s", "failures")

    def __init__(self, first_s: float, max_s: float, chance: Callable[[], float] = random.random) -> None:
        self._first_s, self._max_s, self._chance = first_s, max_s, chance
        self.failures = 0

    def next_s(self) -> float:
        """One more failure. Returns the wait before the next attempt."""
        self.failures += 1
        return backoff_s(self.failures, self._first_s, self._max_s, self._chance())

    def reset(self) -> None:
        """It works again: the next failure has the shortest wait."""
        self.failures = 0
