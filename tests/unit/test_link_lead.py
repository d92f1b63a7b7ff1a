"""A node that comes while the controller reads its state is kept waiting a moment, and no longer."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest

from controller.core.model import Limits
from controller.engine import Engine
from controller.journal.memory import MemoryJournal, Tables
from controller.link import server as link_server
from controller.link.server import LinkPorts, LinkServer, LinkSettings
from controller.link.sessions import Sessions


class Aborted(Exception):
    """gRPC's own way out of a call."""


class Stranger:
    """A call whose certificate names no node: refused as soon as it is looked at."""

    def __init__(self) -> None:
        self.status: grpc.StatusCode | None = None

    def auth_context(self) -> dict[str, list[bytes]]:
        return {}

    async def abort(self, status: grpc.StatusCode, words: str) -> None:
        self.status = status
        raise Aborted(words)


def link_of(engine: Engine) -> LinkServer:
    nothing: Any = None
    return LinkServer(engine, Sessions(), Limits(), LinkSettings(), LinkPorts(nothing, nothing, nothing), nothing)


async def test_stream_is_looked_at_once_the_lead_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link_server, "LEAD_WAIT_S", 60.0)
    engine, stranger = Engine(MemoryJournal(Tables()), Sessions(), Limits()), Stranger()
    stream = asyncio.create_task(link_of(engine).Connect(None, stranger))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert stranger.status is None
    engine.leading.set()
    async with asyncio.timeout(20):
        with pytest.raises(Aborted):
            await stream


async def test_stream_does_not_wait_for_ever_at_a_standby(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link_server, "LEAD_WAIT_S", 0.0)
    stranger = Stranger()
    async with asyncio.timeout(20):
        with pytest.raises(Aborted):
            await link_of(Engine(MemoryJournal(Tables()), Sessions(), Limits())).Connect(None, stranger)
    assert stranger.status is grpc.StatusCode.UNAUTHENTICATED
