"""What is stored of the farm is declared once: on the fields of the model.

    @record
    class Node:
        name: NodeName = stored(TEXT)
        session: int = live(default=0)

A field is `stored` in a column, or `live`: known only while a controller runs. The next controller begins with its
default, or with what restore.py makes of the rows. A Table is made of these fields. From it follow the rows that both
journals write and read, the check of the schema, and the law that memory equals journal.

This is a table of columns and no more. The hot tables (task, lease, finished task, checkpoint, event) keep statements
written by hand; the fields of Task say where they are stored all the same, and the law compares them.

A row holds plain values by the names of its columns: texts, numbers, lists, dicts, and times in Unix seconds.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, dataclass
from enum import StrEnum
from operator import attrgetter
from typing import Any, Final, Generic, TypeVar, cast, dataclass_transform

T = TypeVar("T")
Row = dict[str, Any]
COLUMN: Final = "column"


@dataclass(frozen=True, slots=True)
class Clock:
    """Moments of the monotonic clock, which mean nothing in another process, as wall times and back."""

    offset_s: float
    """wall - mono"""

    @classmethod
    def at(cls, now: tuple[float, float]) -> Clock:
        """The clock on which the moment `now` (mono, wall) is both."""
        mono, wall = now
        return cls(wall - mono)

    def wall(self, mono: float) -> float | None:
        """The wall time of a monotonic moment; 0 is "none"."""
        return mono + self.offset_s if mono else None

    def mono(self, wall: float | None) -> float:
        """The reverse. A moment before this process began is in the past, and not 0."""
        return (wall - self.offset_s) or 1e-9 if wall is not None else 0.0


# ------------------------------------------------------------------ how a value lies in a row


@dataclass(frozen=True, slots=True)
class Form:
    """How one kind of value lies in a row."""

    type: str
    """The family of the column's type: text, number, flag, time, texts, json or bytes."""
    store: Callable[[Any, Clock], Any]
    restore: Callable[[Any, Clock], Any]
    columns: tuple[Column, ...] = ()
    """Of a part: the fields of its JSON."""


@dataclass(frozen=True, slots=True)
class Column:
    """One stored field."""

    field: str
    name: str
    form: Form
    table: str | None
    """The table that holds it, where that is not the record's own."""


def _as_it_is(value: Any, clock: Clock) -> Any:
    del clock
    return value


TEXT: Final = Form("text", _as_it_is, _as_it_is)
NUMBER: Final = Form("number", _as_it_is, _as_it_is)
FLAG: Final = Form("flag", _as_it_is, _as_it_is)
BYTES: Final = Form("bytes", _as_it_is, _as_it_is)
WALL: Final = Form("time", _as_it_is, _as_it_is)
"""Unix seconds."""
MOMENT: Final = Form("time", lambda mono, clock: clock.wall(mono), lambda wall, clock: clock.mono(wall))
"""Seconds of the monotonic clock; 0 is none."""
NUMBERS: Final = Form("json", lambda value, _: list(value), lambda row, _: list(row))
"""A list of numbers."""
COUNTS: Final = Form(
    "json",
    lambda value, _: {str(number): count for number, count in value.items()},
    lambda row, _: {int(number): count for number, count in row.items()},
)
"""How many of each number."""
TEXT_BY_NAME: Final = Form("json", lambda value, _: dict(value), lambda row, _: dict(row))


def word(kind: type[StrEnum]) -> Form:
    """A word of an enum."""
    return Form("text", lambda value, _: value.value, lambda row, _: kind(row))


def texts(kind: type[set[Any]] | type[frozenset[Any]]) -> Form:
    """A set of texts."""
    return Form("texts", lambda value, _: sorted(value), lambda row, _: kind(row))


def value(kind: type[Any]) -> Form:
    """A frozen value, or None."""
    return Form(
        "json",
        lambda value, _: None if value is None else dataclasses.asdict(value),
        lambda row, _: None if row is None else value_of(kind, row),
    )


