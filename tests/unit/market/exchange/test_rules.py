"""The venue's rules about connections, and its faults."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from itertools import count

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosedError, InvalidStatus

from agentfarm.errors import InvalidRequest
from nodeagent.market.exchange import ExchangeServer, Fault, FaultKind, HouseRules
from nodeagent.market.exchange.events import BookBatch, Opening, Product
from nodeagent.market.exchange.faults import FaultPlan, Frame, parse_faults
from nodeagent.market.exchange.limits import TokenBucket
from tests.unit.market.exchange.clients import client_of


async def test_connection_without_subscription_is_closed() -> None:
    async with ExchangeServer(house=HouseRules(subscribe_within_s=0.2)) as exchange, client_of(exchange) as client:
        code, reason = await client.end()
        assert (code, reason) == (1008, "no subscription in time")


async def test_quiet_subscription_is_closed_unless_heartbeats_keep_it() -> None:
    async with ExchangeServer(house=HouseRules(idle_close_s=1.5)) as exchange:
        exchange.pause()
        async with client_of(exchange) as quiet, client_of(exchange) as kept:
            await quiet.say(type="subscribe", product_ids=["BTC-USD"], channel="ticker")
            await kept.say(type="subscribe", product_ids=["BTC-USD"], channel="heartbeats")
            assert await quiet.end() == (1013, "no updates")
            await kept.hear_until(lambda m: m["channel"] == "heartbeats")


async def test_too_many_connections_are_refused() -> None:
    async with ExchangeServer() as exchange:
        statuses = []
        for _ in range(40):
            try:
                await (await connect(exchange.ws_url, close_timeout=0.1, proxy=None)).close()
            except InvalidStatus as refused:
                statuses.append(refused.response.status_code)
        assert statuses
        assert set(statuses) == {429}


async def test_client_that_talks_too_much_is_closed() -> None:
    async with ExchangeServer() as exchange, client_of(exchange) as client:
        for _ in range(20):
            await client.say(type="subscribe", product_ids=["BTC-USD"], channel="heartbeats")
        assert (await client.end())[0] == 1008


async def test_client_that_does_not_read_is_cut() -> None:
    async with (
        ExchangeServer(content=_Flood(), house=HouseRules(wait_for_subscriber=True, session_queue_max=100)) as exchange,
        connect(exchange.ws_url, max_queue=1, close_timeout=0.1, compression=None, proxy=None) as socket,
    ):
        assert exchange.sessions == 1
        await socket.send(json.dumps({"type": "subscribe", "product_ids": ["A-USD"], "channel": "level2"}))
        async with asyncio.timeout(20):
            await exchange.session_ended.wait()
        assert exchange.sessions == 0


class _Flood:
    """Large frames, two thousand a second."""

    start_ns = 0
    is_finite = False

    def openings(self) -> list[Opening]:
        return [Opening(Product("A-USD"), {"1.00": "1"}, {"2.00": "1"})]

    def batches(self) -> Iterator[BookBatch]:
        changes = tuple(("bid", f"0.{price:04}", "1") for price in range(1, 500))
        for number in count():
            yield BookBatch("A-USD", changes, number, number * 500_000)


async def test_connection_is_cut_in_the_middle_of_a_snapshot() -> None:
    async with ExchangeServer() as exchange, client_of(exchange) as client:
        exchange.inject(FaultKind.CLOSE_IN_SNAPSHOT)
        await client.say(type="subscribe", product_ids=["BTC-USD"], channel="level2")
        with pytest.raises(ConnectionClosedError):
            await client.hear()
        assert exchange.plan.happened[FaultKind.CLOSE_IN_SNAPSHOT] == 1


async def test_clock_step_moves_what_the_venue_says_of_time() -> None:
    async with ExchangeServer() as exchange:
        before_ns = exchange.now_ns()
        exchange.inject(FaultKind.CLOCK_STEP, seconds=3600)
        assert exchange.now_ns() - before_ns >= 3_600_000_000_000


async def test_rest_is_limited_and_can_be_made_to_refuse() -> None:
    async with ExchangeServer("exchange") as exchange, httpx.AsyncClient() as http:
        exchange.inject(FaultKind.TOO_MANY_REQUESTS)
        url = f"{exchange.rest_url}/products"
        statuses = [(await http.get(url)).status_code for _ in range(30)]
        assert statuses[0] == 429
        assert statuses[1] == 200
        assert 429 in statuses[2:]


@pytest.mark.parametrize(
    ("kind", "sent"),
    [
        (FaultKind.DROP, ["b", "c"]),
        (FaultKind.DUPLICATE, ["a", "a", "b", "c"]),
        (FaultKind.REORDER, ["b", "a", "c"]),
    ],
)
def test_faults_do_what_their_names_say(kind: FaultKind, sent: list[str]) -> None:
    plan = FaultPlan(1, [Fault(kind, count=1)])
    held: list[str] = []
    out = [text for letter in "abc" for text in plan.judge(Frame(letter, "x"), held).texts]
    assert out == sent
    assert plan.happened == {kind: 1}


@pytest.mark.parametrize("kind", [FaultKind.CORRUPT, FaultKind.TRUNCATE])
def test_damaged_frames_are_not_what_was_said(kind: FaultKind) -> None:
    frame = Frame('{"price":"12.5"}', "x")
    plan = FaultPlan(1, [Fault(kind, count=50)])
    for _ in range(50):
        (text,) = plan.judge(frame, []).texts
        assert text != frame.text


def test_rate_faults_spare_acknowledgements_and_other_channels() -> None:
    plan = FaultPlan(1, [Fault(FaultKind.DROP, rate=1.0, channel="match")])
    assert plan.judge(Frame("a", "match"), []).texts == []
    assert plan.judge(Frame("a", "match", is_control=True), []).texts == ["a"]
    assert plan.judge(Frame("a", "ticker"), []).texts == ["a"]


def test_fault_specification_is_read() -> None:
    drop, stall, close = parse_faults("drop=0.01, stall=0.001:5, close=2x")
    assert (drop.kind, drop.rate, drop.count) == (FaultKind.DROP, 0.01, 0)
    assert (stall.seconds, stall.rate) == (5.0, 0.001)
    assert (close.count, close.rate) == (2, 0.0)
    with pytest.raises(InvalidRequest, match="melt"):
        parse_faults("melt=1")


def test_token_bucket_gives_its_burst_and_then_its_rate() -> None:
    bucket = TokenBucket(8, 20)
    assert sum(bucket.take(0.0) for _ in range(30)) == 20
    assert sum(bucket.take(0.5) for _ in range(30)) == 4
