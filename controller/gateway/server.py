"""The gateway put together: its parts over the controller's, and the server that listens."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from fastapi import FastAPI

from controller.authority import Authority
from controller.core.commands import Tick
from controller.gateway.app import app_of
from controller.gateway.farm import EngineLike, Farm, FeedSource, LogSource
from controller.gateway.http_server import HttpServer
from controller.gateway.joining import AuthorityJoining
from controller.gateway.journal_history import JournalHistory
from controller.gateway.settings import GatewaySettings

if TYPE_CHECKING:
    from controller.journal.reader import Reader
    from controller.journal.store import Store


def build_app(
    engine: EngineLike,
    reader: Callable[[], Reader],
    store: Callable[[], Store],
    authority: Authority,
    settings: GatewaySettings,
    *,
    logs: LogSource | None = None,
    feeds: FeedSource | None = None,
    addresses: Callable[[], tuple[str, str]] | None = None,
) -> FastAPI:
    """The application over a controller's parts. reader, store, addresses: as those take them that use them."""

    def told() -> tuple[str, str]:
        return f"http://{settings.public_host or settings.gateway_host}:{settings.gateway_port}", settings.link_address

    history = JournalHistory(reader, store, lambda: engine.state, lambda: engine.ask(Tick()))
    joining = AuthorityJoining(authority, store, addresses or told)
    return app_of(Farm(engine, history, joining, logs, settings, feeds))


class GatewayServer(HttpServer):
    """The gateway as one service: `start`, `stop`, and `port` once it has started."""

    def __init__(
        self,
        engine: EngineLike,
        reader: Callable[[], Reader],
        store: Callable[[], Store],
        authority: Authority,
        settings: GatewaySettings,
        *,
        logs: LogSource | None = None,
        feeds: FeedSource | None = None,
    ) -> None:
        app = build_app(engine, reader, store, authority, settings, logs=logs, feeds=feeds, addresses=self._addresses)
        super().__init__(app, settings.gateway_host, settings.gateway_port)
        self._settings = settings

    def _addresses(self) -> tuple[str, str]:
        host = self._settings.public_host or self._settings.gateway_host
        return f"http://{host}:{self.port}", self._settings.link_address
