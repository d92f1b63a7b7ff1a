"""What is followed changes by a record; what a venue agrees to send is found out without harming the others."""

from __future__ import annotations

import json

from nodeagent.market.model.records import RecordKind
from nodeagent.market.model.rows import GapRow, HealthRow, NowRow
from nodeagent.market.model.source import Channel, RestRequest
from nodeagent.market.model.times import NS
from nodeagent.market.pipeline.quality import QualityState, quality
from nodeagent.market.pipeline.questions import Resubscribe, Subscribe
from nodeagent.market.pipeline.state import Output
from nodeagent.market.pipeline.subscriptions import ANSWER_WITHIN_NS, RETRY_MAX_NS, Subscriptions
from nodeagent.market.venues.binance.source import Binance
from nodeagent.market.venues.coinbase_advanced.source import CoinbaseAdvanced
from nodeagent.market.venues.coinbase_exchange.source import CoinbaseExchange
from tests.unit.market.line import Line, exchange

EVERY = (Channel.HEARTBEAT, Channel.TRADES, Channel.TICKER, Channel.BOOK, Channel.STATUS)


def follow(line: Line, *products: str) -> Output:
    return line.take(RecordKind.PRODUCTS, json.dumps({"products": products}).encode(), 0)


def test_frames_of_a_product_that_was_left_mean_nothing_and_harm_nobody() -> None:
    line = exchange()
    out = follow(line, "BTC-USD")
    assert [(row.product, row.state) for row in out.rows if isinstance(row, NowRow)] == [("ETH-USD", "gone")]
    assert [row.product for row in out.rows if isinstance(row, HealthRow)] == ["ETH-USD"]
    for late in (line.update(("buy", "98.50", "1"), product="ETH-USD"), line.match(101, "ETH-USD")):
        out = line.send(late)
        assert (out.rows, out.rejects) == ([], [])
    assert line.is_synced("BTC-USD")
    assert "ETH-USD" not in line.pipeline.state.products


def test_a_product_that_comes_back_starts_anew_and_looks_for_what_passed() -> None:
    line = exchange()
    follow(line, "BTC-USD")
    follow(line, "BTC-USD", "ETH-USD")
    assert not line.is_synced("ETH-USD")
    line.send(line.match(105, "ETH-USD", type="last_match"))
    assert quality(line.pipeline.state, "ETH-USD").reason == "4 trades are missing"
    line.send(line.snapshot("ETH-USD"))
    assert line.is_synced("ETH-USD")
    assert quality(line.pipeline.state, "BTC-USD").state is QualityState.GOOD


def test_an_open_hole_is_looked_for_again_when_the_product_comes_back() -> None:
    line = exchange()
    line.send(line.match(103, "ETH-USD"))
    assert line.pipeline.state.products["ETH-USD"].ledger.missing.total() == 2
    follow(line, "BTC-USD")
    follow(line, "BTC-USD", "ETH-USD")
    line.send(line.match(107, "ETH-USD", type="last_match"))
    assert quality(line.pipeline.state, "ETH-USD").reason == "5 trades are missing"
    (old, new) = line.due(after_s=1)
    assert [(asked.first_id, asked.last_id) for asked in (old, new)] == [(101, 102), (104, 106)]


def test_a_replay_from_before_a_change_knows_what_was_followed_then() -> None:
    line = Line(CoinbaseExchange(), ("BTC-USD",))
    opened = {"source": "coinbase-exchange", "url": "", "products": ["BTC-USD", "ETH-USD"], "channels": ["trades"]}
    line.take(RecordKind.CONNECT, json.dumps(opened).encode(), 1)
    line.send(line.match(7, "ETH-USD"))
    follow(line, "BTC-USD")
    assert line.trade_ids("ETH-USD") == [7]


def test_a_book_in_doubt_that_leaves_closes_the_connections_gap() -> None:
    line = exchange()
    connection = line.pipeline.state.connections[1]
    connection.books["ETH-USD"].doubt(line.now_ns)
    connection.open_gaps.append(line.pipeline.state.products["ETH-USD"].open_trade_hole(1, 2, 1, line.now_ns))
    assert [row.product for row in follow(line, "BTC-USD").rows if isinstance(row, GapRow)] == ["ETH-USD"]
    assert connection.open_gaps == []


