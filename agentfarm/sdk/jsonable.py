"""What an agent returns, as plain JSON values, or an error that names the part without a JSON form.

The shape of pydantic, LangChain and numpy values identifies them, so that nothing is imported for them.
"""

from __future__ import annotations

import dataclasses
import math
import sys
from collections.abc import Mapping, Sequence, Set
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from pathlib import PurePath
from typing import Any, Final
from uuid import UUID

DEPTH_MAX: Final = 100


def to_json(value: object, *, where: str = "output", lenient: bool = False) -> Any:
    """None, bool, int, float, str, and lists and dicts of these.

    Decimals, dates, times and UUIDs become texts, durations seconds, enums their values, messages of LangChain plain
    dicts with `type` and `content`; models and dataclasses become dicts, sets sorted lists.
    lenient: what has no JSON form becomes its `repr` instead of an error.
    Raises TypeError that names the place: `output.items[3].price`.
    """
    return _Converter(lenient).convert(value, where, 0)


def message_json(message: Any) -> dict[str, Any]:
    """A LangChain message as a plain dict: what was said, by whom, which tools were called."""
    kind = str(message.type).removesuffix("MessageChunk").lower()
    plain: dict[str, Any] = {"type": kind, "content": message.content}
    for name in ("id", "name", "tool_calls", "tool_call_id", "usage_metadata"):
        if value := getattr(message, name, None):
            plain[name] = value
    return plain


def is_message(value: object) -> bool:
    """Whether this is a message of LangChain. Imports nothing."""
    module = sys.modules.get("langchain_core.messages")
    return module is not None and isinstance(value, module.BaseMessage)


class _Converter:
    def __init__(self, lenient: bool) -> None:
        self._lenient = lenient

    def convert(self, value: Any, where: str, depth: int) -> Any:
        if value is None or value is True or value is False or type(value) is int:
            return value
        if isinstance(value, Enum):
            return self.convert(value.value, where, depth + 1)
        if isinstance(value, str):
            return self._text(value, where)
        if isinstance(value, float):
            return self._number(value, where)
        if isinstance(value, int):
            return int(value)
        if depth > DEPTH_MAX:
            return self._refuse(value, where, f"is nested more than {DEPTH_MAX} deep, or holds itself")
        return self._compound(value, where, depth + 1)

    def _compound(self, value: Any, where: str, depth: int) -> Any:
        if isinstance(value, Decimal):
            return str(value) if value.is_finite() else self._refuse(value, where, "is not a finite number")
        if isinstance(value, datetime | date | time):
            return value.isoformat()
        if isinstance(value, timedelta):
            return value.total_seconds()
        if isinstance(value, UUID | PurePath):
            return str(value)
        if is_message(value):
            return self._mapping(message_json(value), where, depth)
        if isinstance(value, Mapping):
            return self._mapping(value, where, depth)
        if isinstance(value, tuple) and hasattr(value, "_asdict"):
            return self._mapping(value._asdict(), where, depth)
        if isinstance(value, bytes | bytearray | memoryview):
            return self._refuse(value, where, "is bytes; encode them as text, for instance as base64")
        if isinstance(value, Sequence):
            return [self.convert(item, f"{where}[{index}]", depth) for index, item in enumerate(value)]
        if isinstance(value, Set):
            return [self.convert(item, f"{where}[…]", depth) for item in _in_order(value)]
        return self._other(value, where, depth)

    def _other(self, value: Any, where: str, depth: int) -> Any:
        if not isinstance(value, type):
            if callable(dump := getattr(value, "model_dump", None)):
                return self._mapping(dump(), where, depth)
            if dataclasses.is_dataclass(value):
                fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
                return self._mapping(fields, where, depth)
            if type(value).__module__.partition(".")[0] == "numpy" and callable(getattr(value, "tolist", None)):
                return self.convert(value.tolist(), where, depth)
        return self._refuse(value, where, f"is {_kind(value)}, which has no JSON form")

    def _mapping(self, value: Mapping[Any, Any], where: str, depth: int) -> dict[str, Any]:
        plain = {}
        for key, item in value.items():
            name = key.value if isinstance(key, Enum) else key
            if not isinstance(name, str | int | float | Decimal | date | UUID) or isinstance(name, bool):
                name = self._refuse(key, where, f"has a key that is {_kind(key)}; keys must be texts")
            plain[self._text(str(name), where)] = self.convert(item, f"{where}.{name}", depth)
        return plain

    def _text(self, value: str, where: str) -> str:
        if not value.isascii() and any(0xD800 <= ord(character) <= 0xDFFF for character in value):
            if self._lenient:
                return value.encode("utf-8", "replace").decode()
            raise TypeError(f"{where} holds a lone surrogate, which is no text")
        return str(value) if type(value) is not str else value

    def _number(self, value: float, where: str) -> Any:
        return float(value) if math.isfinite(value) else self._refuse(value, where, f"is {value}, no JSON number")

    def _refuse(self, value: object, where: str, why: str) -> str:
        if self._lenient:
            return self._text(repr(value)[:1000], where)
        raise TypeError(f"{where} {why}")


def _in_order(values: Set[Any]) -> list[Any]:
    try:
        return sorted(values)
    except TypeError:
        return sorted(values, key=repr)


def _kind(value: object) -> str:
    kind = type(value)
    return kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"
