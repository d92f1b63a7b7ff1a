"""What happens at a venue, before any protocol has spoken of it. Numbers are text, exactly as the venue would write
them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import Final, Literal, Protocol, TypeAlias

NS: Final = 1_000_000_000

QUOTES: Final = ("FDUSD", "USDT", "USDC", "TUSD", "EUR", "BTC", "ETH", "BNB", "USD")
"""What names without a dash end in."""

MakerSide: TypeAlias = Literal["BUY", "SELL"]
"""Both Coinbase feeds report the maker's side: BUY means that the taker sold."""

Side: TypeAlias = Literal["bid", "offer"]


@dataclass(frozen=True, slots=True)
class Product:
    """A market and its increments."""

    id: str
    base_increment: str = "0.00000001"
    quote_increment: str = "0.01"


@dataclass(frozen=True, slots=True)
class VenueTrade:
    """One trade; ids rise by one per product."""

    product: str
    trade_id: int
    price: str
    size: str
    maker_side: MakerSide
    time_ns: int


@dataclass(frozen=True, slots=True)
class BookBatch:
    """Level changes, absolute sizes; `0` removes. May be empty: the venue sends that too."""

    product: str
    changes: tuple[tuple[Side, str, str], ...]
    time_ns: int
    sent_at_ns: int


@dataclass(frozen=True, slots=True)
class TradeBatch:
    """Trades of one product, oldest first."""

    product: str
    trades: tuple[VenueTrade, ...]
    sent_at_ns: int


@dataclass(frozen=True, slots=True)
class TickerBatch:
    """A ticker. `fields` holds Advanced Trade's names, all text."""

    product: str
    fields: dict[str, str]
    trade_id: int
    sent_at_ns: int


Batch: TypeAlias = BookBatch | TradeBatch | TickerBatch


@dataclass(slots=True)
class Opening:
    """A product as it stands when the venue opens: price to size, and past trades, oldest first."""

    product: Product
    bids: dict[str, str] = field(default_factory=dict)
    asks: dict[str, str] = field(default_factory=dict)
    trades: list[VenueTrade] = field(default_factory=list)
    ticker: dict[str, str] = field(default_factory=dict)
    time_ns: int = 0


class Content(Protocol):
    """A story: where it starts and what follows, by the venue's own clock."""

    @property
    def start_ns(self) -> int:
        """When the story begins, by the venue's clock."""

    @property
    def is_finite(self) -> bool:
        """It ends, and its times are the past: it should not start before a client listens."""

    def openings(self) -> list[Opening]:
        """Every product at `start_ns`."""

    def batches(self) -> Iterator[Batch]:
        """What follows, in the order of `sent_at_ns`; the same each time it is asked."""


def assets_of(product: str) -> tuple[str, str]:
    """What is traded and what it is paid in: of `BTC-USD` and of `BTCUSDT`. The latter is empty where it is unknown."""
    base, dash, quote = product.partition("-")
    if dash:
        return base, quote
    quote = next((quote for quote in QUOTES if product.endswith(quote) and product != quote), "")
    return product.removesuffix(quote), quote


def time_text(time_ns: int) -> str:
    """ISO 8601 with microseconds, as both feeds write the time of an event."""
    seconds, rest_ns = divmod(time_ns, NS)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest_ns // 1000:06}Z"


def envelope_time_text(time_ns: int) -> str:
    """The same with nanoseconds, as Advanced Trade stamps its envelopes."""
    seconds, rest_ns = divmod(time_ns, NS)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest_ns:09}Z"


def time_ns_of(text: str) -> int:
    """Nanoseconds of an ISO 8601 time with any number of digits, `Z` at the end."""
    whole, _, fraction = text.removesuffix("Z").partition(".")
    seconds = int(datetime.fromisoformat(whole).replace(tzinfo=UTC).timestamp())
    return seconds * NS + int(fraction.ljust(9, "0")[:9] or 0)


def is_zero(size: str) -> bool:
    """Whether a size removes its level, however it is written."""
    return Decimal(size) == 0
