"""What the gateway reads and writes beside the engine: ended tasks, events, bundles. Never on the hot path."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from controller.core.commands import NewTask
from controller.core.model import TaskId


class History(Protocol):
    """Stored facts, in the shapes of the models. Every call may raise Unavailable: PostgreSQL may be away."""

    async def task(self, task: TaskId) -> dict[str, Any] | None:
        """A TaskView of a stored task, without attempts. A task that has not ended is `queued` here."""

    async def tasks(
        self, states: Sequence[str], agent: str | None, after: int | None, limit: int
    ) -> list[dict[str, Any]]:
        """TaskViews, newest first, older than `after`, without inputs and outputs."""

    async def attempts(self, task: TaskId) -> list[dict[str, Any]]:
        """AttemptViews of attempts that ended, oldest first, the task's last one too."""

    async def submission(self, task: TaskId) -> NewTask:
        """What was submitted for a task. Raises NotFound."""

    async def events(self, after: int | None, limit: int, filters: Mapping[str, Any]) -> list[dict[str, Any]]:
        """EventViews, oldest first: those after an id, or with None the newest ones."""

    async def ended_counts(self) -> dict[str, int]:
        """How many tasks ended in each final state since the farm began."""

    async def has_bundle(self, digest: str) -> bool:
        """Whether these bytes are stored."""

    async def put_bundle(self, digest: str, data: bytes) -> None:
        """Store a bundle; known already: nothing changes."""
