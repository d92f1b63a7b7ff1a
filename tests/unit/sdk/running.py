"""What the SDK's tests share: agents written to a folder, and a checkpoint store in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import dedent
from typing import Any

from agentfarm.sdk import Call, CheckpointRecord, LeaseLost, LoadedAgent, load_agent


def agent(folder: Path, source: str, entry: str = "agent.py", **others: str) -> LoadedAgent:
    """Write a module, and others beside it (`name__py="…"`), and load it."""
    for name, text in {entry.partition(":")[0]: source, **others}.items():
        path = folder / name.replace("__", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(dedent(text))
    return load_agent(folder, entry)


def call(
    value: object = None,
    *,
    task: int = 7,
    attempt: int = 1,
    thread: str = "task-7",
    emit: Callable[[object], None] = lambda piece: None,
    checkpoints: Any = None,
) -> Call:
    return Call(task, attempt, thread, value, emit, checkpoints)


@dataclass
class MemoryChannel:
    """The farm's checkpoint store by its contract: keyed upserts, newest first; can die after some puts."""

    records: dict[tuple[str, str, str], CheckpointRecord] = field(default_factory=dict)
    puts: int = 0
    lose_lease_at: int | None = None

    async def put(self, checkpoint: CheckpointRecord) -> None:
        await asyncio.sleep(0)
        self.puts += 1
        if self.lose_lease_at is not None and self.puts >= self.lose_lease_at:
            raise LeaseLost("another attempt holds the task")
        key = (checkpoint.thread_id, checkpoint.namespace, checkpoint.checkpoint_id)
        old = self.records.get(key)
        writes = {(w.writer_id, w.index): w for w in (*(old.writes if old else ()), *checkpoint.writes)}
        payload = checkpoint.payload or (old.payload if old else b"")
        parent = checkpoint.parent_id if checkpoint.payload or old is None else old.parent_id
        self.records[key] = CheckpointRecord(*key, parent, payload, tuple(writes.values()))

    async def get(
        self, thread_id: str, namespace: str, checkpoint_id: str = "", before_id: str = "", limit: int = 1
    ) -> list[CheckpointRecord]:
        await asyncio.sleep(0)
        found = [
            record
            for (thread, space, name), record in self.records.items()
            if (thread, space) == (thread_id, namespace)
            and (not checkpoint_id or name == checkpoint_id)
            and (not before_id or name < before_id)
            and record.payload
        ]
        return sorted(found, key=lambda record: record.checkpoint_id, reverse=True)[: limit or 1]
