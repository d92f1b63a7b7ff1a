"""The daemon's services keep the contract of all services."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from agentfarm.service import Service
from nodeagent.replicas.health import Health
from tests.service_contract import ServiceContract


class TestHealth(ServiceContract):
    @pytest.fixture
    def service(self) -> Service:
        supervisor: Any = SimpleNamespace(seats={})
        return Health(supervisor)
