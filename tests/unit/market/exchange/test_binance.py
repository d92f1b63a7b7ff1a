"""The Binance spot protocol, as the real venue documents it: streams, numbered books, answers and errors."""

from __future__ import annotations

import asyncio
import json
from decimal import Decimal
from itertools import pairwise
from typing import Any

import httpx
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from nodeagent.market.exchange import ExchangeServer, FaultKind, GeneratedContent, HouseRules
from nodeagent.market.exchange.binance.rest import WeightAllowance
from nodeagent.market.exchange.binance.stream import STREAMS_MAX, BinanceSession
from nodeagent.market.exchange.events import BookBatch, Opening, Product, TradeBatch, VenueTrade
from nodeagent.market.exchange.venue import Venue
from tests.unit.market.exchange.clients import WITHIN_S, client_of

MS_NS = 1_000_000


def _venue() -> Venue:
    trade = VenueTrade("BTCUSDT", 7, "1.00", "1", "BUY", 1)
    return Venue([Opening(Product("BTCUSDT"), {"1.00": "2"}, {"1.01": "3"}, [trade], {"price": "1.00"}, 1)])


def _said(session: BinanceSession, **message: Any) -> dict[str, Any]:
    (frame,) = session.receive(json.dumps(message), 0)
    answer: dict[str, Any] = json.loads(frame.text)
    return answer


def test_answers_repeat_the_id_in_each_of_its_forms() -> None:
    session = BinanceSession(_venue())
    for number in (1, -5, "BTCUSDT", None):
        assert _said(session, method="SUBSCRIBE", params=["btcusdt@trade"], id=number) == {"result": None, "id": number}
    assert _said(session, method="LIST_SUBSCRIPTIONS", id=3) == {"result": ["btcusdt@trade"], "id": 3}
    assert _said(session, method="UNSUBSCRIBE", params=["btcusdt@trade"], id=4) == {"result": None, "id": 4}
    assert not session.is_subscribed


@pytest.mark.parametrize(
    ("text", "code", "has_id"),
    [
        ("not json", 3, False),
        ('{"method":"DANCE","id":1}', 2, False),
        ('{"method":"SUBSCRIBE","params":["btcusdt@trade"],"id":"a b"}', 2, False),
        ('{"method":"SUBSCRIBE","params":["btcusdt@trade"],"id":1.5}', 2, False),
        ('{"method":"SUBSCRIBE","params":["BTCUSDT@trade"],"id":1}', 2, True),
        ('{"method":"SUBSCRIBE","params":["btcusdt@tardes"],"id":1}', 2, True),
        ('{"method":"SUBSCRIBE","params":"btcusdt@trade","id":1}', 2, True),
    ],
)
def test_wrong_messages_are_answered_with_an_error_and_change_nothing(text: str, code: int, has_id: bool) -> None:
    session = BinanceSession(_venue())
    (frame,) = session.receive(text, 0)
    said = json.loads(frame.text)
    assert (said["error"] if has_id else said)["code"] == code
    assert not session.is_subscribed


def test_a_symbol_that_is_not_listed_is_accepted_and_never_heard_of() -> None:
    session = BinanceSession(_venue())
    assert _said(session, method="SUBSCRIBE", params=["nousdt@ticker"], id=1) == {"result": None, "id": 1}
    assert session.second(0) == []


def test_a_connection_has_at_most_1024_streams() -> None:
    session = BinanceSession(_venue())
    names = [f"s{number}usdt@trade" for number in range(STREAMS_MAX + 1)]
    assert "1024" in _said(session, method="SUBSCRIBE", params=names, id=1)["error"]["msg"]
    assert _said(session, method="SUBSCRIBE", params=names[:-1], id=2)["result"] is None
    assert "error" in _said(session, method="SUBSCRIBE", params=names[-1:], id=3)


def test_a_trade_says_whether_the_buyer_made_it_in_milliseconds() -> None:
    session = BinanceSession(_venue(), "/stream?streams=btcusdt@trade")
    trades = tuple(VenueTrade("BTCUSDT", n, "1.5", "2", side, 5 * MS_NS) for n, side in ((8, "BUY"), (9, "SELL")))  # type: ignore[arg-type]
    first, second = (json.loads(f.text) for f in session.frames_of(TradeBatch("BTCUSDT", trades, 6 * MS_NS), 0))
    assert first == {
        "stream": "btcusdt@trade",
        "data": {"e": "trade", "E": 6, "s": "BTCUSDT", "t": 8, "p": "1.50000000", "q": "2.00000000"}
        | {"T": 5, "m": True, "M": True},
    }
    assert second["data"]["m"] is False


