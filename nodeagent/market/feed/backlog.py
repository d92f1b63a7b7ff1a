"""Records that wait to become rows: in memory, in order, with their bytes; or in the capture, read in batches."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Final

from nodeagent.market.model.records import START, Position, Record

READ_RECORDS: Final = 1000
READ_BYTES: Final = 1024 * 1024
"""Read back from the capture at once, by another thread: a disk may be slow."""


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
        """The record whose turn it is; it stays here. There must be one."""
        return self._records[0]

    def add(self, record: Record) -> None:
        """Let it wait behind the others."""
        self._records.append(record)
        self.bytes += len(record.payload)

    def take_first(self) -> None:
        """The first has become rows."""
        self.bytes -= len(self._records.popleft().payload)

    def forget(self) -> int:
        """Let none wait: the capture has them. Returns how many it does not have."""
        lost = sum(record.position == START for record in self._records)
        self._records.clear()
        self.bytes = 0
        return lost


def next_records(records: Iterator[Record], until: Position) -> list[Record]:
    """The next batch, up to that position (START: to the end). Later records may still move between the files."""
    batch: list[Record] = []
    size = 0
    for record in records:
        if START < until < record.position:
            break
        batch.append(record)
        size += len(record.payload)
        if record.position == until or len(batch) >= READ_RECORDS or size >= READ_BYTES:
            break
    return batch
