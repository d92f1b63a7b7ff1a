"""What a capture holds: records. The one currency between session, capture, formats and pipeline.

A record is a received frame or a fact around it (connected, sent, a REST answer, disconnected), with both clocks. The
pipeline consumes records and nothing else, live and in replay alike: that makes rows a function of the capture.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final, NewType

import msgspec

from agentfarm.errors import InvalidRequest
from nodeagent.market.model.source import RestRequest

Position = NewType("Position", int)
"""Where a record stands in a capture: segment number * 2**32 + record number in the segment. Grows, never repeats."""

START: Final = Position(0)
"""Before every record."""

_RECORD_BITS: Final = 32


class RecordKind(IntEnum):
    """Stored as one byte; numbers are never reused."""

    CONNECT = 1
    """A connection opened; payload: `Connected` as JSON."""
    RECEIVED = 2
    """A frame from the venue; payload: its bytes."""
    SENT = 3
    """A message to the venue, without credentials; payload: its bytes."""
    DISCONNECT = 4
    """A connection ended; payload: the reason in UTF-8."""
    REST = 5
    """An answer over REST; payload: `RestAnswer.encode()`."""
    TICK = 6
    """Time passed without a frame; payload empty. Lets a replay close the same seconds and minutes."""
    PRODUCTS = 7
    """From here on the feed follows these products; payload: `Following` as JSON."""
    KEPT = 8
    """A trusted book as it stands here, for a replay that begins here; payload: JSON of `books.kept.Kept`."""


class Record(msgspec.Struct, frozen=True, gc=False):
    """One entry of a capture."""

    kind: RecordKind
    connection_id: int
    """Counts up over the life of a capture; 0 for what belongs to no connection."""
    received_at_ns: int
    """Wall clock, nanoseconds since the epoch."""
    monotonic_ns: int
    """Monotonic clock; 0 where a foreign recording did not keep it."""
    payload: bytes
    position: Position = START


class Connected(msgspec.Struct, frozen=True):
    """The payload of a CONNECT record: enough to read what follows without any settings."""

    source: str
    url: str
    products: tuple[str, ...]
    channels: tuple[str, ...] = ()


class Following(msgspec.Struct, frozen=True):
    """The payload of a PRODUCTS record: a whole list, not a change."""

    products: tuple[str, ...]


class RestAnswer(msgspec.Struct, frozen=True):
    """The payload of a REST record."""

    request: RestRequest
    status: int
    body: bytes

    def encode(self) -> bytes:
        """One line of JSON that describes the request and the status, then the body as it came."""
        head = {"request": self.request, "status": self.status}
        return msgspec.json.encode(head) + b"\n" + self.body

    @classmethod
    def decode(cls, payload: bytes) -> RestAnswer:
        """The reverse. Raises InvalidRequest when the payload is something else."""
        line, _, body = payload.partition(b"\n")
        try:
            head = _HEAD_DECODER.decode(line)
        except msgspec.MsgspecError as error:
            raise InvalidRequest("this REST record has no readable head") from error
        return cls(head.request, head.status, body)


class _RestHead(msgspec.Struct):
    request: RestRequest
    status: int


_HEAD_DECODER: Final = msgspec.json.Decoder(_RestHead)


def position_of(segment: int, record: int) -> Position:
    """The position of a record: its segment's number and its place in it, both from 0."""
    return Position((segment << _RECORD_BITS) | record)


def segment_of(position: Position) -> int:
    """The segment's number."""
    return position >> _RECORD_BITS


def record_of(position: Position) -> int:
    """The record's place in its segment."""
    return position & ((1 << _RECORD_BITS) - 1)
