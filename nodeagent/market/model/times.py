"""ISO-8601 text to nanoseconds since the epoch, without losing the last three digits.

`datetime` stops at microseconds and Coinbase Advanced Trade writes up to nine digits, so the fraction is read by hand
and only the second goes through `datetime`, once per second of data.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

NS: Final = 1_000_000_000
MS_NS: Final = 1_000_000
MINUTE_NS: Final = 60 * NS

_SECONDS_MAX: Final = 256
_seconds: Final[dict[str, int]] = {}
"""`2026-08-09T21:05:48.` to nanoseconds."""
_WHOLE: Final = len("2026-08-09T21:05:48Z")
_LONGEST: Final = len("2026-08-09T21:05:48.123456789Z")
_POWERS: Final[tuple[int, ...]] = tuple(10 ** (9 - digits) for digits in range(10))


class BadTime(ValueError):
    """Text that is no UTC time."""


def parse_time_ns(text: str) -> int:
    """`2026-08-09T21:05:48.228568804Z` as nanoseconds; 0 to 9 digits of fraction. Raises BadTime."""
    second_ns = _seconds.get(text[:20])
    fraction = text[20:-1]
    if (
        second_ns is not None
        and text[-1:] == "Z"
        and fraction.isdigit()
        and fraction.isascii()
        and len(text) <= _LONGEST
    ):
        return second_ns + int(fraction) * _POWERS[len(fraction)]
    return _parse_in_full(text)


def _parse_in_full(text: str) -> int:
    """Any text. A second that comes with a fraction is remembered: almost every time shares it with the one before."""
    try:
        second = datetime.fromisoformat(text[:19]).replace(tzinfo=UTC)
    except ValueError as error:
        raise BadTime(f"{text[:40]!r} does not begin as a UTC time does") from error
    if not text.isascii() or text[7:8] != "-" or text[10:11] != "T":
        raise BadTime(f"{text[:40]!r} is written in another form of ISO 8601")
    second_ns = int(second.timestamp()) * NS
    if len(text) == _WHOLE and text[19] == "Z":
        return second_ns
    fraction = text[20:-1]
    is_fraction = fraction.isdigit() and fraction.isascii() and len(text) <= _LONGEST
    if len(text[:19]) != _WHOLE - 1 or text[19:20] != "." or text[-1:] != "Z" or not is_fraction:
        raise BadTime(f"{text[:40]!r} is not a UTC time")
    if len(_seconds) >= _SECONDS_MAX:
        _seconds.clear()
    _seconds[text[:20]] = second_ns
    return second_ns + int(fraction) * _POWERS[len(fraction)]


def to_iso(time_ns: int) -> str:
    """The time as ISO-8601 with nine digits and Z."""
    seconds, fraction = divmod(time_ns, NS)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{fraction:09d}Z"
