"""What the SDK's tests share: agents written to a folder, and a checkpoint store in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent
from typing import Any

from agentfarm.sdk import Call, CheckpointRecord, LeaseLost, LoadedAgent, load_agent
from agentfarm.sdk.testing import MemoryCheckpoints


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
class MemoryChannel(MemoryCheckpoints):
    """The checkpoint store of `agentfarm.sdk.testing`, which takes the lease away at a chosen put."""

    puts: int = 0
    lose_lease_at: int | None = None

    async def put(self, checkpoint: CheckpointRecord) -> None:
        await asyncio.sleep(0)
        self.puts += 1
        if self.lose_lease_at is not None and self.puts >= self.lose_lease_at:
            raise LeaseLost("another attempt holds the task")
        await super().put(checkpoint)
