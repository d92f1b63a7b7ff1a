"""A session and questions against Binance's rules: what is said, how fast, and what is heeded."""

from __future__ import annotations

import asyncio
from itertools import count

from nodeagent.market.exchange import ExchangeServer, FaultKind
from nodeagent.market.model.records import RecordKind, RestAnswer
from nodeagent.market.model.source import Purpose, RestRequest, Source, load_source
from nodeagent.market.session.rest import RestClient
from nodeagent.market.session.websocket import FeedSession, SessionSettings
from tests.unit.market.session.sinks import KeptSink

PRODUCTS = ("BTCUSDT", "ETHUSDT")


def _source(exchange: ExchangeServer) -> Source:
    source = load_source("binance")
    source.websocket_url, source.rest_url = exchange.ws_url, exchange.rest_url
    return source


def _book(source: Source, product: str = "BTCUSDT") -> RestRequest:
    request = source.book_request(product, Purpose.BOOK_REPAIR)
    assert request is not None
    return request


async def test_products_that_come_and_go_quickly_stay_below_five_messages_a_second() -> None:
    async with ExchangeServer("binance") as exchange:
        source, sink, ids = _source(exchange), KeptSink(), count(1)
        session = FeedSession(
            source, SessionSettings(source.default_channels), sink, lambda: next(ids), products=PRODUCTS
        )
        task = asyncio.create_task(session.run())
        await sink.until(lambda: len(sink.of(RecordKind.RECEIVED)) > 2)
        for _ in range(4):
            session.follow(PRODUCTS[:1])
            await session.change([], PRODUCTS[1:])
            session.follow(PRODUCTS)
            await session.change(PRODUCTS[1:], [])
        told = len(sink.of(RecordKind.RECEIVED))
        await sink.until(lambda: len(sink.of(RecordKind.RECEIVED)) > told + 20)
        assert session.connects == 1, sink.of(RecordKind.DISCONNECT)
        assert len(sink.of(RecordKind.SENT)) == 9
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_forty_books_at_once_are_not_refused() -> None:
    products = tuple(f"P{number}USDT" for number in range(40))
    async with ExchangeServer("binance", products=products) as exchange:
        source, sink = _source(exchange), KeptSink()
        client = RestClient(source, sink)
        asking = [asyncio.create_task(client.ask(_book(source, product))) for product in products]
        await sink.until(lambda: len(sink.of(RecordKind.REST)) >= 10)  # as many as the budget has at once
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)
        assert exchange.refused == {}
        assert client.requests < len(products)
        await client.close()


async def test_a_question_under_way_is_not_put_twice() -> None:
    async with ExchangeServer("binance") as exchange:
        source, sink = _source(exchange), KeptSink()
        client = RestClient(source, sink)
        await asyncio.gather(*(client.ask(_book(source)) for _ in range(5)))
        assert client.requests == 1
        await client.ask(_book(source))
        assert client.requests == 2
        await client.close()


async def test_retry_after_is_heeded() -> None:
    async with ExchangeServer("binance") as exchange:
        source, sink = _source(exchange), KeptSink()
        client = RestClient(source, sink)
        exchange.inject(FaultKind.TOO_MANY_REQUESTS, seconds=1)
        await client.ask(_book(source))
        assert RestAnswer.decode(sink.of(RecordKind.REST)[0]).status == 429
        assert "asked nothing for 1 s" in client.problem
        assert client.is_waiting
        for _ in range(20):
            await client.ask(_book(source))
        assert (client.requests, client.failures) == (1, 1)
        assert exchange.refused == {429: 1}
        await client.close()


async def test_a_question_about_a_connection_that_is_gone_is_dropped() -> None:
    async with ExchangeServer("binance") as exchange:
        source = _source(exchange)
        client = RestClient(source, KeptSink(), is_wanted=lambda request: False)
        await client.ask(_book(source))
        assert client.requests == 0
        await client.close()
