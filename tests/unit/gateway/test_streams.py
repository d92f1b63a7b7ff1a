"""Streams: server-sent events that resume, followed events, logs, and what happens when a client goes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import httpx
import orjson
import pytest

from controller.gateway.http import sse
from controller.gateway.http.server import HttpServer
from tests.unit.gateway.small_farm import TOKEN, SmallFarm

HEADERS = {"Authorization": f"Bearer {TOKEN}"}


@pytest.fixture
async def http(small: SmallFarm) -> AsyncIterator[httpx.AsyncClient]:
    """A client over a real socket: the in-process one cannot stream."""
    server = HttpServer(small.app, "127.0.0.1", 0)
    await server.start()
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.port}", headers=HEADERS) as client:
        yield client
    await server.stop()


@asynccontextmanager
async def lines_of(http: httpx.AsyncClient, path: str, **headers: str) -> AsyncIterator[AsyncIterator[str]]:
    async with http.stream("GET", path, headers=headers, timeout=20) as answer:
        assert answer.status_code == 200, await answer.aread()
        yield answer.aiter_lines()


async def until(claim: Callable[[], bool]) -> None:
    """Let the loop run until something holds."""
    async with asyncio.timeout(5):
        while not claim():  # noqa: ASYNC110 - nothing announces that a client's going was noticed
            await asyncio.sleep(0)


async def story(lines: AsyncIterator[str], until: str = "end") -> list[tuple[str, str, str]]:
    """(event, id, data) of a stream, up to an event."""
    events: list[tuple[str, str, str]] = []
    fields = {"event": "", "id": "", "data": ""}
    async for line in lines:
        if not line:
            events.append((fields["event"], fields["id"], fields["data"]))
            fields = {"event": "", "id": "", "data": ""}
            if events[-1][0] == until:
                break
        elif not line.startswith(":"):
            name, _, value = line.partition(": ")
            fields[name] = value
    return events


async def test_task_stream_has_states_pieces_and_the_end(http: httpx.AsyncClient, small: SmallFarm) -> None:
    task = (await http.post("/v1/tasks", json={"agent": "slow", "input": 5})).json()["id"]
    await small.settle()
    async with lines_of(http, f"/v1/tasks/{task}/events") as lines:
        assert await anext(lines) == "event: state"
        small.engine.watchers.piece(task, b'{"a":1}')
        small.engine.watchers.piece(task, b"2")
        small.nodes["node-1"].release()
        events = await story(lines)
    assert [(event, number) for event, number, _ in events] == [("", ""), ("output", "1"), ("output", "2"), ("end", "")]
    assert orjson.loads(events[-1][2])["output"] == 5


async def test_task_stream_resumes_after_the_last_piece_seen(http: httpx.AsyncClient, small: SmallFarm) -> None:
    task = (await http.post("/v1/tasks", json={"agent": "slow"})).json()["id"]
    await small.settle()
    for number in range(1, 5):
        small.engine.watchers.piece(task, b"%d" % number)
    async with lines_of(http, f"/v1/tasks/{task}/events", **{"Last-Event-ID": "2"}) as lines:
        await until(lambda: bool(small.engine.watchers._watches))
        small.nodes["node-1"].release()
        events = await story(lines)
    assert [data for event, _, data in events if event == "output"] == ["3", "4"]
    bad = await http.get(f"/v1/tasks/{task}/events", headers={"Last-Event-ID": "later"})
    assert bad.status_code == 400


async def test_submit_can_answer_with_the_whole_story(http: httpx.AsyncClient) -> None:
    async with http.stream("POST", "/v1/tasks?stream=1", json={"agent": "stream", "input": 5}) as answer:
        assert (answer.status_code, answer.headers["location"]) == (201, "/v1/tasks/1")
        events = await story(answer.aiter_lines())
    assert [event for event, _, _ in events] == ["state", "state", "output", "output", "output", "end"]
    assert orjson.loads(events[0][2])["id"] == 1
    assert [data for event, _, data in events if event == "output"] == ['"one"', '"two"', '"three"']


async def test_stream_ends_with_a_problem_when_the_farm_goes_away(http: httpx.AsyncClient, small: SmallFarm) -> None:
    task = (await http.post("/v1/tasks", json={"agent": "slow"})).json()["id"]
    async with lines_of(http, f"/v1/tasks/{task}/events") as lines:
        await until(lambda: bool(small.engine.watchers._watches))
        small.engine.live = None
        small.memory.is_away = True
        small.engine.watchers.end_all()
        events = await story(lines, until="problem")
    assert orjson.loads(events[-1][2])["code"] == "unavailable"


async def test_long_wait_ends_when_its_caller_goes(
    http: httpx.AsyncClient, small: SmallFarm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("controller.gateway.tasks.wait.SOON_S", 0.01)
    task = (await http.post("/v1/tasks", json={"agent": "slow"})).json()["id"]
    with pytest.raises(httpx.ReadTimeout):
        await http.get(f"/v1/tasks/{task}/wait?timeout=60", timeout=0.2)
    await until(lambda: not small.engine.watchers._watches)
    waiting = asyncio.create_task(http.get(f"/v1/tasks/{task}/wait?timeout=60", timeout=20))
    await until(lambda: bool(small.engine.watchers._watches))
    small.nodes["node-1"].release()
    assert (await waiting).json()["state"] == "succeeded"


async def test_stream_of_an_ended_task_is_its_end(http: httpx.AsyncClient) -> None:
    task = (await http.post("/v1/tasks?wait=5", json={"agent": "echo", "input": "x"})).json()["id"]
    async with lines_of(http, f"/v1/tasks/{task}/events") as lines:
        events = await story(lines)
    assert [event for event, _, _ in events] == ["end"]
    assert (await http.get("/v1/tasks/999/events")).status_code == 404


async def test_watch_is_let_go_when_the_client_goes(http: httpx.AsyncClient, small: SmallFarm) -> None:
    task = (await http.post("/v1/tasks", json={"agent": "slow"})).json()["id"]
    async with lines_of(http, f"/v1/tasks/{task}/events") as lines:
        await anext(lines)
        assert small.engine.watchers._watches
    await until(lambda: not small.engine.watchers._watches)


async def test_silence_is_filled_with_comments(
    http: httpx.AsyncClient, small: SmallFarm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sse, "SSE_KEEPALIVE_S", 0.01)
    task = (await http.post("/v1/tasks", json={"agent": "slow"})).json()["id"]
    async with lines_of(http, f"/v1/tasks/{task}/events") as lines:
        async for line in lines:
            if line.startswith(":"):
                break
    assert line == ": still here"


async def test_events_are_followed_without_loss_or_doubles(http: httpx.AsyncClient, small: SmallFarm) -> None:
    earlier = [orjson.loads(line) for line in (await http.get("/v1/events?limit=500")).content.splitlines()]
    after = earlier[-1]["id"]
    async with lines_of(http, f"/v1/events?follow=1&after={after}") as lines:
        for name in ("node-7", "node-8"):
            await http.post("/v1/nodes/invite", json={"name": name})
        new = [orjson.loads(await anext(lines)) for _ in range(2)]
    assert [(event["kind"], event["node"]) for event in new] == [("node.added", "node-7"), ("node.added", "node-8")]
    assert [event["id"] for event in new] == [after + 1, after + 2]
    await until(lambda: not small.engine.events._followers)


async def test_events_as_server_sent_events_resume_by_id(http: httpx.AsyncClient) -> None:
    accept = {"Accept": "text/event-stream", "Last-Event-ID": "1"}
    async with lines_of(http, "/v1/events?follow=1", **accept) as lines:
        assert await anext(lines) == "id: 2"
        assert await anext(lines) == "event: event"


async def test_events_are_filtered(http: httpx.AsyncClient) -> None:
    events = [orjson.loads(line) for line in (await http.get("/v1/events?agent=ech")).content.splitlines()]
    assert events
    assert {event["deployment"] for event in events} == {"echo"}


async def test_log_comes_as_lines_and_is_followed(http: httpx.AsyncClient, small: SmallFarm) -> None:
    replica = next(r for r in small.engine.state.replicas.values() if r.deployment == "echo")
    async with lines_of(http, f"/v1/replicas/{replica.id}/log?tail=1") as lines:
        assert await story(lines) == [("line", "", f"second line of {replica.id}"), ("end", "", "{}")]
    async with lines_of(http, "/v1/replicas/echo/0/log?follow=1") as lines:
        assert [data for _, _, data in await story(lines)][-2] == "third line"
    assert (await http.get("/v1/replicas/echo/7/log")).status_code == 404


async def test_streams_are_bounded_and_given_back(http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "STREAMS_MAX", 1)
    async with lines_of(http, "/v1/events?follow=1"):
        refused = await http.get("/v1/events?follow=1")
        assert (refused.status_code, refused.json()["limit"]) == (503, "STREAMS_MAX")
    await until(lambda: sse.StreamedAnswer.open_now == 0)
    async with lines_of(http, "/v1/events?follow=1") as lines:
        assert await anext(lines)


async def test_taken_port_is_named(small: SmallFarm) -> None:
    from agentfarm.errors import Conflict

    first = HttpServer(small.app, "127.0.0.1", 0)
    await first.start()
    with pytest.raises(Conflict, match=f"127.0.0.1:{first.port}"):
        await HttpServer(small.app, "127.0.0.1", first.port).start()
    await first.stop()
    await first.stop()


async def test_stop_cuts_streams(small: SmallFarm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("controller.gateway.http.server.DRAIN_S", 0)
    server = HttpServer(small.app, "127.0.0.1", 0)
    await server.start()
    url = f"http://127.0.0.1:{server.port}"
    async with (
        httpx.AsyncClient(base_url=url, headers=HEADERS) as client,
        client.stream("GET", "/v1/events?follow=1") as answer,
    ):
        await anext(answer.aiter_lines())
        await server.stop()
    assert not small.engine.events._followers
