"""What nodes of 0.1 say, in the words of this release, and what they understand in place of ours. 0.3.0 removes this.

Pure.
"""

from __future__ import annotations

from collections.abc import Iterable

from agentfarm.calls.checkpoints import (
    CheckpointQuery,
    CheckpointRecord,
    CheckpointWrite,
    pack_record,
    read_records,
)
from agentfarm.wire import link_pb2 as wire


def put_call(request: wire.PutCheckpointRequest) -> list[bytes]:
    """Header and parts of the call that took its place."""
    point = request.checkpoint
    writes = tuple(CheckpointWrite(write.writer_id, write.index, write.payload) for write in point.writes)
    return pack_record(
        CheckpointRecord(point.thread_id, point.namespace, point.checkpoint_id, point.parent_id, point.payload, writes)
    )


def get_call(request: wire.GetCheckpointsRequest) -> bytes:
    """The header of the call that took its place."""
    return CheckpointQuery(
        request.thread_id, request.namespace, request.checkpoint_id, request.before_id, request.limit
    ).pack()


def checkpoints(parts: Iterable[bytes]) -> list[wire.Checkpoint]:
    """The answer to `get_call` as nodes of 0.1 expect it."""
    return [
        wire.Checkpoint(
            thread_id=record.thread_id,
            namespace=record.namespace,
            checkpoint_id=record.checkpoint_id,
            parent_id=record.parent_id,
            payload=record.payload,
            writes=[
                wire.CheckpointWrite(writer_id=write.writer_id, index=write.index, payload=write.payload)
                for write in record.writes
            ],
        )
        for record in read_records(list(parts))
    ]
