"""What docs/http-api.md says is so."""

from __future__ import annotations

import re
from pathlib import Path

import httpx

from agentfarm import limits
from controller.gateway.app import CALLS
from controller.gateway.http import limits as border_limits

PAGE = (Path(__file__).parents[3] / "docs" / "http-api.md").read_text(encoding="utf-8")


async def test_page_lists_every_call_with_its_permission_and_no_other(http: httpx.AsyncClient) -> None:
    rows = re.findall(r"^\| `(GET|POST|PUT|HEAD|DELETE) (/\S+)` \| `([a-z.]+)`", PAGE, re.MULTILINE)
    schema = (await http.get("/openapi.json")).json()
    described = {(method.upper(), path) for path, methods in schema["paths"].items() for method in methods}
    needs = {(call.method, call.path.replace(":path", "")): call.permission.value for call in CALLS}
    assert {(method, path): need for method, path, need in rows} == {call: needs[call] for call in described}


def test_page_names_limits_that_exist() -> None:
    names = re.findall(r"^\| `([A-Z_]+)` \|", PAGE, re.MULTILINE)
    assert len(names) > 5
    assert [name for name in names if not hasattr(border_limits, name) and not hasattr(limits, name)] == []
