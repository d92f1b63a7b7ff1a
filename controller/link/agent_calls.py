"""What attempts ask of the farm: each method and the handler that answers it.

    SDK (agentfarm/sdk/call.py) ─▶ replica ─▶ daemon ─▶ AgentCall ─▶ here ─▶ handler ─▶ engine or PostgreSQL

The lease is checked here, once for all methods, against the token, the node and the replica together. A handler that
writes has the core check the token again in the turn that commits. Calls may be repeated: handlers change nothing then.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from agentfarm.errors import InvalidRequest, StaleToken
from controller.core.model import NodeName, ReplicaId, Task, TaskId, Token
from controller.core.transition import CheckpointRow
from controller.engine import Engine
from controller.link.checkpoints import checkpoint_handlers


@dataclass(frozen=True, slots=True)
class Caller:
    """The attempt that calls, and where it runs: the node by its certificate, the replica by the word of its daemon."""

    node: NodeName
    replica: ReplicaId | None
    """None: a node of 0.1 does not say."""
    task: TaskId
    token: Token


Handler = Callable[[Task, bytes, Sequence[bytes]], Awaitable[Iterable[bytes]]]
"""From the task that calls, header and parts to the parts of the answer. Raises FarmError for a refusal."""
ReadCheckpoints = Callable[[str, str, str, str, int], list[CheckpointRow]]


def handlers(engine: Engine, read_checkpoints: ReadCheckpoints) -> dict[str, Handler]:
    """Every method that this release knows. A further one needs a line here."""
    return {
        **checkpoint_handlers(engine, read_checkpoints),
    }


class AgentCalls:
    """Answers calls by their method."""

    def __init__(self, engine: Engine, methods: Mapping[str, Handler]) -> None:
        self._engine = engine
        self._methods = methods

    async def answer(self, caller: Caller, method: str, header: bytes, parts: Sequence[bytes]) -> Iterable[bytes]:
        """The parts of the answer. Raises StaleToken where the lease is gone, or a FarmError of the handler."""
        handler = self._methods.get(method)
        if handler is None:
            raise InvalidRequest(f"The controller knows no call {method!r}.", remedy="Upgrade the controller.")
        return await handler(self._task_of(caller), header, parts)

    def _task_of(self, caller: Caller) -> Task:
        task = self._engine.state.tasks.get(caller.task)
        if (
            task is None
            or task.token != caller.token
            or task.node != caller.node
            or caller.replica not in (None, task.replica)
        ):
            raise StaleToken(f"The lease of task {caller.task} is gone.", remedy="Stop this attempt.")
        return task
