"""Readers of other projects' line formats: an iterator of lines in, records out. Lines that fit nothing are skipped."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from nodeagent.market.model.records import Connected, Record, RecordKind, RestAnswer
from nodeagent.market.model.source import Purpose, RestRequest
from nodeagent.market.model.times import NS

Reader = Callable[[Iterator[bytes]], Iterator[Record]]
HTTP_OK: Final = 200

_OLD_CONNECT: Final = re.compile(rb"^(wss?://\S+) <-> (\d+(?:\.\d+)?)")
_OLD_SENT: Final = re.compile(rb"^(wss?://\S+) <- (\d+(?:\.\d+)?): (.*)", re.DOTALL)
_OLD_ANSWER: Final = re.compile(rb"^(https?://\S+) -> (\d+(?:\.\d+)?): (.*)", re.DOTALL)
_OLD_RECEIVED: Final = re.compile(rb"^(\d{9,11}(?:\.\d+)?): ([\[{].*)", re.DOTALL)
_LOCAL_TIME: Final = re.compile(rb"^(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}) (\{.*)", re.DOTALL)


class _Line(msgspec.Struct):
    """A line of a cryptofeed 3 recording."""

    t: str
    ts: msgspec.Raw = msgspec.Raw(b"0")
    conn: str = ""
    addr: str = ""
    url: str = ""
    data: str = ""


class _PayloadLine(msgspec.Struct):
    ingest_time: str
    payload: msgspec.Raw


_LINE: Final = msgspec.json.Decoder(_Line)
_PAYLOAD_LINE: Final = msgspec.json.Decoder(_PayloadLine)
_CONNECTION_LINES: Final = frozenset({"recv", "send", "connect"})
_ERRORS: Final = (msgspec.MsgspecError, UnicodeDecodeError, ValueError, RecursionError)


def read_cryptofeed(lines: Iterator[bytes]) -> Iterator[Record]:
    """cryptofeed 3. Connections keep their order of appearance as numbers."""
    numbers: dict[str, int] = {}
    for line in lines:
        try:
            entry = _LINE.decode(line)
            at_ns = _seconds_to_ns(bytes(entry.ts))
        except _ERRORS:
            continue
        if entry.t == "http":
            yield _rest(entry.url, at_ns, entry.data.encode())
            continue
        if entry.t not in _CONNECTION_LINES:
            continue
        number = numbers.setdefault(entry.conn, len(numbers) + 1)
        if entry.t == "recv":
            yield Record(RecordKind.RECEIVED, number, at_ns, 0, entry.data.encode())
        elif entry.t == "send":
            yield Record(RecordKind.SENT, number, at_ns, 0, entry.data.encode())
        else:
            yield _connect(number, at_ns, entry.addr)


def read_old_cryptofeed(lines: Iterator[bytes]) -> Iterator[Record]:
    """cryptofeed 2. A received line says nothing of its connection: it is the one opened last."""
    number = 0
    for line in lines:
        text = line.rstrip(b"\r\n")
        if match := _OLD_RECEIVED.match(text):
            yield Record(RecordKind.RECEIVED, max(number, 1), _seconds_to_ns(match[1]), 0, match[2])
        elif match := _OLD_CONNECT.match(text):
            number += 1
            yield _connect(number, _seconds_to_ns(match[2]), match[1].decode("ascii", "replace"))
        elif match := _OLD_SENT.match(text):
            yield Record(RecordKind.SENT, max(number, 1), _seconds_to_ns(match[2]), 0, match[3])
        elif match := _OLD_ANSWER.match(text):
            yield _rest(match[1].decode("ascii", "replace"), _seconds_to_ns(match[2]), match[3])


def read_frames(lines: Iterator[bytes]) -> Iterator[Record]:
    """One frame a line; the receipt time is unknown (0), the venue's own times stand in."""
    for line in lines:
        frame = line.strip()
        if frame:
            yield Record(RecordKind.RECEIVED, 1, 0, 0, frame)


