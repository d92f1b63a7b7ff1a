"""Figures of a run of trades: exact where they are sums and quotients of prices and sizes.

Pure. Money is Decimal throughout; only the volatility, which needs logarithms, is a float.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from decimal import ROUND_HALF_EVEN, Context, Decimal, localcontext
from itertools import pairwise

from agentfarm.sdk.market import Trade

PLACES = Decimal("1e-8")
"""Quotients (VWAP, imbalance) are rounded to this, half to even; sums are exact."""
EXACT = Context(prec=80, rounding=ROUND_HALF_EVEN)


def measures(trades: Sequence[Trade]) -> dict[str, str]:
    """Figures of at least one trade, in the order of (time, trade id), as texts.

    vwap: the sum of price times size over the sum of sizes. imbalance: bought less sold over all, from -1 to 1, by the
    side that took liquidity. realised_volatility: the root of the sum of squared logarithmic returns from trade to
    trade, over the window, not annualised (Andersen and Bollerslev 1998).
    """
    with localcontext(EXACT):
        prices = [trade.price for trade in trades]
        volume = sum((trade.size for trade in trades), Decimal(0))
        notional = sum((trade.price * trade.size for trade in trades), Decimal(0))
        bought = sum((trade.size for trade in trades if trade.aggressor_side == "buy"), Decimal(0))
        sold = volume - bought
        figures = {
            "first_trade_id": str(min(trade.trade_id for trade in trades)),
            "last_trade_id": str(max(trade.trade_id for trade in trades)),
            "from": trades[0].at.isoformat(),
            "until": trades[-1].at.isoformat(),
            "trades": str(len(trades)),
            "first_price": plain(prices[0]),
            "last_price": plain(prices[-1]),
            "low": plain(min(prices)),
            "high": plain(max(prices)),
            "range": plain(max(prices) - min(prices)),
            "vwap": plain(quotient(notional, volume)),
            "volume": plain(volume),
            "notional": plain(notional),
            "buy_volume": plain(bought),
            "sell_volume": plain(sold),
            "imbalance": plain(quotient(bought - sold, volume)),
        }
    figures["realised_volatility"] = format(volatility(prices), ".10g")
    return figures


def volatility(prices: Iterable[Decimal]) -> float:
    """The root of the sum of squared logarithmic returns."""
    logs = [math.log(price) for price in prices]
    return math.sqrt(math.fsum((after - before) ** 2 for before, after in pairwise(logs)))


def quotient(part: Decimal, whole: Decimal) -> Decimal:
    """Rounded to PLACES; 0 of nothing is 0."""
    return (part / whole).quantize(PLACES) if whole else Decimal(0)


def plain(value: Decimal) -> str:
    """Without an exponent and without zeros at the end."""
    text = format(value, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text
