"""The contract between an agent and what runs it: one call in, and what an attempt asks of the farm meanwhile.

A new method needs a class or function here, its form in `agentfarm/calls/`, and a handler in the controller
(`controller/link/agent_calls.py`). The replica, the daemon and the link carry it without reading it. Standard library
only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from agentfarm.calls.checkpoints import GET, PUT, CheckpointQuery, CheckpointRecord, pack_record, read_records
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


class FarmCalls(Protocol):
    """One attempt's way to the farm."""

    async def call(self, method: str, header: bytes, parts: Sequence[bytes] = ()) -> list[bytes]:
        """The parts of the answer. Raises LeaseLost, or RuntimeError with the farm's words."""
        ...


class FarmCheckpoints:
    """`CheckpointChannel` over the farm's calls."""

    __slots__ = ("_farm",)

    def __init__(self, farm: FarmCalls) -> None:
        self._farm = farm

    async def put(self, checkpoint: CheckpointRecord) -> None:
        """Durable when it returns."""
        header, *parts = pack_record(checkpoint)
        await self._farm.call(PUT, header, parts)

    async def get(
        self, thread_id: str, namespace: str, checkpoint_id: str = "", before_id: str = "", limit: int = 1
    ) -> list[CheckpointRecord]:
        """Newest first."""
        query = CheckpointQuery(thread_id, namespace, checkpoint_id, before_id, limit)
        return read_records(await self._farm.call(GET, query.pack()))


def make_call(
    task_id: int, attempt: int, thread_id: str, value: object, emit: Callable[[object], None], farm: FarmCalls
) -> Call:
    """One attempt with everything that it can ask of the farm. A run without a thread is not durable."""
    return Call(task_id, attempt, thread_id, value, emit, FarmCheckpoints(farm) if thread_id else None)
