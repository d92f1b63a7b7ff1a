"""Day partitions of finished tasks: made ahead, dropped when retention says so.

A row whose day has no partition goes to the default one, so that storing a result never fails for lack of one.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Final

import psycopg2
import structlog
from psycopg2.extensions import cursor as Cursor  # noqa: N812 - psycopg2 names a class in lower case

log = structlog.get_logger(__name__)

DAYS_AHEAD: Final = 3
LOCK_TIMEOUT_MS: Final = 250  # a day is made three times in advance: the next try is early enough
DROP_LOCK_TIMEOUT_MS: Final = 1_000
NAME_PREFIX: Final = "task_finished_"


def day_of(wall: float) -> date:
    """The UTC day of a wall time."""
    return datetime.fromtimestamp(wall, UTC).date()


def make_days(cursor: Cursor, today: date) -> None:
    """Partitions for today and the next DAYS_AHEAD days. A day that cannot be made now is left to the default one.

    cursor: of a connection in autocommit, outside a transaction. Connection errors pass through.
    """
    existing = {day for day, _ in stored_days(cursor)}
    for ahead in range(DAYS_AHEAD + 1):
        day = today + timedelta(days=ahead)
        if day in existing:
            continue
        try:
            cursor.execute(
                f"BEGIN; SET LOCAL lock_timeout = {LOCK_TIMEOUT_MS};"
                f" CREATE TABLE IF NOT EXISTS {_name(day)} PARTITION OF task_finished"
                f" FOR VALUES FROM ('{day} 00:00:00+00') TO ('{day + timedelta(days=1)} 00:00:00+00'); COMMIT"
            )
        except (psycopg2.errors.CheckViolation, psycopg2.errors.LockNotAvailable) as error:
            cursor.execute("ROLLBACK")  # the clock jumped and the default holds rows of that day, or a reader is slow
            log.warning("journal.day_left_to_default", day=str(day), problem=str(error).strip())


def stored_days(cursor: Cursor) -> list[tuple[date, str]]:
    """(day, table) of each partition, oldest first."""
    cursor.execute(
        "SELECT child.relname FROM pg_inherits JOIN pg_class AS child ON child.oid = inhrelid"
        " WHERE inhparent = 'task_finished'::regclass"
    )
    names = [row[0].removeprefix(NAME_PREFIX) for row in cursor.fetchall()]
    return sorted((datetime.strptime(name, "%Y%m%d").date(), NAME_PREFIX + name) for name in names if name.isdigit())  # noqa: DTZ007


def forget_before(cursor: Cursor, day: date) -> int:
    """Drop everything that ended before `day` (UTC): finished tasks, their attempts and keys, events.

    Returns the number of partitions dropped. The ids of what is dropped are never given again.
    """
    cursor.execute(
        "UPDATE leader SET task_floor = GREATEST(task_floor, COALESCE((SELECT max(id) FROM task_finished), 0) + 1)"
    )
    old = [name for stored, name in stored_days(cursor) if stored < day]
    for name in old:
        cursor.execute(
            f"BEGIN; SET LOCAL lock_timeout = {DROP_LOCK_TIMEOUT_MS};"
            f" ALTER TABLE task_finished DETACH PARTITION {name}; DROP TABLE {name}; COMMIT"
        )
    for statement in (
        "DELETE FROM task_finished_default WHERE finished_at < %s",
        "DELETE FROM attempt WHERE ended_at < %s AND NOT EXISTS (SELECT FROM task WHERE task.id = attempt.task)",
        "DELETE FROM idempotency WHERE at < %s AND NOT EXISTS (SELECT FROM task WHERE task.id = idempotency.task)",
        "DELETE FROM event WHERE at < %s",
    ):
        cursor.execute(statement, (datetime(day.year, day.month, day.day, tzinfo=UTC),))
    return len(old)


def _name(day: date) -> str:
    return f"{NAME_PREFIX}{day:%Y%m%d}"
