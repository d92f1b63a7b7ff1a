"""A whole controller in this process: the order of its start, and what it tells of it."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import httpx
import pytest
import structlog
from structlog.testing import capture_logs

from agentfarm.service import Service
from controller.service import Controller
from controller.settings import ControllerSettings
from tests.service_contract import ServiceContract


async def test_start_serves_nodes_first_and_is_ready_when_all_is_served(database_url: str, tmp_path: Path) -> None:
    settings = ControllerSettings(data_dir=tmp_path, database_url=database_url, gateway_port=0, link_port=0)
    controller = Controller(settings)
    structlog.reset_defaults()  # a logger that was used before keeps its processors
    with capture_logs() as told:
        async with asyncio.timeout(60):
            await controller.start()
        said = json.loads((tmp_path / "controller.json").read_text())
        async with httpx.AsyncClient(base_url=said["gateway"], timeout=30) as client:
            assert (await client.get("/healthz")).status_code == 200
        await controller.stop()
    assert not (tmp_path / "controller.json").exists()
    events = [line["event"] for line in told]
    order = ["engine.leading", "controller.ready", "controller.started"]
    assert [event for event in events if event in order] == order
    assert events.index("link.listening") < events.index("controller.ready")
    (started,) = (line for line in told if line["event"] == "controller.started")
    steps = {"postgres_ms", "schema_ms", "certificates_ms", "link_ms", "lead_ms", "gateway_ms"}
    assert steps < started.keys()
    assert 0 < started["nodes_served_ms"] <= started["submits_served_ms"] <= started["total_ms"]


class TestController(ServiceContract):
    @pytest.fixture
    def service(self, database_url: str, tmp_path: Path) -> Service:
        return Controller(ControllerSettings(data_dir=tmp_path, database_url=database_url, gateway_port=0, link_port=0))
