"""Calls of attempts to the farm: carried to the controller unread, and its answers back, under the attempt's token.

While the controller is away a call waits; the agent waits with it, which is what durable means. It ends with the
replica's process.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, Protocol

from agentfarm.backoff import Backoff
from agentfarm.errors import FarmError, StaleToken
from agentfarm.service import Tasks
from agentfarm.wire import link_pb2 as wire
from nodeagent.core.problems import LinkAway
from nodeagent.runner.protocol import frames
from nodeagent.runner.protocol.frames import AgentCall, Answer, Kind

if TYPE_CHECKING:
    from nodeagent.core.attempts import Attempts
    from nodeagent.core.seat import Seat

CALLS_MAX: Final = 64
"""Calls in flight; more wait their turn."""
RETRY_MIN_S, RETRY_MAX_S = 0.1, 2.0
METHODS_0_1: Final = {Kind.CHECKPOINT_PUT: "checkpoints.put", Kind.CHECKPOINT_GET: "checkpoints.get"}
"""Replicas of 0.1 have a kind of frame for each method. 0.3.0 removes this."""


class FarmCalls(Protocol):
    """The link's calls. They raise LinkAway, StaleToken, or another FarmError for a refusal."""

    async def agent_call(self, request: wire.AgentCallRequest) -> Sequence[bytes]:
        """The parts of the controller's answer."""
        ...


class Relay:
    """Serves the calls of every replica."""

    def __init__(self, calls: FarmCalls) -> None:
        self._calls = calls
        self._places = asyncio.Semaphore(CALLS_MAX)
        self._tasks = Tasks("relay")

    def begin(self, seat: Seat, kind: int, body: bytes, attempts: Attempts) -> None:
        """A call of a replica. Its answer goes to the same process, if that still lives. It may call for its own
        attempts alone: a controller of 0.1 does not look at the replica."""
        call = frames.read_call(body) if kind == Kind.AGENT_CALL else read_call_0_1(kind, body)
        if not attempts.is_of(seat.id, call.token, call.task_id):
            if seat.process is not None:
                lost = [b"This replica does not hold that attempt."]
                seat.process.send(frames.frame_answer(call.number, Answer.LEASE_LOST, lost))
            return
        self._tasks.errand(self._serve(seat, call))

    async def stop(self) -> None:
        """Let go of what waits; the replicas call the next daemon again."""
        await self._tasks.end()

    async def _serve(self, seat: Seat, call: AgentCall) -> None:
        process = seat.process
        status, parts = await self._answer(seat, call)
        if process is not None and process is seat.process:
            process.send(frames.frame_answer(call.number, status, parts))

    async def _answer(self, seat: Seat, call: AgentCall) -> tuple[Answer, Sequence[bytes]]:
        request = wire.AgentCallRequest(
            method=call.method, task_id=call.task_id, fencing_token=call.token, replica_id=seat.id, header=call.header,
            parts=call.parts,
        )  # fmt: skip
        process = seat.process
        backoff = Backoff(RETRY_MIN_S, RETRY_MAX_S)
        while process is seat.process and process is not None:
            try:
                async with self._places:
                    return Answer.DONE, await self._calls.agent_call(request)
            except LinkAway:
                await asyncio.sleep(backoff.next_s())
            except StaleToken as problem:
                return Answer.LEASE_LOST, [str(problem).encode()]
            except FarmError as problem:
                return Answer.FAILED, [str(problem).encode()]
        return Answer.FAILED, [b"The replica is gone."]


def read_call_0_1(kind: int, body: bytes) -> AgentCall:
    """A checkpoint frame of a replica of 0.1: one header holds the call's own facts too. 0.3.0 removes this."""
    header, *parts = frames.unpack_parts(body)
    head = json.loads(header)
    return AgentCall(head["request"], head["task_id"], head["token"], METHODS_0_1[Kind(kind)], header, parts)