def part(kind: type[Any]) -> Form:
    """A record inside a record, or None."""
    columns = columns_of(kind)

    def store(record: Any, clock: Clock) -> Row | None:
        return None if record is None else {c.name: c.form.store(getattr(record, c.field), clock) for c in columns}

    def restore(row: Row | None, clock: Clock) -> Any:
        return None if row is None else _made(kind, columns, row, clock)

    return Form("json", store, restore, columns)


def value_of(kind: Any, row: Mapping[str, Any]) -> Any:
    """A frozen value from its JSON. Another release may have written more fields, or fewer."""
    fields = {field.name: field for field in dataclasses.fields(kind)}
    values = {name: _frozen(fields[name].default, item) for name, item in row.items() if name in fields}
    return kind(**values)


def _frozen(default: Any, item: Any) -> Any:
    """As a frozen value holds it: a tuple for a list, a value for an object."""
    if isinstance(item, dict) and dataclasses.is_dataclass(default):
        return value_of(type(default), item)
    return tuple(_frozen(None, each) for each in item) if isinstance(item, list | tuple) else item


# ------------------------------------------------------------------ what a field says


def stored(
    form: Form,
    *,
    default: Any = MISSING,
    default_factory: Any = MISSING,
    column: str | None = None,
    table: str | None = None,
) -> Any:
    """A field that is stored, in the column of its name if not in another; `table`: by a table of its own."""
    metadata = {COLUMN: (column, form, table)}
    if default_factory is not MISSING:
        return dataclasses.field(default_factory=default_factory, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def live(*, default: Any = MISSING, default_factory: Any = MISSING) -> Any:
    """A field that only memory knows."""
    if default_factory is not MISSING:
        return dataclasses.field(default_factory=default_factory, metadata={COLUMN: None})
    return dataclasses.field(default=default, metadata={COLUMN: None})


@dataclass_transform(field_specifiers=(stored, live))
def record(kind: type[T]) -> type[T]:
    """A slotted dataclass of which every field is `stored` or `live`. Raises TypeError where one says neither."""
    made: Any = dataclass(slots=True)(kind)
    for field in dataclasses.fields(made):
        if COLUMN not in field.metadata:
            raise TypeError(f"{kind.__name__}.{field.name} says neither `stored` nor `live`.")
        if field.metadata[COLUMN] is None and field.default is MISSING and field.default_factory is MISSING:
            raise TypeError(f"{kind.__name__}.{field.name} is live and has no default to begin with.")
    return cast("type[T]", made)


def columns_of(kind: type[Any]) -> tuple[Column, ...]:
    """The stored fields of a record, in their order."""
    columns = [(field.name, field.metadata[COLUMN]) for field in dataclasses.fields(kind)]
    return tuple(Column(name, mark[0] or name, mark[1], mark[2]) for name, mark in columns if mark is not None)


def _made(kind: type[T], columns: tuple[Column, ...], row: Mapping[str, Any], clock: Clock) -> T:
    return kind(**{c.field: c.form.restore(row[c.name], clock) for c in columns if c.name in row})


# ------------------------------------------------------------------ tables


class Table(Generic[T]):
    """The table of one kind of record: a row for each, found by its key."""

    def __init__(
        self,
        kind: type[T],
        name: str,
        *key: str,
        things: Callable[[Any], Iterable[T]],
        put: Callable[[Any, T], None],
    ) -> None:
        """things: those of a FarmState. put: give one that was read to a FarmState."""
        self.kind, self.name, self.key = kind, name, key
        self.things, self.put = things, put
        self.columns: Final = columns_of(kind)
        self.key_of: Final[Callable[[T], Any]] = attrgetter(*key)

    def row(self, thing: T, clock: Clock) -> Row:
        """A record as a row. Nothing in it changes with the record afterwards."""
        return {c.name: c.form.store(getattr(thing, c.field), clock) for c in self.columns}

    def thing(self, row: Mapping[str, Any], clock: Clock) -> T:
        """The record of a row. Its live fields have their defaults."""
        return _made(self.kind, self.columns, row, clock)
