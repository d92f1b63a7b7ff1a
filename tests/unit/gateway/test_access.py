"""Who may call what: the whole table of calls, tried call by call, the express way too."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator

import httpx
import pytest
from starlette.responses import Response
from starlette.types import ASGIApp

from controller.core.commands import Wish
from controller.core.model import Actor
from controller.gateway.app import CALLS, app_of
from controller.gateway.front import Front
from controller.gateway.http.access import (
    EVERYTHING,
    BodySize,
    Call,
    Permission,
    Principal,
    Principals,
    body_limits,
)
from controller.gateway.http.answers import dump
from controller.gateway.http.room import Room
from controller.gateway.tasks.express import SUBMIT
from tests.unit.gateway.small_farm import DIGEST, SmallFarm, spec_json

WORDS = {"digest": DIGEST, "id": "1", "name": "nothing", "replica": "1", "deployment": "nothing", "seat": "0"}
OPEN = [call for call in CALLS if call.permission is Permission.OPEN]
GUARDED = [call for call in CALLS if call not in OPEN]


def only(permission: Permission) -> str:
    return f"token-of-one-with-{permission}"


def all_but(permission: Permission) -> str:
    return f"token-of-one-without-{permission}"


PRINCIPALS = Principals(
    {only(each): Principal(Actor(f"only {each}"), frozenset({each})) for each in Permission}
    | {all_but(each): Principal(Actor(f"all but {each}"), EVERYTHING - {each}) for each in Permission}
)


def client_of(app: ASGIApp) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app, raise_app_exceptions=False), base_url="http://farm")


async def send(
    http: httpx.AsyncClient, call: Call, token: str = "", query: str = "", content: bytes = b"", **headers: str
) -> httpx.Response:
    path = re.sub(r"{(\w+)(:path)?}", lambda match: WORDS[match[1]], call.path)
    if token:
        headers["Authorization"] = f"Bearer {token}"
    return await http.request(call.method, path + query, content=content, headers=headers)


@pytest.fixture
async def http(small: SmallFarm) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(app_of(small.app.state.farm, PRINCIPALS)) as client:
        yield client


async def test_table_holds_every_call_that_is_described_and_each_once(http: httpx.AsyncClient) -> None:
    schema = (await http.get("/openapi.json")).json()
    described = {(method.upper(), path) for path, methods in schema["paths"].items() for method in methods}
    declared = [(call.method, call.path.replace(":path", "")) for call in CALLS]
    assert len(declared) == len(set(declared))
    assert described <= set(declared)


async def test_each_call_needs_its_permission(http: httpx.AsyncClient) -> None:
    for call in GUARDED:
        stranger = await send(http, call)
        assert stranger.status_code == 401, call
        other = await send(http, call, all_but(call.permission))
        assert other.status_code == 403, call
        if call.method != "HEAD":
            assert (stranger.json()["code"], other.json()["permission"]) == ("unauthorized", call.permission)
        assert (await send(http, call, only(call.permission))).status_code not in (401, 403, 405), call


async def test_open_calls_need_nothing(http: httpx.AsyncClient) -> None:
    for call in OPEN:
        for token in ("", "wrong", all_but(Permission.FARM_READ)):
            assert (await send(http, call, token)).status_code not in (401, 403, 405), call


async def test_each_body_has_the_limit_of_its_call(http: httpx.AsyncClient, small: SmallFarm) -> None:
    for call in CALLS:
        limit = body_limits(small.settings.payload_max_bytes)[call.body]
        length = str((limit or 2**40) + 1)
        answer = await send(http, call, only(call.permission), **{"Content-Length": length})
        if limit is None:
            assert (call.body, answer.status_code) == (BodySize.LINES, 200), call
        elif call.method != "HEAD":
            assert (answer.status_code, answer.json()["maximum"]) == (413, limit), call
        stranger = await send(http, call, **{"Content-Length": length})
        assert stranger.status_code == (401 if call in GUARDED else 413), f"{call}: limits are told to strangers"


@pytest.mark.parametrize("is_built", [False, True])
@pytest.mark.parametrize("query", ["", "?wait=0"])
async def test_express_way_checks_the_same_table(small: SmallFarm, is_built: bool, query: str) -> None:
    front, body = Front(small.app.state.farm, PRINCIPALS), b'{"agent": "echo"}'
    if is_built:
        front.open(app_of(small.app.state.farm, PRINCIPALS))
    async with client_of(front) as http:
        assert (await send(http, SUBMIT, "", query, body)).status_code == 401
        assert (await send(http, SUBMIT, all_but(SUBMIT.permission), query, body)).status_code == 403
        assert (await send(http, SUBMIT, only(SUBMIT.permission), query, body)).status_code == 201
        long = await send(http, SUBMIT, only(SUBMIT.permission), query, b" " * 200_000)
        assert long.status_code == 413
    assert len(small.memory.inputs) == 1


async def test_route_without_a_call_cannot_be_made(small: SmallFarm) -> None:
    async def endpoint() -> Response:
        return Response()

    with pytest.raises(TypeError, match="/v1/secret does not say what it needs"):
        Room("farm").router.get("/v1/secret")(endpoint)
    with pytest.raises(TypeError, match="/v1/secret does not say what it needs"):
        small.app.get("/v1/secret")(endpoint)


async def test_caller_is_the_actor_of_each_command(http: httpx.AsyncClient, small: SmallFarm) -> None:
    small.nodes["node-1"].source = "simulated"
    small.nodes["node-1"].join()
    before = len(small.engine.commands)
    calls: list[tuple[Permission, str, str, bytes]] = [
        (Permission.TASKS_SUBMIT, "POST", "/v1/tasks", b'{"agent": "slow"}'),
        (Permission.TASKS_SUBMIT, "POST", "/v1/tasks?stream=0", b'{"agent": "slow"}'),
        (Permission.TASKS_SUBMIT, "POST", "/v1/tasks/batch", b'{"agent": "slow"}'),
        (Permission.TASKS_SUBMIT, "POST", "/v1/tasks/3/cancel", b""),
        (Permission.TASKS_SUBMIT, "POST", "/v1/tasks/3/retry", b""),
        (Permission.AGENTS_DEPLOY, "POST", "/v1/deployments", dump({"spec": spec_json("new"), "digest": DIGEST})),
        (Permission.AGENTS_DEPLOY, "POST", "/v1/deployments/new/scale", b'{"replicas": 2}'),
        (Permission.AGENTS_DEPLOY, "POST", "/v1/deployments/new/rollback", b'{"to_version": 1}'),
        (Permission.AGENTS_DEPLOY, "DELETE", "/v1/deployments/new", b""),
        (Permission.NODES_MANAGE, "POST", "/v1/nodes/invite", b'{"name": "node-2"}'),
        (Permission.NODES_MANAGE, "POST", "/v1/nodes/node-1/cordon", b""),
        (Permission.NODES_MANAGE, "POST", "/v1/nodes/node-1/uncordon", b""),
        (Permission.NODES_MANAGE, "POST", "/v1/nodes/node-1/drain", b""),
        (Permission.NODES_MANAGE, "DELETE", "/v1/nodes/node-2", b""),
        (Permission.MARKET_MANAGE, "PUT", "/v1/market/products", b'{"products": ["ETH-USD"]}'),
        (Permission.MARKET_MANAGE, "DELETE", "/v1/market/products/ETH-USD", b""),
    ]
    for permission, method, path, content in calls:
        headers = {"Authorization": f"Bearer {only(permission)}"}
        answer = await http.request(method, path, content=content, headers=headers)
        assert answer.status_code < 300, (path, answer.text)
    wishes = [command for command in small.engine.commands[before:] if isinstance(command, Wish)]
    assert [command.actor for command in wishes] == [f"only {permission}" for permission, *_ in calls]
