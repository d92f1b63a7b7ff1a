"""Coinbase's REST, purely: a path and its query in, an answer out. Both families of addresses, whichever feed is
spoken.

Source: docs.cdp.coinbase.com, Exchange (`/products…`) and Advanced Trade (`/api/v3/brokerage/market/products…`). Trades
by
cursor: `after=N` gives ids below N, newest first; `before=N` the newest page above N, which need not be adjacent.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final

from nodeagent.market.exchange.coinbase.exchange import trade_terms
from nodeagent.market.exchange.events import NS, VenueTrade, envelope_time_text, time_text
from nodeagent.market.exchange.protocol import BadQuestion, Query, RestAnswer, read_target
from nodeagent.market.exchange.venue import Market, Venue

ADVANCED_BASE: Final = "/api/v3/brokerage/market"
EXCHANGE_PAGE_MAX: Final = 1000
ADVANCED_PAGE_MAX: Final = 1000
CANDLES_MAX: Final = 300
GRANULARITIES_S: Final = (60, 300, 900, 3600, 21600, 86400)


def answer(venue: Venue, target: str, now_ns: int) -> RestAnswer:
    """Answer `GET target`. An unknown path is 404, a bad parameter 400, with the venue's `{"message"}`."""
    path, query = read_target(target)
    try:
        if path.startswith(ADVANCED_BASE):
            return _advanced(venue, path[len(ADVANCED_BASE) :].strip("/").split("/"), query, now_ns)
        return _exchange(venue, path.strip("/").split("/"), query, now_ns)
    except BadQuestion as bad:
        return RestAnswer(bad.status, {"message": str(bad)})


def _exchange(venue: Venue, path: list[str], query: Query, now_ns: int) -> RestAnswer:
    match path:
        case ["time"]:
            return RestAnswer(200, {"iso": time_text(now_ns), "epoch": now_ns / NS})
        case ["products"]:
            return RestAnswer(200, [_product(market) for market in venue.markets.values()])
        case ["products", name]:
            return RestAnswer(200, _product(_market(venue, name)))
        case ["products", name, "trades"]:
            return _trade_page(_market(venue, name), query)
        case ["products", name, "book"]:
            return RestAnswer(200, _book(_market(venue, name), query))
        case ["products", name, "ticker"]:
            return RestAnswer(200, _ticker(_market(venue, name), now_ns))
        case ["products", name, "candles"]:
            return RestAnswer(200, _candles(_market(venue, name), query))
    raise BadQuestion(404, "NotFound")


def _advanced(venue: Venue, path: list[str], query: Query, now_ns: int) -> RestAnswer:
    match path:
        case ["products"]:
            products = [_advanced_product(market) for market in venue.markets.values()]
            return RestAnswer(200, {"products": products, "num_products": len(products)})
        case ["products", name]:
            return RestAnswer(200, _advanced_product(_market(venue, name)))
        case ["products", name, "ticker"]:
            return _advanced_trades(_market(venue, name), query)
        case ["product_book"]:
            return _advanced_book(_market(venue, query.get("product_id", "")), query, now_ns)
    raise BadQuestion(404, "NotFound")


def _market(venue: Venue, name: str) -> Market:
    market = venue.markets.get(name)
    if market is None:
        raise BadQuestion(404, "NotFound")
    return market


def _trade_page(market: Market, query: Query) -> RestAnswer:
    limit = min(_number(query, "limit", EXCHANGE_PAGE_MAX), EXCHANGE_PAGE_MAX)
    if "before" in query:
        newer_than = _number(query, "before", 0)
        page = [trade for trade in market.trades_before(None, limit) if trade.trade_id > newer_than]
    else:
        page = market.trades_before(_number(query, "after", 0) or None, limit)
    cursors = {"CB-BEFORE": str(page[0].trade_id), "CB-AFTER": str(page[-1].trade_id)} if page else {}
    return RestAnswer(200, [_exchange_trade(trade) for trade in page], cursors)


def _advanced_trades(market: Market, query: Query) -> RestAnswer:
    """Trades of a time window in whole seconds, newest first."""
    limit = min(_number(query, "limit", 100), ADVANCED_PAGE_MAX)
    start_ns, end_ns = _number(query, "start", 0) * NS, _number(query, "end", 0) * NS
    inside = [t for t in market.trades if t.time_ns >= start_ns and (not end_ns or t.time_ns < end_ns)]
    trades = [
        {
            "trade_id": str(trade.trade_id),
            "product_id": trade.product,
            "price": trade.price,
            "size": trade.size,
            "time": time_text(trade.time_ns),
            "side": trade.maker_side,
            "exchange": "",
        }
        for trade in inside[-limit:][::-1]
    ]
    return RestAnswer(200, {"trades": trades, "best_bid": market.best("bid")[0], "best_ask": market.best("offer")[0]})


