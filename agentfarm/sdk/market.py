"""Market data of the node an agent runs on: read-only questions to its QuestDB.

Owns the SQL of the common questions and the names of the columns they use (`trades`, `feed_health`, `feed_now`; see
the feed's rows). Prices and sizes are exact decimals, times aware and in UTC.
"""

from __future__ import annotations

import asyncio
import os
import re
import select
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import cache
from typing import Any, Final

from agentfarm.errors import InvalidRequest, Unavailable
from agentfarm.sdk.quality import MAX_AGE_S, QUALITY_SQL, Quality, judge, unknown

ROWS_MAX: Final = 1_000_000
CONNECT_TIMEOUT_S: Final = 5
CONNECTIONS_KEPT: Final = 4

_TRADES: Final = "SELECT ts, venue, product, trade_id, price, size, aggressor_side FROM trades WHERE "
_NEWEST: Final = "SELECT max(ts) AS ts FROM trades WHERE product = %s"
_HEALTH: Final = "SELECT * FROM feed_health WHERE product = %s ORDER BY ts DESC LIMIT 1"
_TABLE_MISSING: Final = re.compile(
    r"table does not exist \[table=(?:trades|ticker|book|book_change|feed_\w+|candles_\w+)\]"
)


@dataclass(frozen=True, slots=True)
class Trade:
    """A trade as stored."""

    at: datetime
    venue: str
    product: str
    trade_id: int
    price: Decimal
    size: Decimal
    aggressor_side: str
    """`buy` or `sell`: the side that took liquidity."""


class MarketData:
    """Questions to a QuestDB over the PostgreSQL wire. Safe to use from several threads; connects when first asked.

    Every question raises Unavailable where the node has no market data or its database is away, and InvalidRequest
    for SQL that the database refuses.
    """

    def __init__(self, url: str | None = None) -> None:
        self._url = url
        self._lock = threading.Lock()
        self._idle: list[Any] = []
        self._owner = os.getpid()

    def query(self, sql: str, params: Sequence[object] = ()) -> list[dict[str, Any]]:
        """Rows of any SELECT, at most ROWS_MAX; `%s` stands for a parameter."""
        given = tuple(map(_parameter, params))
        with self._connection() as connection, connection.cursor() as cursor:
            cursor.execute(sql, given or None)
            if cursor.description is None:
                return []
            names = [column.name for column in cursor.description]
            rows = cursor.fetchmany(ROWS_MAX + 1)
        if len(rows) > ROWS_MAX:
            raise InvalidRequest(f"The query has more than {ROWS_MAX:,} rows.", remedy="Add a LIMIT, or aggregate.")
        return [dict(zip(names, map(_value, row), strict=True)) for row in rows]

    async def aquery(self, sql: str, params: Sequence[object] = ()) -> list[dict[str, Any]]:
        """As `query`, in a thread."""
        return await asyncio.to_thread(self.query, sql, params)

    def trades(
        self,
        product: str,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        minutes: float | None = None,
        first_trade_id: int | None = None,
        last_trade_id: int | None = None,
        venue: str | None = None,
        limit: int = ROWS_MAX,
    ) -> list[Trade]:
        """Trades of a product, by time and trade id; `since` is included, `until` is not, both trade ids are.

        minutes: so many minutes, counted back from the newest stored trade. That may be old: a replayed capture keeps
        its own times.
        """
        if minutes is not None:
            newest = self.newest(product)
            if newest is None:
                return []
            since = newest - timedelta(minutes=minutes)
        bounds: list[tuple[str, object]] = [
            ("product = %s", product),
            ("ts >= %s", since),
            ("ts < %s", until),
            ("trade_id >= %s", first_trade_id),
            ("trade_id <= %s", last_trade_id),
            ("venue = %s", venue),
        ]
        used = [(clause, value) for clause, value in bounds if value is not None]
        where = " AND ".join(clause for clause, _ in used)
        sql = f"{_TRADES}{where} ORDER BY ts, trade_id LIMIT {int(limit)}"
        return [Trade(*row.values()) for row in self.query(sql, [value for _, value in used])]

    async def atrades(self, product: str, **bounds: Any) -> list[Trade]:
        """As `trades`, in a thread."""
        return await asyncio.to_thread(self.trades, product, **bounds)

    def newest(self, product: str) -> datetime | None:
        """The time of the newest trade of a product; None when there is none."""
        rows = self.query(_NEWEST, [product])
        time: datetime | None = rows[0]["ts"] if rows else None
        return time

    def health(self, product: str) -> dict[str, Any] | None:
        """How good a product's data was in its last full minute (`is_good`, `missing_trades`, `lag_ms`, …)."""
        rows = self.query(_HEALTH, [product])
        return rows[0] if rows else None

    def quality(self, product: str, *, max_age_s: float = MAX_AGE_S) -> Quality:
        """Whether the product's data is good now, and why not. It is right from a product's first seconds on.

        max_age_s: how old the feed's report may be. Always an answer, never an error: a node without market data, or
        whose database is away, has no good data.
        """
        try:
            return judge(product, self.query(QUALITY_SQL, [product]), max_age_s)
        except Unavailable as absent:
            return unknown(product, absent.problem)

    async def aquality(self, product: str, *, max_age_s: float = MAX_AGE_S) -> Quality:
        """As `quality`, in a thread."""
        return await asyncio.to_thread(self.quality, product, max_age_s=max_age_s)

    @contextmanager
    def _connection(self) -> Iterator[Any]:
        """A connection to use alone. It is kept for the next question unless this one broke it."""
        psycopg2 = _psycopg2()
        connection = self._idle_connection() or self._connected(psycopg2)
        try:
            yield connection
        except (psycopg2.OperationalError, psycopg2.InterfaceError) as error:
            connection.close()
            raise Unavailable(f"The market data of this node did not answer: {_reason(error)}.") from error
        except psycopg2.Error as error:
            connection.close()
            if _TABLE_MISSING.search(str(error)):
                raise Unavailable(
                    f"The market data of this node is not there yet: {_reason(error)}.",
                    remedy="The feed makes its tables when it starts; try again, or look at `SHOW TABLES`.",
                ) from error
            raise InvalidRequest(f"The query was refused: {_reason(error)}.") from error
        except BaseException:
            connection.close()
            raise
        else:
            self._keep(connection)

    def _idle_connection(self) -> Any | None:
        """An idle connection that still answers."""
        with self._lock:
            if self._owner != os.getpid():  # a fork: the connections are our parent's
                self._idle.clear()
                self._owner = os.getpid()
            while self._idle:
                connection = self._idle.pop()
                if _is_alive(connection):
                    return connection
                connection.close()
        return None

    def _keep(self, connection: Any) -> None:
        with self._lock:
            if len(self._idle) < CONNECTIONS_KEPT:
                self._idle.append(connection)
                return
        connection.close()

    def _connected(self, psycopg2: Any) -> Any:
        url = self._url or os.environ.get("AGENTFARM_TSDB", "")
        if not url:
            raise Unavailable(
                "This node has no market data.",
                remedy="Place the agent where it is: `placement: {capabilities: [questdb]}` in its spec.",
            )
        try:
            connection = psycopg2.connect(url, connect_timeout=CONNECT_TIMEOUT_S, application_name="agent")
        except psycopg2.Error as error:
            raise Unavailable(f"The market data of this node cannot be reached: {_reason(error)}.") from error
        connection.autocommit = True
        return connection


