"""Checkpoints as calls: the two methods, and the form of what they carry.

    checkpoints.put    header: a record's head    parts: its payload, then the payloads of its writes    answer: nothing
    checkpoints.get    header: a query            parts: none    answer: for each record its head, payload, writes

A head is a JSON object with `thread_id`, `namespace`, `checkpoint_id`, `parent_id` and `writes`, a list of
`[writer_id, index]`. It grows by new keys only, because replicas and controllers of two releases meet. A reader ignores
keys that it does not know.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Final

PUT: Final = "checkpoints.put"
GET: Final = "checkpoints.get"


@dataclass(frozen=True, slots=True)
class CheckpointWrite:
    """What one step of a graph wrote. Its key is (writer_id, index) within its checkpoint."""

    writer_id: str
    index: int
    """From 0; below 0 for the special writes of LangGraph. A later write of the same key replaces the earlier."""
    payload: bytes


@dataclass(frozen=True, slots=True)
class CheckpointRecord:
    """A checkpoint as the farm stores it; the payloads mean something to the SDK alone.

    With a payload the checkpoint is stored; with an empty one its writes are added to the checkpoint of that id.
    """

    thread_id: str
    namespace: str
    checkpoint_id: str
    parent_id: str = ""
    payload: bytes = b""
    writes: tuple[CheckpointWrite, ...] = ()


@dataclass(frozen=True, slots=True)
class CheckpointQuery:
    """Which checkpoints of a thread and namespace to read, the highest id first."""

    thread_id: str
    namespace: str
    checkpoint_id: str = ""
    """Only this one; empty: any."""
    before_id: str = ""
    """Only those with a lower id; empty: any."""
    limit: int = 1

    def pack(self) -> bytes:
        """As the header of a GET."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def read(cls, header: bytes) -> CheckpointQuery:
        """The reverse of `pack`. Raises ValueError, KeyError or TypeError for what is not a query."""
        head = json.loads(header)
        thread_id, namespace = str(head["thread_id"]), str(head["namespace"])
        return cls(thread_id, namespace, str(head["checkpoint_id"]), str(head["before_id"]), int(head["limit"]))


def pack_record(record: CheckpointRecord) -> list[bytes]:
    """A record as its head, its payload and the payloads of its writes."""
    head = {
        "thread_id": record.thread_id,
        "namespace": record.namespace,
        "checkpoint_id": record.checkpoint_id,
        "parent_id": record.parent_id,
        "writes": [[write.writer_id, write.index] for write in record.writes],
    }
    return [json.dumps(head).encode(), record.payload, *(write.payload for write in record.writes)]


def read_records(parts: Sequence[bytes]) -> list[CheckpointRecord]:
    """The reverse of `pack_record`, for many. Raises ValueError, KeyError, TypeError or IndexError for other parts."""
    records = []
    at = 0
    while at < len(parts):
        head = json.loads(parts[at])
        writes = tuple(
            CheckpointWrite(str(writer), int(index), parts[at + 2 + position])
            for position, (writer, index) in enumerate(head["writes"])
        )
        place = (str(head["thread_id"]), str(head["namespace"]), str(head["checkpoint_id"]), str(head["parent_id"]))
        records.append(CheckpointRecord(*place, parts[at + 1], writes))
        at += 2 + len(writes)
    return records
