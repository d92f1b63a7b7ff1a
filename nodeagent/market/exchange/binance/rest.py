"""Binance's REST, purely: a path and its query in, an answer out; and what each question weighs.

Source: developers.binance.com, rest-api. Trades are oldest first, `fromId` upwards. A minute allows 6,000 of weight;
beyond it comes 429 with `Retry-After`, and a client that asks on is banned: 418.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from typing import Any, Final

from nodeagent.market.exchange.binance.stream import MS_NS, eight
from nodeagent.market.exchange.events import VenueTrade, assets_of
from nodeagent.market.exchange.limits import SlidingWindow
from nodeagent.market.exchange.protocol import BadQuestion, Query, RestAnswer, read_target
from nodeagent.market.exchange.venue import Market, Venue

BASE: Final = "/api/v3"
DEPTH_MAX, DEPTH_DEFAULT = 5000, 100
TRADES_MAX, TRADES_DEFAULT = 1000, 500
WEIGHT_PER_MINUTE: Final = 6000
DEPTH_WEIGHTS: Final = ((100, 5), (500, 25), (1000, 50), (DEPTH_MAX, 250))
WEIGHTS: Final = {"exchangeInfo": 20, "trades": 25, "historicalTrades": 25}
DEAF_MAX: Final = 5
"""Questions put although the client must wait; then comes the ban. (The venue gives no number.)"""
BAN_S: Final = 120.0
"""The shortest documented."""
TOO_MANY, MISSING, UNREADABLE, BAD_SYMBOL = -1003, -1102, -1130, -1121


class WeightAllowance:
    """What a minute allows, and what becomes of those who do not listen."""

    def __init__(self) -> None:
        self._window = SlidingWindow(WEIGHT_PER_MINUTE, 60.0)
        self._refused_until_s = 0.0
        self._banned_until_s = 0.0
        self._deaf = 0

    def judge(self, target: str, now_s: float) -> RestAnswer | None:
        """The refusal of a question; None where it may be asked."""
        if now_s >= max(self._refused_until_s, self._banned_until_s):
            if self._window.take(now_s, weight_of(target)):
                return None
            return self.refuse(self._window.wait_s(now_s), now_s)
        self._deaf += 1
        if self._deaf > DEAF_MAX and now_s >= self._banned_until_s:
            self._banned_until_s = now_s + BAN_S
        if now_s < self._banned_until_s:
            return _refusal(418, self._banned_until_s - now_s)
        return _refusal(429, self._refused_until_s - now_s)

    def refuse(self, seconds: float, now_s: float) -> RestAnswer:
        """Refuse everything for so long."""
        self._deaf = 0
        self._refused_until_s = now_s + max(1, math.ceil(seconds))
        return _refusal(429, self._refused_until_s - now_s)

    def headers(self) -> dict[str, str]:
        """The weight used up."""
        return {"X-MBX-USED-WEIGHT-1M": str(self._window.used)}


def weight_of(target: str) -> int:
    """What a question costs."""
    path, query = read_target(target)
    name = path.rpartition("/")[2]
    if name != "depth":
        return WEIGHTS.get(name, 1)
    text = query.get("limit", "")
    limit = int(text) if text.isdigit() else DEPTH_DEFAULT
    return next((weight for most, weight in DEPTH_WEIGHTS if limit <= most), DEPTH_WEIGHTS[-1][1])


def answer(venue: Venue, target: str, now_ns: int) -> RestAnswer:
    """Answer `GET target`. An unknown path is 404, a bad parameter 400, with the venue's `{"code","msg"}`."""
    path, query = read_target(target)
    try:
        return _answer(venue, path.removeprefix(BASE).strip("/"), query, now_ns)
    except BadQuestion as bad:
        return RestAnswer(bad.status, {"code": bad.code, "msg": str(bad)})


