"""The contract between an agent and what runs it: one call in, checkpoints out. Types only; standard library only."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from agentfarm.errors import StaleToken


class LeaseLost(StaleToken):
    """The attempt may no longer write: another one holds the task. The attempt must end and report nothing."""


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


class CheckpointChannel(Protocol):
    """The way to the farm's durable checkpoints, of one attempt."""

    async def put(self, checkpoint: CheckpointRecord) -> None:
        """Store; durable when it returns. Storing the same again changes nothing. Raises LeaseLost."""
        ...

    async def get(
        self, thread_id: str, namespace: str, checkpoint_id: str = "", before_id: str = "", limit: int = 1
    ) -> list[CheckpointRecord]:
        """Checkpoints of a thread and namespace with their writes, highest id first; only those with an id below
        `before_id` where given, only the one named where `checkpoint_id` is given. Raises LeaseLost."""
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
