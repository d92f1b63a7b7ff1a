"""Answers to the controller's requests, in chunks: logs of replicas, what services are asked. Each is one call beside
the stream, and its end a message on the stream.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Final

from agentfarm.errors import FarmError
from agentfarm.service import Tasks, first_of
from agentfarm.wire import link_pb2 as wire
from nodeagent.core.outgoing import Outgoing
from nodeagent.core.problems import LinkAway
from nodeagent.link.calls import Calls

ANSWERS_MAX: Final = 32
"""At once."""


class Answers:
    """The requests that are being answered."""

    def __init__(self, calls: Calls, outgoing: Outgoing) -> None:
        self._calls = calls
        self._outgoing = outgoing
        self._tasks = Tasks("answers")
        self._running: dict[int, asyncio.Task[None]] = {}

    def begin(self, number: int, chunks: AsyncGenerator[bytes]) -> None:
        """Send the chunks as they come, and then why there are no more."""
        if len(self._running) >= ANSWERS_MAX:
            self.refuse(number, f"This node answers {ANSWERS_MAX} requests already.")
            return
        task = self._running[number] = self._tasks.errand(self._serve(number, chunks), name=f"answer-{number}")
        task.add_done_callback(lambda _: self._running.pop(number, None))

    def refuse(self, number: int, problem: str) -> None:
        """There is no answer."""
        self._outgoing.log_end(wire.LogEnd(request_id=number, problem=problem))

    def end(self, number: int) -> None:
        """The controller has enough."""
        task = self._running.get(number)
        if task is not None:
            task.cancel()

    async def stop(self) -> None:
        """End them all."""
        await self._tasks.end()

    async def _serve(self, number: int, chunks: AsyncGenerator[bytes]) -> None:
        problem = ""
        try:
            async with aclosing(chunks):
                first = await anext(chunks, None)
                if first is not None:
                    await self._push(number, first, chunks)
        except (LinkAway, FarmError, OSError) as failure:
            problem = str(failure) or type(failure).__name__
        self.refuse(number, problem)

    async def _push(self, number: int, first: bytes, chunks: AsyncIterator[bytes]) -> None:
        """Until there are no more, or the controller has enough. Raises what ended either side."""
        queue: asyncio.Queue[bytes | None] = asyncio.Queue(1)
        queue.put_nowait(first)
        problem: Exception | None = None

        async def fill() -> None:
            nonlocal problem
            try:
                async for chunk in chunks:
                    await queue.put(chunk)
            except Exception as failure:
                problem = failure
            await queue.put(None)
            await asyncio.Event().wait()  # until what came before is sent

        ended = await first_of(self._calls.push_log(_pieces(number, queue)), fill())
        ended.result()
        if problem is not None:
            raise problem


async def _pieces(number: int, queue: asyncio.Queue[bytes | None]) -> AsyncIterator[wire.PushLogRequest]:
    while (chunk := await queue.get()) is not None:
        yield wire.PushLogRequest(request_id=number, lines=chunk)
