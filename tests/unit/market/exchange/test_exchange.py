"""The Coinbase Exchange protocol, as the real venue speaks it."""

from __future__ import annotations

from itertools import pairwise

import pytest

from nodeagent.market.exchange import ExchangeServer
from nodeagent.market.exchange.coinbase.exchange import ExchangeSession
from nodeagent.market.exchange.events import BookBatch, Opening, Product, VenueTrade
from nodeagent.market.exchange.venue import Venue
from tests.unit.market.exchange.clients import client_of


async def test_level2_batch_is_acknowledged_under_its_other_name() -> None:
    async with ExchangeServer("exchange") as exchange, client_of(exchange) as client:
        await client.say(type="subscribe", product_ids=["BTC-USD"], channels=["level2_batch", "matches"])
        acknowledged = await client.hear()
        assert acknowledged == {
            "type": "subscriptions",
            "channels": [
                {"name": "level2_50", "product_ids": ["BTC-USD"], "account_ids": None},
                {"name": "matches", "product_ids": ["BTC-USD"], "account_ids": None},
            ],
        }


async def test_matches_begin_with_a_last_match_and_are_contiguous() -> None:
    async with ExchangeServer("exchange", seed=4) as exchange, client_of(exchange) as client:
        await client.say(type="subscribe", product_ids=["BTC-USD"], channels=["matches", "heartbeat"])
        beat = await client.hear_until(lambda m: m["type"] == "heartbeat" and len(client.heard) > 10)
        kinds = [m["type"] for m in client.heard if "match" in m["type"]]
        ids = [m["trade_id"] for m in client.heard if "match" in m["type"]]
        assert kinds[0] == "last_match"
        assert set(kinds[1:]) == {"match"}
        assert ids == list(range(ids[0], ids[0] + len(ids)))
        assert beat["last_trade_id"] == ids[-1]
        assert beat["time"].endswith(".000000Z")
        sequences = [m["sequence"] for m in client.heard if "sequence" in m]
        assert all(later - earlier > 1 for earlier, later in pairwise(sequences))


async def test_root_products_apply_to_every_named_channel() -> None:
    async with ExchangeServer("exchange") as exchange, client_of(exchange) as client:
        await client.say(
            type="subscribe",
            product_ids=["BTC-USD"],
            channels=["heartbeat", {"name": "ticker", "product_ids": ["ETH-USD"]}],
        )
        channels = {c["name"]: c["product_ids"] for c in (await client.hear())["channels"]}
        assert channels == {"heartbeat": ["BTC-USD"], "ticker": ["BTC-USD", "ETH-USD"]}


def test_removal_is_written_with_eight_zeros_and_books_have_no_number() -> None:
    session = ExchangeSession(_venue())
    session.receive('{"type":"subscribe","product_ids":["A-USD"],"channels":["level2_batch"]}', 0)
    (frame,) = session.frames_of(BookBatch("A-USD", (("bid", "1.00", "0"),), 5, 5), 5)
    assert '["buy","1.00","0.00000000"]' in frame.text
    assert "sequence" not in frame.text


@pytest.mark.parametrize(
    ("channel", "reason"),
    [("full", "requires authentication"), ("level2", "requires authentication"), ("nonsense", "not a valid channel")],
)
def test_channels_that_cannot_be_had_are_refused_by_name(channel: str, reason: str) -> None:
    said = f'{{"type":"subscribe","product_ids":["A-USD"],"channels":["{channel}"]}}'
    (frame,) = ExchangeSession(_venue()).receive(said, 0)
    assert reason in frame.text


def _venue() -> Venue:
    trade = VenueTrade("A-USD", 7, "1.00", "1", "BUY", 1)
    return Venue([Opening(Product("A-USD"), {"1.00": "2"}, {"1.01": "3"}, [trade], {"price": "1.00"}, 1)])
