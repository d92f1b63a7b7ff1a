"""Values on their way to and from PostgreSQL. Pure.

Text from agents and nodes may hold what PostgreSQL's text and jsonb cannot: NUL and lone surrogates. It is made
storable here, in one place, by the replacement character; inputs and outputs are bytes and stay what they are.
"""

from __future__ import annotations

import dataclasses
import itertools
import struct
from collections.abc import Iterable, Sequence
from typing import Any, Final, TypeVar

import orjson
from psycopg2.extensions import AsIs

from controller.core.model import Task, TaskOptions

EPOCH_2000_S: Final = 946_684_800  # PostgreSQL counts microseconds from 2000-01-01 UTC
REPLACEMENT: Final = "\ufffd"
OPTION_NAMES: Final = frozenset(TaskOptions.__dataclass_fields__)
T = TypeVar("T")

# ------------------------------------------------------------------ text and JSON


def clean(text: str) -> str:
    """The text as PostgreSQL can hold it."""
    if "\0" in text:
        text = text.replace("\0", REPLACEMENT)
    try:
        text.encode()
    except UnicodeEncodeError:
        text = text.encode("utf-8", "replace").decode()
    return text


def to_json(value: object) -> str:
    """JSON text that jsonb accepts. Dataclasses become objects."""
    try:
        raw = orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS)
    except (
        TypeError
    ):  # a lone surrogate, or a value JSON has no word for: an event is worth more than its exact letters
        raw = orjson.dumps(_plain(value), option=orjson.OPT_NON_STR_KEYS)
    return raw.replace(rb"\u0000", REPLACEMENT.encode()).decode()


def _plain(value: object) -> object:
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, dict):
        return {clean(str(key)): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    if value is None or isinstance(value, bool | float) or (isinstance(value, int) and abs(value) < 1 << 63):
        return value
    return clean(str(value))


def options_json(options: TaskOptions | None) -> str | None:
    """A task's options without what was not set; None if nothing was."""
    if options is None:
        return None
    given = {
        name: value for name in TaskOptions.__dataclass_fields__ if (value := getattr(options, name)) not in (None, ())
    }
    return to_json(given) if given else None


def options_of(stored: dict[str, Any] | None) -> TaskOptions | None:
    """The reverse of `options_json`."""
    if stored is None:
        return None
    options = {name: item for name, item in stored.items() if name in OPTION_NAMES}  # another release may have more
    if "labels" in options:
        options["labels"] = tuple((key, item) for key, item in options["labels"])
    if "products" in options:
        options["products"] = tuple(options["products"])
    return TaskOptions(**options)


# ------------------------------------------------------------------ array literals


def numbers(values: Iterable[object]) -> str:
    """An array of numbers, booleans or None."""
    return "{" + ",".join(["NULL" if value is None else str(value) for value in values]) + "}"


def words(values: Iterable[str | None]) -> str:
    """An array of text."""
    return "{" + ",".join(["NULL" if value is None else _quoted(value) for value in values]) + "}"


def optional_words(values: Sequence[str]) -> str:
    """An array of text in which "" is NULL. All empty, which is usual, costs nothing: unnest pads with NULL."""
    return words(value or None for value in values) if any(values) else "{}"


@dataclasses.dataclass(frozen=True, slots=True)
class Blobs:
    """Many byte strings on their way in as one, to be cut where they lie. at: from 1, as `substr` counts.

    all: a literal in hex, which needs no quoting, so that a payload is copied and nothing more.
    """

    all: AsIs
    at: list[int]
    sizes: list[int]

    @classmethod
    def of(cls, values: Sequence[bytes]) -> Blobs:
        """One after the other."""
        sizes = [len(value) for value in values]
        at = list(itertools.accumulate(sizes[:-1], initial=1))
        return cls(AsIs("'\\x" + b"".join(values).hex() + "'"), at, sizes)


def _quoted(text: str) -> str:
    return '"' + clean(text).replace("\\", "\\\\").replace('"', '\\"') + '"'


# ------------------------------------------------------------------ binary COPY, as in PostgreSQL's manual, "COPY"

COPY_HEADER: Final = b"PGCOPY\n\xff\r\n\0" + struct.pack(">ii", 0, 0)
COPY_TRAILER: Final = struct.pack(">h", -1)
JSONB_VERSION: Final = b"\x01"
_NULL: Final = struct.pack(">i", -1)
_HEAD: Final = struct.Struct(">hiqi").pack  # number of fields, id, length of the deployment's name
_MIDDLE: Final = struct.Struct(">ihiqi").pack  # priority, submitted_at, length of the input
_LENGTH: Final = struct.Struct(">i").pack
TASK_COPY: Final = "COPY task (id, deployment, priority, submitted_at, input, options) FROM STDIN (FORMAT binary)"


def task_rows(tasks: Sequence[Task]) -> bytes:
    """New tasks as TASK_COPY reads them."""
    parts = [COPY_HEADER]
    add = parts.append
    for task in tasks:
        name = task.deployment.encode()
        payload = task.input
        assert payload is not None, "a task is stored before its input may be forgotten"
        micros = round((task.submitted_at - EPOCH_2000_S) * 1e6)
        add(_HEAD(6, 8, task.id, len(name)))
        add(name)
        add(_MIDDLE(2, task.priority, 8, micros, len(payload)))
        add(payload)
        options = options_json(task.options)
        if options is None:
            add(_NULL)
        else:
            raw = JSONB_VERSION + options.encode()
            add(_LENGTH(len(raw)))
            add(raw)
    add(COPY_TRAILER)
    return b"".join(parts)
