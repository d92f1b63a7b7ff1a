"""Records that wait in memory for their turn to become rows, in order, with the bytes they hold."""

from __future__ import annotations

from collections import deque

from nodeagent.market.model.records import START, Record


class Waiting:
    """First in, first out. How much may wait is the owner's rule."""

    def __init__(self) -> None:
        self.bytes = 0
        """Of their payloads."""
        self._records: deque[Record] = deque()

    def __len__(self) -> int:
        return len(self._records)

    @property
    def first(self) -> Record:
        """The one whose turn it is; it goes on waiting. There must be one."""
        return self._records[0]

    def add(self, record: Record) -> None:
        """It waits behind the others."""
        self._records.append(record)
        self.bytes += len(record.payload)

    def take_first(self) -> None:
        """The first has become rows."""
        self.bytes -= len(self._records.popleft().payload)

    def forget(self) -> int:
        """Wait no more: the capture has them. Returns how many it does not have."""
        lost = sum(record.position == START for record in self._records)
        self._records.clear()
        self.bytes = 0
        return lost
