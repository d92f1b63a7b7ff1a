"""The calls about checkpoints: see `agentfarm.calls.checkpoints` for their form."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Final

from agentfarm.calls.checkpoints import (
    GET,
    PUT,
    CheckpointQuery,
    CheckpointRecord,
    CheckpointWrite,
    pack_record,
    read_records,
)
from agentfarm.errors import InvalidRequest, StaleToken
from controller.core.commands import StoreCheckpoint
from controller.core.model import Task, node_actor
from controller.core.tasks.life import thread_id
from controller.core.transition import CheckpointRow
from controller.engine import Engine

CHECKPOINTS_MAX: Final = 100
"""In one answer."""
UNREADABLE: Final = (ValueError, KeyError, TypeError, IndexError)


def checkpoint_handlers(
    engine: Engine, read: Callable[[str, str, str, str, int], list[CheckpointRow]]
) -> dict[str, Callable[[Task, bytes, Sequence[bytes]], Awaitable[Iterable[bytes]]]]:
    """The methods about checkpoints. `read` blocks; it runs on a thread."""

    async def put(task: Task, header: bytes, parts: Sequence[bytes]) -> Iterable[bytes]:
        """Durable when it returns."""
        assert task.token is not None
        assert task.node is not None
        try:
            (record,) = read_records([header, *parts])
        except UNREADABLE as problem:
            raise InvalidRequest(f"This is not a checkpoint: {problem!r}.") from problem
        await engine.ask(
            StoreCheckpoint(
                task.id, task.token, record.thread_id, record.namespace, record.checkpoint_id, record.parent_id,
                record.payload or None, tuple((write.writer_id, write.index, write.payload) for write in record.writes),
                actor=node_actor(task.node),
            )
        )  # fmt: skip
        return ()

    async def get(task: Task, header: bytes, parts: Sequence[bytes]) -> Iterable[bytes]:
        """Checkpoints of the attempt's own thread."""
        del parts
        try:
            query = CheckpointQuery.read(header)
        except UNREADABLE as problem:
            raise InvalidRequest(f"This is not a query for checkpoints: {problem!r}.") from problem
        if query.thread_id != thread_id(task):
            raise StaleToken(f"The lease of task {task.id} is gone.")
        rows = await asyncio.to_thread(
            read, query.thread_id, query.namespace, query.checkpoint_id, query.before_id,
            min(query.limit or 1, CHECKPOINTS_MAX),
        )  # fmt: skip
        return [part for row in rows for part in pack_record(_record(row))]

    return {PUT: put, GET: get}


def _record(row: CheckpointRow) -> CheckpointRecord:
    writes = tuple(CheckpointWrite(*write) for write in row.writes)
    return CheckpointRecord(
        row.thread_id, row.namespace, row.checkpoint_id, row.parent_id, row.payload or b"", writes
    )  # fmt: skip
