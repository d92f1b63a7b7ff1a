"""JSON from strangers: what is refused, with its place, and that refusing costs no more than reading."""

from __future__ import annotations

import tracemalloc

import httpx
import orjson
import pytest

from agentfarm.errors import InvalidRequest
from controller.gateway.http.json_input import read_json
from controller.gateway.http.limits import ERRORS_MAX, JSON_DEPTH_MAX, PATH_CHARS_MAX

NUL = "\\u0000"
LONG = b"12345678901234567890123"


@pytest.mark.parametrize(
    ("text", "path"),
    [
        (f'"{NUL}"', "$"),
        (f'{{"a": [1, {{"b": ["x", "{NUL}"]}}]}}', "$.a[1].b[1]"),
        (f'{{"a": [[], {{}}, [1]], "b": "{NUL}"}}', "$.b"),
        (f'{{"a": {{"{NUL}": 1}}}}', "a key of $.a"),
    ],
)
def test_a_nul_is_refused_with_its_place(text: str, path: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        read_json(text.encode())
    assert refused.value.data["path"] == path


def test_what_only_looks_like_a_nul_is_taken() -> None:
    assert read_json(b'["\\\\u0000", {"a": ["\\\\u0000"]}]') == ["\\u0000", {"a": ["\\u0000"]}]


def test_a_nul_after_many_values_under_a_long_key_takes_no_memory_for_each() -> None:
    key, values = "k" * 50_000, ",".join(["1"] * 30_000)
    text = f'{{"{key}": [{values}, "{NUL}"]}}'.encode()
    size = len(text)
    orjson.loads(text)
    tracemalloc.start()
    with pytest.raises(InvalidRequest) as refused:
        read_json(text)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 20 * size, "a path for each value took 15,000 times the text"
    assert len(refused.value.data["path"]) == PATH_CHARS_MAX + 1


@pytest.mark.parametrize("inner", [b"1", LONG])
def test_deep_nesting_is_refused_by_its_limit_whatever_is_inside(inner: bytes) -> None:
    with pytest.raises(InvalidRequest) as refused:
        read_json(b"[" * 1000 + inner + b"]" * 1000)
    assert refused.value.data["limit"] == "JSON_DEPTH_MAX"
    assert read_json(b"[" * JSON_DEPTH_MAX + inner + b"]" * JSON_DEPTH_MAX)


async def test_join_answers_deep_nesting_and_many_wrong_keys_as_wrong_requests(http: httpx.AsyncClient) -> None:
    deep = await http.post("/v1/nodes/join", content=b"[" * 1000 + LONG + b"]" * 1000)
    assert (deep.status_code, deep.json()["limit"]) == (400, "JSON_DEPTH_MAX")
    keys = {f"{'nam' * 20}{number}": 1 for number in range(2_000)}
    many = await http.post("/v1/nodes/join", json=keys)
    assert many.status_code == 400
    assert len(many.json()["errors"]) == ERRORS_MAX
    assert f"and {2_000 + 3 - 1} more" in many.json()["detail"], "the three keys it has to have are missing too"
    assert len(many.content) < 16_000