def test_a_raw_stream_is_not_wrapped() -> None:
    session = BinanceSession(_venue(), "/ws/btcusdt@trade")
    trade = VenueTrade("BTCUSDT", 8, "1.5", "2", "BUY", 5)
    (frame,) = session.frames_of(TradeBatch("BTCUSDT", (trade,), 6), 0)
    assert json.loads(frame.text)["e"] == "trade"


def test_depth_gathers_changes_for_100_ms_under_the_numbers_of_all_of_them() -> None:
    venue = _venue()
    session = BinanceSession(venue, "/stream?streams=btcusdt@depth@100ms")
    before = venue.markets["BTCUSDT"].update_id

    def change(price: str, size: str, at_ms: int) -> list[dict[str, Any]]:
        batch = BookBatch("BTCUSDT", (("bid", price, size),), 0, at_ms * MS_NS)
        venue.apply(batch)
        return [json.loads(frame.text)["data"] for frame in session.frames_of(batch, 0)]

    assert change("0.99", "1", 0) == []
    assert change("0.99", "2", 50) == []
    (first,) = change("0.98", "0", 100)
    assert (first["U"], first["u"]) == (before + 1, before + 3)
    assert first["b"] == [["0.99000000", "2.00000000"], ["0.98000000", "0.00000000"]]
    assert change("0.97", "1", 150) == []
    (rest,) = (json.loads(frame.text)["data"] for frame in session.second(200 * MS_NS))
    assert (rest["U"], rest["u"]) == (before + 4, before + 4)
    assert session.second(300 * MS_NS) == []


async def test_a_book_joined_as_documented_is_the_venues_and_trades_are_contiguous() -> None:
    content = GeneratedContent(("BTCUSDT", "ETHUSDT"), 3, 10**18, trades_per_s=20)
    async with ExchangeServer("binance", content=content) as exchange, client_of(exchange) as client:
        streams = ["btcusdt@depth@100ms", "btcusdt@trade", "btcusdt@ticker"]
        await client.say(method="SUBSCRIBE", params=streams, id=1)
        await client.hear_until(lambda m: m.get("stream") == "btcusdt@depth@100ms")
        snapshot = await _get(exchange, "depth?symbol=BTCUSDT&limit=5000")
        ticker = await client.hear_until(lambda m: m.get("stream") == "btcusdt@ticker" and len(client.heard) > 30)
        exchange.pause()
        await client.hear_until(lambda m: m.get("stream") == "btcusdt@ticker")
        end = await _get(exchange, "depth?symbol=BTCUSDT&limit=5000")
        deltas = [m["data"] for m in client.heard if m.get("stream") == "btcusdt@depth@100ms"]
        assert all(later["U"] == earlier["u"] + 1 for earlier, later in pairwise(deltas))
        sides = {side: dict(map(tuple, snapshot[name])) for side, name in (("b", "bids"), ("a", "asks"))}
        for delta in deltas:
            if delta["u"] > snapshot["lastUpdateId"]:
                for side, levels in sides.items():
                    levels.update(dict(delta[side]))
        for side, name in (("b", "bids"), ("a", "asks")):
            assert {p: s for p, s in sides[side].items() if Decimal(s)} == dict(map(tuple, end[name]))
        ids = [m["data"]["t"] for m in client.heard if m.get("stream") == "btcusdt@trade"]
        assert ids == list(range(ids[0], ids[0] + len(ids)))
        assert ids[0] <= ticker["data"]["L"] <= ids[-1]


async def test_rest_gives_trades_upwards_from_an_id_rules_and_named_errors() -> None:
    async with ExchangeServer("binance") as exchange:
        last = exchange.venue.markets["BTCUSDT"].last_trade_id
        page = await _get(exchange, f"historicalTrades?symbol=BTCUSDT&fromId={last - 20}&limit=5")
        assert [trade["id"] for trade in page] == list(range(last - 20, last - 15))
        assert len(str(page[0]["time"])) == 13
        newest = await _get(exchange, "trades?symbol=BTCUSDT&limit=2")
        assert newest[0]["id"] + 1 == newest[1]["id"]
        symbols = {entry["symbol"]: entry for entry in (await _get(exchange, "exchangeInfo"))["symbols"]}
        assert symbols.keys() == {"BTCUSDT", "ETHUSDT"}
        assert (symbols["BTCUSDT"]["baseAsset"], symbols["BTCUSDT"]["quoteAsset"]) == ("BTC", "USDT")
        assert symbols["BTCUSDT"]["filters"][0]["tickSize"] == "0.01000000"
        async with httpx.AsyncClient(trust_env=False) as http:
            wrong = await http.get(f"{exchange.rest_url}/depth?symbol=NOUSDT")
            assert (wrong.status_code, wrong.json()["code"]) == (400, -1121)
            assert (await http.get(f"{exchange.rest_url}/depth")).json()["code"] == -1102
            assert (await http.get(f"{exchange.rest_url}/nowhere")).status_code == 404


