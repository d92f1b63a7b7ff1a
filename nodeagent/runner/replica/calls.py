"""Calls of an attempt to the farm, sent to the daemon over the replica's socket. No code here reads what they carry."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from nodeagent.runner.protocol import frames
from nodeagent.runner.protocol.frames import AgentCall, Answer, Run
from nodeagent.runner.replica.control import Control


class AgentCalls:
    """Numbers calls and matches answers. On the loop's thread."""

    def __init__(self, control: Control, loop: asyncio.AbstractEventLoop) -> None:
        self._control = control
        self._loop = loop
        self._next = 1
        self._answers: dict[int, asyncio.Future[list[bytes]]] = {}
        self._frames: dict[int, bytes] = {}

    def channel(self, run: Run) -> AttemptCalls:
        """The calls of one attempt."""
        return AttemptCalls(self, run)

    async def call(self, run: Run, method: str, header: bytes, parts: Sequence[bytes]) -> list[bytes]:
        """Send a call and wait for its answer. Raises LeaseLost, or RuntimeError with the farm's words."""
        number, self._next = self._next, self._next + 1
        answer: asyncio.Future[list[bytes]] = self._loop.create_future()
        self._answers[number] = answer
        self._frames[number] = frames.frame_call(AgentCall(number, run.task_id, run.token, method, header, parts))
        try:
            self._control.send(self._frames[number])
            return await answer
        finally:
            self._answers.pop(number, None)
            self._frames.pop(number, None)

    def repeat(self) -> None:
        """A new daemon connected and does not know what is still unanswered. Every call may be repeated."""
        for data in list(self._frames.values()):
            self._control.send(data)

    def answered(self, body: bytes) -> None:
        """An AGENT_ANSWER."""
        number, status, parts = frames.read_answer(body)
        future = self._answers.get(number)
        if future is None or future.done():
            return
        if status == Answer.DONE:
            future.set_result(parts)
        elif status == Answer.LEASE_LOST:
            from agentfarm.sdk import LeaseLost  # noqa: PLC0415 - loaded with the agent

            future.set_exception(LeaseLost(parts[0].decode() if parts else "the lease is gone"))
        else:
            future.set_exception(RuntimeError(parts[0].decode() if parts else "the farm refused the call"))


class AttemptCalls:
    """`agentfarm.sdk.call.FarmCalls` of one attempt."""

    __slots__ = ("_calls", "_run")

    def __init__(self, calls: AgentCalls, run: Run) -> None:
        self._calls = calls
        self._run = run

    async def call(self, method: str, header: bytes, parts: Sequence[bytes] = ()) -> list[bytes]:
        """See `FarmCalls`."""
        return await self._calls.call(self._run, method, header, parts)
