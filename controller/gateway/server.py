"""The gateway put together: its parts over the controller's, and the server that listens."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from starlette.types import ASGIApp

from controller.authority import Authority
from controller.gateway.front import Front
from controller.gateway.history import JournalHistory
from controller.gateway.http.server import HttpServer
from controller.gateway.nodes.invitations import AuthorityJoining
from controller.gateway.scope import EngineLike, Farm, LogSource, ServiceSource
from controller.gateway.settings import GatewaySettings

if TYPE_CHECKING:
    from controller.journal.queries.reader import Reader
    from controller.journal.queries.store import Store


class GatewayServer(HttpServer):
    """The gateway as one service: `start`, `stop`, and `port` once it listens. `start` may be done in two steps.

    reader, store: give the part at its first use, on a thread.
    """

    def __init__(
        self,
        engine: EngineLike,
        reader: Callable[[], Reader],
        store: Callable[[], Store],
        authority: Authority,
        settings: GatewaySettings,
        *,
        logs: LogSource | None = None,
        services: ServiceSource | None = None,
    ) -> None:
        history = JournalHistory(reader, store, lambda: engine.state, engine.flushed)
        joining = AuthorityJoining(authority, store, self._addresses)
        self._farm = Farm(engine, history, joining, logs, settings, services)
        self._front = Front(self._farm)
        super().__init__(self._front, settings.gateway_host, settings.gateway_port, settings.http)
        self._settings = settings

    async def start(self) -> None:
        """Listen; return when every call is answered. Raises as HttpServer's does."""
        if self.is_up:
            return
        await self.listen()
        await self.complete()

    async def listen(self) -> None:
        """The first step: plain submits are taken, other calls wait."""
        await super().start()

    async def complete(self) -> None:
        """The second step: build the rest, and let it answer."""
        self._front.open(await asyncio.to_thread(self._build))

    def _build(self) -> ASGIApp:
        from controller.gateway.app import app_of  # noqa: PLC0415 - FastAPI, for which no submit waits

        return app_of(self._farm)

    def _addresses(self) -> tuple[str, str]:
        host = self._settings.public_host or self._settings.gateway_host
        return f"http://{host}:{self.port}", self._settings.link_address
