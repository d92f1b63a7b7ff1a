"""How much the feed does in one go, and the form of work that may be more.

Everything happens on one event loop: frames, questions, heartbeats of the connections. A book snapshot of 5 MB is a
tenth of a second of work on a slow machine, so what can be large is a generator (`Steps`) that yields after each slice.
A live feed lets others have their turn there; a replay runs it through. Both do the same in the same order, so their
rows are the same.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Final, TypeAlias, TypeVar

SLICE_BYTES: Final = 128 * 1024
"""Of frames or an answer, read in one go: at most about 1,200 levels of Advanced Trade, 5,000 of Exchange."""
SLICE_RECORDS: Final = 50
"""Short records taken in one go."""

_T = TypeVar("_T")

Steps: TypeAlias = Generator[None, None, _T]
"""Work in slices; its result is what the generator returns."""


class Portion:
    """How much of a slice is used up by short records."""

    __slots__ = ("_bytes", "_records")

    def __init__(self) -> None:
        self._bytes = 0
        self._records = 0

    def is_full_with(self, payload: bytes) -> bool:
        """Count a record that was taken. True: others should have their turn, and a new slice begins."""
        self._bytes += len(payload)
        self._records += 1
        if self._records < SLICE_RECORDS and self._bytes < SLICE_BYTES:
            return False
        self._bytes = self._records = 0
        return True


def whole(steps: Steps[_T]) -> _T:
    """All of it at once."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: _T = end.value
            return result
