"""Logs on their way from a node to whoever asked: one request, one queue, back-pressure end to end."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Final, Protocol

from agentfarm.errors import FarmError, Unavailable
from agentfarm.wire import link_pb2 as wire
from controller.core.model import NodeName, Replica

CHUNKS_MAX: Final = 64  # unread chunks of one request; the node waits then
FIRST_CHUNK_DEADLINE_S: Final = 10.0


class Speaker(Protocol):
    """A node's session, as far as it matters here."""

    def put(self, message: wire.ControllerMessage) -> None: ...


class _Request:
    def __init__(self, node: NodeName) -> None:
        self.node = node
        self.chunks: asyncio.Queue[bytes | None] = asyncio.Queue(CHUNKS_MAX)
        self.problem = ""


class LogRelay:
    """Follows replicas' logs on behalf of callers."""

    def __init__(self, session_of: Callable[[NodeName], Speaker | None]) -> None:
        self._session_of = session_of
        self._requests: dict[int, _Request] = {}
        self._numbers = itertools.count(1)

    async def read(self, replica: Replica, *, tail_lines: int, follow: bool) -> AsyncIterator[bytes]:
        """Chunks of whole lines. Raises Unavailable if the node cannot be asked; ends when the log does."""
        session = self._session_of(replica.node) if replica.node is not None else None
        if session is None or replica.node is None:
            raise Unavailable(
                f"The log of {replica.deployment}/{replica.seat} is on a node that cannot be reached.",
                remedy="See: farmctl node list.",
            )
        number = next(self._numbers)
        request = self._requests[number] = _Request(replica.node)
        ask = wire.LogRequest(request_id=number, replica_id=replica.id, tail_lines=tail_lines, follow=follow)
        session.put(wire.ControllerMessage(log_request=ask))
        try:
            while True:
                chunk = await self._next(request, follow)
                if chunk is None:
                    break
                yield chunk
            if request.problem:
                raise FarmError(f"The node could not read the log: {request.problem}")
        finally:
            del self._requests[number]
            while not request.chunks.empty():  # lets a node that waits for room go on, and learn that it may stop
                request.chunks.get_nowait()
            with suppress(FarmError):
                session.put(wire.ControllerMessage(log_stop=wire.LogStop(request_id=number)))

    async def _next(self, request: _Request, follow: bool) -> bytes | None:
        if follow:
            return await request.chunks.get()
        try:
            async with asyncio.timeout(FIRST_CHUNK_DEADLINE_S):
                return await request.chunks.get()
        except TimeoutError:
            raise Unavailable("The node did not send the log in time.", remedy="Try again.") from None

    async def lines(self, node: NodeName, number: int, chunk: bytes) -> bool:
        """Lines came from a node. False: nobody waits for them any more."""
        request = self._requests.get(number)
        if request is None or request.node != node:
            return False
        await request.chunks.put(chunk)
        return number in self._requests

    def ended(self, node: NodeName, number: int, problem: str) -> None:
        """The node says that the log is at its end, or why it cannot be read."""
        request = self._requests.get(number)
        if request is not None and request.node == node:
            request.problem = problem
            with suppress(asyncio.QueueFull):
                request.chunks.put_nowait(None)
