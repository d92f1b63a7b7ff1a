"""A small set of whole numbers kept as intervals: what is missing."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator


class Intervals:
    """Disjoint closed intervals, ascending. Few intervals, possibly very long ones."""

    __slots__ = ("_firsts", "_lasts")

    def __init__(self) -> None:
        self._firsts: list[int] = []
        self._lasts: list[int] = []

    def __len__(self) -> int:
        """The number of intervals."""
        return len(self._firsts)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return zip(self._firsts, self._lasts, strict=True)

    def __contains__(self, number: int) -> bool:
        index = bisect_right(self._firsts, number) - 1
        return index >= 0 and number <= self._lasts[index]

    def total(self) -> int:
        """How many numbers are in the set."""
        return sum(self._lasts) - sum(self._firsts) + len(self._firsts)

    def overlaps(self, first: int, last: int) -> bool:
        """Whether any number of [first, last] is in the set."""
        index = bisect_right(self._firsts, last) - 1
        return index >= 0 and self._lasts[index] >= first

    def append(self, first: int, last: int) -> None:
        """Add [first, last], which must lie above everything in the set."""
        assert first <= last
        assert not self._lasts or first > self._lasts[-1]
        self._firsts.append(first)
        self._lasts.append(last)

    def remove(self, number: int) -> bool:
        """Take a number out. Returns whether it was in the set."""
        index = bisect_right(self._firsts, number) - 1
        if index < 0 or number > self._lasts[index]:
            return False
        first, last = self._firsts[index], self._lasts[index]
        if first == last:
            del self._firsts[index], self._lasts[index]
        elif number == first:
            self._firsts[index] = number + 1
        elif number == last:
            self._lasts[index] = number - 1
        else:
            self._lasts[index] = number - 1
            self._firsts.insert(index + 1, number + 1)
            self._lasts.insert(index + 1, last)
        return True

    def drop_oldest(self) -> tuple[int, int]:
        """Take the lowest interval out and return it."""
        return self._firsts.pop(0), self._lasts.pop(0)
