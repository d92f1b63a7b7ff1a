"""Answers on their way to the controller: in order, ended with a reason, and let go of when nobody wants them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

import pytest

from agentfarm.errors import Conflict
from agentfarm.wire import link_pb2 as wire
from nodeagent.core.outgoing import Outgoing
from nodeagent.core.problems import LinkAway
from nodeagent.link.answers import ANSWERS_MAX, Answers
from nodeagent.services.service import refusal


class Controller:
    """The other end of the calls: takes what is sent, up to `takes` pieces."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.heard = asyncio.Event()
        self.calls = 0
        self.takes: int | None = None
        self.problem: Exception | None = None

    async def push_log(self, pieces: AsyncIterator[wire.PushLogRequest]) -> None:
        self.calls += 1
        if self.problem is not None:
            raise self.problem
        async for piece in pieces:
            self.pieces.append(piece.lines)
            self.heard.set()
            if self.takes is not None and len(self.pieces) >= self.takes:
                return


class Source:
    """An answer of these chunks; a chunk that is an error is raised, and None never comes."""

    def __init__(self, *chunks: bytes | Exception | None) -> None:
        self.chunks = chunks
        self.is_closed = False

    async def __call__(self) -> AsyncGenerator[bytes]:
        try:
            for chunk in self.chunks:
                if isinstance(chunk, Exception):
                    raise chunk
                if chunk is None:
                    await asyncio.Event().wait()
                else:
                    yield chunk
        finally:
            self.is_closed = True


class Node:
    def __init__(self) -> None:
        self.controller = Controller()
        self.woken = asyncio.Event()
        self.outgoing = Outgoing(self.woken.set)
        self.outgoing.open([])
        calls: Any = self.controller
        self.answers = Answers(calls, self.outgoing)

    async def end(self) -> wire.LogEnd:
        async with asyncio.timeout(20):
            await self.woken.wait()
        self.woken.clear()
        (message,) = self.outgoing.drain()
        return message.log_end


@pytest.fixture
async def node() -> Node:
    return Node()


async def test_chunks_go_out_in_order_and_then_the_end(node: Node) -> None:
    source = Source(b"1", b"2", b"3")
    node.answers.begin(7, source())
    assert await node.end() == wire.LogEnd(request_id=7)
    assert node.controller.pieces == [b"1", b"2", b"3"]
    assert source.is_closed


async def test_a_refusal_needs_no_call(node: Node) -> None:
    node.answers.begin(7, refusal(Conflict("Not now.", remedy="Ask later.")))
    assert await node.end() == wire.LogEnd(request_id=7, problem="Not now. Ask later.")
    assert node.controller.calls == 0


async def test_what_came_before_a_problem_is_sent(node: Node) -> None:
    node.answers.begin(7, Source(b"1", b"2", Conflict("It broke."))())
    assert await node.end() == wire.LogEnd(request_id=7, problem="It broke.")
    assert node.controller.pieces == [b"1", b"2"]


async def test_a_controller_that_has_enough_ends_the_source(node: Node) -> None:
    node.controller.takes = 1
    source = Source(b"1", None)
    node.answers.begin(7, source())
    assert await node.end() == wire.LogEnd(request_id=7)
    assert source.is_closed


async def test_a_link_that_is_away_ends_the_source(node: Node) -> None:
    node.controller.problem = LinkAway("no stream")
    source = Source(b"1", None)
    node.answers.begin(7, source())
    assert await node.end() == wire.LogEnd(request_id=7, problem="no stream")
    assert source.is_closed


async def test_nobody_waits_and_the_source_ends_without_a_word(node: Node) -> None:
    sources = [Source(b"1", None), Source(None)]
    for number, source in enumerate(sources):
        node.answers.begin(number, source())
    await node.controller.heard.wait()
    for number in range(2):
        node.answers.end(number)
    await node.answers.stop()
    assert [source.is_closed for source in sources] == [True, True]
    assert not node.woken.is_set()


async def test_one_more_than_a_node_answers_is_refused(node: Node) -> None:
    for number in range(ANSWERS_MAX):
        node.answers.begin(number, Source(None)())
    node.answers.begin(99, Source(b"1")())
    end = await node.end()
    assert end.request_id == 99
    assert "already" in end.problem
    await node.answers.stop()
