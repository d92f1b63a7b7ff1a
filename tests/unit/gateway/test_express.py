"""The express way of a submit answers as the route does, call for call."""

from __future__ import annotations

import re
from typing import Any

import httpx
import pytest

from agentfarm.limits import PAYLOAD_MAX_BYTES
from controller.gateway.http.limits import KEY_MAX_CHARS, WAIT_MAX_S
from controller.gateway.tasks.express import Express
from tests.unit.gateway.small_farm import TOKEN, SmallFarm

CALLS: list[tuple[str, bytes, dict[str, str]]] = [
    ("", b'{"agent": "echo", "input": {"a": [1, 2.5, null]}}', {}),
    ("wait=5", b'{"agent": "echo", "input": 123456789012345678901234567890}', {}),
    ("wait=5.25", b'{"agent": "fail"}', {}),
    ("wait=5", b'{"agent": "echo", "priority": 2, "input": "x"}', {}),
    ("wait=5", b'{"agent": "echo", "labels": {"team": "x"}, "thread_id": "t", "max_attempts": 2}', {}),
    ("wait=5", b'{"agent": "echo"}', {"Idempotency-Key": "key-1"}),
    ("wait=5", b'{"agent": "echo"}', {"Idempotency-Key": "key-1"}),  # known
    ("wait=5", b'{"agent": "echo", "input": 2}', {"Idempotency-Key": "key-1"}),  # used for other work
    ("wait=5", b'{"agent": "echo"}', {"Idempotency-Key": "k" * (KEY_MAX_CHARS + 1)}),
    ("wait=5", b'{"agent": "echo"}', {"Idempotency-Key": ""}),
    ("wait=5", b'{"agent": "echo", "idempotency_key": "in the body"}', {}),
    ("wait=5", b'{"agent": "nobody"}', {}),
    ("wait=5", b'{"agent": "s"}', {}),  # prefix of two
    ("wait=5", b'{"agent": 7}', {}),
    ("wait=5", b'{"agent": "echo", "priority": 99}', {}),
    ("wait=5", b'{"agent": "echo", "priority": true}', {}),
    ("wait=5", b'{"agent": "echo", "imput": 1}', {}),
    ("wait=5", b'{"agent": "echo", "input": "\\u0000"}', {}),
    ("wait=5", b"[1]", {}),
    ("wait=5", b'{"agent": ', {}),
    ("wait=5", b"", {}),
    ("wait=5", b'{"agent": "echo", "input": "' + b"x" * (PAYLOAD_MAX_BYTES + 1) + b'"}', {}),
    ("wait=-1", b'{"agent": "echo"}', {}),
    ("wait=soon", b'{"agent": "echo"}', {}),
    (f"wait={WAIT_MAX_S + 1:g}", b'{"agent": "echo"}', {}),
    ("wait=1&wait=2", b'{"agent": "echo"}', {}),
    ("wait=%31", b'{"agent": "echo"}', {}),
    ("wait=5", b'{"agent": "echo"}', {"Authorization": "Bearer wrong"}),
]  # fmt: skip


@pytest.fixture
async def by_the_route(monkeypatch: pytest.MonkeyPatch) -> list[httpx.Response]:
    """The answers of a farm without the express way."""

    async def straight_on(self: Express, scope: Any, receive: Any, send: Any) -> None:
        await self.app(scope, receive, send)

    with monkeypatch.context() as patch:
        patch.setattr(Express, "__call__", straight_on)
        return await _answers()


async def test_both_ways_answer_the_same(by_the_route: list[httpx.Response]) -> None:
    for call, route, express in zip(CALLS, by_the_route, await _answers(), strict=True):
        assert express.status_code == route.status_code, call[:2]
        assert _without_times(express.json()) == _without_times(route.json()), call[:2]
        assert {**express.headers, "date": ""} == {**route.headers, "date": ""}, call[:2]


async def test_plain_calls_never_reach_the_framework(monkeypatch: pytest.MonkeyPatch) -> None:
    farm = SmallFarm()
    await farm.start()
    async with _client(farm) as http:
        await http.get("/healthz")  # builds the stack of middleware
        seen: list[str] = []
        monkeypatch.setattr(type(farm.app.router), "__call__", _recording(seen))
        for query, body, headers in CALLS[:4]:
            await http.post(f"/v1/tasks?{query}", content=body, headers=headers)
        assert not seen
        await http.get("/healthz")
        assert seen == ["/healthz"]


def _recording(seen: list[str]) -> Any:
    async def call(self: Any, scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["path"])
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    return call


async def _answers() -> list[httpx.Response]:
    farm = SmallFarm()
    await farm.start()
    async with _client(farm) as http:
        return [
            await http.post(f"/v1/tasks?{query}" if query else "/v1/tasks", content=body, headers=headers)
            for query, body, headers in CALLS
        ]


def _client(farm: SmallFarm) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(farm.app, raise_app_exceptions=False)
    headers = {"Authorization": f"Bearer {TOKEN}"}
    return httpx.AsyncClient(transport=transport, base_url="http://farm", headers=headers)


def _without_times(value: dict[str, Any]) -> dict[str, Any]:
    times = re.compile(r"_at$|^traceback$")
    return {key: None if times.search(key) else item for key, item in value.items()}
