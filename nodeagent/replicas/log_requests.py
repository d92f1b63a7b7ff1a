"""Logs on their way to the controller, because it asked: one call a request, beside the stream."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from agentfarm.errors import FarmError
from agentfarm.service import Tasks
from agentfarm.wire import link_pb2 as wire
from nodeagent.core.outgoing import Outgoing
from nodeagent.core.problems import LinkAway
from nodeagent.link.calls import Calls
from nodeagent.replicas.logs import read_log
from nodeagent.replicas.supervisor import Supervisor

STREAMS_MAX = 32


class LogStreams:
    """The log requests being served."""

    def __init__(self, supervisor: Supervisor, calls: Calls, outgoing: Outgoing) -> None:
        self._supervisor = supervisor
        self._calls = calls
        self._outgoing = outgoing
        self._tasks = Tasks("logs")
        self._requests: dict[int, asyncio.Task[None]] = {}

    def begin(self, request: wire.LogRequest) -> None:
        """Send what is asked for."""
        number = request.request_id
        if len(self._requests) >= STREAMS_MAX:
            self._end(number, f"This node sends {STREAMS_MAX} logs already.")
            return
        task = self._tasks.errand(self._serve(number, request.replica_id, request.tail_lines, request.follow))
        self._requests[number] = task
        task.add_done_callback(lambda _: self._requests.pop(number, None))

    def end(self, request_id: int) -> None:
        """The controller has enough."""
        task = self._requests.get(request_id)
        if task is not None:
            task.cancel()

    async def stop(self) -> None:
        """End them all."""
        await self._tasks.end()

    async def _serve(self, number: int, replica_id: int, tail_lines: int, follow: bool) -> None:
        seat = self._supervisor.seats.get(replica_id)
        if seat is None:
            self._end(number, "The replica is not on this node any more.")
            return
        try:
            await self._calls.push_log(_pieces(number, read_log(seat.log_path, tail_lines, follow=follow)))
        except FileNotFoundError:
            self._end(number, "It has written nothing yet.")
        except (LinkAway, FarmError, OSError) as problem:
            self._end(number, str(problem) or type(problem).__name__)
        else:
            self._end(number, "")

    def _end(self, number: int, problem: str) -> None:
        self._outgoing.log_end(wire.LogEnd(request_id=number, problem=problem))


async def _pieces(number: int, lines: AsyncIterator[bytes]) -> AsyncIterator[wire.PushLogRequest]:
    async for some in lines:
        yield wire.PushLogRequest(request_id=number, lines=some)
