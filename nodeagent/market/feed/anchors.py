"""Where a replay must begin: before the rows that are missing, at the oldest connection that is still open, because
what its frames mean (books, sequence numbers) follows from its beginning. Once all of a connection's books were kept
in the capture, it may begin there instead.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from nodeagent.market.feed.progress import State, is_near
from nodeagent.market.model.records import START, Position, Record, RecordKind
from nodeagent.market.pipeline import kept_books as kept
from nodeagent.market.pipeline.state import Known


@dataclass(frozen=True, slots=True)
class _Anchor:
    """Where a replay that is to know an open connection must begin, and what it must be told."""

    position: Position
    at_ns: int
    known: Known


class Anchors:
    """One for each open connection. `known`, where asked for: what the pipeline knows after the record just taken."""

    def __init__(self) -> None:
        self._of: dict[int, _Anchor] = {}
        self._kept_from: dict[int, _Anchor] = {}

    def take(self, record: Record, known: Callable[[], Known]) -> None:
        """The next record that became rows."""
        if record.kind is RecordKind.CONNECT:
            self._of[record.connection_id] = _here(record, known)
        elif record.kind is RecordKind.DISCONNECT:
            self._of.pop(record.connection_id, None)
        elif record.kind is RecordKind.KEPT:
            self._move(record, known)

    def forget(self) -> None:
        """Everything begins anew."""
        self._of.clear()
        self._kept_from.clear()

    def state(self, position: Position, at_ns: int, known: Callable[[], Known]) -> State:
        """What a restart needs when rows were made up to that position, received then."""
        anchor = min(self._of.values(), default=None, key=lambda anchor: anchor.position)
        if anchor is None or not is_near(anchor.position, anchor.at_ns, at_ns):
            anchor = _Anchor(START, 0, known())
        return State(
            position=position,
            at_ns=at_ns,
            anchor=anchor.position,
            anchor_ns=anchor.at_ns,
            first_open_connection=min(self._of, default=0),
            known=anchor.known,
        )

    def _move(self, record: Record, known: Callable[[], Known]) -> None:
        """Once all of a connection's books were kept, a replay may begin at the first of them."""
        found = kept.read(record.payload)
        if found is None:
            return
        if found.is_first:
            self._kept_from[record.connection_id] = _here(record, known)
            self._of.setdefault(record.connection_id, self._kept_from[record.connection_id])
        if found.is_last and (start := self._kept_from.pop(record.connection_id, None)) is not None:
            self._of[record.connection_id] = start


def _here(record: Record, known: Callable[[], Known]) -> _Anchor:
    return _Anchor(record.position, record.received_at_ns, known())
