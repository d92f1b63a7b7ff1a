"""Rows into the QuestDB client's buffer: fields to columns."""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter
from typing import Any, Final

import msgspec
import numpy as np
from questdb import TimestampMicros, TimestampNanos

SYMBOLS: Final = frozenset({"venue", "product", "source", "side", "aggressor_side", "kind", "what", "state"})
ARRAYS: Final = frozenset({"bids", "asks"})


def encoder(kind: type[msgspec.Struct], table: str) -> Callable[[Any, Any], None]:
    """A function that puts a row of this type into a client's buffer: fields to columns, `_ns` to timestamps."""
    fields = [name for name in kind.__struct_fields__ if name != "ts_ns"]
    symbols = [name for name in fields if name in SYMBOLS]
    columns = [name for name in fields if name not in SYMBOLS]
    names = [name.removesuffix("_ns") for name in columns]
    times = [name.removesuffix("_ns") for name in columns if name.endswith("_ns")]
    arrays = [name for name in columns if name in ARRAYS]
    symbols_of = _getter(symbols)
    columns_of = _getter(columns)

    def encode(buffer: Any, row: Any) -> None:
        values = dict(zip(names, columns_of(row), strict=True))
        for name in times:
            if values[name] is not None:
                values[name] = TimestampMicros(values[name] // 1000)
        for name in arrays:
            values[name] = np.array(values[name], dtype=np.float64).reshape(2, -1)
        words = {name: word or None for name, word in zip(symbols, symbols_of(row), strict=True)}
        buffer.row(table, symbols=words, columns=values, at=TimestampNanos(row.ts_ns))

    return encode


def _getter(names: list[str]) -> Callable[[Any], tuple[Any, ...]]:
    """The fields of a row as a tuple, also when there is only one."""
    get = attrgetter(*names)
    return get if len(names) > 1 else lambda row: (get(row),)