async def test_more_than_six_thousand_of_weight_is_429_and_who_goes_on_is_banned() -> None:
    async with ExchangeServer("binance") as exchange, httpx.AsyncClient(trust_env=False) as http:
        url = f"{exchange.rest_url}/depth?symbol=BTCUSDT&limit=5000"
        answers = [await http.get(url) for _ in range(32)]
        assert [answer.status_code for answer in answers] == [200] * 24 + [429] * 6 + [418] * 2
        assert answers[23].headers["X-MBX-USED-WEIGHT-1M"] == "6000"
        assert 1 <= int(answers[24].headers["Retry-After"]) <= 60
        assert int(answers[-1].headers["Retry-After"]) == 120
        assert exchange.refused == {429: 6, 418: 2}


@example(now_s=6.579449976551466, seconds=60)  # + 60 - the same is 60.00000000000001
@given(now_s=st.floats(0, 1e9), seconds=st.integers(1, 120))
def test_whoever_is_refused_for_so_long_is_told_just_that(now_s: float, seconds: int) -> None:
    refusal = WeightAllowance().refuse(seconds, now_s)
    assert refusal.headers["Retry-After"] == str(seconds)


async def test_connection_is_closed_after_its_day_and_there_is_no_stream_elsewhere() -> None:
    async with ExchangeServer("binance", house=HouseRules(lives_s=0.3)) as exchange, client_of(exchange) as client:
        assert (await client.end())[0] == 1001
        with pytest.raises(InvalidStatus):
            await connect(exchange.ws_url.replace("/stream", "/feed"), proxy=None)


async def test_the_server_pings() -> None:
    async with ExchangeServer("binance", house=HouseRules(ping_every_s=0.1)) as exchange, client_of(exchange) as client:
        pinged = asyncio.Event()
        process = client.socket.process_event

        def spy(event: Any) -> None:
            if getattr(event, "opcode", None) == 9:
                pinged.set()
            process(event)

        client.socket.process_event = spy  # type: ignore[method-assign]
        async with asyncio.timeout(WITHIN_S):
            await pinged.wait()


async def test_six_messages_a_second_are_too_many_pings_included() -> None:
    async with ExchangeServer("binance") as exchange, client_of(exchange) as talker, client_of(exchange) as pinger:
        for number in range(6):
            await talker.say(method="LIST_SUBSCRIPTIONS", id=number)
            await pinger.socket.ping()
        assert (await talker.end())[0] == 1008
        assert (await pinger.end())[0] == 1008


async def test_a_server_that_shuts_down_says_so_first() -> None:
    async with ExchangeServer("binance") as exchange, client_of(exchange) as client:
        await client.say(method="SUBSCRIBE", params=["btcusdt@ticker"], id=1)
        await client.hear()
        exchange.inject(FaultKind.SHUTDOWN)
        said = await client.hear_until(lambda m: m.get("stream") == "!serverShutdown")
        assert said["data"]["e"] == "serverShutdown"
        assert (await client.end())[0] == 1001


async def test_a_snapshot_over_rest_can_be_cut_in_its_middle() -> None:
    async with ExchangeServer("binance") as exchange, httpx.AsyncClient(trust_env=False) as http:
        exchange.inject(FaultKind.CLOSE_IN_SNAPSHOT)
        with pytest.raises(httpx.RemoteProtocolError):
            await http.get(f"{exchange.rest_url}/depth?symbol=BTCUSDT&limit=5000")
        exchange.inject(FaultKind.TOO_MANY_REQUESTS, seconds=7)
        refused = await http.get(f"{exchange.rest_url}/depth?symbol=BTCUSDT")
        assert (refused.status_code, refused.headers["Retry-After"]) == (429, "7")


async def _get(exchange: ExchangeServer, question: str) -> Any:
    async with httpx.AsyncClient(trust_env=False) as http:
        answer = await http.get(f"{exchange.rest_url}/{question}")
    assert answer.status_code == 200
    return answer.json()
