"""What docs/http-api.md says is so."""

from __future__ import annotations

import re
from pathlib import Path

import httpx

from controller.gateway.http import limits

PAGE = (Path(__file__).parents[3] / "docs" / "http-api.md").read_text(encoding="utf-8")


async def test_page_lists_every_call_and_no_other(http: httpx.AsyncClient) -> None:
    told = set(re.findall(r"^\| `(GET|POST|PUT|HEAD|DELETE) (/\S+)`", PAGE, re.MULTILINE))
    schema = (await http.get("/openapi.json")).json()
    real = {(method.upper(), path) for path, methods in schema["paths"].items() for method in methods}
    assert told == real


def test_page_names_limits_that_exist() -> None:
    names = re.findall(r"^\| `([A-Z_]+)` \|", PAGE, re.MULTILINE)
    assert len(names) > 5
    assert [name for name in names if not hasattr(limits, name)] == []
