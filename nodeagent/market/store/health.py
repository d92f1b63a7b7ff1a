"""Whether a QuestDB serves: suspended tables, invalid views, rows waiting in the WAL, room on the disk.

A suspended table is the silent failure of QuestDB: it goes on accepting rows into its WAL and shows none of them.
Source: `tables()` and `materialized_views()`, documented SQL functions.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Final

from agentfarm.errors import FarmError
from nodeagent.market.store.endpoint import Endpoint
from nodeagent.market.store.sql import SqlRefused, query

TABLES_SQL: Final = (
    "SELECT table_name, table_suspended, wal_pending_row_count, wal_txn - table_txn AS lag_txn"
    " FROM tables() WHERE walEnabled"
)
VIEWS_SQL: Final = "SELECT view_name, view_status FROM materialized_views()"


class DiskState(StrEnum):
    """How much room there is, as far as anyone must act."""

    OK = "ok"
    LOW = "low"
    """Write no optional data: level changes, then tickers, then books."""
    FULL = "full"
    """Write trades only."""


@dataclass(frozen=True, slots=True)
class TableHealth:
    """One WAL table."""

    name: str
    is_suspended: bool
    pending_rows: int
    lag_txn: int
    is_view: bool = False
    """A materialized view, which has a WAL of its own."""


@dataclass(frozen=True, slots=True)
class HealthReport:
    """What was seen at one look. `problems` are sentences for an operator; none means healthy."""

    is_up: bool
    tables: tuple[TableHealth, ...] = ()
    invalid_views: tuple[str, ...] = ()
    disk: DiskState = DiskState.OK
    disk_free_bytes: int = 0
    disk_total_bytes: int = 0
    rss_bytes: int = 0
    cpu_s: float = 0.0
    restarts: int = 0
    problems: tuple[str, ...] = field(default=())

    @property
    def suspended(self) -> tuple[str, ...]:
        """Names of tables that accept rows and do not show them."""
        return tuple(table.name for table in self.tables if table.is_suspended)

    @property
    def pending_rows(self) -> int:
        """Rows accepted and not yet visible."""
        return sum(table.pending_rows for table in self.tables)

    @property
    def is_good(self) -> bool:
        """Up, and nothing for anyone to do."""
        return self.is_up and not self.problems


def disk_state(free_bytes: int, total_bytes: int, *, low_bytes: int, low_share: float, full_bytes: int) -> DiskState:
    """Judge free room. `low` is the lesser of an amount and a share, so that a small disk is not low from the start."""
    if free_bytes <= full_bytes:
        return DiskState.FULL
    return DiskState.LOW if free_bytes <= max(full_bytes, min(low_bytes, total_bytes * low_share)) else DiskState.OK


def disk_room(folder: Path) -> tuple[int, int]:
    """(free, total) bytes of the disk that holds `folder`."""
    usage = shutil.disk_usage(folder)
    return usage.free, usage.total


async def probe(endpoint: Endpoint, timeout_s: float) -> tuple[tuple[TableHealth, ...], tuple[str, ...]]:
    """WAL tables, and names of invalid views. Raises Unavailable when the server does not answer in time."""
    tables = await query(endpoint, TABLES_SQL, timeout_s=timeout_s)
    views = await query(endpoint, VIEWS_SQL, timeout_s=timeout_s)
    view_names = {name for name, _ in views.rows}
    return (
        tuple(
            TableHealth(str(name), bool(suspended), int(rows or 0), int(lag or 0), name in view_names)
            for name, suspended, rows, lag in tables.rows
        ),
        tuple(str(name) for name, status in views.rows if status == "invalid"),
    )


async def repair(endpoint: Endpoint, tables: Sequence[TableHealth], invalid_views: Sequence[str]) -> list[str]:
    """Resume suspended tables and rebuild invalid views; what was done, as sentences. A refusal is one of them."""
    kinds = [("MATERIALIZED VIEW" if table.is_view else "TABLE", table.name) for table in tables if table.is_suspended]
    statements = [(f'ALTER {kind} "{name}" RESUME WAL', f"resumed {kind.lower()} {name}") for kind, name in kinds]
    statements += [(f'REFRESH MATERIALIZED VIEW "{name}" FULL', f"rebuilding view {name}") for name in invalid_views]
    done = []
    for sql, deed in statements:
        try:
            await query(endpoint, sql)
            done.append(deed)
        except SqlRefused as refusal:
            done.append(f"{deed} was refused: {refusal.problem}")
        except FarmError as failure:
            done.append(f"{deed} failed: {failure.problem}")
    return done
