"""JSON from strangers: read once, exactly, and refuse what the farm could not keep.

orjson is fast but turns integers beyond 64 bits into floats, so text with long digit runs is read by the standard
library, which keeps them exact. PostgreSQL holds no NUL character in text or jsonb, so NUL is refused here, with
its place, and not as a failed commit later.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any, Final, NoReturn

import orjson

from agentfarm.errors import InvalidRequest
from controller.gateway.http.limits import JSON_DEPTH_MAX, PATH_CHARS_MAX

_DIGITS_AS_ONE: Final = bytes(ord("0") if chr(byte).isdigit() and byte < 128 else ord(" ") for byte in range(256))
_LONG_INTEGER: Final = b"0" * 19
_NUL_ESCAPE: Final = b"\\u0000"


def read_json(text: bytes, what: str = "The body") -> Any:
    """The value that `text` holds.

    Raises InvalidRequest when it is not JSON (RFC 8259: no NaN, no lone surrogates), nests deeper than
    JSON_DEPTH_MAX, or holds a NUL character; `what` begins the sentence.
    """
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise not_json(text, error, what) from None
    if text.count(b"[") + text.count(b"{") > JSON_DEPTH_MAX:
        _check_depth(value, what)
    if _LONG_INTEGER in text.translate(_DIGITS_AS_ONE):  # a regular expression takes ten times as long
        value = json.loads(text, parse_constant=_refuse_constant)  # it recurses: the depth is checked before
    if _NUL_ESCAPE in text:
        _check_nul(value, what)
    return value


def write_json(value: Any) -> bytes:
    """The value as compact JSON; integers of any length stay exact.

    A copy, because what orjson returns keeps the 4 KiB that it was written into, and inputs wait by the million.
    """
    try:
        return memoryview(orjson.dumps(value)).tobytes()
    except TypeError:  # an integer beyond 64 bits
        return json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def not_json(text: bytes, error: orjson.JSONDecodeError, what: str) -> InvalidRequest:
    """Say where JSON stopped being JSON, by line and column of the decoder."""
    if not text.strip():
        return InvalidRequest(f"{what} is empty; JSON was expected.", remedy="Send a JSON object.")
    place = f"line {error.lineno}, column {error.colno}"
    return InvalidRequest(
        f"{what} is not JSON: {error.msg} ({place}).", remedy="Correct it and send it again.", line=error.lineno,
        column=error.colno,
    )  # fmt: skip


def _refuse_constant(word: str) -> NoReturn:
    raise AssertionError(f"orjson accepted {word}")


def _check_depth(value: Any, what: str) -> None:
    level = [value]
    for _ in range(JSON_DEPTH_MAX):
        level = [child for item in level for child in _children(item)]
        if not level:
            return
    if any(isinstance(item, dict | list) for item in level):
        raise InvalidRequest(
            f"{what} nests deeper than {JSON_DEPTH_MAX} levels.", remedy="Flatten it.", limit="JSON_DEPTH_MAX",
            maximum=JSON_DEPTH_MAX,
        )  # fmt: skip


def _check_nul(value: Any, what: str) -> None:
    """Keeps the way to where it looks, not a path for each value: those would grow with the square of the text."""
    way: list[str | int] = []
    levels: list[Iterator[tuple[str | int, Any]]] = [iter([("$", value)])]
    while levels:
        for step, item in levels[-1]:
            if isinstance(item, str):
                if "\0" in item:
                    _refuse_nul(_path([*way, step]), what)
            elif isinstance(item, dict | list):
                way.append(step)
                if isinstance(item, dict) and any("\0" in key for key in item):
                    _refuse_nul(f"a key of {_path(way)}", what)
                levels.append(iter(item.items()) if isinstance(item, dict) else iter(enumerate(item)))
                break
        else:
            levels.pop()
            if way:
                way.pop()


def _path(way: Sequence[str | int]) -> str:
    steps = (f"[{step}]" if isinstance(step, int) else f".{step}" for step in way)
    path = "".join(steps).removeprefix(".")
    return path if len(path) <= PATH_CHARS_MAX else f"{path[:PATH_CHARS_MAX]}…"


def _refuse_nul(path: str, what: str) -> NoReturn:
    raise InvalidRequest(
        f"{what} holds a NUL character (\\u0000) in {path}; PostgreSQL cannot keep one in text.",
        remedy="Remove it, or encode the bytes, for example as base64.",
        path=path,
    )


def _children(item: Any) -> list[Any]:
    if isinstance(item, dict):
        return list(item.values())
    return item if isinstance(item, list) else []
