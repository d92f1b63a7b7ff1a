"""The HTTP server inside the controller's event loop: listens, serves, and stops without leaving a stream behind."""

from __future__ import annotations

import asyncio
import contextlib
import math
import socket
from collections.abc import Iterator
from functools import partial
from typing import Any, Final

import uvicorn
from starlette.types import ASGIApp

from agentfarm.errors import Conflict
from agentfarm.service import Service
from controller.gateway.http.connections import Connection, Connections
from controller.gateway.http.limits import ConnectionLimits

DRAIN_S: Final = 3
"""How long answers in progress may take when the server stops; streams are cut then."""
BACKLOG: Final = 512


class HttpServer(Service):
    """Serves an application on one address. `port` is known once `start` has returned."""

    def __init__(self, app: ASGIApp, host: str, port: int, limits: ConnectionLimits | None = None) -> None:
        super().__init__("gateway")
        self._limits = limits or ConnectionLimits()
        self._app = app
        self._host, self._wanted_port = host, port
        self._server: _Server | None = None
        self._serving: asyncio.Task[None] | None = None
        self.port = port

    async def _begin(self) -> None:
        """Listen. Raises Conflict when the address is taken, by name and port."""
        listener = self._bind()
        self.port = int(listener.getsockname()[1])
        self.connections = Connections(self._limits, asyncio.get_running_loop())
        protocol: Any = partial(Connection, self.connections)
        config = uvicorn.Config(
            self._app, http=protocol, log_config=None, access_log=False, lifespan="off",
            timeout_graceful_shutdown=DRAIN_S,
            timeout_keep_alive=math.ceil(self._limits.idle_timeout_s), server_header=False, date_header=True, ws="none",
            proxy_headers=False,
        )  # fmt: skip
        self._server = _Server(config)
        self._serving = self.run_task(self._server.serve(sockets=[listener]))
        while not self._server.started:  # the address is bound already: this takes a turn or two of the loop
            if self._serving.done():
                self._serving.result()
            await asyncio.sleep(0)

    async def _finish(self) -> None:
        """Take no more, let answers in progress finish for DRAIN_S, cut the rest."""
        if self._server is None or self._serving is None:
            return
        self._server.should_exit = True
        serving, self._serving = self._serving, None
        await asyncio.wait((serving,))

    def _bind(self) -> socket.socket:
        family = socket.AF_INET6 if ":" in self._host else socket.AF_INET
        listener = socket.socket(family, socket.SOCK_STREAM)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((self._host, self._wanted_port))
            listener.listen(BACKLOG)
            listener.setblocking(False)
        except OSError as error:
            listener.close()
            raise Conflict(
                f"The gateway cannot listen on {self._host}:{self._wanted_port}: {error.strerror}.",
                remedy="Stop what listens there, or set gateway_port to another port (0 takes a free one).",
                port=self._wanted_port,
            ) from error
        return listener


class _Server(uvicorn.Server):
    """uvicorn without its hands on the process's signals: the controller stops it."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield
