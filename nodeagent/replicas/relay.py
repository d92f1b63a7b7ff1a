"""Checkpoints on behalf of replicas: their requests to the controller, its answers back, under the attempt's token.

While the controller is away a request waits; the agent waits with it, which is what durable means. It ends with the
attempt.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol

from agentfarm.errors import FarmError, StaleToken
from agentfarm.wire import link_pb2 as wire
from nodeagent.core.problems import LinkAway
from nodeagent.runner.replica import frames
from nodeagent.runner.replica.checkpoints import ANSWER
from nodeagent.runner.replica.frames import Answer, Kind

if TYPE_CHECKING:
    from nodeagent.replicas.seat import Seat

CALLS_MAX: Final = 64
"""Checkpoint calls in flight; more wait their turn."""
RETRY_MIN_S, RETRY_MAX_S = 0.1, 2.0


class CheckpointCalls(Protocol):
    """The link's calls. They raise LinkAway, StaleToken, or another FarmError for a refusal."""

    async def put_checkpoint(self, request: wire.PutCheckpointRequest) -> None: ...
    async def get_checkpoints(self, request: wire.GetCheckpointsRequest) -> Sequence[wire.Checkpoint]: ...


class Relay:
    """Serves CHECKPOINT_PUT and CHECKPOINT_GET of every replica."""

    def __init__(self) -> None:
        self.calls: CheckpointCalls | None = None
        self.puts_total = 0
        self._places = asyncio.Semaphore(CALLS_MAX)
        self._tasks: set[asyncio.Task[None]] = set()

    def asked(self, seat: Seat, kind: int, body: bytes) -> None:
        """A request of a replica; the answer goes to whatever process then sits there."""
        task = asyncio.get_running_loop().create_task(self._serve(seat, kind, body))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def stop(self) -> None:
        """Let go of what waits; the replicas ask the next daemon again."""
        for task in self._tasks:
            task.cancel()

    async def _serve(self, seat: Seat, kind: int, body: bytes) -> None:
        head, *parts = frames.unpack_parts(body)
        header: dict[str, Any] = json.loads(head)
        process = seat.process
        status, answer = await self._answered(seat, kind, header, parts)
        if process is not None and process is seat.process:
            packed = ANSWER.pack(header["request"], status) + frames.pack_parts(answer)
            process.send(frames.frame(Kind.CHECKPOINT_ANSWER, packed))

    async def _answered(
        self, seat: Seat, kind: int, header: dict[str, Any], parts: list[bytes]
    ) -> tuple[Answer, list[bytes]]:
        process = seat.process
        wait_s = RETRY_MIN_S
        while process is seat.process and process is not None:
            try:
                async with self._places:
                    return Answer.DONE, await self._call(kind, header, parts)
            except LinkAway:
                await asyncio.sleep(wait_s * (0.5 + random.random() / 2))  # noqa: S311 - jitter
                wait_s = min(RETRY_MAX_S, wait_s * 2)
            except StaleToken as problem:
                return Answer.LEASE_LOST, [str(problem).encode()]
            except FarmError as problem:
                return Answer.FAILED, [str(problem).encode()]
        return Answer.FAILED, [b"The replica is gone."]

    async def _call(self, kind: int, header: dict[str, Any], parts: list[bytes]) -> list[bytes]:
        if self.calls is None:
            raise LinkAway
        if kind == Kind.CHECKPOINT_PUT:
            await self.calls.put_checkpoint(_put_request(header, parts))
            self.puts_total += 1
            return []
        records = await self.calls.get_checkpoints(_get_request(header))
        return [part for record in records for part in _record_parts(record)]


def _put_request(header: dict[str, Any], parts: list[bytes]) -> wire.PutCheckpointRequest:
    payload, *payloads = parts
    writes = [
        wire.CheckpointWrite(writer_id=writer, index=index, payload=data)
        for (writer, index), data in zip(header["writes"], payloads, strict=True)
    ]
    return wire.PutCheckpointRequest(
        fencing_token=header["token"],
        task_id=header["task_id"],
        checkpoint=wire.Checkpoint(
            thread_id=header["thread_id"],
            namespace=header["namespace"],
            checkpoint_id=header["checkpoint_id"],
            parent_id=header["parent_id"],
            payload=payload,
            writes=writes,
        ),
    )


def _get_request(header: dict[str, Any]) -> wire.GetCheckpointsRequest:
    return wire.GetCheckpointsRequest(
        fencing_token=header["token"],
        task_id=header["task_id"],
        thread_id=header["thread_id"],
        namespace=header["namespace"],
        checkpoint_id=header["checkpoint_id"],
        before_id=header["before_id"],
        limit=header["limit"],
    )


def _record_parts(record: wire.Checkpoint) -> list[bytes]:
    head = {
        "thread_id": record.thread_id,
        "namespace": record.namespace,
        "checkpoint_id": record.checkpoint_id,
        "parent_id": record.parent_id,
        "writes": [[write.writer_id, write.index] for write in record.writes],
    }
    return [json.dumps(head).encode(), record.payload, *(write.payload for write in record.writes)]
