"""The protocols that are spoken, one small class each. Another venue is another class, and a line in `PROTOCOLS`.

Rules as documented, docs.cdp.coinbase.com and developers.binance.com; see docs/market-data.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from nodeagent.market.exchange.binance import rest as binance_rest
from nodeagent.market.exchange.binance.stream import BinanceSession, is_stream_path
from nodeagent.market.exchange.coinbase import rest as coinbase_rest
from nodeagent.market.exchange.coinbase.advanced import AdvancedSession
from nodeagent.market.exchange.coinbase.exchange import ExchangeSession
from nodeagent.market.exchange.limits import SlidingWindow, TokenBucket
from nodeagent.market.exchange.protocol import Allowance, RestAnswer, Rules, Speaker, VenueProtocol
from nodeagent.market.exchange.venue import Venue

DAY_S: Final = 86_400.0
COINBASE_SUBSCRIBE_WITHIN_S: Final = 5.0
COINBASE_IDLE_CLOSE_S: Final = 75.0
COINBASE_QUESTIONS_PER_S: Final = 10.0
COINBASE_QUESTIONS_BURST: Final = 15


class Protocol(StrEnum):
    """Which of them to speak."""

    ADVANCED = "advanced"
    EXCHANGE = "exchange"
    BINANCE = "binance"


def _coinbase_rules(messages_per_s: int) -> Rules:
    return Rules(
        connects=lambda: TokenBucket(8.0, 20),
        messages=lambda: TokenBucket(messages_per_s, messages_per_s),
        subscribe_within_s=COINBASE_SUBSCRIBE_WITHIN_S,
        idle_close_s=COINBASE_IDLE_CLOSE_S,
    )


class CoinbaseAdvanced:
    """Coinbase Advanced Trade."""

    rules = _coinbase_rules(8)
    products: tuple[str, ...] = ("BTC-USD", "ETH-USD")
    ws_path = ""
    rest_base = coinbase_rest.ADVANCED_BASE

    def speaker(self, venue: Venue, path: str) -> Speaker | None:
        return AdvancedSession(venue)

    def allowance(self, per_s: float | None) -> Allowance:
        return _Questions(per_s or COINBASE_QUESTIONS_PER_S)

    def answer(self, venue: Venue, target: str, now_ns: int) -> RestAnswer:
        return coinbase_rest.answer(venue, target, now_ns)


class CoinbaseExchange(CoinbaseAdvanced):
    """Coinbase Exchange: the same house, another feed."""

    rules = _coinbase_rules(100)
    rest_base = ""

    def speaker(self, venue: Venue, path: str) -> Speaker | None:
        return ExchangeSession(venue)


class BinanceSpot:
    """Binance spot. Its limits count by windows, and a client's PING and PONG as messages."""

    rules = Rules(
        connects=lambda: SlidingWindow(300, 300.0),
        messages=lambda: SlidingWindow(5, 1.0),
        counts_control_frames=True,
        ping_every_s=20.0,
        pong_within_s=60.0,
        lives_s=DAY_S,
    )
    products: tuple[str, ...] = ("BTCUSDT", "ETHUSDT")
    ws_path = "/stream"
    rest_base = binance_rest.BASE

    def speaker(self, venue: Venue, path: str) -> Speaker | None:
        return BinanceSession(venue, path) if is_stream_path(path) else None

    def allowance(self, per_s: float | None) -> Allowance:
        return binance_rest.WeightAllowance()

    def answer(self, venue: Venue, target: str, now_ns: int) -> RestAnswer:
        return binance_rest.answer(venue, target, now_ns)


class _Questions:
    """Coinbase's allowance: questions a second, and no word of how long to wait."""

    def __init__(self, per_s: float) -> None:
        self._bucket = TokenBucket(per_s, max(COINBASE_QUESTIONS_BURST, int(per_s)))

    def judge(self, target: str, now_s: float) -> RestAnswer | None:
        """By the second, whatever is asked."""
        return None if self._bucket.take(now_s) else self.refuse(0.0, now_s)

    def refuse(self, seconds: float, now_s: float) -> RestAnswer:
        return RestAnswer(429, {"message": "rate limit exceeded"})

    def headers(self) -> dict[str, str]:
        return {}


PROTOCOLS: Final[Mapping[Protocol, VenueProtocol]] = MappingProxyType(
    {
        Protocol.ADVANCED: CoinbaseAdvanced(),
        Protocol.EXCHANGE: CoinbaseExchange(),
        Protocol.BINANCE: BinanceSpot(),
    }
)
