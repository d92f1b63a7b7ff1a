"""While the gateway is being built: plain submits are taken, every other call waits."""

from __future__ import annotations

import asyncio

import httpx

from controller.gateway.front import Front
from tests.unit.gateway.small_farm import TOKEN, SmallFarm

DEADLINE_S = 20.0


def client_of(front: Front, token: str = TOKEN) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(front)
    return httpx.AsyncClient(
        transport=transport, base_url="http://farm", headers={"Authorization": f"Bearer {token}"}, timeout=DEADLINE_S
    )


async def test_plain_submit_is_answered_before_the_gateway_is_built(small: SmallFarm) -> None:
    front = Front(small.app.state.farm)
    async with client_of(front) as client, asyncio.timeout(DEADLINE_S):
        answer = await client.post("/v1/tasks", json={"agent": "echo", "input": {"n": 1}})
    assert answer.status_code == 201, answer.text


async def test_other_calls_wait_until_it_is_built_and_are_answered_then(small: SmallFarm) -> None:
    front = Front(small.app.state.farm)
    async with client_of(front) as client, asyncio.timeout(DEADLINE_S):
        waiting = [asyncio.create_task(client.get(path)) for path in ("/healthz", "/v1/status", "/v1/absent")]
        submitted = await client.post("/v1/tasks", json={"agent": "echo", "input": {}})
        assert submitted.status_code == 201
        assert not any(task.done() for task in waiting)
        front.open(small.app)
        assert [(await task).status_code for task in waiting] == [200, 200, 404]
        assert (await client.get("/healthz")).status_code == 200


async def test_strangers_are_refused_before_it_is_built(small: SmallFarm) -> None:
    async with client_of(Front(small.app.state.farm), "wrong") as client, asyncio.timeout(DEADLINE_S):
        assert (await client.post("/v1/tasks", json={"agent": "echo", "input": {}})).status_code == 401
        assert (await client.get("/v1/status")).status_code == 401


async def test_wrong_submit_is_explained_before_it_is_built(small: SmallFarm) -> None:
    async with client_of(Front(small.app.state.farm)) as client, asyncio.timeout(DEADLINE_S):
        answer = await client.post("/v1/tasks", json={"agent": "echo", "inputs": {}})
    assert answer.status_code == 400, answer.text
    assert "inputs" in answer.text
