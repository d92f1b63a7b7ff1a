"""What a controller of 0.1 understands in place of what this release says. 0.3.0 removes this file.

Pure: from the messages of this release to those of 0.1, and back.
"""

from __future__ import annotations

from collections.abc import Iterable

from agentfarm.calls.checkpoints import (
    PUT,
    CheckpointQuery,
    CheckpointRecord,
    CheckpointWrite,
    pack_record,
    read_records,
)
from agentfarm.wire import link_pb2 as wire


def checkpoint_request(request: wire.AgentCallRequest) -> wire.PutCheckpointRequest | wire.GetCheckpointsRequest:
    """A call about checkpoints as one of the two calls that 0.1 has for them."""
    token, task_id = request.fencing_token, request.task_id
    if request.method == PUT:
        (record,) = read_records([request.header, *request.parts])
        return wire.PutCheckpointRequest(fencing_token=token, task_id=task_id, checkpoint=_checkpoint(record))
    query = CheckpointQuery.read(request.header)
    return wire.GetCheckpointsRequest(
        fencing_token=token, task_id=task_id, thread_id=query.thread_id, namespace=query.namespace,
        checkpoint_id=query.checkpoint_id, before_id=query.before_id, limit=query.limit,
    )  # fmt: skip


def answer_parts(checkpoints: Iterable[wire.Checkpoint]) -> list[bytes]:
    """Checkpoints of a 0.1 controller as the parts of an answer."""
    return [part for point in checkpoints for part in pack_record(_record(point))]


def _checkpoint(record: CheckpointRecord) -> wire.Checkpoint:
    return wire.Checkpoint(
        thread_id=record.thread_id,
        namespace=record.namespace,
        checkpoint_id=record.checkpoint_id,
        parent_id=record.parent_id,
        payload=record.payload,
        writes=[wire.CheckpointWrite(writer_id=w.writer_id, index=w.index, payload=w.payload) for w in record.writes],
    )


def _record(point: wire.Checkpoint) -> CheckpointRecord:
    writes = tuple(CheckpointWrite(write.writer_id, write.index, write.payload) for write in point.writes)
    return CheckpointRecord(
        point.thread_id, point.namespace, point.checkpoint_id, point.parent_id, point.payload, writes
    )
