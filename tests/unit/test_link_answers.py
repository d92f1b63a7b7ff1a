"""Lines on their way from a node to a caller: whole, bounded, with deadlines, and ended when nobody wants them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import pytest

from agentfarm.errors import Conflict, FarmError, Unavailable
from agentfarm.wire import link_pb2 as wire
from agentfarm.wire import market_pb2
from controller.core.model import DeploymentName, NodeName, Replica, ReplicaId
from controller.link import answers
from controller.link.answers import CHUNKS_MAX, Answers

NODE = NodeName("node-1")


class Spoken:
    """A session that keeps what it is told to say."""

    def __init__(self, *, has_services: bool = True) -> None:
        self.has_services = has_services
        self.said: list[wire.ControllerMessage] = []

    def put(self, message: wire.ControllerMessage) -> None:
        self.said.append(message)


class Link:
    """A relay with one node behind it."""

    def __init__(self) -> None:
        self.session: Spoken | None = Spoken()
        self.relay = Answers(lambda node: self.session if node == NODE else None)

    def ask(self) -> AsyncIterator[bytes]:
        return self.relay.ask(NODE, "market", {"verb": "verify", "arguments": {"product": "BTC-USD", "open": True}})

    async def lines(self, *numbers: int, request: int = 1) -> bool:
        return all([await self.relay.lines(NODE, request, b"%d\n" % number) for number in numbers])


async def all_of(chunks: AsyncIterator[bytes]) -> bytes:
    return b"".join([chunk async for chunk in chunks])


async def asked(link: Link) -> asyncio.Task[bytes]:
    """A caller whose question is on its way."""
    task = asyncio.ensure_future(all_of(link.ask()))
    await asyncio.sleep(0)
    return task


async def test_a_question_goes_out_and_its_lines_come_back() -> None:
    link = Link()
    task = await asked(link)
    assert link.session is not None
    request = link.session.said[0].service_request
    question = market_pb2.MarketQuestion.FromString(request.payload)
    assert (request.name, question.verb) == ("market", "verify")
    assert dict(question.arguments) == {"product": "BTC-USD", "open": "true"}
    assert await link.lines(1, 2)
    link.relay.ended(NODE, 1, "")
    assert await task == b"1\n2\n"
    assert link.session.said[-1].log_stop.request_id == 1


async def test_a_node_of_0_1_is_asked_in_its_words() -> None:
    link = Link()
    link.session = Spoken(has_services=False)
    task = await asked(link)
    question = link.session.said[0].feed_request
    assert (question.verb, json.loads(question.arguments_json)) == ("verify", {"product": "BTC-USD", "open": True})
    link.relay.ended(NODE, 1, "")
    assert await task == b""


async def test_a_refusal_reaches_the_caller_in_the_nodes_words() -> None:
    link = Link()
    task = await asked(link)
    link.relay.ended(NODE, 1, "This node answers another question.")
    with pytest.raises(Conflict, match="another question"):
        await task


async def test_an_end_that_comes_while_the_queue_is_full_is_not_lost() -> None:
    link = Link()
    chunks = link.ask()
    first = asyncio.ensure_future(anext(chunks))
    await asyncio.sleep(0)
    await link.lines(*range(CHUNKS_MAX))
    assert await first == b"0\n"
    await link.lines(CHUNKS_MAX)
    link.relay.ended(NODE, 1, "")
    async with asyncio.timeout(60):
        assert await all_of(chunks) == b"".join(b"%d\n" % number for number in range(1, CHUNKS_MAX + 1))


async def test_a_node_that_does_not_know_the_question_is_told_of_after_a_deadline(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(answers, "FIRST_CHUNK_DEADLINE_S", 0.01)
    link = Link()
    with pytest.raises(Unavailable, match="did not answer") as refused:
        await all_of(link.ask())
    assert "upgrade" in refused.value.remedy
    assert link.session is not None
    assert link.session.said[-1].HasField("log_stop")


async def test_an_answer_ends_when_the_stream_that_was_asked_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "LOOK_EVERY_S", 0.01)
    link = Link()
    task = await asked(link)
    await link.lines(1)
    link.session = Spoken()  # it has come back, and knows nothing of the question
    with pytest.raises(Unavailable, match="broke off"):
        await task


async def test_a_node_that_is_away_is_not_waited_for() -> None:
    link = Link()
    link.session = None
    with pytest.raises(Unavailable, match="cannot be reached"):
        await all_of(link.ask())


async def test_a_caller_that_leaves_stops_the_node_and_lets_go_of_lines_that_wait() -> None:
    link = Link()
    chunks = link.ask()
    first = asyncio.ensure_future(anext(chunks))
    await asyncio.sleep(0)
    await link.lines(*range(CHUNKS_MAX))
    await first
    await link.lines(0)
    waiting = asyncio.ensure_future(link.lines(1))
    await asyncio.sleep(0)
    assert not waiting.done()
    await chunks.aclose()  # type: ignore[attr-defined]  # it is a generator
    async with asyncio.timeout(60):
        assert not await waiting
    assert link.session is not None
    assert link.session.said[-1].log_stop.request_id == 1


async def test_lines_of_another_node_are_not_taken() -> None:
    link = Link()
    task = await asked(link)
    assert not await link.relay.lines(NodeName("node-2"), 1, b"forged\n")
    link.relay.ended(NodeName("node-2"), 1, "forged")
    link.relay.ended(NODE, 1, "")
    assert await task == b""


async def test_a_log_that_cannot_be_read_says_why() -> None:
    link = Link()
    replica = Replica(ReplicaId(7), DeploymentName("echo"), 1, 1)
    replica.node = NODE
    task = asyncio.ensure_future(all_of(link.relay.read(replica, tail_lines=3, follow=False)))
    await asyncio.sleep(0)
    assert link.session is not None
    assert link.session.said[0].log_request.replica_id == 7
    link.relay.ended(NODE, 1, "gone")
    with pytest.raises(FarmError, match="could not read the log: gone"):
        await task
