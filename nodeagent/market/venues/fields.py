"""What the sources' parsers share: text fields to exact values, each failure a reject with its reason."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final, TypeVar

import msgspec

from agentfarm.errors import InvalidRequest
from nodeagent.market.model.decimals import BadNumber, read_many, scaled
from nodeagent.market.model.events import Instrument, Parsed, Reject, RejectReason, Side
from nodeagent.market.model.slices import SLICE_BYTES, Steps
from nodeagent.market.model.times import BadTime

DETAIL_MAX: Final = 200
DECODE_ERRORS: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""What msgspec raises for hostile bytes: malformed, of wrong type, badly encoded, or nested without end."""

_Answer = TypeVar("_Answer")
_Entry = TypeVar("_Entry")
_BETWEEN_ENTRIES: Final = re.compile(rb"[\]}]\s*,\s*[\[{]")


class UnknownSide(ValueError):
    """A side that is neither of the two."""


READ_ERRORS: Final = (BadNumber, BadTime, UnknownSide)


def reject_of(error: ValueError, product: str, *, breaks_book: bool = False) -> Reject:
    """The reject for a field that could not be read."""
    if isinstance(error, BadNumber):
        reason = error.reason
    elif isinstance(error, BadTime):
        reason = RejectReason.BAD_TIME
    else:
        reason = RejectReason.UNKNOWN_SIDE
    return Reject(reason, product, str(error)[:DETAIL_MAX], breaks_book)


def unreadable(error: Exception, sequence: int = -1) -> Parsed:
    """The result for a frame that is not JSON, or not of the shape the venue documents.

    What it would have changed is unknown, so every book of its connection is in doubt.
    """
    is_malformed = isinstance(error, msgspec.ValidationError)
    reason = RejectReason.MALFORMED if is_malformed else RejectReason.NOT_JSON
    return Parsed([], [Reject(reason, "", str(error)[:DETAIL_MAX], breaks_book=True)], sequence)


def decode_frame(decoder: msgspec.json.Decoder[_Answer], frame: bytes) -> _Answer:
    """Typed decoding that also looks at fields it skips: bytes that are no UTF-8 are damage wherever they stand.

    Raises one of DECODE_ERRORS.
    """
    if not frame.isascii():
        frame.decode()
    return decoder.decode(frame)


def optional_number(text: str | None) -> int:
    """The scaled number, or -1 for a field that is absent or empty. Raises BadNumber."""
    return scaled(text) if text else -1


def taker_of(maker_side: str) -> Side:
    """The aggressor, given the maker's side in either case of letters. Raises UnknownSide."""
    side = maker_side.lower()
    if side == "buy":
        return Side.SELL
    if side == "sell":
        return Side.BUY
    raise UnknownSide(f"unknown side {maker_side[:20]!r}")


def in_slices(array: msgspec.Raw, decoder: msgspec.json.Decoder[list[_Entry]]) -> Iterator[list[_Entry]]:
    """The entries of a JSON array of arrays or objects, as many at a time as SLICE_BYTES hold.

    It is cut at what looks like the border of two entries. A cut anywhere else, in a string or deeper inside, leaves
    something unclosed before it, and raises one of DECODE_ERRORS: then the array must be read whole.
    """
    data = memoryview(array)
    if bytes(data[:1]) != b"[":
        yield decoder.decode(array)  # raises: it is no array
        return
    start, end = 1, len(data) - 1
    while (border := _BETWEEN_ENTRIES.search(data, start + SLICE_BYTES, end)) is not None:
        yield decoder.decode(b"".join((b"[", data[start : border.start() + 1], b"]")))
        start = border.end() - 1
    yield decoder.decode(b"".join((b"[", data[start:end], b"]")))


def read_pairs(pairs: Sequence[tuple[Any, ...]]) -> dict[int, int]:
    """[[price, size, ...], ...] as a side of a book; levels of size 0 are left out. Raises BadNumber."""
    return _without_zeros(dict(_numbers(pairs)))


def read_pairs_in_slices(slices: Iterable[Sequence[tuple[Any, ...]]]) -> Steps[dict[int, int]]:
    """The same of pairs that come in slices."""
    side: dict[int, int] = {}
    for pairs in slices:
        side.update(_numbers(pairs))
        yield
    return _without_zeros(side)


def _numbers(pairs: Sequence[tuple[Any, ...]]) -> Iterator[tuple[int, int]]:
    return zip(read_many([pair[0] for pair in pairs]), read_many([pair[1] for pair in pairs]), strict=True)


def _without_zeros(side: dict[int, int]) -> dict[int, int]:
    return {price: size for price, size in side.items() if size} if 0 in side.values() else side


def read_instruments(entries: Iterable[tuple[str, str, str, bool]]) -> tuple[Instrument, ...]:
    """(product, price increment, size increment, is trading) as rules; unreadable increments count as unknown."""
    return tuple(
        Instrument(product, _increment(price), _increment(size), is_trading)
        for product, price, size, is_trading in entries
    )


def _increment(text: str) -> int:
    try:
        return scaled(text)
    except BadNumber:
        return 0


def read_answer(decode: Callable[[bytes], _Answer], body: bytes, what: str) -> _Answer:
    """A REST answer, typed. Raises InvalidRequest naming `what` when it is something else."""
    try:
        return decode(body)
    except (*DECODE_ERRORS, *READ_ERRORS) as error:
        raise InvalidRequest(f"the venue's answer is not {what}: {str(error)[:DETAIL_MAX]}") from error


def to_json(message: dict[str, Any]) -> bytes:
    """A message to the venue."""
    return msgspec.json.encode(message)
