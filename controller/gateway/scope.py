"""What a route may use: the parts of the controller behind the gateway, as narrow as the routes need them."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from controller.core.commands import Command
from controller.core.model import FarmState, Instant, NodeName, Replica, TaskId
from controller.gateway.http.limits import ENGINE_DEADLINE_S
from controller.gateway.settings import GatewaySettings
from controller.watchers import WatchItem

if TYPE_CHECKING:
    from controller.gateway.history import History
    from controller.gateway.nodes.invitations import Joining


class Watch(Protocol):
    """What happens to one live task. It ends after the FinishedTask, or without one where the engine reloads."""

    def __aiter__(self) -> AsyncIterator[WatchItem]: ...
    async def __anext__(self) -> WatchItem: ...
    def close(self) -> None: ...


class Bus(Protocol):
    """Committed events, live."""

    def follow(self) -> Any: ...
    def unfollow(self, queue: Any) -> None: ...


class EngineLike(Protocol):
    """The engine as the gateway uses it."""

    @property
    def state(self) -> FarmState: ...
    @property
    def events(self) -> Bus: ...
    @property
    def metrics(self) -> Any: ...
    async def ask(self, command: Command, *, deadline_s: float = ...) -> Any: ...
    async def flushed(self) -> None: ...
    def watch_task(self, task: TaskId, after: int = ...) -> Watch | None: ...


class LogSource(Protocol):
    """Where the lines of replicas' logs come from: the daemons of their nodes (controller.link.answers.Answers)."""

    def read(self, replica: Replica, *, tail_lines: int, follow: bool) -> AsyncIterator[bytes]:
        """Chunks of whole lines, UTF-8. Raises Unavailable, at the first step too."""


class ServiceSource(Protocol):
    """Where answers of a node's service come from: the node's daemon (controller.link.answers.Answers)."""

    def ask(self, node: NodeName, service: str, question: Mapping[str, Any]) -> AsyncIterator[bytes]:
        """The answer in chunks. Raises Unavailable, or Conflict in the node's words, at the first step too."""


@dataclass(frozen=True, slots=True)
class Farm:
    """Everything a route may use."""

    engine: EngineLike
    history: History
    joining: Joining
    logs: LogSource | None
    settings: GatewaySettings
    services: ServiceSource | None = None

    @property
    def state(self) -> FarmState:
        """The live state; valid until the next await. Raises Unavailable while this controller does not lead."""
        return self.engine.state

    def ask(self, command: Command) -> Awaitable[Any]:
        """The engine's answer to a command, once it is durable. Raises the FarmError that the answer may be."""
        return self.engine.ask(command, deadline_s=ENGINE_DEADLINE_S)

    def now(self) -> Instant:
        """This moment on the clocks the engine uses."""
        return Instant(time.monotonic(), time.time())
