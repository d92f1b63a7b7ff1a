"""ISO-8601 text to nanoseconds since the epoch, without losing the last three digits.

`datetime` stops at microseconds and Coinbase Advanced Trade writes up to nine digits, so the fraction is read by hand
and only the minute goes through `datetime`, once per minute of data.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

NS: Final = 1_000_000_000
MS_NS: Final = 1_000_000
MINUTE_NS: Final = 60 * NS

_MINUTES_CACHED_MAX: Final = 1024
_minutes: dict[str, int] = {}
_FRACTION_DIGITS_MAX: Final = 9
_POWERS: Final = tuple(10 ** (9 - digits) for digits in range(10))


class BadTime(ValueError):
    """Text that is no UTC time."""


def parse_time_ns(text: str) -> int:
    """`2026-08-09T21:05:48.228568804Z` as nanoseconds; 0 to 9 digits of fraction. Raises BadTime."""
    minute_ns = _minutes.get(text[:17])
    if minute_ns is None:
        minute_ns = _read_minute(text[:17])
    fraction = text[20:-1]
    digits = text[17:19] + fraction
    if (
        text[-1:] != "Z"
        or not (digits.isdigit() and digits.isascii())
        or len(fraction) > _FRACTION_DIGITS_MAX
        or (text[19] != "." if fraction else len(text) != len("2026-08-09T21:05:48Z"))
    ):
        raise BadTime(f"{text[:40]!r} is not a UTC time")
    seconds = int(text[17:19])
    if seconds > 60:  # 60 is a leap second
        raise BadTime(f"{text[:40]!r} has no such second")
    return minute_ns + seconds * NS + (int(fraction) * _POWERS[len(fraction)] if fraction else 0)


def _read_minute(prefix: str) -> int:
    """Nanoseconds of `2026-08-09T21:05:`; remembered, as almost every text shares its minute with the last one."""
    try:
        start = datetime.strptime(prefix, "%Y-%m-%dT%H:%M:").replace(tzinfo=UTC)
    except ValueError as error:
        raise BadTime(f"{prefix!r} is not the start of a UTC time") from error
    if len(_minutes) >= _MINUTES_CACHED_MAX:
        _minutes.clear()
    minute_ns = int(start.timestamp()) * NS
    _minutes[prefix] = minute_ns
    return minute_ns


def to_iso(time_ns: int) -> str:
    """The time as ISO-8601 with nine digits and Z."""
    seconds, fraction = divmod(time_ns, NS)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{fraction:09d}Z"
