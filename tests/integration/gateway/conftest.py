"""The gateway on a real socket over the real engine, journal and authority; nodes are played by the test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from agentfarm.agents.bundle import digest_of
from controller.authority import Authority
from controller.core.commands import Command
from controller.core.model import FarmState, Limits
from controller.engine import Engine
from controller.gateway.server import GatewayServer
from controller.gateway.settings import GatewaySettings
from controller.journal.journal import Journal
from controller.journal.queries.reader import Reader
from controller.journal.queries.store import Store
from controller.watchers import Watchers
from tests.unit.gateway.small_farm import TOKEN, MemoryLogs, SmallNode, spec_json

BUNDLE = b"the bundle of every agent here"


class Nodes:
    """The nodes of the test, as the engine knows their streams."""

    def __init__(self) -> None:
        self.nodes: dict[str, SmallNode] = {}

    def deliver(self, effect: Any) -> None:
        node = self.nodes.get(effect.node)
        if node is not None:
            node.receive(effect)

    def close_all(self, reason: str) -> None:
        """These nodes have no streams."""


class EngineOfNodes:
    """The real engine as SmallNode knows an engine."""

    def __init__(self, engine: Engine, nodes: Nodes) -> None:
        self.engine, self.nodes = engine, nodes.nodes

    @property
    def state(self) -> FarmState:
        return self.engine.state

    @property
    def watchers(self) -> Watchers:
        return self.engine.watchers

    def do(self, command: Command) -> None:
        self.engine.tell(command)


@dataclass
class RealFarm:
    """What a test may touch."""

    engine: Engine
    node: SmallNode
    http: httpx.AsyncClient
    authority: Authority
    url: str

    async def deploy(self, agent: str) -> None:
        """Deploy and wait until it runs."""
        digest = digest_of(BUNDLE)
        assert (await self.http.put(f"/v1/bundles/{digest}", content=BUNDLE)).status_code == 204
        spec = spec_json(agent) | {"retries": {"max_attempts": 2, "backoff_s": 0.0, "backoff_max_s": 60.0}}
        answer = await self.http.post("/v1/deployments", json={"spec": spec, "digest": digest})
        assert answer.status_code == 200, answer.text
        events = self.engine.events.follow()
        while (await self.http.get(f"/v1/deployments/{agent}")).json()["replicas_running"] == 0:
            await events.get()
        self.engine.events.unfollow(events)


@pytest.fixture
async def farm(database_url: str, tmp_path: Path) -> AsyncIterator[RealFarm]:
    reader, store, journal = Reader(database_url), Store(database_url), Journal(database_url)
    nodes = Nodes()
    engine = Engine(journal, nodes, Limits())
    await engine.start()
    await engine.leading.wait()
    authority = Authority.open(tmp_path / "ca")
    settings = GatewaySettings(operator_token=TOKEN, gateway_port=0, link_address="127.0.0.1:8601")
    server = GatewayServer(engine, lambda: reader, lambda: store, authority, settings, logs=MemoryLogs())
    await server.start()
    node = SmallNode(EngineOfNodes(engine, nodes), "node-1")  # type: ignore[arg-type] - an engine as far as a node sees
    node.join()
    url = f"http://127.0.0.1:{server.port}"
    headers = {"Authorization": f"Bearer {TOKEN}"}
    async with httpx.AsyncClient(base_url=url, headers=headers, timeout=30) as client:
        yield RealFarm(engine, node, client, authority, url)
    await server.stop()
    await engine.stop()
    for part in (journal, reader, store):
        part.close()