def test_quality_says_what_is_wrong() -> None:
    line = Line(CoinbaseExchange(), ("BTC-USD",))
    feed = line.pipeline.state
    assert quality(feed, "BTC-USD").reason == "connecting to the venue"
    line.connect()
    assert quality(feed, "BTC-USD").reason == "waiting for its first data"
    line.send(line.match(1))
    assert quality(feed, "BTC-USD").reason == "waiting for the first snapshot of its order book"
    line.send(line.snapshot())
    assert quality(feed, "BTC-USD") == quality(feed, "BTC-USD").__class__(QualityState.GOOD)
    line.send(line.update(("buy", "102.50", "1")))
    assert quality(feed, "BTC-USD").state is QualityState.DOUBTFUL
    line.send(line.snapshot())
    line.now_ns += 11 * NS
    line.take(RecordKind.TICK, b"", 0)
    assert quality(feed, "BTC-USD").reason == "the venue has gone silent"
    line.take(RecordKind.DISCONNECT, b"", 1)
    assert quality(feed, "BTC-USD").reason == "not connected to the venue"


def test_a_row_of_now_comes_every_other_second_for_each_product() -> None:
    line = exchange()
    before = len(line.rows)
    for _ in range(4):
        line.now_ns += NS
        line.take(RecordKind.TICK, b"", 0)
    rows = [row for row in line.rows[before:] if isinstance(row, NowRow)]
    assert sorted({row.product for row in rows}) == ["BTC-USD", "ETH-USD"]
    assert len(rows) == 4
    assert {row.ts_ns % NS for row in rows} == {0}


def test_after_an_error_each_product_is_asked_for_alone() -> None:
    wanted = Subscriptions()
    wanted.asked(("A", "B", "C"), 0)
    assert wanted.due(NS) is None
    wanted.refused("failure to subscribe", NS)
    assert wanted.due(2 * NS) == "A"
    assert wanted.due(3 * NS) is None  # one at a time
    wanted.acknowledged(["A"])
    assert wanted.due(3 * NS) == "B"
    wanted.refused("failure to subscribe", 4 * NS)
    assert wanted.refusal("B") == "failure to subscribe"
    assert wanted.due(4 * NS) == "C"
    assert wanted.due(4 * NS + ANSWER_WITHIN_NS) is None
    assert wanted.refusal("C") == "the venue does not answer the subscription"
    assert wanted.due(4 * NS + RETRY_MAX_NS) == "B"  # it may be listed by now


def test_an_error_that_names_a_product_is_about_that_one() -> None:
    wanted = Subscriptions()
    wanted.asked(("BTC-USD", "BTC-USDX"), 0)
    wanted.refused("BTC-USDX is not a valid product", 1)
    assert (wanted.refusal("BTC-USD"), bool(wanted.refusal("BTC-USDX"))) == ("", True)
    assert wanted.due(2) == "BTC-USD"  # it was in the message that was refused


def test_a_product_asked_for_alone_goes_to_the_shell() -> None:
    line = Line(CoinbaseExchange(), ("BTC-USD", "NO-SUCH"))
    line.connect()
    line.send({"type": "error", "message": "Failed to subscribe", "reason": "NO-SUCH is not a valid product"})
    assert line.due() == [Subscribe(1, "BTC-USD")]
    assert quality(line.pipeline.state, "NO-SUCH").state is QualityState.FAILED
    assert not any(isinstance(a, Resubscribe) and "NO-SUCH" in a.products for a in line.due(after_s=20))


def test_channels_without_products_are_not_unsubscribed() -> None:
    said = [json.loads(message)["channel"] for message in CoinbaseAdvanced().unsubscribe(["A-USD"], EVERY)]
    assert said == ["market_trades", "ticker", "level2"]
    (message,) = CoinbaseExchange().unsubscribe(["A-USD"], EVERY)
    assert json.loads(message)["channels"] == ["heartbeat", "matches", "ticker", "level2_batch"]
    (message,) = Binance().unsubscribe(["AUSD"], EVERY)
    assert json.loads(message)["params"] == ["ausd@trade", "ausd@ticker", "ausd@depth@100ms"]


def test_binance_knows_a_wrong_name_by_its_list_alone() -> None:
    line = Line(Binance(), ("BTCUSDT", "NOSUCH"))
    line.connect()
    line.send({"result": None, "id": 1})
    asked = line.pipeline.due(line.now_ns + NS)
    listing = next(action for action in asked if isinstance(action, RestRequest) and not action.product)
    line.answer(listing, {"symbols": [{"symbol": "BTCUSDT", "status": "TRADING", "filters": []}]})
    assert quality(line.pipeline.state, "NOSUCH").reason == "binance does not list NOSUCH"
    assert quality(line.pipeline.state, "BTCUSDT").state is QualityState.STARTING
