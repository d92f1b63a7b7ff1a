"""Where a replay must begin: before the rows that are missing, at the oldest connection that is still open, because
what its frames mean (books, sequence numbers) follows from its beginning. Once all of a connection's books were kept
in the capture, it may begin there instead.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from nodeagent.market.books import kept
from nodeagent.market.feed.progress import State, is_near
from nodeagent.market.model.records import START, Position, Record, RecordKind
from nodeagent.market.pipeline.state import Memory


@dataclass(frozen=True, slots=True)
class _Anchor:
    """Where a replay begins that must know an open connection, and the memory it begins with."""

    position: Position
    at_ns: int
    memory: Memory


class Anchors:
    """An anchor for each open connection. `memory` says what the pipeline knows behind the record just taken."""

    def __init__(self) -> None:
        self._of: dict[int, _Anchor] = {}
        self._kept_from: dict[int, _Anchor] = {}

    def take(self, record: Record, memory: Callable[[], Memory]) -> None:
        """The next record that became rows."""
        if record.kind is RecordKind.CONNECT:
            self._of[record.connection_id] = _here(record, memory)
        elif record.kind is RecordKind.DISCONNECT:
            self._of.pop(record.connection_id, None)
        elif record.kind is RecordKind.KEPT:
            self._move(record, memory)

    def forget(self) -> None:
        """The rows begin again from another place."""
        self._of.clear()
        self._kept_from.clear()

    def state(self, position: Position, at_ns: int, memory: Callable[[], Memory]) -> State:
        """What a restart needs when rows were made up to that position, received then."""
        anchor = min(self._of.values(), default=None, key=lambda anchor: anchor.position)
        if anchor is None or not is_near(anchor.position, anchor.at_ns, at_ns):
            anchor = _Anchor(START, 0, memory())
        return State(
            position=position,
            at_ns=at_ns,
            anchor=anchor.position,
            anchor_ns=anchor.at_ns,
            first_open_connection=min(self._of, default=0),
            memory=anchor.memory,
        )

    def _move(self, record: Record, memory: Callable[[], Memory]) -> None:
        """Once all of a connection's books were kept, a replay may begin at the first of them."""
        book = kept.read(record.payload)
        if book is None:
            return
        if book.is_first:
            self._kept_from[record.connection_id] = _here(record, memory)
            self._of.setdefault(record.connection_id, self._kept_from[record.connection_id])
        if book.is_last and (start := self._kept_from.pop(record.connection_id, None)) is not None:
            self._of[record.connection_id] = start


def _here(record: Record, memory: Callable[[], Memory]) -> _Anchor:
    return _Anchor(record.position, record.received_at_ns, memory())
