"""The link outlives every stream, however that ends."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest

from nodeagent.core.outgoing import Outgoing
from nodeagent.core.roster import Roster
from nodeagent.core.session import Session
from nodeagent.link import knock as knocking
from nodeagent.link.calls import Calls
from nodeagent.link.stream import Link, Peer


class Nothing:
    """Stands for what no stream that breaks at once asks for."""

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"nobody asks for {name} here")


def aio_error() -> grpc.aio.AioRpcError:
    nothing = grpc.aio.Metadata()
    return grpc.aio.AioRpcError(grpc.StatusCode.UNAVAILABLE, nothing, nothing, "away")


ENDS = {
    "a write after its end": lambda: asyncio.InvalidStateError("RPC already finished."),
    "its connection went": aio_error,
    "its channel is closed": lambda: grpc.aio.UsageError("Channel is closed."),
    "it was silent": lambda: TimeoutError("a heartbeat went unanswered for 5 s"),
    "the network is down": lambda: OSError("unreachable"),
}


@pytest.mark.parametrize("end", ENDS)
async def test_a_stream_that_breaks_is_made_anew(end: str, monkeypatch: pytest.MonkeyPatch) -> None:
    wake = asyncio.Event()
    outgoing, nothing = Outgoing(wake.set), Nothing()
    loop = asyncio.get_running_loop()
    session = Session(loop, Roster(loop, nothing, outgoing, nothing), outgoing, nothing, nothing, epoch=1)
    link = Link(Peer("127.0.0.1:1", grpc.ssl_channel_credentials), session, outgoing, wake, Calls())
    streams, again = 0, asyncio.Event()

    async def stream(self: Link) -> None:
        nonlocal streams
        streams += 1
        if streams == 1:
            raise ENDS[end]()
        again.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(Link, "_stream", stream)
    running = asyncio.create_task(link.run())
    tried_again = asyncio.create_task(again.wait())
    try:
        await asyncio.wait((running, tried_again), timeout=60, return_when=asyncio.FIRST_COMPLETED)
        assert tried_again.done(), "the link ended with its stream"
    finally:
        for task in (running, tried_again):
            task.cancel()
        await asyncio.gather(running, tried_again, return_exceptions=True)


async def test_wait_ends_when_a_controller_that_was_gone_listens_again(
    unused_tcp_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_shut, was_refused = knocking._is_shut, asyncio.Event()

    async def watched(address: str) -> bool:
        answer = await is_shut(address)
        if answer:
            was_refused.set()
        return answer

    monkeypatch.setattr(knocking, "_is_shut", watched)
    waiting = asyncio.create_task(knocking.wait_or_opened(f"127.0.0.1:{unused_tcp_port}", 60.0, 0.0))
    async with asyncio.timeout(20):
        await was_refused.wait()
        async with await asyncio.start_server(lambda *_: None, "127.0.0.1", unused_tcp_port):
            await waiting


async def test_door_that_was_never_shut_shortens_no_wait() -> None:
    loop = asyncio.get_running_loop()
    async with await asyncio.start_server(lambda *_: None, "127.0.0.1", 0) as server:
        began = loop.time()
        await knocking.wait_or_opened(f"127.0.0.1:{server.sockets[0].getsockname()[1]}", 0.3, 0.0)
        assert loop.time() - began >= 0.29


async def test_wait_at_a_shut_door_ends_in_time(unused_tcp_port: int) -> None:
    loop = asyncio.get_running_loop()
    began = loop.time()
    async with asyncio.timeout(20):
        await knocking.wait_or_opened(f"127.0.0.1:{unused_tcp_port}", 0.3, 1.0)
    assert loop.time() - began >= 0.29
