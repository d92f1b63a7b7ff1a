"""Recordings of others, and ours, as records: recognised by content, never by name.

| format | looks like |
| --- | --- |
| ours | a segment file (`nodeagent.market.capture.layout`), or a directory of them |
| cryptofeed 3 | JSON lines with `t` = header, http, connect, send, recv |
| cryptofeed 2 | text: `wss://... <-> time`, `wss://... <- time: sent`, `time: received`, `URL -> time: answer` |
| raw frames | one JSON frame a line, no receipt time |
| payload lines | `{"ingest_time", "product_id", "payload": frame}` a line |
| pyalgotrade L3 | `local date time {json}`; rows without `time` first: the book it began with |

Plain, gzip or zstd around any of them. The product rules and the source are found in the recording where it has them;
otherwise its frames show the source. Nothing here interprets a frame beyond that.
"""

from __future__ import annotations

import gzip
import io
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import IO, Final

import msgspec
import zstandard

from agentfarm.errors import InvalidRequest
from nodeagent.market.capture.foreign import LINE_FORMATS
from nodeagent.market.capture.layout import SEGMENT_MAGIC
from nodeagent.market.capture.reader import OnDamage, read_capture, read_segment
from nodeagent.market.model.records import Connected, Record, RecordKind

GZIP_MAGIC: Final = b"\x1f\x8b"
ZSTD_MAGIC: Final = b"\x28\xb5\x2f\xfd"
LINE_MAX: Final = 64 * 1024 * 1024
PROBE_LINES: Final = 20
_SOURCE_MARKS: Final = (
    ("coinbase-advanced", (b'"channel":', b'"sequence_num":')),
    ("coinbase-exchange", (b'"type":', b'"product_id')),
    ("coinbase-exchange", (b'"type":', b'"subscriptions"')),
    ("binance", (b'"stream":', b'"data":')),
    ("binance", (b'"e":', b'"E":')),
)


class Recording(msgspec.Struct, frozen=True):
    """A recognised file."""

    format: str
    source: str
    """The name of the source whose frames it holds."""
    records: Iterator[Record]


def open_recording(path: Path, on_damage: OnDamage | None = None) -> Recording:
    """Recognise a file (or a directory of segments) and read it as records. Raises InvalidRequest, saying what it
    saw.
    """
    if path.is_dir():
        return _ours(read_capture(path, on_damage=on_damage), path)
    try:
        with _unpacked(path) as file:
            head = file.read(len(SEGMENT_MAGIC))
    except (OSError, EOFError, zstandard.ZstdError) as error:
        raise InvalidRequest(f"{path} cannot be read: {error}.") from error
    if head == SEGMENT_MAGIC:
        return _ours(read_segment(path, on_damage=on_damage), path)
    name, reader, probe = _recognise(path)
    source = _source_of(record for record in reader(iter(probe)))
    if source is None:
        raise InvalidRequest(f"{path} looks like a {name}, but begins with no frame of a known source.")
    return Recording(name, source, reader(_lines(path)))


def _ours(records: Iterator[Record], path: Path) -> Recording:
    """Our own capture says in its CONNECT records which source it is of."""
    probe: list[Record] = []
    for record in records:
        probe.append(record)
        if record.kind in {RecordKind.CONNECT, RecordKind.RECEIVED}:
            break
    source = _source_of(iter(probe))
    if source is None:
        raise InvalidRequest(f"{path} holds no record of a known source.")
    return Recording("agentfarm capture", source, chain(probe, records))


def _recognise(path: Path) -> tuple[str, Callable[[Iterator[bytes]], Iterator[Record]], list[bytes]]:
    """The first format whose test accepts the file's first lines, its reader, and those lines."""
    probe = []
    try:
        for line in _lines(path):
            probe.append(line)
            if len(probe) >= PROBE_LINES:
                break
    except (OSError, EOFError, zstandard.ZstdError) as error:
        raise InvalidRequest(f"{path} cannot be read: {error}.") from error
    first = next((line for line in probe if line.strip()), b"")
    for name, accepts, reader in LINE_FORMATS:
        if accepts(first):
            return name, reader, probe
    raise _unknown(path, probe)


def _source_of(records: Iterable[Record]) -> str | None:
    """The source that a CONNECT record of ours names, or that a frame shows."""
    for record in records:
        if record.kind is RecordKind.CONNECT:
            try:
                named = msgspec.json.decode(record.payload, type=Connected).source
            except (msgspec.MsgspecError, UnicodeDecodeError):
                continue
            if named:
                return named
        elif record.kind is RecordKind.RECEIVED:
            start = record.payload[:512].replace(b": ", b":").replace(b" :", b":")
            for source, marks in _SOURCE_MARKS:
                if all(mark in start for mark in marks):
                    return source
    return None


def _unknown(path: Path, probe: list[bytes]) -> InvalidRequest:
    seen = probe[0][:80] if probe else b""
    return InvalidRequest(
        f"{path} is no recording of a known format; it begins with {seen!r}.",
        remedy="Known: our captures, cryptofeed recordings (old text and JSON lines), frames as JSON lines, "
        "ingest_time/payload lines, pyalgotrade L3 text; plain, .gz or .zst.",
    )


def _unpacked(path: Path) -> IO[bytes]:
    """The file's content, unpacked if it is packed."""
    file = path.open("rb")
    magic = file.read(4)
    file.seek(0)
    if magic.startswith(GZIP_MAGIC):
        file.close()
        return gzip.open(path, "rb")  # type: ignore[return-value]  # a GzipFile reads like any binary file
    if magic == ZSTD_MAGIC:
        reader: IO[bytes] = zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True, closefd=True)
        return io.BufferedReader(reader, 1024 * 1024)  # type: ignore[type-var]  # typed as raw I/O by neither side
    return file


def _lines(path: Path) -> Iterator[bytes]:
    """Lines of at most LINE_MAX bytes; a file that ends in the middle of packing ends with its last whole line."""
    with _unpacked(path) as file:
        while True:
            try:
                line = file.readline(LINE_MAX)
            except (EOFError, zstandard.ZstdError):
                return
            if not line:
                return
            yield line
