"""Rows of records, to and from PostgreSQL: what the tables of controller/core/parts.py become in SQL."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

from psycopg2.extensions import cursor as Cursor  # noqa: N812 - psycopg2 names a class in lower case

from controller.core.parts import TABLES
from controller.core.records import Clock, Column, Row, Table
from controller.core.transition import Changes
from controller.journal.encode import clean, to_json
from controller.journal.statements import Batch

PLACES: Final = {
    "text": "%s", "number": "%s", "flag": "%s", "time": "to_timestamp(%s::double precision)", "texts": "%s::text[]",
    "json": "%s::jsonb",
}  # fmt: skip
"""The place of a value in a VALUES list, by the type of its column."""

VALUES: Final[dict[str, Callable[[Any], Any]]] = {
    "text": lambda value: None if value is None else clean(value),
    "texts": lambda value: [clean(each) for each in value],
    "json": lambda value: None if value is None else to_json(value),
}
"""What the driver is given for the value of a row, where that is another."""


def store(batch: Batch, changes: Changes, clock: Clock) -> None:
    """Every record of a turn. Those that go first: one may come again in the same turn."""
    if changes.removed:
        for table in reversed(TABLES):
            _delete(batch, table, changes.gone(table.kind))
    if changes.records:
        for table in TABLES:
            _upsert(batch, table, changes.stored(table.kind), clock)


def read(cursor: Cursor, table: Table[Any]) -> Iterator[Row]:
    """Every row of a table, in the order of its key."""
    names = [column.name for column in table.columns]
    cursor.execute(_SELECT[table.name])
    for row in cursor.fetchall():
        yield dict(zip(names, row, strict=True))


def _upsert(batch: Batch, table: Table[Any], things: Iterable[Any], clock: Clock) -> None:
    columns, values = _COLUMNS[table.name], _VALUES[table.name]
    rows = [
        tuple([value(item) for value, item in zip(values, table.row(thing, clock).values(), strict=True)])
        for thing in things
    ]
    batch.insert(table.name, columns, rows, key=table.key)


def _delete(batch: Batch, table: Table[Any], things: Iterable[Any]) -> None:
    keys = tuple(table.key_of(thing) for thing in things)
    if keys:
        batch.add(f"DELETE FROM {table.name} WHERE ({', '.join(table.key)}) IN %s", keys)  # noqa: S608 - names are ours


def _as_it_is(value: Any) -> Any:
    return value


def _read_as(column: Column) -> str:
    return f"extract(epoch from {column.name})::float" if column.form.type == "time" else column.name


_COLUMNS: Final = {table.name: {c.name: PLACES[c.form.type] for c in table.columns} for table in TABLES}
_VALUES: Final = {table.name: [VALUES.get(c.form.type, _as_it_is) for c in table.columns] for table in TABLES}
_SELECT: Final = {
    table.name: f"SELECT {', '.join(map(_read_as, table.columns))} FROM {table.name} ORDER BY {', '.join(table.key)}"  # noqa: S608
    for table in TABLES
}
