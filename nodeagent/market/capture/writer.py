"""Writing a capture: the feed's write-ahead log.

`append` returns the record's position; the record then survives the death of this process (it is in the tail file, in
the system's hands), and after the next `sync` a power cut as well. Call `flush` and `sync` at most a second apart;
`sync` may run in another thread. Files are cut at each full hour of receipt time, and at `segment_max_bytes`.

Opening a directory that was left in the middle finishes it first: the torn end of the newest segment is cut off, what
its tail file still holds is moved in under the same positions, and a new segment begins. What cannot be read is set
aside under the suffix `.damaged` with a message, never a reason not to start.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec
import zstandard

from nodeagent.market.capture import layout as form
from nodeagent.market.capture.reader import Damage, OnDamage, intact_bytes, read_tail, segments
from nodeagent.market.model.records import Position, Record, position_of, record_of
from nodeagent.market.model.times import NS

STRETCH_BYTES: Final = 8 * 1024 * 1024
"""A zstd stream restarts after so many raw bytes: the most that damage can cost."""
PACK_BYTES: Final = 256 * 1024
"""Packed in one go, and at most as much again; 6 ms on a slow machine."""
HOUR_NS: Final = 3600 * NS


class CaptureSettings(msgspec.Struct, frozen=True):
    """What an operator may choose."""

    compression_level: int = 6
    """Measured on updates of two products: level 3 makes them 8.5, 6 makes them 9.7, 9 makes them 10.1 times smaller.
    """
    segment_max_bytes: int = 512 * 1024 * 1024
    flush_bytes: int = 256 * 1024
    """Raw bytes gathered before a flush happens by itself."""


class CaptureWriter:
    """The one writer of a capture directory."""

    def __init__(
        self, directory: Path, settings: CaptureSettings | None = None, on_damage: OnDamage | None = None
    ) -> None:
        """Open for appending; recovers what an earlier writer left."""
        self._directory = directory
        self._settings = settings or CaptureSettings()
        directory.mkdir(parents=True, exist_ok=True)
        self._segment = _recover(directory, self._settings.compression_level, on_damage or _ignore)
        self._file_lock = threading.Lock()
        self._file = -1
        self._tail = -1
        self._hour = -1
        self._written_bytes = 0
        self._tail_bytes = 0
        self._unwritten = b""
        self._records = 0
        self._packed_records = 0
        self._pending: deque[memoryview] = deque()
        """Records, or what is left of the first, that wait to be packed."""
        self._pending_bytes = 0
        self._stream: _Stream = _Stream(self._settings.compression_level)
        self.raw_bytes = 0
        self.stored_bytes = 0

    def append(self, record: Record) -> Position:
        """Take a record. Raises OSError when the disk refuses; then the record was not taken, and all else stands."""
        hour = record.received_at_ns // HOUR_NS
        if self.is_flush_due:
            # A slice at a time: packing a snapshot of 5 MB takes as long as reading it.
            with suppress(OSError):  # the record at hand may still be taken; the next flush says what is wrong
                self.flush_slice()
        is_over = hour != self._hour or self._written_bytes >= self._settings.segment_max_bytes
        if is_over and (self._file < 0 or not self.is_flush_due):
            self._rotate(record.received_at_ns, hour)
        encoder = self._stream.encoder
        data = encoder.encode(record)
        _append(self._tail, data, self._tail_bytes)
        encoder.wrote(record)
        self._tail_bytes += len(data)
        self._pending.append(memoryview(data))
        self._pending_bytes += len(data)
        self.raw_bytes += len(record.payload)
        position = position_of(self._segment, self._records)
        self._records += 1
        return position

    @property
    def is_flush_due(self) -> bool:
        """Whether so much was gathered that a slice of it should be flushed."""
        return self._pending_bytes >= self._settings.flush_bytes

    def flush(self) -> None:
        """Move what was appended from the tail file into the segment, compressed.

        Raises OSError when the disk refuses; the chunk is kept, and written first at the next call.
        """
        while self.flush_slice():
            pass

    def flush_slice(self) -> bool:
        """A part of `flush` that takes some milliseconds; whether more is left. Raises OSError likewise.

        The tail file is emptied with the last part. Until then it also holds what the segment has, or has the beginning
        of: a reader leaves that out by its number.
        """
        if self._pending:
            is_restart, first_record = not self._stream.raw_bytes, self._packed_records
            body = self._stream.compress(self._next_slice())
            count = self._packed_records - first_record
            self._unwritten += form.encode_chunk(body, is_restart=is_restart, first_record=first_record, records=count)
        if not self._unwritten:
            return False
        _append(self._file, self._unwritten, self._written_bytes)
        self._written_bytes += len(self._unwritten)
        self.stored_bytes += len(self._unwritten)
        self._unwritten = b""
        if self._pending:
            return True
        if self._stream.raw_bytes >= STRETCH_BYTES:
            self._stream = _Stream(self._settings.compression_level)
        self._start_tail()
        return False

    def _next_slice(self) -> bytes:
        """Records to be packed together, or a part of one that is longer than a slice."""
        taken: list[memoryview] = []
        size = 0
        while self._pending and size < PACK_BYTES:
            data = self._pending[0]
            if len(data) > PACK_BYTES:
                if not taken:
                    taken, size = [data[:PACK_BYTES]], PACK_BYTES
                    self._pending[0] = data[PACK_BYTES:]
                break
            taken.append(self._pending.popleft())
            size += len(data)
            self._packed_records += 1
        self._pending_bytes -= size
        return b"".join(taken)

    def sync(self) -> None:
        """Make everything flushed so far survive a power cut. Blocks for as long as the disk needs."""
        with self._file_lock:
            if self._file >= 0:
                os.fsync(self._file)

    def close(self) -> None:
        """Flush, sync and close; safe twice."""
        if self._file < 0:
            return
        self.flush()
        self.sync()
        with self._file_lock:
            os.close(self._file)
            os.close(self._tail)
            self._file = self._tail = -1
        self._tail_path().unlink(missing_ok=True)
        self._hour = -1

    def _rotate(self, now_ns: int, hour: int) -> None:
        """Finish the file at hand, begin the next. A failure leaves no file behind; the next append tries again."""
        self.close()
        number = self._segment + 1
        started = datetime.fromtimestamp(now_ns // NS, UTC)
        path = self._directory / form.segment_name(number, f"{started:%Y-%m-%dT%H}")
        tail_path = self._directory / form.tail_name(number)
        stream = _Stream(self._settings.compression_level)
        head = form.encode_segment_head(number, now_ns)
        tail_head = form.encode_tail_head(number, 0, stream.encoder)
        opened: dict[Path, int] = {}
        try:
            for name, first in ((path, head), (tail_path, tail_head)):
                opened[name] = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o640)
                _append(opened[name], first, 0)
            _sync_directory(self._directory)
        except OSError:
            for name, file in opened.items():
                os.close(file)
                name.unlink()
            raise
        self._file, self._tail = opened.values()
        self._segment = number
        self._hour = hour
        self._written_bytes = len(head)
        self._tail_bytes = len(tail_head)
        self.stored_bytes += len(head)
        self._records = self._packed_records = 0
        self._stream = stream

    def _start_tail(self) -> None:
        """Empty the tail; what comes next continues where the segment ends.

        The new head takes the place of the old one, which the disk has given already: on a full disk this cannot fail.
        """
        head = form.encode_tail_head(self._segment, self._records, self._stream.encoder)
        os.ftruncate(self._tail, len(head))
        os.pwrite(self._tail, head, 0)
        self._tail_bytes = len(head)

    def _tail_path(self) -> Path:
        return self._directory / form.tail_name(self._segment)


class _Stream:
    """One stretch being written."""

    def __init__(self, level: int) -> None:
        self.encoder = form.RecordEncoder()
        self.raw_bytes = 0
        self._packer = zstandard.ZstdCompressor(level=level).compressobj()

    def compress(self, data: bytes) -> bytes:
        """The stream's next piece, from which a reader gets all of `data`."""
        self.raw_bytes += len(data)
        return self._packer.compress(data) + self._packer.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)


