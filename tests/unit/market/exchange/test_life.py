"""The simulated exchange keeps the contract of all services."""

from __future__ import annotations

import pytest

from agentfarm.service import Service
from nodeagent.market.exchange.server import ExchangeServer
from tests.service_contract import ServiceContract


class TestExchangeServer(ServiceContract):
    @pytest.fixture
    def service(self) -> Service:
        return ExchangeServer(products=("BTC-USD",))
