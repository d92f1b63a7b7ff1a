"""Outputs as JSON: everything agents commonly return, and a clear word on what cannot be."""

from __future__ import annotations

import json
import math
from collections import OrderedDict, namedtuple
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum, IntEnum
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.documents import Document
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from pydantic import BaseModel

from agentfarm.sdk.jsonable import DEPTH_MAX, to_json

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(json_values)
def test_json_values_stay_themselves(value: object) -> None:
    assert to_json(value) == value
    json.dumps(to_json(value), allow_nan=False).encode()


class Color(Enum):
    RED = "red"


class Level(IntEnum):
    HIGH = 3


class Model(BaseModel):
    price: Decimal
    parts: list[date] = []


@dataclass
class Point:
    x: int
    note: str | None = None


Pair = namedtuple("Pair", "left right")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (Decimal("1.10"), "1.10"),
        (datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), "2026-01-02T03:04:05+00:00"),
        (date(2026, 1, 2), "2026-01-02"),
        (time(3, 4), "03:04:00"),
        (timedelta(minutes=1.5), 90.0),
        (UUID(int=5), "00000000-0000-0000-0000-000000000005"),
        (Path("a/b"), "a/b"),
        (Color.RED, "red"),
        (Level.HIGH, 3),
        ({"b", "a"}, ["a", "b"]),
        ((1, (2,)), [1, [2]]),
        (Pair(1, 2), {"left": 1, "right": 2}),
        (OrderedDict({1: "a", Color.RED: "b"}), {"1": "a", "red": "b"}),
        (Point(1), {"x": 1, "note": None}),
        (Model(price=Decimal("2.50"), parts=[date(2026, 1, 2)]), {"price": "2.50", "parts": ["2026-01-02"]}),
        (HumanMessage("hi", name="ada"), {"type": "human", "content": "hi", "name": "ada"}),
        (ToolMessage("5", tool_call_id="c1"), {"type": "tool", "content": "5", "tool_call_id": "c1"}),
        ({"docs": [Document("text", metadata={"at": date(2026, 1, 2)})]}, None),
    ],
)
def test_what_agents_return_has_a_plain_form(value: object, expected: object) -> None:
    plain = to_json(value)
    json.dumps(plain, allow_nan=False)
    if expected is not None:
        assert plain == expected


def test_tool_calls_are_kept() -> None:
    message = AIMessage("", tool_calls=[{"name": "add", "args": {"a": 1}, "id": "c1"}])
    assert to_json(message)["tool_calls"][0]["args"] == {"a": 1}


def test_numpy_values_are_numbers_and_lists() -> None:
    numpy = pytest.importorskip("numpy")
    assert to_json({"a": numpy.float64(1.5), "b": numpy.arange(3), "c": numpy.int64(4)}) == {
        "a": 1.5,
        "b": [0, 1, 2],
        "c": 4,
    }


def circle() -> list[Any]:
    ring: list[Any] = []
    ring.append(ring)
    return ring


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ({"a": [1, object()]}, r"output\.a\[1\] is object, which has no JSON form"),
        ({"raw": b"x"}, r"output\.raw is bytes; encode them"),
        ([math.nan], r"output\[0\] is nan"),
        ([math.inf], r"output\[0\] is inf"),
        (Decimal("NaN"), "not a finite number"),
        ({(1, 2): 3}, "has a key that is tuple"),
        (Point, r"output is type"),
        ("\ud800", "lone surrogate"),
        (lambda: 1, "is function"),
    ],
)
def test_what_has_no_json_form_is_named_by_its_place(value: object, reason: str) -> None:
    with pytest.raises(TypeError, match=reason):
        to_json(value)
    json.dumps(to_json(value, lenient=True), allow_nan=False).encode()


def test_a_value_that_holds_itself_is_refused() -> None:
    with pytest.raises(TypeError, match=f"nested more than {DEPTH_MAX} deep"):
        to_json(circle())
