"""The writer against a real server: what is refused, what is left out, what comes later."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal

import pytest

from nodeagent.market.model.rows import BookRow, TickerRow, TradeRow
from nodeagent.market.model.times import MINUTE_NS
from nodeagent.market.store.endpoint import Endpoint
from nodeagent.market.store.server import QuestDBServer
from nodeagent.market.store.sql import query
from nodeagent.market.writer.drops import Drops
from nodeagent.market.writer.writer import AnyRow, Mark, RowWriter, WriterSettings
from tests.integration.market.feeds import until

pytestmark = pytest.mark.asyncio(loop_scope="session")

NOW_NS = 1_786_309_548_170_326_000


class _Heard:
    """What the writer called back."""

    def __init__(self) -> None:
        self.marks: list[int] = []
        self.drops: Drops = ()
        self.refused: list[tuple[AnyRow, str]] = []


@asynccontextmanager
async def writing(endpoint: Endpoint, drops: Drops = (), **settings: float) -> AsyncIterator[tuple[RowWriter, _Heard]]:
    """A running writer."""
    heard = _Heard()

    def acknowledged(mark: Mark) -> None:
        heard.marks.append(mark.position)
        heard.drops = mark.drops

    writer = RowWriter(
        lambda: endpoint,
        WriterSettings(**{"flush_interval_s": 0.05, **settings}),  # type: ignore[arg-type]
        source="test",
        on_ack=acknowledged,
        drops=drops,
        on_refused=lambda row, problem: heard.refused.append((row, problem)),
    )
    writer.start()
    try:
        yield writer, heard
    finally:
        await writer.stop(5.0)


def trade(trade_id: int, price: str = "1.5") -> TradeRow:
    return TradeRow(NOW_NS, "v", "A-USD", "test", "buy", trade_id, Decimal(price), Decimal("0.000000000001"), NOW_NS)


async def test_one_row_that_questdb_refuses_does_not_hold_up_the_others(server: QuestDBServer) -> None:
    async with writing(server.endpoint) as (writer, heard):
        writer.put([trade(1), trade(2, price="1E-20"), trade(3)])
        writer.mark(Mark(77, None))
        await until("the batch is acknowledged", lambda: heard.marks == [77])
        ((row, problem),) = heard.refused
        assert row == trade(2, price="1E-20")
        assert "loss of precision" in problem
        assert writer.counts.refused == 1
        assert writer.counts.problem == ""
    await until("the others are stored", lambda: _ids(server.endpoint, [1, 3]))


async def test_server_without_tables_is_given_them(server: QuestDBServer) -> None:
    for name in (
        "MATERIALIZED VIEW candles_1h",
        "MATERIALIZED VIEW candles_5m",
        "MATERIALIZED VIEW candles_1m",
        "TABLE trades",
    ):
        await query(server.endpoint, f"DROP {name}")
    await query(server.endpoint, "DROP TABLE schema_version")
    async with writing(server.endpoint) as (writer, heard):
        writer.put([trade(1)])
        writer.mark(Mark(1, None))
        await until("it is stored", lambda: heard.marks == [1])
        assert heard.refused == []
    await until("it can be read", lambda: _ids(server.endpoint, [1]))


async def test_nothing_is_acknowledged_before_the_server_has_it() -> None:
    nowhere = Endpoint("127.0.0.1", 1, 0)
    async with writing(nowhere, queue_max=10) as (writer, heard):
        writer.put([trade(number) for number in range(11)])
        writer.mark(Mark(5, None))
        assert not writer.has_room
        await until("it was tried more than once", lambda: writer.counts.retries >= 2)
        assert heard.marks == []
        assert "cannot be reached" in writer.counts.problem
        assert not await writer.stop(0.1), "rows are left: they are in the capture"
        assert heard.marks == []


async def test_rows_left_out_are_counted_where_agents_can_ask(server: QuestDBServer) -> None:
    price = Decimal(1)
    ticker = TickerRow(NOW_NS, "v", "A-USD", "test", price, price, None, price, None, None)
    book = BookRow(NOW_NS, "v", "A-USD", "test", price, price, ((1.0, 0.5), (2.0, 3.0)), ((), ()), 2, 0, False)
    async with writing(server.endpoint) as (writer, heard):
        writer.leave_out(frozenset({"ticker", "book_change"}))
        writer.put([ticker, trade(1), book])
        writer.mark(Mark(1, None))
        await until("the batch is acknowledged", lambda: heard.marks == [1])
        assert writer.counts.dropped == {"ticker": 1}
    await until("the trade is stored", lambda: _ids(server.endpoint, [1]))
    await until("the drop is counted", lambda: _has_rows(server.endpoint, "feed_drop"))
    await until("the book is stored", lambda: _has_rows(server.endpoint, "book"))
    dropped = await query(server.endpoint, "SELECT source, what, rows FROM feed_drop")
    assert dropped.rows == (("test", "ticker", 1),)
    assert (await query(server.endpoint, "SELECT count() FROM ticker")).rows == ((0,),)
    stored = await query(server.endpoint, "SELECT bids, asks, bid_levels FROM book")
    assert stored.rows == (([[1.0, 0.5], [2.0, 3.0]], [], 2),)


async def test_drops_are_counted_once_across_the_death_of_the_writer(server: QuestDBServer) -> None:
    price = Decimal(1)
    tickers = [TickerRow(NOW_NS + n, "v", "A-USD", "test", price, price, None, price, None, None) for n in range(5)]
    minute = time.time_ns() // MINUTE_NS - 1
    async with writing(server.endpoint, drops=((minute, "ticker", 7),)) as (writer, heard):
        writer.leave_out(frozenset({"ticker"}))
        writer.put([trade(1), *tickers[:2]])
        writer.mark(Mark(1, None))
        writer.put(tickers[2:])  # in the same batch, after the mark: a successor makes them again
        await until("the batch is acknowledged", lambda: bool(heard.marks))
        ((now, what, count),) = heard.drops
        assert (what, count) == ("ticker", 2)
    await until("a past minute's count is stored", lambda: _has_rows(server.endpoint, "feed_drop"))
    async with writing(server.endpoint, drops=heard.drops) as (writer, heard):
        writer.leave_out(frozenset({"ticker"}))
        writer.put([*tickers[2:], trade(2)])
        writer.mark(Mark(2, None))
        await until("the batch is acknowledged", lambda: bool(heard.marks))
    await until("the trade is stored", lambda: _ids(server.endpoint, [1, 2]))

    async def are_all_counted() -> bool:
        rows = (await query(server.endpoint, "SELECT sum(rows) FROM feed_drop")).rows
        return rows == ((7 + len(tickers),),)

    await until("each drop is counted once", are_all_counted)
    assert now >= minute


async def test_a_lone_row_can_be_read_though_none_comes_behind_it(server: QuestDBServer) -> None:
    """How soon is `benchmarks.ingest`'s to judge."""
    async with writing(server.endpoint, flush_interval_s=0.2) as (writer, _heard):
        for number in range(5):
            writer.put([trade(number)])
            await until("it can be read", lambda number=number: _ids(server.endpoint, list(range(number + 1))))


async def _ids(endpoint: Endpoint, ids: list[int]) -> bool:
    answer = await query(endpoint, "SELECT trade_id FROM trades ORDER BY trade_id")
    return [row[0] for row in answer.rows] == ids


async def _has_rows(endpoint: Endpoint, table: str) -> bool:
    return bool((await query(endpoint, f"SELECT count() FROM {table}")).rows[0][0])
