"""What the sources' parsers share: text fields to exact values, each failure a reject with its reason."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final, TypeVar

import msgspec

from agentfarm.errors import InvalidRequest
from nodeagent.feed.decimals import BadNumber, read_scaled, scaled
from nodeagent.feed.events import Instrument, Parsed, Reject, RejectReason, Side
from nodeagent.feed.times import BadTime

DETAIL_MAX: Final = 200
DECODE_ERRORS: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""What msgspec raises for hostile bytes: malformed, of wrong type, badly encoded, or nested without end."""

_Answer = TypeVar("_Answer")


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


def read_pairs(pairs: Iterable[tuple[str, str]]) -> dict[int, int]:
    """[[price, size], ...] as a side of a book; levels of size 0 are left out. Raises BadNumber."""
    side = {read_scaled(price): read_scaled(size) for price, size in pairs}
    if 0 in side.values():
        side = {price: size for price, size in side.items() if size}
    return side


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
