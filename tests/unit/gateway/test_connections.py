"""Connections of strangers: each limit by its name, and that others are served beside every attack."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import httpx
import pytest
from starlette.types import Receive, Scope, Send

from controller.gateway.http.limits import HEADERS_MAX, PIPELINE_MAX, ConnectionLimits
from controller.gateway.http.server import HttpServer

GET = b"GET / HTTP/1.1\r\nHost: localhost\r\n"
Peer = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class App:
    """Answers at once; `/held` when it is let go; `/long` without end."""

    def __init__(self) -> None:
        self.let_go = asyncio.Event()
        self.answered = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        while (await receive()).get("more_body"):
            pass
        if scope["path"] == "/held":
            await self.let_go.wait()
        if scope["path"] == "/long":
            await self._long(send)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})
        self.answered += 1

    async def _long(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while not self.let_go.is_set():
            await send({"type": "http.response.body", "body": bytes(65_536), "more_body": True})
            await asyncio.sleep(0)  # sending to one who has gone does not wait
        raise asyncio.CancelledError


@asynccontextmanager
async def served(app: App, **limits: float) -> AsyncIterator[HttpServer]:
    server = HttpServer(app, "127.0.0.1", 0, ConnectionLimits(**limits))  # type: ignore[arg-type]
    await server.start()
    async with asyncio.timeout(60):
        yield server
    app.let_go.set()
    await server.stop()


async def opened(server: HttpServer, data: bytes = b"") -> Peer:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(data)
    await writer.drain()
    return reader, writer


async def rest(peer: Peer) -> bytes:
    """What comes until the connection is closed."""
    try:
        return await peer[0].read()
    except ConnectionResetError:
        return b""


async def until(claim: Callable[[], bool]) -> None:
    while not claim():  # noqa: ASYNC110 - nothing announces it
        await asyncio.sleep(0.001)


async def is_served(server: HttpServer) -> bool:
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.port}") as client:
        return (await client.get("/healthz", timeout=20)).text == "ok"


@pytest.mark.parametrize(
    ("head", "limit"),
    [
        (GET + b"X: " + b"x" * 70_000, "head_max_bytes"),
        (GET + b"X: " + b"x" * 70_000 + b"\r\n\r\n", "head_max_bytes"),
        (b"GET /" + b"x" * 70_000, "head_max_bytes"),
        (GET + b"".join(b"X-%d: %b\r\n" % (number, b"y" * 1_000) for number in range(80)), "head_max_bytes"),
        (GET + b"a:b\r\n" * (HEADERS_MAX + 1), "HEADERS_MAX"),
    ],
)
async def test_a_head_without_end_is_refused_by_its_limit(head: bytes, limit: str) -> None:
    app = App()
    async with served(app) as server:
        answer = await rest(await opened(server, head))  # a peer that still writes may find itself cut instead
        assert not answer or (answer.startswith(b"HTTP/1.1 431 ") and f'"limit":"{limit}"'.encode() in answer)
        assert server.connections.refusals == {limit: 1}
        assert not len(server.connections)
        assert await is_served(server)
    assert app.answered == 1


async def test_a_head_within_the_limits_is_served_again_and_again_on_one_connection() -> None:
    app = App()
    async with served(app, head_max_bytes=2_000) as server:
        reader, writer = await opened(server)
        for _ in range(5):
            writer.write(GET + b"X: " + b"x" * 1_500)
            await writer.drain()
            writer.write(b"\r\nContent-Length: 9000\r\n\r\n" + b"b" * 9_000)
            assert (await reader.readuntil(b"ok")).startswith(b"HTTP/1.1 200 ")
        writer.close()


async def test_requests_beyond_the_pipeline_are_refused() -> None:
    app = App()
    async with served(app) as server:
        peer = await opened(server, (GET.replace(b"/ ", b"/held ") + b"\r\n") * (PIPELINE_MAX + 2))
        await rest(peer)
        assert server.connections.refusals == {"PIPELINE_MAX": 1}
        assert await is_served(server)


@pytest.mark.parametrize("sent", [b"", b"GET / HT", GET])
async def test_a_head_that_does_not_come_is_given_up(sent: bytes) -> None:
    async with served(App(), head_timeout_s=0.01) as server:
        answer = await rest(await opened(server, sent))
        assert answer.startswith(b"HTTP/1.1 408 ")
        await until(lambda: not len(server.connections))


async def test_a_second_head_that_drips_is_given_up_too() -> None:
    async with served(App(), head_timeout_s=0.01) as server:
        peer = await opened(server, GET + b"\r\n" + GET)
        assert b" 408 " in await rest(peer)


@pytest.mark.parametrize("sent", [GET + b"\r\n", GET + b"Content-Length: 10\r\n\r\nabc", b"GET /long HTTP/1.1\r\n\r\n"])
async def test_a_silent_connection_is_closed(sent: bytes) -> None:
    async with served(App(), idle_timeout_s=0.01) as server:
        peer = await opened(server, sent)
        await until(lambda: len(server.connections) == 1)
        await until(lambda: not len(server.connections))
        peer[1].close()


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"GET / HT",
        GET + b"\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 10\r\n\r\nabc",
        b"GET /long HTTP/1.1\r\n\r\n",
    ],
)
async def test_a_full_house_makes_room_for_others(sent: bytes) -> None:
    async with served(App(), connections_max=8) as server:
        peers = [await opened(server, sent) for _ in range(20)]
        await until(lambda: len(server.connections.waiting) == 8)
        assert len(server.connections) == 8
        for _ in range(3):
            assert await is_served(server)
        assert server.connections.refusals["connections_max"] >= 12
        for _, writer in peers:
            writer.close()


async def test_a_request_that_is_being_answered_is_never_cut() -> None:
    app = App()
    async with served(app, connections_max=4) as server:
        held = [await opened(server, GET.replace(b"/ ", b"/held ") + b"\r\n") for _ in range(4)]
        await until(lambda: len(server.connections) == 4 and not server.connections.waiting)
        refused = await rest(await opened(server, GET + b"\r\n"))
        assert refused.startswith(b"HTTP/1.1 503 ")
        app.let_go.set()
        for reader, writer in held:
            assert (await reader.readuntil(b"ok")).startswith(b"HTTP/1.1 200 ")
            writer.close()


async def test_one_address_has_a_limit_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("controller.gateway.http.connections._counted", lambda address: address)
    async with served(App(), connections_per_address_max=3) as server:
        peers = [await opened(server, b"GET") for _ in range(10)]
        await until(lambda: server.connections.refusals["connections_per_address_max"] == 7)
        assert len(server.connections) == 3
        for _, writer in peers:
            writer.close()