@cache
def market_data() -> MarketData:
    """The one of this process."""
    return MarketData()


def _is_alive(connection: Any) -> bool:
    """Whether an idle connection can be used. The server closing it shows as something to read."""
    if connection.closed:
        return False

    waiting = select.poll()
    waiting.register(connection, select.POLLIN)
    return not waiting.poll(0)


def _parameter(value: object) -> object:
    """Times as texts that QuestDB reads as timestamps, a naive one taken as UTC; decimals as exact literals."""
    if isinstance(value, datetime):
        aware = value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
        return aware.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    if isinstance(value, Decimal) and value.is_finite():
        from psycopg2.extensions import AsIs  # noqa: PLC0415 - a query runs: it is there

        return AsIs(f"{value:f}m")  # QuestDB's literal for an exact decimal; without the m it would be a double
    return value.isoformat() if isinstance(value, date) else value


def _value(value: Any) -> Any:
    """Naive times are UTC; decimals lose the zeros that the column's scale adds."""
    if isinstance(value, datetime) and value.tzinfo is None:
        return value.replace(tzinfo=UTC)
    if isinstance(value, Decimal) and value.is_finite():
        plain = value.normalize()
        return plain.quantize(Decimal(1)) if plain == plain.to_integral_value() else plain
    return value


def _reason(error: BaseException) -> str:
    return (" ".join(str(error).split()) or type(error).__name__).rstrip(".")


def _psycopg2() -> Any:
    try:
        import psycopg2  # noqa: PLC0415 - only for agents that read market data
    except ImportError as error:
        raise Unavailable(
            "psycopg2 is not installed here, which market data needs.",
            remedy="Name psycopg2-binary in the agent's requirements.txt.",
        ) from error
    return psycopg2