def _answer(venue: Venue, name: str, query: Query, now_ns: int) -> RestAnswer:
    match name:
        case "ping":
            return RestAnswer(200, {})
        case "time":
            return RestAnswer(200, {"serverTime": now_ns // MS_NS})
        case "exchangeInfo":
            return RestAnswer(200, _information(venue, query, now_ns))
        case "depth":
            return RestAnswer(200, _depth(_market(venue, query), query), is_snapshot=True)
        case "trades":
            limit = min(_number(query, "limit", TRADES_DEFAULT), TRADES_MAX)
            return RestAnswer(200, [_trade(trade) for trade in _market(venue, query).trades[-limit:]])
        case "historicalTrades":
            return RestAnswer(200, _old_trades(_market(venue, query), query))
    raise BadQuestion(404, "Not found.")


def _old_trades(market: Market, query: Query) -> list[dict[str, Any]]:
    limit = min(_number(query, "limit", TRADES_DEFAULT), TRADES_MAX)
    start = len(market.trades) - limit
    if "fromId" in query:
        start = bisect_left(market.trades, _number(query, "fromId", 0), key=lambda trade: trade.trade_id)
    start = max(0, start)
    return [_trade(trade) for trade in market.trades[start : start + limit]]


def _trade(trade: VenueTrade) -> dict[str, Any]:
    price, size = eight(trade.price), eight(trade.size)
    return {
        "id": trade.trade_id,
        "price": price,
        "qty": size,
        "quoteQty": f"{float(price) * float(size):.8f}",
        "time": trade.time_ns // MS_NS,
        "isBuyerMaker": trade.maker_side == "BUY",
        "isBestMatch": True,
    }


def _depth(market: Market, query: Query) -> dict[str, Any]:
    limit = min(_number(query, "limit", DEPTH_DEFAULT), DEPTH_MAX)
    return {
        "lastUpdateId": market.update_id,
        "bids": [[eight(price), eight(size)] for price, size in market.levels("bid")[:limit]],
        "asks": [[eight(price), eight(size)] for price, size in market.levels("offer")[:limit]],
    }


def _information(venue: Venue, query: Query, now_ns: int) -> dict[str, Any]:
    markets = [_market(venue, query)] if "symbol" in query else list(venue.markets.values())
    limits = [{"rateLimitType": "REQUEST_WEIGHT", "interval": "MINUTE", "intervalNum": 1, "limit": WEIGHT_PER_MINUTE}]
    return {
        "timezone": "UTC",
        "serverTime": now_ns // MS_NS,
        "rateLimits": limits,
        "exchangeFilters": [],
        "symbols": [_symbol(market) for market in markets],
    }


def _symbol(market: Market) -> dict[str, Any]:
    product = market.product
    base, quote = assets_of(product.id)
    tick, step = eight(product.quote_increment), eight(product.base_increment)
    return {
        "symbol": product.id,
        "status": "TRADING",
        "baseAsset": base,
        "baseAssetPrecision": 8,
        "quoteAsset": quote,
        "quoteAssetPrecision": 8,
        "isSpotTradingAllowed": True,
        "filters": [
            {"filterType": "PRICE_FILTER", "minPrice": tick, "maxPrice": "1000000.00000000", "tickSize": tick},
            {"filterType": "LOT_SIZE", "minQty": step, "maxQty": "9000.00000000", "stepSize": step},
        ],
    }


def _market(venue: Venue, query: Query) -> Market:
    if "symbol" not in query:
        raise BadQuestion(400, "The parameter symbol is missing.", MISSING)
    market = venue.markets.get(query["symbol"])
    if market is None:
        raise BadQuestion(400, "Invalid symbol.", BAD_SYMBOL)
    return market


def _number(query: Query, name: str, default: int) -> int:
    text = query.get(name, str(default))
    if not text.isdigit():
        raise BadQuestion(400, f"{name} is no number.", UNREADABLE)
    return int(text)


def _refusal(status: int, seconds: float) -> RestAnswer:
    wait_s = max(1, math.ceil(seconds - 1e-6))  # a difference of two moments may be a hair above what was meant
    message = f"Too much request weight; wait {wait_s} s." if status == 429 else f"Banned for {wait_s} s."
    return RestAnswer(status, {"code": TOO_MANY, "msg": message}, {"Retry-After": str(wait_s)})
