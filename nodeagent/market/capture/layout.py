"""How a capture lies on disk: the bytes of segments, chunks and records.

    segment file   0000000007_2026-08-09T21.afcap ├── head       magic "AFCAP\\x01\\r\\n", segment number u32, created
    (wall ns) i64, crc32 u32 ├── chunk      magic "AFck", flags u8, length u32, first record u32, records u32, crc32
    u32 of head and body │   └── body   the next piece of a zstd stream; flag RESTART: a new stream begins here └──
    chunk ...  one at each flush, at most a second apart tail file      0000000007.tail: records since the last chunk,
    uncompressed, behind the number and the times they continue from

A record, inside the stream: crc32 u32 of all that follows, length u32, kind u8, connection u32, wall time as
difference to the record before i64, monotonic difference minus wall difference i64, payload. (Differences, because
they compress: times would otherwise be a third of the file.) The streams restart every few megabytes, so that damage
costs one stretch and not the hour, while each chunk still profits from what came before it.

Everything is little-endian. A file that is cut anywhere is readable up to its last whole chunk.
"""

from __future__ import annotations

from collections.abc import Iterator
from struct import Struct
from typing import Final
from zlib import crc32

from nodeagent.market.model.records import Record, RecordKind, position_of

SEGMENT_MAGIC: Final = b"AFCAP\x01\r\n"
CHUNK_MAGIC: Final = b"AFck"
TAIL_MAGIC: Final = b"AFtl"
SEGMENT_SUFFIX: Final = ".afcap"
TAIL_SUFFIX: Final = ".tail"
RESTART: Final = 1
PAYLOAD_MAX: Final = 64 * 1024 * 1024

_SEGMENT_HEAD: Final = Struct("<8sIqI")
_CHUNK_HEAD: Final = Struct("<4sBIIII")
_TAIL_HEAD: Final = Struct("<4sIIqq")
_RECORD_HEAD: Final = Struct("<IIBIqq")
_KINDS: Final = {kind.value: kind for kind in RecordKind}

SEGMENT_HEAD_BYTES: Final = _SEGMENT_HEAD.size
CHUNK_HEAD_BYTES: Final = _CHUNK_HEAD.size
TAIL_HEAD_BYTES: Final = _TAIL_HEAD.size
RECORD_HEAD_BYTES: Final = _RECORD_HEAD.size


class Damaged(ValueError):
    """Bytes that are not what the format says."""


def encode_segment_head(segment: int, created_ns: int) -> bytes:
    """The first bytes of a segment file."""
    without_crc = _SEGMENT_HEAD.pack(SEGMENT_MAGIC, segment, created_ns, 0)[:-4]
    return without_crc + crc32(without_crc).to_bytes(4, "little")


def decode_segment_head(head: bytes) -> tuple[int, int]:
    """(segment number, created at, wall ns). Raises Damaged."""
    if len(head) < SEGMENT_HEAD_BYTES:
        raise Damaged("the file is shorter than a segment's head")
    magic, segment, created_ns, crc = _SEGMENT_HEAD.unpack_from(head)
    if magic != SEGMENT_MAGIC or crc != crc32(head[: SEGMENT_HEAD_BYTES - 4]):
        raise Damaged("the segment's head is damaged")
    return segment, created_ns


def encode_chunk(body: bytes, *, is_restart: bool, first_record: int, records: int) -> bytes:
    """A chunk, ready to append."""
    flags = RESTART if is_restart else 0
    without_crc = _CHUNK_HEAD.pack(CHUNK_MAGIC, flags, len(body), first_record, records, 0)[:-4]
    return without_crc + crc32(body, crc32(without_crc)).to_bytes(4, "little") + body


class ChunkHead:
    """A chunk's head, read but not yet checked against its body."""

    __slots__ = ("crc", "first_record", "is_restart", "length", "records", "without_crc")

    def __init__(self, head: bytes) -> None:
        """Raises Damaged when this is no chunk's head."""
        magic, flags, self.length, self.first_record, self.records, self.crc = _CHUNK_HEAD.unpack_from(head)
        if magic != CHUNK_MAGIC or self.length > 2 * PAYLOAD_MAX:
            raise Damaged("no chunk begins here")
        self.is_restart = bool(flags & RESTART)
        self.without_crc = head[: CHUNK_HEAD_BYTES - 4]

    def is_intact(self, body: bytes) -> bool:
        """Whether head and body are what was written."""
        expected: int = self.crc
        return len(body) == self.length and crc32(body, crc32(self.without_crc)) == expected


