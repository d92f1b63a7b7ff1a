"""The controller's services keep the contract of all services."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from starlette.responses import PlainTextResponse

from agentfarm.service import Service
from controller.authority import Authority
from controller.core.model import FarmState, Instant, Limits
from controller.engine import Engine
from controller.gateway.http.server import HttpServer
from controller.journal.memory import MemoryJournal, Tables
from controller.link.server import LinkPorts, LinkServer, LinkSettings, LinkTls
from controller.link.sessions import Sessions
from controller.postgres import ExternalPostgres
from tests.service_contract import Blow, ServiceContract


class TestEngine(ServiceContract):
    @pytest.fixture
    def service(self) -> Service:
        return Engine(MemoryJournal(Tables()), Sessions(), Limits())


class TestLinkServer(ServiceContract):
    @pytest.fixture
    def service(self, tmp_path: Path) -> Service:
        authority = Authority.open(tmp_path / "ca")
        server = authority.server_identity(["127.0.0.1"])
        tls = LinkTls(server.key_pem, server.certificate_pem, authority.ca_pem)
        nothing: Any = None
        ports = LinkPorts(nothing, nothing, nothing)
        sessions = Sessions()
        engine = Engine(MemoryJournal(Tables()), sessions, Limits())
        return LinkServer(engine, sessions, Limits(), LinkSettings(port=0), ports, tls)


class TestHttpServer(ServiceContract):
    @pytest.fixture
    def service(self) -> Service:
        return HttpServer(PlainTextResponse("here"), "127.0.0.1", 0)


class TestExternalPostgres(ServiceContract):
    @pytest.fixture
    def service(self) -> Service:
        return ExternalPostgres("postgresql://nobody@127.0.0.1/nothing")


class UnreadableJournal(MemoryJournal):
    """Raises an unexpected error."""

    def load(self, limits: Limits, now: Instant) -> FarmState:
        raise Blow


async def test_engine_that_cannot_go_on_says_so_instead_of_falling_silent() -> None:
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)
    engine = Engine(UnreadableJournal(Tables()), Sessions(), Limits())
    await engine.start()
    async with asyncio.timeout(60):
        with pytest.raises(Blow):
            await engine.wait()
    await engine.stop()