def read_payload_lines(lines: Iterator[bytes]) -> Iterator[Record]:
    """`{"ingest_time", "payload"}` lines."""
    for line in lines:
        try:
            entry = _PAYLOAD_LINE.decode(line)
            at = datetime.fromisoformat(entry.ingest_time)
        except _ERRORS:
            continue
        at_ns = int((at.astimezone(UTC) - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds() * 1_000_000) * 1000
        yield Record(RecordKind.RECEIVED, 1, at_ns, 0, bytes(entry.payload))


def read_local_times(lines: Iterator[bytes]) -> Iterator[Record]:
    """pyalgotrade's recording of the full channel. Local times are taken as UTC: the venue's clock corrects them.

    The rows without a time are the level 3 book it began with, written as `open` messages; they become what they
    were, a REST answer.
    """
    book: list[dict[str, Any]] = []
    has_begun = False
    for line in lines:
        match = _LOCAL_TIME.match(line.rstrip(b"\r\n"))
        if match is None:
            continue
        at = datetime.strptime(match[1].decode(), "%Y-%m-%d %H:%M:%S,%f").replace(tzinfo=UTC)
        at_ns = int(at.timestamp()) * NS + at.microsecond * 1000
        if not has_begun:
            message = _book_row(match[2])
            if message is not None:
                if not book:
                    yield _full_connection(message, at_ns)
                book.append(message)
                continue
            has_begun = True
            if book:
                yield _orders_answer(book, at_ns)
        yield Record(RecordKind.RECEIVED, 1, at_ns, 0, match[2])


def _book_row(text: bytes) -> dict[str, Any] | None:
    """The message, if it is a row of the initial book."""
    try:
        message = msgspec.json.decode(text)
    except _ERRORS:
        return None
    is_row = isinstance(message, dict) and message.get("type") == "open" and message.get("time") == ""
    return message if is_row else None


def _full_connection(row: dict[str, Any], at_ns: int) -> Record:
    """The connection to the full channel that the recording was made on."""
    opened = Connected("coinbase-exchange", "", (str(row.get("product_id", "")),), ("full",))
    return Record(RecordKind.CONNECT, 1, at_ns, 0, msgspec.json.encode(opened))


def _orders_answer(book: list[dict[str, Any]], at_ns: int) -> Record:
    """The level 3 book it began with, as the REST answer it was."""
    sides: dict[str, list[list[Any]]] = {"buy": [], "sell": []}
    for row in book:
        entry = [row.get("price"), row.get("remaining_size"), row.get("order_id")]
        sides.setdefault(str(row.get("side")), []).append(entry)
    body = {"sequence": book[0].get("sequence"), "bids": sides["buy"], "asks": sides["sell"]}
    request = RestRequest(Purpose.ORDERS, "", str(book[0].get("product_id", "")), connection_id=1)
    return Record(RecordKind.REST, 0, at_ns, 0, RestAnswer(request, HTTP_OK, msgspec.json.encode(body)).encode())


def _connect(number: int, at_ns: int, url: str) -> Record:
    """A foreign recording names neither our source nor its products."""
    return Record(RecordKind.CONNECT, number, at_ns, 0, msgspec.json.encode(Connected("", url, ())))


def _rest(url: str, at_ns: int, body: bytes) -> Record:
    """Only product listings are of use from foreign recordings."""
    purpose = Purpose.INSTRUMENTS if url.rstrip("/").endswith("/products") else Purpose.BOOK_CHECK
    answer = RestAnswer(RestRequest(purpose, url), HTTP_OK, body)
    return Record(RecordKind.REST, 0, at_ns, 0, answer.encode())


def _seconds_to_ns(text: bytes) -> int:
    """`1618677832.786484` exactly, without passing through a float."""
    whole, _, fraction = text.partition(b".")
    return int(whole) * NS + int((fraction[:9] or b"0").ljust(9, b"0"))


def _is_json_with(*keys: bytes) -> Callable[[bytes], bool]:
    def accepts(line: bytes) -> bool:
        start = line[:2048].lstrip()
        return start.startswith(b"{") and all(key in start for key in keys)

    return accepts


LINE_FORMATS: Final[tuple[tuple[str, Callable[[bytes], bool], Reader], ...]] = (
    ("cryptofeed 3 recording", lambda line: line[:8].replace(b" ", b"").startswith(b'{"t":"'), read_cryptofeed),
    ("ingest_time lines", _is_json_with(b'"ingest_time"', b'"payload"'), read_payload_lines),
    (
        "cryptofeed 2 recording",
        lambda line: any(form.match(line) for form in (_OLD_CONNECT, _OLD_SENT, _OLD_ANSWER, _OLD_RECEIVED)),
        read_old_cryptofeed,
    ),
    ("pyalgotrade L3 recording", lambda line: _LOCAL_TIME.match(line) is not None, read_local_times),
    ("frames, one a line", lambda line: line.lstrip().startswith(b"{"), read_frames),
)
