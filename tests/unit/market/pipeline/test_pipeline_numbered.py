"""Stories of books whose changes are numbered: the full channel and Binance."""

from __future__ import annotations

import json
from typing import Any

from nodeagent.market.model.decimals import scaled
from nodeagent.market.model.events import GapKind
from nodeagent.market.model.rows import TradeRow
from nodeagent.market.model.source import Channel, Purpose
from nodeagent.market.model.times import MS_NS, NS
from nodeagent.market.venues.binance.source import Binance
from nodeagent.market.venues.coinbase_advanced.source import CoinbaseAdvanced
from nodeagent.market.venues.coinbase_exchange.source import CoinbaseExchange
from tests.unit.market.line import Line


def test_a_full_channel_starts_with_a_question_for_the_orders() -> None:
    line = Line(CoinbaseExchange(), ["BTC-USD"])
    line.connect(channels=("full",))
    order = {"product_id": "BTC-USD", "side": "buy", "price": "99.00", "time": line.time()}
    line.send({"type": "open", "sequence": 11, "order_id": "a", "remaining_size": "2"} | order)
    (request,) = line.due()
    assert request.purpose is Purpose.ORDERS
    assert request.url.endswith("/products/BTC-USD/book?level=3")
    line.answer(request, {"sequence": 10, "bids": [["98.00", "1", "z"]], "asks": []})
    line.send(line.match(500, sequence=12, maker_order_id="a", side="buy"))
    levels = line.pipeline.state.connections[1].books["BTC-USD"].levels
    assert levels.top(0, 5) == [(scaled("99"), scaled("1.5")), (scaled("98"), scaled("1"))]
    line.send({"type": "done", "sequence": 14, "order_id": "a"} | order)
    assert [(g.first_id, g.last_id) for g in line.gaps(GapKind.BOOK_SEQUENCE)] == [(13, 13)]
    assert [a.purpose for a in line.due(after_s=6)] == [Purpose.ORDERS]


def depth(first: int, last: int, *bids: tuple[str, str], at_ns: int) -> dict[str, Any]:
    data = {"e": "depthUpdate", "E": at_ns // MS_NS, "s": "BTCUSDT", "U": first, "u": last, "b": bids, "a": []}
    return {"stream": "btcusdt@depth@100ms", "data": data}


def test_a_binance_book_joins_its_snapshot_and_asks_again_after_a_hole() -> None:
    line = Line(Binance(), ["BTCUSDT"])
    line.connect(channels=("trades", "book", "ticker"))
    line.send(depth(100, 104, ("99.0", "1"), at_ns=line.now_ns))
    line.send(depth(105, 107, ("98.0", "7"), at_ns=line.now_ns))
    (request,) = line.due()
    assert request.purpose is Purpose.BOOK_REPAIR
    assert request.url == "https://api.binance.com/api/v3/depth?symbol=BTCUSDT&limit=5000"
    line.answer(request, {"lastUpdateId": 105, "bids": [["99.0", "2"], ["98.0", "1"]], "asks": [["101.0", "1"]]})
    state = line.pipeline.state.connections[1].books["BTCUSDT"]
    assert state.is_synced
    assert state.book.bids == {scaled("99"): scaled("2"), scaled("98"): scaled("7")}
    line.send(depth(108, 108, ("97.0", "1"), at_ns=line.now_ns))
    line.send(depth(111, 112, ("96.0", "1"), at_ns=line.now_ns))
    assert [(g.first_id, g.last_id) for g in line.gaps(GapKind.BOOK_SEQUENCE)] == [(109, 110)]
    assert not line.is_synced("BTCUSDT")
    (request,) = line.due(after_s=6)
    line.answer(request, {"lastUpdateId": 110, "bids": [["99.0", "2"]], "asks": []})
    assert line.is_synced("BTCUSDT")
    assert state.book.bids == {scaled("99"): scaled("2"), scaled("96"): scaled("1")}


def test_binance_says_who_took_and_names_its_last_trade() -> None:
    line = Line(Binance(), ["BTCUSDT"])

    def trade(trade_id: int, is_buyer_maker: bool) -> dict[str, Any]:
        at_ms = line.now_ns // MS_NS
        data = {"e": "trade", "E": at_ms, "s": "BTCUSDT", "t": trade_id, "p": "100.0", "q": "1", "T": at_ms}
        return {"stream": "btcusdt@trade", "data": data | {"m": is_buyer_maker, "M": True}}

    def ticker(last: int) -> dict[str, Any]:
        data = {"e": "24hrTicker", "E": line.now_ns // MS_NS, "s": "BTCUSDT", "c": "100.0", "L": last}
        return {"stream": "btcusdt@ticker", "data": data}

    line.send(trade(7, True))
    line.send(trade(8, False))
    assert [row.aggressor_side for row in line.rows if isinstance(row, TradeRow)] == ["sell", "buy"]
    line.send(ticker(10))
    line.now_ns += NS
    line.send(ticker(10))
    assert [(g.first_id, g.last_id) for g in line.gaps(GapKind.TRADE_ID)] == [(9, 10)]
    (request,) = line.due(after_s=1)
    assert request.url.endswith("/historicalTrades?symbol=BTCUSDT&limit=1000&fromId=9")
    at_ms = line.now_ns // MS_NS
    past = {"price": "100", "qty": "1", "time": at_ms, "isBuyerMaker": True}
    line.answer(request, [past | {"id": 9}, past | {"id": 10}])
    assert line.trade_ids("BTCUSDT") == [7, 8, 9, 10]
    assert line.pipeline.state.missing_trades() == 0


def test_sources_say_what_the_venues_want_to_hear() -> None:
    products, channels = ["BTC-USD", "ETH-USD"], [Channel.HEARTBEAT, Channel.TRADES, Channel.BOOK]
    assert [json.loads(m) for m in CoinbaseAdvanced().subscribe(products, channels)] == [
        {"type": "subscribe", "product_ids": products, "channel": name}
        for name in ("heartbeats", "market_trades", "level2")
    ]
    assert [json.loads(m) for m in CoinbaseExchange().unsubscribe(products, channels)] == [
        {"type": "unsubscribe", "product_ids": products, "channels": ["heartbeat", "matches", "level2_batch"]}
    ]
    assert [json.loads(m) for m in Binance().subscribe(["BTCUSDT"], [Channel.TRADES, Channel.BOOK])] == [
        {"method": "SUBSCRIBE", "params": ["btcusdt@trade", "btcusdt@depth@100ms"], "id": "BTCUSDT"}
    ]
    both = ["BTCUSDT", "ETHUSDT"]
    assert [json.loads(m) for m in Binance().subscribe(both, [Channel.TRADES])] == [
        {"method": "SUBSCRIBE", "params": ["btcusdt@trade", "ethusdt@trade"], "id": 1}
    ]
