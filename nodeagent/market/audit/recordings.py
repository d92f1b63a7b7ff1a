"""Reading a capture that a feed is writing: up to what QuestDB has acknowledged, and from a moment on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

from agentfarm.errors import InvalidRequest
from nodeagent.market.capture.formats import open_recording
from nodeagent.market.capture.reader import OnDamage, Segment, read_segment, segments
from nodeagent.market.feed.progress import FILE_NAME, Progress, State
from nodeagent.market.model.records import START, Following, Position, Record, RecordKind, record_of, segment_of

TRIES: Final = 20
"""A record between tail and segment is found at the next look; a numbering that has a hole by itself stays one."""
EVER_NS: Final = 2**63 - 1


class Span(msgspec.Struct, frozen=True):
    """Receipt times from `since_ns` on and before `until_ns`, nanoseconds since the epoch."""

    since_ns: int = 0
    until_ns: int = EVER_NS

    @property
    def is_open_ended(self) -> bool:
        """It has no end of its own."""
        return self.until_ns >= EVER_NS

    def holds(self, at_ns: int) -> bool:
        """Whether the moment lies in it."""
        return self.since_ns <= at_ns < self.until_ns


class Captured(msgspec.Struct, frozen=True):
    """Records to look at, and what is known of them before."""

    format: str
    source: str
    records: Iterator[Record]
    state: State | None
    """What the feed that writes it has had acknowledged; None for a recording that no feed writes."""


def acknowledged(folder: Path) -> State | None:
    """How far QuestDB has taken what this capture holds; None where no feed has said so. Changes nothing."""
    try:
        return msgspec.json.decode((folder / FILE_NAME).read_bytes(), type=Progress).state
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return None


def open_captured(path: Path, span: Span, on_damage: OnDamage, *, is_stored: bool = True) -> Captured:
    """A recording of any known format, or the folder of a feed at work.

    is_stored: of that one only what QuestDB has acknowledged; else up to the end of the file. A folder is read from the
    segment on that holds `span.since_ns`, so that the books of what follows are known as far as they can be.
    Raises InvalidRequest when there is nothing that can be read.
    """
    if not path.exists():
        raise InvalidRequest(f"There is no {path}.", remedy="Check the path.")
    state = acknowledged(path) if path.is_dir() else None
    if is_stored and state is not None and state.position == START:
        raise InvalidRequest(f"Nothing of the capture in {path} is stored yet.", remedy="Try again in a moment.")
    opened = open_recording(path, on_damage)
    if not path.is_dir():
        return Captured(opened.format, opened.source, opened.records, None)
    parts = _since(segments(path, on_damage), span.since_ns)
    until = state.position if state is not None and is_stored else None
    return Captured(opened.format, opened.source, read_settled(parts, until, on_damage), state)


def read_settled(parts: list[Segment], until: Position | None, on_damage: OnDamage) -> Iterator[Record]:
    """The records of these segments up to a position, that one included; none is missed while a feed goes on writing.

    A feed moves records from the tail file into the segment. A reader between the two sees a hole in the numbers, or an
    early end: it looks again.
    """
    for segment in parts:
        if until is not None and segment.number > segment_of(until):
            return
        is_last = segment.number == (segment_of(until) if until is not None else parts[-1].number)
        yield from _settled(segment, until if is_last else None, on_damage, is_last=is_last)


def products_asked(record: Record) -> set[str]:
    """The products that a record says the feed asks for: of its kinds CONNECT and PRODUCTS."""
    if record.kind not in (RecordKind.CONNECT, RecordKind.PRODUCTS):
        return set()
    try:
        return set(msgspec.json.decode(record.payload, type=Following).products)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return set()


def _settled(segment: Segment, until: Position | None, on_damage: OnDamage, *, is_last: bool) -> Iterator[Record]:
    next_number = 0
    for tries_left in reversed(range(TRIES)):
        damages: list[object] = []
        is_torn = False
        try:
            for record in read_segment(segment.path, next_number, damages.append):
                if until is not None and record.position > until:
                    return
                if record_of(record.position) > next_number and is_last and not damages and tries_left:
                    is_torn = True
                    break
                next_number = record_of(record.position) + 1
                yield record
        except FileNotFoundError:
            return  # the feed has made room: its oldest segments go
        is_whole = until is None or next_number > record_of(until)
        if damages or not tries_left or (is_whole and not is_torn):
            for damage in damages:
                on_damage(damage)  # type: ignore[arg-type]  # they come from the reader
            return


def _since(parts: list[Segment], since_ns: int) -> list[Segment]:
    """The segments from the last one on that was begun before a moment."""
    first = max((index for index, segment in enumerate(parts) if segment.created_ns <= since_ns), default=0)
    return parts[first:]
