"""The session against the exchange: what is said, what is captured, and how it ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from itertools import count

import msgspec

from nodeagent.market.exchange import ExchangeServer, FaultKind
from nodeagent.market.model.records import Connected, RecordKind, RestAnswer
from nodeagent.market.model.source import Channel, Source, TradeHole, load_source
from nodeagent.market.session.pace import Pace
from nodeagent.market.session.rest import RestClient
from nodeagent.market.session.websocket import FeedSession, SessionSettings
from tests.unit.market.session.sinks import KeptSink

PRODUCTS = ("BTC-USD", "ETH-USD")


class _Signer:
    """Adds a secret."""

    def fields(self, now_s: int) -> Mapping[str, str]:
        return {"jwt": f"SECRET-{now_s}"}


def _source(exchange: ExchangeServer) -> Source:
    source = load_source(f"coinbase-{exchange.protocol}")
    source.websocket_url, source.rest_url = exchange.ws_url, exchange.rest_url
    return source


@asynccontextmanager
async def _session(
    exchange: ExchangeServer, *, silence_max_s: float | None = None
) -> AsyncIterator[tuple[FeedSession, KeptSink]]:
    sink, ids, source = KeptSink(), count(1), _source(exchange)
    settings = SessionSettings(source.default_channels, silence_max_s=silence_max_s)
    session = FeedSession(source, settings, sink, lambda: next(ids), _Signer(), products=PRODUCTS)
    task = asyncio.create_task(session.run())
    try:
        yield session, sink
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_connection_is_told_from_its_beginning_to_its_end() -> None:
    async with ExchangeServer("exchange") as exchange, _session(exchange) as (session, sink):
        await sink.until(lambda: len(sink.of(RecordKind.RECEIVED)) > 5)
        kind, connection_id, payload = sink.taken[0]
        assert (kind, connection_id) == (RecordKind.CONNECT, 1)
        opened = msgspec.json.decode(payload, type=Connected)
        assert (opened.source, opened.products) == ("coinbase-exchange", PRODUCTS)
        assert sink.taken[1][0] is RecordKind.SENT
        exchange.disconnect_all()
        await sink.until(lambda: len(sink.of(RecordKind.CONNECT)) == 2)
        assert len(sink.of(RecordKind.DISCONNECT)) == 1
        await sink.until(lambda: session.connection_id == 2)
        assert session.connects == 2


async def test_secrets_are_sent_and_never_captured() -> None:
    async with ExchangeServer("advanced") as exchange, _session(exchange) as (_, sink):
        await sink.until(lambda: len(sink.of(RecordKind.SENT)) >= 4)
        assert not any(b"SECRET" in payload for payload in sink.of(RecordKind.SENT))


async def test_resubscription_brings_fresh_snapshots_on_that_connection_alone() -> None:
    async with ExchangeServer("advanced") as exchange, _session(exchange) as (session, sink):
        await sink.until(lambda: _snapshots(sink) == 2)
        await session.resubscribe(99, PRODUCTS, (Channel.BOOK,))
        await session.resubscribe(1, ("BTC-USD",), (Channel.BOOK,))
        await sink.until(lambda: _snapshots(sink) == 3)
        sent = [payload for payload in sink.of(RecordKind.SENT) if b"unsubscribe" in payload]
        assert len(sent) == 1


async def test_silence_is_a_stall() -> None:
    async with ExchangeServer("advanced") as exchange, _session(exchange, silence_max_s=1.5) as (_, sink):
        await sink.until(lambda: len(sink.of(RecordKind.RECEIVED)) > 5)
        exchange.inject(FaultKind.STALL, seconds=60)
        await sink.until(lambda: len(sink.of(RecordKind.DISCONNECT)) == 1)
        assert b"nothing came for 1.5 s" in sink.of(RecordKind.DISCONNECT)[0]


async def test_pages_of_a_hole_are_followed_and_each_answer_is_captured() -> None:
    async with ExchangeServer("exchange") as exchange:
        source, sink = _source(exchange), KeptSink()
        client = RestClient(source, sink)
        newest = exchange.venue.markets["BTC-USD"].trades[-1].trade_id
        request = source.trades_request(TradeHole("BTC-USD", newest - 50, newest, 0, 0))
        assert request is not None
        await client.ask(request)
        answers = [RestAnswer.decode(payload) for payload in sink.of(RecordKind.REST)]
        found = {
            trade.trade_id for answer in answers for trade in source.parse_trades(answer.request, answer.body).trades
        }
        assert found >= set(range(newest - 50, newest + 1))
        exchange.inject(FaultKind.TOO_MANY_REQUESTS)
        await client.ask(request)
        assert RestAnswer.decode(sink.of(RecordKind.REST)[-1]).status == 429
        assert client.failures == 1
        await client.close()


async def test_unreachable_rest_is_counted_and_raises_nothing() -> None:
    source, sink = load_source("coinbase-exchange"), KeptSink()
    source.rest_url = "http://127.0.0.1:1"
    client = RestClient(source, sink)
    request = source.instruments_request()
    assert request is not None
    await client.ask(request)
    assert (client.failures, sink.taken) == (1, [])
    assert "127.0.0.1:1" in client.problem
    await client.close()


async def test_pace_lets_a_burst_pass_and_then_spaces() -> None:
    pace = Pace(1000.0, 1000)
    async with asyncio.timeout(5):
        for _ in range(1500):
            await pace.turn()


def _snapshots(sink: KeptSink) -> int:
    return sum(
        b'"l2_data"' in payload[:40] and b'"snapshot"' in payload[:200] for payload in sink.of(RecordKind.RECEIVED)
    )
