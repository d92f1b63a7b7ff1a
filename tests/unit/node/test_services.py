"""The daemon's services keep the contract of all services."""

from __future__ import annotations

from pathlib import Path

import pytest

from agentfarm.errors import Conflict, InvalidRequest
from agentfarm.service import Service
from agentfarm.wire import link_pb2 as wire
from nodeagent.machine.programs import RuntimeFolder
from nodeagent.replicas.health import Health
from nodeagent.services.market.service import MarketService
from nodeagent.services.market.settings import MarketSettings
from nodeagent.services.registry import Services
from nodeagent.services.service import Place
from tests.service_contract import ServiceContract


class TestHealth(ServiceContract):
    @pytest.fixture
    def service(self) -> Service:
        return Health({}, lambda seat: False, lambda replica_id: Path(), lambda seat: None)


def market(folder: Path) -> MarketService:
    """Without its QuestDB: nobody listens there."""
    place = Place(folder, RuntimeFolder(folder / "runtime"), ends_processes=True, changed=lambda: None)
    return MarketService(MarketSettings(questdb_url="http://127.0.0.1:9"), place)


class TestMarket(ServiceContract):
    @pytest.fixture
    def service(self, tmp_path: Path) -> Service:
        return market(tmp_path)


class TestServices(ServiceContract):
    @pytest.fixture
    def service(self, tmp_path: Path) -> Service:
        return Services([market(tmp_path)])


async def test_a_message_that_cannot_be_read_costs_nobody_the_daemon(tmp_path: Path) -> None:
    services = Services([market(tmp_path)])
    services.obey([wire.ServiceDesired(name="market", payload=b"\xff"), wire.ServiceDesired(name="newer")])
    with pytest.raises(InvalidRequest, match="cannot read this question"):
        await anext(services.answer("market", b"\xff"))
    with pytest.raises(Conflict, match="does not run the service 'newer'"):
        await anext(services.answer("newer", b""))
