"""Questions to QuestDB about what is stored, as SQL and as answers with types; the list of gaps. Reads only."""

from __future__ import annotations

import time
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final

import msgspec

from agentfarm.errors import Conflict, InvalidRequest
from nodeagent.market.audit.report import Tell
from nodeagent.market.audit.trades import Seen, runs, utc_text
from nodeagent.market.model.rows import GapRow
from nodeagent.market.model.times import parse_time_ns
from nodeagent.market.store.endpoint import Endpoint
from nodeagent.market.store.sql import query_now

TIMEOUT_S: Final = 60.0
VISIBLE_WITHIN_S: Final = 10.0
LOOK_EVERY_S: Final = 0.05
STRAYS_MAX: Final = 500
"""Captured trades that are not where their time says are looked for by id alone, at most so many."""
GAPS_MAX: Final = 10_000
NAME_CHARS: Final = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.:/")


class Gap(msgspec.Struct, frozen=True):
    """A row of feed_gap. Times are text in UTC."""

    product: str
    """Empty: the whole connection."""
    source: str
    kind: str
    first_id: int
    last_id: int
    found_at: str
    repaired_at: str | None
    open_s: float
    """How long it was open, or is."""


class Stored(msgspec.Struct, frozen=True):
    """What a range of trade ids holds."""

    rows: int
    distinct: int


class Tables:
    """One QuestDB."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint

    def names(self) -> set[str]:
        """The tables there are. Raises Unavailable when the server does not answer."""
        return {str(name) for (name,) in self._ask("SELECT table_name FROM tables()")}

    def suspended(self) -> list[str]:
        """Tables that take rows and show none of them."""
        return [str(name) for (name,) in self._ask("SELECT table_name FROM tables() WHERE table_suspended")]

    def until_visible(self, table: str) -> bool:
        """Wait until the rows that the table has taken can be read. False when that does not happen in time."""
        sql = f"SELECT wal_txn, table_txn FROM tables() WHERE table_name = {_text(table)}"  # noqa: S608 - checked
        deadline_s = time.monotonic() + VISIBLE_WITHIN_S
        transactions = None
        while time.monotonic() < deadline_s:
            rows = self._ask(sql)
            if not rows or rows[0][0] is None:
                return True
            transactions = rows[0][0] if transactions is None else transactions
            if (rows[0][1] or 0) >= transactions:
                return True
            time.sleep(LOOK_EVERY_S)
        return False

    def trades(self, venue: str, product: str, captured: Mapping[int, Seen]) -> dict[int, list[Seen]]:
        """The stored trades of these ids, and perhaps of others between them."""
        stored: dict[int, list[Seen]] = {}
        for first, last in runs(captured):
            times = [seen.ts_us for trade_id, seen in captured.items() if first <= trade_id <= last]
            where = f"trade_id BETWEEN {first} AND {last} AND {_between(min(times), max(times))}"
            self._read(venue, product, where, stored)
        strays = [trade_id for trade_id in captured if trade_id not in stored][:STRAYS_MAX]
        if strays:
            self._read(venue, product, f"trade_id IN ({','.join(map(str, strays))})", stored)
        return stored

    def stored(self, venue: str, product: str, ids: tuple[int, int], times_us: tuple[int, int]) -> Stored:
        """How many rows, and of how many trades, a range of ids holds."""
        sql = (
            f"SELECT count(), count_distinct(trade_id) FROM trades WHERE {_of(venue, product)}"  # noqa: S608 - checked
            f" AND trade_id BETWEEN {ids[0]} AND {ids[1]} AND {_between(*times_us)}"
        )
        rows, distinct = self._ask(sql)[0]
        return Stored(int(rows), int(distinct))

    def gaps(self, product: str | None, since_ns: int, *, is_open: bool, now_ns: int) -> list[Gap]:
        """Rows of feed_gap, oldest first: found since then, or of whatever age if they are open."""
        conditions = [f"(ts >= {since_ns // 1000} OR repaired_at IS NULL)" if not is_open else "repaired_at IS NULL"]
        if product is not None:
            conditions.append(f"(product = {_text(product)} OR product = '' OR product IS NULL)")
        sql = (
            "SELECT product, source, kind, first_id, last_id, ts, repaired_at FROM feed_gap"  # noqa: S608 - checked
            f" WHERE {' AND '.join(conditions)} ORDER BY ts"
        )
        return [_gap(row, now_ns) for row in self._ask(sql)]

    def has_gap(self, gap: GapRow) -> bool:
        """Whether feed_gap has this gap, open or repaired."""
        sql = (
            f"SELECT count() FROM feed_gap WHERE ts = '{utc_text(gap.ts_ns // 1000)}' AND source = {_text(gap.source)}"  # noqa: S608
            f" AND kind = {_text(gap.kind)} AND first_id = {gap.first_id} AND last_id = {gap.last_id}"
        )
        return bool(self._ask(sql)[0][0])

    def _read(self, venue: str, product: str, where: str, stored: dict[int, list[Seen]]) -> None:
        sql = (
            "SELECT trade_id, price, size, aggressor_side, ts FROM trades"  # noqa: S608 - checked
            f" WHERE {_of(venue, product)} AND {where}"
        )
        for trade_id, price, size, side, ts in self._ask(sql):
            seen = Seen(Decimal(price), Decimal(size), str(side), parse_time_ns(ts) // 1000)
            stored.setdefault(int(trade_id), []).append(seen)

    def _ask(self, sql: str) -> tuple[tuple[Any, ...], ...]:
        return query_now(self._endpoint, sql, timeout_s=TIMEOUT_S).rows


def tell_gaps(endpoint: Endpoint, tell: Tell, *, product: str | None, since_ns: int, is_open: bool) -> bool:
    """Tell each gap, oldest first, and their number: found since a moment or still open; with `is_open` those alone.

    At most GAPS_MAX, the newest. Raises Conflict where there is no such table, Unavailable without a server.
    """
    tables = Tables(endpoint)
    if "feed_gap" not in tables.names():
        raise Conflict("This QuestDB has no table feed_gap.", remedy="Make it again: farmctl feed replay --node NODE.")
    tables.until_visible("feed_gap")
    gaps = tables.gaps(product, since_ns, is_open=is_open, now_ns=time.time_ns())
    for gap in gaps[-GAPS_MAX:]:
        tell("gap", msgspec.to_builtins(gap))
    still_open = sum(gap.repaired_at is None for gap in gaps)
    tell("done", {"gaps": len(gaps), "open": still_open, "left_out": max(0, len(gaps) - GAPS_MAX)})
    return True


def _gap(row: tuple[Any, ...], now_ns: int) -> Gap:
    product, source, kind, first_id, last_id, found_at, repaired_at = row
    end_ns = parse_time_ns(repaired_at) if repaired_at else now_ns
    open_s = max(0.0, (end_ns - parse_time_ns(found_at)) / 1e9)
    return Gap(product or "", source or "", kind or "", int(first_id), int(last_id), found_at, repaired_at, open_s)


def _of(venue: str, product: str) -> str:
    return f"venue = {_text(venue)} AND product = {_text(product)}"


def _between(first_us: int, last_us: int) -> str:
    return f"ts BETWEEN '{utc_text(first_us)}' AND '{utc_text(last_us)}'"


def _text(name: str) -> str:
    """A name as SQL. Raises InvalidRequest for what is no name: it would be another question."""
    if not name or set(name) - NAME_CHARS:
        raise InvalidRequest(f"{name!r} is no name of a product.", remedy="Products look like BTC-USD.")
    return f"'{name}'"
