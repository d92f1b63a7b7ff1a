"""Decimal text to scaled integers and back, exactly.

Owns the one place where text becomes a number. Never rounds: what does not fit 12 decimals is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Context, Decimal, DecimalException
from itertools import repeat
from typing import Final

from nodeagent.market.model.events import SCALE_DIGITS, RejectReason

TEXT_MAX: Final = 48
"""Longer numbers are refused: nothing real is near, and it bounds the work that hostile text can cause."""

REMEMBERED_MAX: Final = 32_768
"""Texts remembered at most, about 5 MB."""

_POWERS: Final[tuple[int, ...]] = tuple(10 ** (SCALE_DIGITS - digits) for digits in range(SCALE_DIGITS + 1))
_EXACT: Final = Context(prec=2 * TEXT_MAX)
_EXPONENT_MAX: Final = 40


class BadNumber(ValueError):
    """Text that is no decimal number we accept. `reason` says why."""

    def __init__(self, text: object, reason: RejectReason = RejectReason.BAD_NUMBER) -> None:
        super().__init__(f"{str(text)[:TEXT_MAX]!r} is not an exact decimal of at most {SCALE_DIGITS} places")
        self.reason = reason


def read_scaled(text: str) -> int:
    """The number times 10**12. Raises BadNumber for signs, blanks, infinities, or more than 12 significant decimals.

    >>> read_scaled("65083.67")
    65083670000000000
    """
    whole, _, fraction = text.partition(".")
    digits = whole + fraction
    if digits.isdigit() and digits.isascii() and len(fraction) <= SCALE_DIGITS and len(digits) < TEXT_MAX:
        return int(digits) * _POWERS[len(fraction)]
    return _scaled_slowly(text)


def read_many(texts: Sequence[str]) -> list[int]:
    """`read_scaled` of each, faster: what can be asked of all of them together is. Raises BadNumber for the first that
    cannot be read."""
    together = "".join(texts)
    if together.isascii() and together.replace(".", "").isdigit() and max(map(len, texts)) < TEXT_MAX:
        parts = map(str.partition, texts, repeat("."))
        try:
            return [int(whole + fraction) * _POWERS[len(fraction)] for whole, _, fraction in parts]
        except (ValueError, IndexError):  # no digit, a second point, or more than 12 decimals
            pass
    return [read_scaled(text) for text in texts]


class _Memory(dict[str, int]):
    """Texts read lately. Four of five prices and most sizes of a stream of updates were seen moments ago, and a look-up
    costs a tenth of reading; so this alone is a quarter of the feed's speed."""

    def __missing__(self, text: str) -> int:
        number = read_scaled(text)
        if len(self) >= REMEMBERED_MAX:
            self.clear()
        self[text] = number
        return number


_memory: Final = _Memory()
scaled: Final = _memory.__getitem__
"""`read_scaled` for texts that come again and again; the same promises."""


def _scaled_slowly(text: str) -> int:
    """Exponents and long tails of zeros, which some venues write for very small numbers."""
    if len(text) > TEXT_MAX or not text.isascii() or not text[:1].isdigit() or "_" in text:
        raise BadNumber(text)
    try:
        number = Decimal(text)
    except DecimalException as error:
        raise BadNumber(text) from error
    if not number.is_finite() or abs(number.adjusted()) > _EXPONENT_MAX:
        raise BadNumber(text)
    shifted = number.scaleb(SCALE_DIGITS, _EXACT)
    if shifted != shifted.to_integral_value():
        raise BadNumber(text, RejectReason.TOO_PRECISE)
    return int(shifted)


class _Decimals(dict[int, Decimal]):
    """Numbers written lately: quotes and prices repeat in rows as they do in frames."""

    def __missing__(self, number: int) -> Decimal:
        decimal = Decimal(number).scaleb(-SCALE_DIGITS, _EXACT)
        if len(self) >= REMEMBERED_MAX:
            self.clear()
        self[number] = decimal
        return decimal


_decimals: Final = _Decimals()
to_decimal: Final = _decimals.__getitem__
"""The scaled integer as an exact Decimal with 12 places."""


def to_text(number: int) -> str:
    """The scaled integer as plain decimal text without trailing zeros, as venues write it."""
    whole, fraction = divmod(abs(number), 10**SCALE_DIGITS)
    tail = f"{fraction:0{SCALE_DIGITS}d}".rstrip("0")
    sign = "-" if number < 0 else ""
    return f"{sign}{whole}.{tail}" if tail else f"{sign}{whole}"


def forget() -> None:
    """Forget the texts read so far, as a new process would: for honest measurements."""
    _memory.clear()
    _decimals.clear()