class RecordEncoder:
    """Records to bytes; each depends on the one before, back to the last restart."""

    __slots__ = ("monotonic_ns", "wall_ns")

    def __init__(self) -> None:
        self.wall_ns = 0
        self.monotonic_ns = 0

    def encode(self, record: Record) -> bytes:
        """The record's bytes. Call `wrote` once they are safe: a record that could not be written never was."""
        wall_step = record.received_at_ns - self.wall_ns
        excess = record.monotonic_ns - self.monotonic_ns - wall_step
        payload = record.payload
        head = _RECORD_HEAD.pack(0, len(payload), record.kind, record.connection_id, wall_step, excess)[4:]
        return crc32(payload, crc32(head)).to_bytes(4, "little") + head + payload

    def wrote(self, record: Record) -> None:
        """The next record's times continue from this one's."""
        self.wall_ns = record.received_at_ns
        self.monotonic_ns = record.monotonic_ns


class RecordDecoder:
    """Bytes to records, from a restart on. Keeps an unfinished record's bytes until the rest arrives."""

    __slots__ = ("_monotonic_ns", "_number", "_rest", "_segment", "_wall_ns")

    def __init__(self, segment: int, first_record: int, wall_ns: int = 0, monotonic_ns: int = 0) -> None:
        self._segment = segment
        self._number = first_record
        self._wall_ns = wall_ns
        self._monotonic_ns = monotonic_ns
        self._rest = b""

    @property
    def next_record(self) -> int:
        """The number of the record that would come next."""
        return self._number

    def decode(self, data: bytes) -> Iterator[Record]:
        """The whole records in what has arrived so far. Raises Damaged where a checksum disagrees."""
        data = self._rest + data if self._rest else data
        offset = 0
        while len(data) - offset >= RECORD_HEAD_BYTES:
            crc, length, kind, connection_id, wall_step, excess = _RECORD_HEAD.unpack_from(data, offset)
            end = offset + RECORD_HEAD_BYTES + length
            if length > PAYLOAD_MAX or kind not in _KINDS:
                raise Damaged(f"record {self._number} has an impossible head")
            if end > len(data):
                break
            if crc != crc32(data[offset + 4 : end]):
                raise Damaged(f"the checksum of record {self._number} disagrees")
            self._wall_ns += wall_step
            self._monotonic_ns += wall_step + excess
            yield Record(
                _KINDS[kind],
                connection_id,
                self._wall_ns,
                self._monotonic_ns,
                data[offset + RECORD_HEAD_BYTES : end],
                position_of(self._segment, self._number),
            )
            self._number += 1
            offset = end
        self._rest = data[offset:]


def encode_tail_head(segment: int, first_record: int, encoder: RecordEncoder) -> bytes:
    """The first bytes of a tail file: which records follow, and the times they continue from."""
    return _TAIL_HEAD.pack(TAIL_MAGIC, segment, first_record, encoder.wall_ns, encoder.monotonic_ns)


def tail_decoder(data: bytes) -> RecordDecoder:
    """A decoder for what follows a tail's head. Raises Damaged."""
    if len(data) < TAIL_HEAD_BYTES:
        raise Damaged("the tail is empty")
    magic, *start = _TAIL_HEAD.unpack_from(data)
    if magic != TAIL_MAGIC:
        raise Damaged("this is no tail")
    return RecordDecoder(*start)


def segment_name(segment: int, hour: str) -> str:
    """The file name of a segment; `hour` like `2026-08-09T21`."""
    return f"{segment:010d}_{hour}{SEGMENT_SUFFIX}"


def tail_name(segment: int) -> str:
    """The file name of a segment's tail."""
    return f"{segment:010d}{TAIL_SUFFIX}"