def _advanced_book(market: Market, query: Query, now_ns: int) -> RestAnswer:
    limit = _number(query, "limit", 0) or None
    bids = [{"price": price, "size": size} for price, size in market.levels("bid")[:limit]]
    asks = [{"price": price, "size": size} for price, size in market.levels("offer")[:limit]]
    book = {"product_id": market.product.id, "bids": bids, "asks": asks, "time": envelope_time_text(now_ns)}
    return RestAnswer(200, {"pricebook": book})


def _book(market: Market, query: Query) -> dict[str, Any]:
    level = _number(query, "level", 1)
    if level not in (1, 2, 3):
        raise BadQuestion(400, "Invalid level")
    depth = 1 if level == 1 else None
    return {
        "bids": [[price, size, 1] for price, size in market.levels("bid")[:depth]],
        "asks": [[price, size, 1] for price, size in market.levels("offer")[:depth]],
        "sequence": market.next_sequence(),
        "auction_mode": False,
        "auction": None,
        "time": time_text(market.book_time_ns),
    }


def _ticker(market: Market, now_ns: int) -> dict[str, Any]:
    last = market.trades[-1] if market.trades else None
    return {
        "ask": market.best("offer")[0],
        "bid": market.best("bid")[0],
        "volume": market.ticker.get("volume_24_h", "0"),
        "trade_id": last.trade_id if last else 0,
        "price": last.price if last else "0",
        "size": last.size if last else "0",
        "time": time_text(last.time_ns if last else now_ns),
    }


def _candles(market: Market, query: Query) -> list[list[float]]:
    """[time, low, high, open, close, volume], newest first; no row where nothing was traded."""
    span_s = _number(query, "granularity", 60)
    if span_s not in GRANULARITIES_S:
        raise BadQuestion(400, "Unsupported granularity")
    start_s, end_s = _seconds(query.get("start")), _seconds(query.get("end"))
    if start_s and end_s and (end_s - start_s) / span_s > CANDLES_MAX:
        raise BadQuestion(400, f"granularity too small for the requested time range: max {CANDLES_MAX} candles")
    groups: dict[int, list[VenueTrade]] = {}
    for trade in market.trades:
        second = trade.time_ns // NS
        if second >= start_s and (not end_s or second < end_s):
            groups.setdefault(second // span_s * span_s, []).append(trade)
    rows = [_candle(at_s, trades) for at_s, trades in sorted(groups.items(), reverse=True)]
    return rows[:CANDLES_MAX]


def _candle(at_s: int, trades: list[VenueTrade]) -> list[float]:
    prices = [float(trade.price) for trade in trades]
    volume = float(sum(Decimal(trade.size) for trade in trades))
    return [at_s, min(prices), max(prices), prices[0], prices[-1], volume]


def _exchange_trade(trade: VenueTrade) -> dict[str, Any]:
    return {
        "trade_id": trade.trade_id,
        **trade_terms(trade),
        "time": time_text(trade.time_ns),
    }


def _product(market: Market) -> dict[str, Any]:
    product = market.product
    base, _, quote = product.id.partition("-")
    return {
        "id": product.id,
        "base_currency": base,
        "quote_currency": quote,
        "quote_increment": product.quote_increment,
        "base_increment": product.base_increment,
        "display_name": f"{base}-{quote}",
        "min_market_funds": "1",
        "margin_enabled": False,
        "post_only": False,
        "limit_only": False,
        "cancel_only": False,
        "status": "online",
        "status_message": "",
        "trading_disabled": False,
        "auction_mode": False,
    }


def _advanced_product(market: Market) -> dict[str, Any]:
    product = market.product
    base, _, quote = product.id.partition("-")
    return {
        "product_id": product.id,
        "price": market.ticker.get("price", ""),
        "base_increment": product.base_increment,
        "quote_increment": product.quote_increment,
        "price_increment": product.quote_increment,
        "base_currency_id": base,
        "quote_currency_id": quote,
        "status": "online",
        "is_disabled": False,
        "trading_disabled": False,
        "product_type": "SPOT",
        "alias": "",
        "alias_to": [],
    }


def _read(query: Query, name: str, default: int, convert: Callable[[str], int]) -> int:
    try:
        return convert(query[name]) if name in query else default
    except ValueError:
        raise BadQuestion(400, f"Invalid {name}") from None


def _number(query: Query, name: str, default: int) -> int:
    value = _read(query, name, default, int)
    if value < 0:
        raise BadQuestion(400, f"Invalid {name}")
    return value


def _seconds(text: str | None) -> int:
    """Unix seconds or ISO 8601; 0 when absent."""
    if not text:
        return 0
    if text.isdigit():
        return int(text)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise BadQuestion(400, "Invalid time") from None
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())
