"""What answers first. A controller that was killed has callers who repeat their submits: those are taken at once, while
the rest of the gateway, whose framework takes most of a start, is still being built.

Every other call waits here for that, `/healthz` too: it must not say "ready" before all is. So does a call without a
token, because only the routes know which calls are open; a wrong token is refused at once.
"""

from __future__ import annotations

import asyncio

from starlette.types import ASGIApp, Receive, Scope, Send

from controller.gateway.http.access import Hosts, Principals, operators
from controller.gateway.http.border import Border
from controller.gateway.scope import Farm
from controller.gateway.tasks.express import Express


class Front:
    """The gateway as one ASGI application: at first border and express way alone, from `open` on the whole."""

    def __init__(self, farm: Farm, principals: Principals | None = None) -> None:
        principals = principals or operators(farm.settings.operator_token)
        hosts = Hosts(farm.settings.hosts)
        self._app: ASGIApp = Border(Express(self._held, farm), principals, hosts, open_paths=None)
        self._whole: ASGIApp | None = None
        self._opened = asyncio.Event()

    def open(self, whole: ASGIApp) -> None:
        """From now on, and for all who wait, `whole` answers. It has a border and an express way of its own."""
        self._app = self._whole = whole
        self._opened.set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, send)

    async def _held(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._opened.wait()
        assert self._whole is not None
        await self._whole(scope, receive, send)
