"""Checkpoints of a run, asked of the daemon over the replica's socket.

A request is parts with lengths; the first is its header in JSON, the rest are opaque. The answer bears the request's
number.
"""

from __future__ import annotations

import asyncio
import json
import struct
from typing import Any, Final

from nodeagent.runner.replica import frames
from nodeagent.runner.replica.control import Control
from nodeagent.runner.replica.frames import Answer, Kind, Run

ANSWER: Final = struct.Struct("<QB")


class CheckpointClient:
    """Numbers requests and matches answers. On the loop's thread."""

    def __init__(self, control: Control, loop: asyncio.AbstractEventLoop) -> None:
        self._control = control
        self._loop = loop
        self._next = 1
        self._asked: dict[int, asyncio.Future[list[bytes]]] = {}
        self._frames: dict[int, bytes] = {}

    def channel(self, run: Run) -> CheckpointSocket:
        """The channel of one attempt."""
        return CheckpointSocket(self, run)

    async def ask(self, kind: Kind, header: dict[str, Any], parts: list[bytes]) -> list[bytes]:
        """Send a request and wait for its answer. Raises LeaseLost, or RuntimeError with the farm's words."""
        number, self._next = self._next, self._next + 1
        body = frames.pack_parts([json.dumps({**header, "request": number}).encode(), *parts])
        answer: asyncio.Future[list[bytes]] = self._loop.create_future()
        self._asked[number] = answer
        self._frames[number] = frames.frame(kind, body)
        try:
            self._control.send(self._frames[number])
            return await answer
        finally:
            self._asked.pop(number, None)
            self._frames.pop(number, None)

    def ask_again(self) -> None:
        """A new daemon connected: it has not heard what is still unanswered. Checkpoint writes may be repeated."""
        for data in list(self._frames.values()):
            self._control.send(data)

    def answered(self, body: bytes) -> None:
        """A CHECKPOINT_ANSWER."""
        number, status = ANSWER.unpack_from(body)
        future = self._asked.get(number)
        if future is None or future.done():
            return
        parts = frames.unpack_parts(body[ANSWER.size :])
        if status == Answer.DONE:
            future.set_result(parts)
        elif status == Answer.LEASE_LOST:
            from agentfarm.sdk import LeaseLost  # noqa: PLC0415 - loaded with the agent

            future.set_exception(LeaseLost(parts[0].decode() if parts else "the lease is gone"))
        else:
            future.set_exception(RuntimeError(parts[0].decode() if parts else "the checkpoint was refused"))


class CheckpointSocket:
    """`agentfarm.sdk.CheckpointChannel` over the replica's socket."""

    def __init__(self, client: CheckpointClient, run: Run) -> None:
        self._client = client
        self._run = run

    async def put(self, checkpoint: Any) -> None:
        """Durable when it returns."""
        writes = list(checkpoint.writes)
        header = {
            **self._lease(),
            "thread_id": checkpoint.thread_id,
            "namespace": checkpoint.namespace,
            "checkpoint_id": checkpoint.checkpoint_id,
            "parent_id": checkpoint.parent_id,
            "writes": [[write.writer_id, write.index] for write in writes],
        }
        await self._client.ask(Kind.CHECKPOINT_PUT, header, [checkpoint.payload, *(w.payload for w in writes)])

    async def get(
        self, thread_id: str, namespace: str, checkpoint_id: str = "", before_id: str = "", limit: int = 1
    ) -> list[Any]:
        """Newest first."""
        header = {
            **self._lease(),
            "thread_id": thread_id,
            "namespace": namespace,
            "checkpoint_id": checkpoint_id,
            "before_id": before_id,
            "limit": limit,
        }
        return _records(await self._client.ask(Kind.CHECKPOINT_GET, header, []))

    def _lease(self) -> dict[str, int]:
        return {"task_id": self._run.task_id, "token": self._run.token}


def _records(parts: list[bytes]) -> list[Any]:
    """Records of an answer: for each a JSON head, its payload, the payloads of its writes."""
    from agentfarm.sdk import CheckpointRecord, CheckpointWrite  # noqa: PLC0415 - loaded with the agent

    records = []
    at = 0
    while at < len(parts):
        head = json.loads(parts[at])
        writes = [
            CheckpointWrite(writer_id=writer, index=index, payload=parts[at + 2 + position])
            for position, (writer, index) in enumerate(head["writes"])
        ]
        records.append(
            CheckpointRecord(
                thread_id=head["thread_id"],
                namespace=head["namespace"],
                checkpoint_id=head["checkpoint_id"],
                parent_id=head["parent_id"],
                payload=parts[at + 1],
                writes=tuple(writes),
            )
        )
        at += 2 + len(writes)
    return records