def _ignore(damage: Damage) -> None:
    """For callers that do not care."""


def _recover(directory: Path, level: int, on_damage: OnDamage) -> int:
    """Finish what an earlier writer left. Returns the highest segment number in use, 0 for a new directory."""
    whole = {segment.number: segment.path for segment in segments(directory)}
    for path in sorted(directory.glob(f"*{form.SEGMENT_SUFFIX}")):
        if path not in whole.values():
            aside = path.with_suffix(path.suffix + ".damaged")
            path.rename(aside)
            on_damage(Damage(str(aside), 0, "set aside: its head is unreadable", 0))
    for tail in sorted(directory.glob(f"*{form.TAIL_SUFFIX}")):
        segment_path = whole.get(_number_of(tail))
        if segment_path is not None:
            _finish(segment_path, list(read_tail(tail, on_damage)), level, on_damage)
        tail.unlink()
    numbers = [_number_of(path) for path in directory.iterdir() if form.SEGMENT_SUFFIX in path.name]
    return max(numbers, default=0)


def _finish(path: Path, tail: list[Record], level: int, on_damage: OnDamage) -> None:
    """Cut a segment's torn end and append what its tail still holds, under the positions it was given."""
    size = path.stat().st_size
    length, next_record = intact_bytes(path)
    missing = [record for record in tail if record_of(record.position) >= next_record]
    chunk = b""
    if missing:
        stream = _Stream(level)
        encoded = []
        for record in missing:
            encoded.append(stream.encoder.encode(record))
            stream.encoder.wrote(record)
        first = record_of(missing[0].position)
        body = stream.compress(b"".join(encoded))
        chunk = form.encode_chunk(body, is_restart=True, first_record=first, records=len(missing))
    if size > length:
        on_damage(Damage(str(path), length, f"a torn end of {size - length} bytes was cut", next_record))
    with path.open("r+b") as file:
        file.truncate(length)
        file.seek(length)
        file.write(chunk)
        file.flush()
        os.fsync(file.fileno())


def _number_of(path: Path) -> int:
    """The segment number in a file's name; 0 for a name that is not ours."""
    digits = path.name[:10]
    return int(digits) if digits.isdigit() and digits.isascii() else 0


def _append(file: int, data: bytes, offset: int) -> None:
    """Write all of `data` at the file's end, which is `offset`; on failure leave the file as it was and raise
    OSError.
    """
    view = memoryview(data)
    try:
        written = os.pwrite(file, view, offset)
        while written < len(data):
            written += os.pwrite(file, view[written:], offset + written)
    except OSError:
        os.ftruncate(file, offset)
        raise


def _sync_directory(directory: Path) -> None:
    """Make a new file's name survive a power cut."""
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
