"""The Advanced Trade protocol, as the real venue speaks it."""

from __future__ import annotations

import pytest

from nodeagent.market.exchange import ExchangeServer
from nodeagent.market.exchange.coinbase.advanced import AdvancedSession
from nodeagent.market.exchange.events import BookBatch, Opening, Product, TradeBatch, VenueTrade
from nodeagent.market.exchange.venue import Venue
from tests.unit.market.exchange.clients import client_of

BOTH = ["BTC-USD", "ETH-USD"]


async def test_sequence_counts_every_frame_of_a_connection_from_zero() -> None:
    async with ExchangeServer("advanced") as exchange, client_of(exchange) as client:
        for channel in ("heartbeats", "market_trades", "level2", "ticker"):
            await client.say(type="subscribe", product_ids=BOTH, channel=channel)
        await client.hear_until(lambda m: m["channel"] == "heartbeats")
        assert [message["sequence_num"] for message in client.heard] == list(range(len(client.heard)))
        assert {message["channel"] for message in client.heard} >= {"subscriptions", "l2_data", "market_trades"}


async def test_snapshot_comes_before_its_cumulative_acknowledgement() -> None:
    async with ExchangeServer("advanced") as exchange, client_of(exchange) as client:
        exchange.pause()
        await client.say(type="subscribe", product_ids=["BTC-USD"], channel="level2")
        await client.say(type="subscribe", product_ids=["ETH-USD"], channel="market_trades")
        said = [await client.hear() for _ in range(4)]
        assert [message["channel"] for message in said] == [
            "l2_data",
            "subscriptions",
            "market_trades",
            "subscriptions",
        ]
        assert said[0]["events"][0]["type"] == "snapshot"
        assert said[3]["events"] == [{"subscriptions": {"level2": ["BTC-USD"], "market_trades": ["ETH-USD"]}}]


async def test_trades_are_newest_first_and_continue_the_snapshot() -> None:
    async with ExchangeServer("advanced", seed=2) as exchange, client_of(exchange) as client:
        await client.say(type="subscribe", product_ids=["BTC-USD"], channel="market_trades")
        await client.hear_until(lambda m: m["channel"] == "market_trades" and m["events"][0]["type"] == "update")
        trades = [event["trades"] for m in client.heard if m["channel"] == "market_trades" for event in m["events"]]
        for batch in trades:
            ids = [int(trade["trade_id"]) for trade in batch]
            assert ids == sorted(ids, reverse=True)
        assert len(trades[0]) == 100
        assert int(trades[1][-1]["trade_id"]) == int(trades[0][0]["trade_id"]) + 1
        assert isinstance(trades[0][0]["trade_id"], str)


async def test_book_of_updates_equals_a_later_snapshot() -> None:
    async with ExchangeServer("advanced", seed=3) as exchange, client_of(exchange) as client:
        await client.say(type="subscribe", product_ids=["BTC-USD"], channel="level2")
        for _ in range(40):
            await client.hear()
        exchange.pause()
        await client.say(type="unsubscribe", product_ids=["BTC-USD"], channel="level2")
        await client.hear_until(lambda m: m["channel"] == "subscriptions" and len(client.heard) > 3)
        book = _book([m for m in client.heard if m["channel"] == "l2_data"])
        await client.say(type="subscribe", product_ids=["BTC-USD"], channel="level2")
        snapshot = await client.hear_until(lambda m: m["channel"] == "l2_data")
        assert book == _book([snapshot])
        assert {side for side, _ in book} == {"bid", "offer"}


def test_empty_update_still_counts() -> None:
    session = AdvancedSession(_venue())
    session.receive('{"type":"subscribe","channel":"level2","product_ids":["A-USD"]}', 0)
    frames = session.frames_of(BookBatch("A-USD", (), 5, 5), 5) + session.frames_of(BookBatch("A-USD", (), 6, 6), 6)
    assert ['"sequence_num":2' in frames[0].text, '"updates":[]' in frames[1].text] == [True, True]


def test_a_session_hears_only_what_it_subscribed_to() -> None:
    session = AdvancedSession(_venue())
    session.receive('{"type":"subscribe","channel":"level2","product_ids":["A-USD"]}', 0)
    trade = VenueTrade("A-USD", 8, "1.00", "1", "BUY", 5)
    assert session.frames_of(TradeBatch("A-USD", (trade,), 5), 5) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("not json", "failure to parse"),
        ('{"type":"subscribe","channel":"nonsense"}', "failure to subscribe"),
        ('{"type":"subscribe","channel":"level2","product_ids":["NO-USD"]}', "failure to subscribe"),
        ('{"type":"subscribe","channel":"user"}', "authentication failure"),
        ('{"type":"dance","channel":"level2"}', "unknown type"),
    ],
)
def test_wrong_messages_are_answered_with_an_error(text: str, message: str) -> None:
    (frame,) = AdvancedSession(_venue()).receive(text, 0)
    assert message in frame.text
    assert '"type": "error"' in frame.text


def _venue() -> Venue:
    trade = VenueTrade("A-USD", 7, "1.00", "1", "BUY", 1)
    return Venue([Opening(Product("A-USD"), {"1.00": "2"}, {"1.01": "3"}, [trade], {"price": "1.00"}, 1)])


def _book(messages: list[dict[str, list[dict[str, list[dict[str, str]]]]]]) -> dict[tuple[str, str], str]:
    book: dict[tuple[str, str], str] = {}
    for message in messages:
        for event in message["events"]:
            for update in event["updates"]:
                key = update["side"], update["price_level"]
                if float(update["new_quantity"]):
                    book[key] = update["new_quantity"]
                else:
                    book.pop(key, None)
    return book
