"""The contract between an agent and what runs it: one call in, checkpoints out. Types only; standard library only."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from agentfarm.calls.checkpoints import CheckpointRecord
from agentfarm.errors import StaleToken


class LeaseLost(StaleToken):
    """Another attempt holds the task, so this one may no longer write. It must end and report nothing."""


class CheckpointChannel(Protocol):
    """The way to the farm's durable checkpoints, of one attempt."""

    async def put(self, checkpoint: CheckpointRecord) -> None:
        """Store; durable when it returns. Storing the same again changes nothing. Raises LeaseLost."""
        ...

    async def get(
        self, thread_id: str, namespace: str, checkpoint_id: str = "", before_id: str = "", limit: int = 1
    ) -> list[CheckpointRecord]:
        """Checkpoints of a thread and namespace with their writes, highest id first. Raises LeaseLost.

        before_id: only those with a lower id. checkpoint_id: only this one.
        """
        ...


@dataclass(slots=True)
class Call:
    """One attempt at a task."""

    task_id: int
    attempt: int
    """From 1."""
    thread_id: str
    input: object
    """What the caller sent, decoded from JSON."""
    emit: Callable[[object], None]
    """Takes a JSON-able piece of output for those who watch now. Called on the event loop's own thread."""
    checkpoints: CheckpointChannel | None = None
    """None: the run is not durable."""
