"""What agents read from a real QuestDB: exact, aware of time, read-only, and clear when there is nothing."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from agentfarm.errors import InvalidRequest, Unavailable
from agentfarm.sdk.market import MarketData
from agentfarm.sdk.testing import farm_run
from nodeagent.market.store.endpoint import Endpoint
from nodeagent.market.store.sql import query_now

BRIEF = Path(__file__).parents[3] / "examples" / "market_brief"


@pytest.fixture
def market(questdb: Endpoint) -> MarketData:
    return MarketData(questdb.reader_url())


def ids(market: MarketData, **bounds: Any) -> list[int]:
    return [trade.trade_id for trade in market.trades("BTC-USD", **bounds)]


def test_trades_are_exact_and_in_order(market: MarketData) -> None:
    trades = market.trades("BTC-USD")
    assert [trade.trade_id for trade in trades] == [1, 2, 3, 4]
    first = trades[0]
    assert (first.price, first.size) == (Decimal("100.1"), Decimal("0.50000001"))
    assert first.at == datetime(2026, 1, 1, 0, 0, 0, 1, UTC)
    assert (first.venue, first.product, first.aggressor_side) == ("coinbase", "BTC-USD", "buy")
    assert str(trades[3].price) == "101"


def test_trades_by_time_id_and_window(market: MarketData) -> None:
    minute = datetime(2026, 1, 1, 0, 1, tzinfo=UTC)
    assert ids(market, since=minute) == [3, 4]
    assert ids(market, until=minute) == [1, 2]
    assert ids(market, first_trade_id=2, last_trade_id=3) == [2, 3]
    assert ids(market, minutes=9) == [3, 4]
    assert ids(market, minutes=1) == [4]
    assert ids(market, limit=2) == [1, 2]
    assert ids(market, venue="other") == []
    assert market.trades("NO-SUCH", minutes=5) == []
    assert market.newest("BTC-USD") == datetime(2026, 1, 1, 0, 10, tzinfo=UTC)
    assert market.newest("NO-SUCH") is None
    assert market.health("BTC-USD") is None


def now_row(questdb: Endpoint, product: str, state: str, reason: str = "", age_s: int = 0, source: str = "s") -> None:
    sql = (
        f"INSERT INTO feed_now VALUES (dateadd('s', {-age_s}, now()), 'coinbase', '{product}', '{source}', '{state}',"
        f" '{reason}', {3 if reason else 0}, 42, 1.5)"
    )
    query_now(questdb, sql)
    for _ in range(500):
        if query_now(questdb, f"SELECT state FROM feed_now WHERE product = '{product}' AND state = '{state}'").rows:
            return
        time.sleep(0.02)  # the write-ahead log is applied in the background, and nothing tells when
    raise AssertionError("the row did not become visible")


async def test_quality_is_an_answer_from_the_first_seconds_on(questdb: Endpoint, market: MarketData) -> None:
    assert "not held on this node" in market.quality("NEW-USD").reasons[0]
    now_row(questdb, "NEW-USD", "starting", "waiting for its first data", age_s=4)
    assert market.quality("NEW-USD").reasons == ("waiting for its first data",)
    now_row(questdb, "NEW-USD", "doubtful", "3 trades are missing", age_s=2)
    quality = await market.aquality("NEW-USD")
    assert (quality.is_good, quality.reasons, quality.missing_trades) == (False, ("3 trades are missing",), 3)
    now_row(questdb, "NEW-USD", "good")
    quality = market.quality("NEW-USD")
    assert quality
    assert (quality.reasons, quality.lag_ms) == ((), 1.5)
    assert quality.as_of is not None
    assert quality.as_of.tzinfo is UTC
    now_row(questdb, "NEW-USD", "gone", "", age_s=-1)
    assert market.quality("NEW-USD").reasons == ("NEW-USD is not held on this node any more",)


def test_old_words_are_no_news_and_the_best_source_counts(questdb: Endpoint, market: MarketData) -> None:
    now_row(questdb, "OLD-USD", "good", age_s=30)
    assert "it is behind, or dead" in market.quality("OLD-USD").reasons[0]
    assert market.quality("OLD-USD", max_age_s=60)
    now_row(questdb, "TWO-USD", "doubtful", "3 trades are missing", source="a")
    now_row(questdb, "TWO-USD", "good", age_s=1, source="b")
    assert market.quality("TWO-USD")


def test_without_market_data_no_product_is_good(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AGENTFARM_TSDB", raising=False)
    assert MarketData().quality("BTC-USD").reasons == ("This node has no market data.",)
    away = MarketData("postgresql://a:b@127.0.0.1:9/qdb").quality("BTC-USD")
    assert "cannot be reached" in away.reasons[0]


async def test_any_query_gives_rows_by_column(market: MarketData) -> None:
    sql = "SELECT trade_id, price FROM trades WHERE aggressor_side = %s AND ts < %s AND price > %s ORDER BY ts"
    values = ["buy", datetime(2026, 1, 1, 0, 5), Decimal("99.95")]  # noqa: DTZ001 - a naive time is UTC
    assert await market.aquery(sql, values) == [{"trade_id": 1, "price": Decimal("100.1")}]
    assert await market.aquery("SELECT '100%' AS text FROM long_sequence(1)") == [{"text": "100%"}]


def test_quotes_in_parameters_stay_data(market: MarketData) -> None:
    assert market.trades("x' OR '1' = '1") == []


def test_agents_cannot_write(market: MarketData) -> None:
    for sql in ("DROP TABLE trades", "INSERT INTO trades (ts) VALUES (now())", "CREATE TABLE mine (a INT)"):
        with pytest.raises(InvalidRequest):
            market.query(sql)
    assert ids(market) == [1, 2, 3, 4]


def test_wrong_sql_is_refused_in_the_databases_words(market: MarketData) -> None:
    with pytest.raises(InvalidRequest, match="refused"):
        market.query("SELEC 1")
    with pytest.raises(Unavailable, match="not there yet"):
        market.query("SELECT * FROM candles_2d")


async def test_many_questions_at_once(market: MarketData) -> None:
    answers = await asyncio.gather(*(market.atrades("BTC-USD") for _ in range(20)))
    assert {len(answer) for answer in answers} == {4}


def test_a_connection_that_died_is_replaced(market: MarketData) -> None:
    import socket

    assert ids(market) == [1, 2, 3, 4]
    with socket.socket(fileno=socket.dup(market._idle[0].fileno())) as line:
        line.shutdown(socket.SHUT_RDWR)
    assert ids(market) == [1, 2, 3, 4]


def test_no_database_and_no_server_are_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AGENTFARM_TSDB", raising=False)
    with pytest.raises(Unavailable, match="This node has no market data"):
        MarketData().query("SELECT 1")
    with pytest.raises(Unavailable, match="cannot be reached"):
        MarketData("postgresql://a:b@127.0.0.1:9/qdb").query("SELECT 1")


def test_the_market_brief_tells_what_is_stored(questdb: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    from agentfarm.sdk.market import market_data

    monkeypatch.setenv("AGENTFARM_TSDB", questdb.reader_url())
    market_data.cache_clear()
    output = farm_run(BRIEF, {"product": "BTC-USD", "last_trade_id": 3}).output
    assert (output["product"], output["trades"]) == ("BTC-USD", 3)
    figures = output["figures"]
    assert figures["volume"] == "3.50000001"
    assert figures["notional"] == "350.050001001"
    assert figures["vwap"] == "100.01428571"
    assert figures["imbalance"] == "0.42857143"
    assert (figures["low"], figures["high"], figures["range"]) == ("99.9", "100.2", "0.3")
    assert figures["realised_volatility"].startswith("0.00316038")
    assert figures["vwap"] in output["brief"]
    empty = farm_run(BRIEF, {"product": "BTC-USD", "since": "2027-01-01T00:00:00Z"}).output
    assert (empty["trades"], empty["figures"]) == (0, {})
    assert "the newest is of 2026-01-01T00:10:00+00:00" in empty["brief"]
    assert "no trades of XYZ" in farm_run(BRIEF, {"product": "XYZ"}).output["brief"]
    market_data.cache_clear()
