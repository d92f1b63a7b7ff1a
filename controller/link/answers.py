"""What nodes are asked and answer in pieces: replicas' logs, questions to services. One request, one queue,
back-pressure end to end.

    gateway ─read, ask▶ request on the node's stream ─▶ node
    gateway ◀─ queue ◀─ PushLog, piece by piece ◀─ node, then LogEnd on its stream
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from typing import Any, Final, Protocol

from agentfarm.errors import Conflict, FarmError, Unavailable
from agentfarm.wire import link_pb2 as wire
from controller.core.model import NodeName, Replica
from controller.link import release_0_1
from controller.link.services import SERVICES

CHUNKS_MAX: Final = 64
"""Unread chunks of one request; the node waits then."""
FIRST_CHUNK_DEADLINE_S: Final = 10.0
SERVICE_SILENCE_MAX_S: Final = 90.0
"""A program at work says so every second; its longest question to QuestDB takes 60 s."""
LOOK_EVERY_S: Final = 2.0
"""Between two looks whether the node's stream is still the one that was asked."""


class Speaker(Protocol):
    """A node's session, as far as it matters here."""

    @property
    def has_services(self) -> bool:
        """Whether the node speaks of services by name."""
        ...

    def put(self, message: wire.ControllerMessage) -> None: ...


class _Request:
    def __init__(self, node: NodeName) -> None:
        self.node = node
        self.chunks: asyncio.Queue[bytes | None] = asyncio.Queue(CHUNKS_MAX)
        self.problem = ""
        self.is_ended = False


class Answers:
    """Asks nodes on behalf of callers. A caller that leaves ends what the node does for it."""

    def __init__(self, session_of: Callable[[NodeName], Speaker | None]) -> None:
        self._session_of = session_of
        self._requests: dict[int, _Request] = {}
        self._numbers = itertools.count(1)

    async def read(self, replica: Replica, *, tail_lines: int, follow: bool) -> AsyncIterator[bytes]:
        """Chunks of whole lines. Raises Unavailable if the node cannot be asked; ends when the log does."""
        if replica.node is None or self._session_of(replica.node) is None:
            raise Unavailable(
                f"The log of {replica.deployment}/{replica.seat} is on a node that cannot be reached.",
                remedy="See: farmctl node list.",
            )

        def ask(number: int) -> wire.ControllerMessage:
            wish = wire.LogRequest(request_id=number, replica_id=replica.id, tail_lines=tail_lines, follow=follow)
            return wire.ControllerMessage(log_request=wish)

        late = Unavailable("The node did not send the log in time.", remedy="Try again.")
        deadlines = (None, None) if follow else (FIRST_CHUNK_DEADLINE_S, FIRST_CHUNK_DEADLINE_S)
        async for chunk in self._relay(
            replica.node, ask, deadlines, (late, late), lambda why: FarmError(f"The node could not read the log: {why}")
        ):
            yield chunk

    async def ask(self, node: NodeName, service: str, question: Mapping[str, Any]) -> AsyncIterator[bytes]:
        """The answer of a node's service, the first chunk at once. Raises Unavailable if the node cannot be asked or
        says nothing, and Conflict with its words if it refuses."""
        session = self._session_of(node)
        if session is None:
            raise Unavailable(f"Node {node} cannot be reached.", remedy="See: farmctl node list.")
        payload = SERVICES[service].question(question)

        def request(number: int) -> wire.ControllerMessage:
            if not session.has_services:
                return wire.ControllerMessage(feed_request=release_0_1.feed_request(number, payload))
            return wire.ControllerMessage(
                service_request=wire.ServiceRequest(request_id=number, name=service, payload=payload)
            )

        unknown = Unavailable(
            f"Node {node} did not answer the question {question.get('verb', service)!r}.",
            remedy="Its daemon may be of an earlier release, which does not know such questions: upgrade it.",
        )
        broken = Unavailable(f"Node {node} broke off its answer.", remedy="See: farmctl node list. Then ask again.")
        async for chunk in self._relay(
            node, request, (FIRST_CHUNK_DEADLINE_S, SERVICE_SILENCE_MAX_S), (unknown, broken), Conflict
        ):
            yield chunk

    async def _relay(
        self,
        node: NodeName,
        ask: Callable[[int], wire.ControllerMessage],
        deadlines_s: tuple[float | None, float | None],
        lateness: tuple[FarmError, FarmError],
        refusal: Callable[[str], FarmError],
    ) -> AsyncIterator[bytes]:
        """Ask, and pass on what comes. Of each pair the first is for the first chunk, the second for those after it."""
        session = self._session_of(node)
        assert session is not None
        number = next(self._numbers)
        request = self._requests[number] = _Request(node)
        session.put(ask(number))
        try:
            deadline_s, late = deadlines_s[0], lateness[0]
            while (chunk := await self._next(request, session, deadline_s, late)) is not None:
                yield chunk
                deadline_s, late = deadlines_s[1], lateness[1]
            if request.problem:
                raise refusal(request.problem)
        finally:
            del self._requests[number]
            while not request.chunks.empty():  # lets a node that waits for room go on, and learn that it may stop
                request.chunks.get_nowait()
            with suppress(FarmError):
                session.put(wire.ControllerMessage(log_stop=wire.LogStop(request_id=number)))

    async def _next(
        self, request: _Request, session: Speaker, deadline_s: float | None, late: FarmError
    ) -> bytes | None:
        """The next chunk; None at the end. Raises `late`, and when the stream that was asked is gone too."""
        with_deadline = asyncio.timeout(deadline_s)
        try:
            async with with_deadline:
                while not (request.is_ended and request.chunks.empty()):
                    with suppress(TimeoutError):
                        return await asyncio.wait_for(request.chunks.get(), LOOK_EVERY_S)
                    if self._session_of(request.node) is not session:
                        raise late
        except TimeoutError:
            raise late from None
        return None

    async def lines(self, node: NodeName, number: int, chunk: bytes) -> bool:
        """A chunk came from a node. False: no caller waits for it any more."""
        request = self._requests.get(number)
        if request is None or request.node != node:
            return False
        await request.chunks.put(chunk)
        return number in self._requests

    def ended(self, node: NodeName, number: int, problem: str) -> None:
        """The node says that there is no more, or why there is nothing."""
        request = self._requests.get(number)
        if request is not None and request.node == node:
            request.problem, request.is_ended = problem, True
            with suppress(asyncio.QueueFull):
                request.chunks.put_nowait(None)
