"""Reading captures, whatever happened to them.

A reader never refuses a directory. What is damaged is reported as `Damage`, with the records it cost, and reading
goes on at the next stretch that is whole; an unfinished chunk at the end of the newest segment is no damage but a
writer at work or a power cut.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, Final

import msgspec
import zstandard

from nodeagent.market.capture import layout as form
from nodeagent.market.model.records import Position, Record, record_of, segment_of

_SEARCH_BYTES: Final = 1024 * 1024


class Damage(msgspec.Struct, frozen=True):
    """Something in a capture could not be read."""

    path: str
    offset: int
    problem: str
    first_record: int
    """The first record that may be lost."""


OnDamage = Callable[[Damage], None]


class Segment(msgspec.Struct, frozen=True):
    """One file of a capture."""

    number: int
    path: Path
    created_ns: int
    size_bytes: int


def segments(directory: Path, on_damage: OnDamage | None = None) -> list[Segment]:
    """The segments of a capture, oldest first. Files that are none are reported and left out."""
    whole = []
    for path in sorted(directory.glob(f"*{form.SEGMENT_SUFFIX}")):
        try:
            with path.open("rb") as file:
                number, created_ns = form.decode_segment_head(file.read(form.SEGMENT_HEAD_BYTES))
        except (form.Damaged, OSError) as error:
            _report(on_damage, path, 0, str(error), 0)
            continue
        whole.append(Segment(number, path, created_ns, path.stat().st_size))
    return sorted(whole, key=lambda segment: segment.number)


def read_capture(directory: Path, after: Position | None = None, on_damage: OnDamage | None = None) -> Iterator[Record]:
    """All records of a capture after a position (None: from the start), in order, the live tail included."""
    for segment in segments(directory, on_damage):
        if after is not None and segment.number < segment_of(after):
            continue
        is_first = after is not None and segment.number == segment_of(after)
        first_record = record_of(after) + 1 if after is not None and is_first else 0
        yield from read_segment(segment.path, first_record, on_damage)


def read_segment(path: Path, first_record: int = 0, on_damage: OnDamage | None = None) -> Iterator[Record]:
    """The records of one segment from a number on, then those of its tail file, if there is one."""
    next_record = 0
    number = -1
    with path.open("rb") as file:
        try:
            number, _ = form.decode_segment_head(file.read(form.SEGMENT_HEAD_BYTES))
        except form.Damaged as error:
            _report(on_damage, path, 0, str(error), 0)
            return
        chunks = _ChunkReader(file, path, number, on_damage)
        for record in chunks.records(first_record):
            yield record
        next_record = chunks.next_record
    for record in read_tail(path.with_name(form.tail_name(number)), on_damage):
        if record_of(record.position) >= max(next_record, first_record):
            yield record


def read_tail(path: Path, on_damage: OnDamage | None = None) -> Iterator[Record]:
    """The records of a tail file, up to where it was cut."""
    try:
        data = path.read_bytes()
        decoder = form.tail_decoder(data)
    except (FileNotFoundError, form.Damaged):
        return
    try:
        yield from decoder.decode(data[form.TAIL_HEAD_BYTES :])
    except form.Damaged as error:
        _report(on_damage, path, 0, str(error), decoder.next_record)


def intact_bytes(path: Path) -> tuple[int, int]:
    """(length of the part of a segment that is whole, number of the record after it): where a torn end is cut."""
    with path.open("rb") as file:
        offset = form.SEGMENT_HEAD_BYTES
        next_record = 0
        file.seek(offset)
        while True:
            head, body = _read_chunk(file)
            if head is None or not head.is_intact(body):
                end = _next_chunk(file, offset + 1) if head is not None else None
                if end is None:
                    return offset, next_record
                offset = end  # damage in the middle stays where it is; what follows is whole
                file.seek(offset)
                continue
            offset += form.CHUNK_HEAD_BYTES + head.length
            next_record = head.first_record + head.records


class _ChunkReader:
    """Chunk by chunk through a segment."""

    def __init__(self, file: BinaryIO, path: Path, segment: int, on_damage: OnDamage | None) -> None:
        self._file = file
        self._path = path
        self._segment = segment
        self._on_damage = on_damage
        self.next_record = 0

    def records(self, first_record: int) -> Iterator[Record]:
        """Records from a number on. Stretches that end before it are skipped without unpacking them."""
        offset = self._stretch_of(first_record)
        stream: _Stream | None = None
        while True:
            self._file.seek(offset)
            head, body = _read_chunk(self._file)
            if head is None:
                return
            if not head.is_intact(body):
                following = _next_chunk(self._file, offset + 1)
                if following is None:
                    if offset + form.CHUNK_HEAD_BYTES + head.length <= self._path.stat().st_size:
                        _report(self._on_damage, self._path, offset, "the last chunk is damaged", self.next_record)
                    return
                _report(self._on_damage, self._path, offset, "a chunk is damaged", self.next_record)
                stream = None
                offset = following
                continue
            if head.is_restart:
                stream = _Stream(self._segment, head.first_record)
            offset += form.CHUNK_HEAD_BYTES + head.length
            if stream is None:
                continue  # the stretch lost its beginning: nothing can be read until the next one
            try:
                for record in stream.decode(body):
                    if record_of(record.position) >= first_record:
                        yield record
            except (form.Damaged, zstandard.ZstdError) as error:
                _report(self._on_damage, self._path, offset, str(error), stream.decoder.next_record)
                stream = None
            self.next_record = head.first_record + head.records

    def _stretch_of(self, first_record: int) -> int:
        """The offset of the last restart at or before a record."""
        offset = start = form.SEGMENT_HEAD_BYTES
        while first_record > 0:
            self._file.seek(offset)
            try:
                data = self._file.read(form.CHUNK_HEAD_BYTES)
                head = form.ChunkHead(data) if len(data) == form.CHUNK_HEAD_BYTES else None
            except form.Damaged:
                return start
            if head is None or head.first_record > first_record:
                return start
            if head.is_restart:
                start = offset
            offset += form.CHUNK_HEAD_BYTES + head.length
        return start


class _Stream:
    """One stretch: a zstd stream and the records in it."""

    def __init__(self, segment: int, first_record: int) -> None:
        self._unpacker = zstandard.ZstdDecompressor().decompressobj()
        self.decoder = form.RecordDecoder(segment, first_record)

    def decode(self, body: bytes) -> Iterator[Record]:
        """The records of the next chunk. Raises Damaged or ZstdError."""
        return self.decoder.decode(self._unpacker.decompress(body))


def _read_chunk(file: BinaryIO) -> tuple[form.ChunkHead | None, bytes]:
    """The chunk here; (None, b"") at the end. A head that is none counts as a chunk that is not intact."""
    data = file.read(form.CHUNK_HEAD_BYTES)
    if len(data) < form.CHUNK_HEAD_BYTES:
        return None, b""
    try:
        head = form.ChunkHead(data)
    except form.Damaged:
        return form.ChunkHead(form.CHUNK_MAGIC + b"\0" * 12 + b"\xff" * 4 + b"\0"), b""
    return head, file.read(head.length)


def _next_chunk(file: BinaryIO, offset: int) -> int | None:
    """Where the next intact chunk begins, at or after an offset."""
    position = offset
    overlap = len(form.CHUNK_MAGIC) - 1
    while True:
        file.seek(position)
        data = file.read(_SEARCH_BYTES)
        index = data.find(form.CHUNK_MAGIC)
        while index >= 0:
            file.seek(position + index)
            head, body = _read_chunk(file)
            if head is not None and head.is_intact(body):
                return position + index
            index = data.find(form.CHUNK_MAGIC, index + 1)
        if len(data) < _SEARCH_BYTES:
            return None
        position += len(data) - overlap


def _report(on_damage: OnDamage | None, path: Path, offset: int, problem: str, first_record: int) -> None:
    if on_damage is not None:
        on_damage(Damage(str(path), offset, problem, first_record))
