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
from agentfarm.limits import CHECKPOINT_ID_BYTES_MAX, CHECKPOINT_WRITES_MAX, COUNT_MAX, NAMESPACE_BYTES_MAX
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
        _check(record)
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
        _check_key("namespace", query.namespace, NAMESPACE_BYTES_MAX)
        for name, text in (("checkpoint_id", query.checkpoint_id), ("before_id", query.before_id)):
            _check_key(name, text, CHECKPOINT_ID_BYTES_MAX)
        if query.thread_id != thread_id(task):
            raise StaleToken(f"The lease of task {task.id} is gone.")
        rows = await asyncio.to_thread(
            read, query.thread_id, query.namespace, query.checkpoint_id, query.before_id,
            min(max(query.limit, 1), CHECKPOINTS_MAX),
        )  # fmt: skip
        return [part for row in rows for part in pack_record(_record(row))]

    return {PUT: put, GET: get}


def _check(record: CheckpointRecord) -> None:
    """Its keys fit into an index. Raises InvalidRequest. The thread is the task's own: that is checked elsewhere."""
    _check_key("namespace", record.namespace, NAMESPACE_BYTES_MAX)
    _check_key("checkpoint_id", record.checkpoint_id, CHECKPOINT_ID_BYTES_MAX)
    _check_key("parent_id", record.parent_id, CHECKPOINT_ID_BYTES_MAX)
    if len(record.writes) > CHECKPOINT_WRITES_MAX:
        raise InvalidRequest(f"The checkpoint has {len(record.writes)} writes; the most is {CHECKPOINT_WRITES_MAX}.")
    for write in record.writes:
        _check_key("writer_id", write.writer_id, CHECKPOINT_ID_BYTES_MAX)
        if not -COUNT_MAX <= write.index <= COUNT_MAX:
            raise InvalidRequest(f"The index of a write is {write.index}; it must be within ±{COUNT_MAX}.")


def _check_key(name: str, text: str, bytes_max: int) -> None:
    size = len(text.encode(errors="replace"))
    if size > bytes_max or "\0" in text:
        raise InvalidRequest(f"The {name} of a checkpoint has {size} bytes; the most is {bytes_max}, and none is NUL.")


def _record(row: CheckpointRow) -> CheckpointRecord:
    writes = tuple(CheckpointWrite(*write) for write in row.writes)
    return CheckpointRecord(
        row.thread_id, row.namespace, row.checkpoint_id, row.parent_id, row.payload or b"", writes
    )  # fmt: skip
