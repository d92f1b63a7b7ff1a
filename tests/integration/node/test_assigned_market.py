"""Market products that the controller assigns: fed beside the node's own, told, changed, remembered."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from agentfarm.wire import market_pb2
from nodeagent.market.exchange import ExchangeServer
from tests.integration.node.conftest import Node
from tests.integration.node.controller import ScriptedController, wanted
from tests.integration.node.waiting import until
from tests.questdb import questdb_runtime

GOOD_DEADLINE_S = 90.0
ECHO = "async def main(input):\n    return input\n"


@pytest.fixture
async def exchange() -> AsyncIterator[ExchangeServer]:
    await questdb_runtime(offline=True)
    async with ExchangeServer("advanced", products=("BTC-USD", "ETH-USD", "SOL-USD")) as server:
        yield server


def market(exchange: ExchangeServer, *own: str) -> dict[str, Any]:
    feed = {"ws_url": exchange.ws_url, "rest_url": exchange.rest_url}
    return {"products": list(own), "takes_products": True, "feed": feed}


def feed_status(node: Node) -> dict[str, Any]:
    said: dict[str, Any] = json.loads((node.data / "feed" / "status.json").read_text())
    return said


@pytest.mark.parametrize("is_0_1", [False, True], ids=["this_release", "beside_0_1"])
async def test_assigned_products_are_fed_beside_the_nodes_own(
    node: Node, controller: ScriptedController, exchange: ExchangeServer, is_0_1: bool
) -> None:
    controller.is_0_1 = is_0_1
    await node.start(market=market(exchange, "BTC-USD"), stop_replicas_on_exit=True)
    assert controller.market_hello.takes_products
    assert controller.market_hello.source == "coinbase-advanced"
    await controller.until(lambda: controller.is_good("BTC-USD"), GOOD_DEADLINE_S)
    await controller.desire_products("ETH-USD", "NO-SUCH")
    await controller.until(lambda: controller.market.get("ETH-USD", market_pb2.ProductStatus()).state
                           == market_pb2.PRODUCT_STATE_GOOD, GOOD_DEADLINE_S)  # fmt: skip
    await controller.until(
        lambda: controller.market["NO-SUCH"].state == market_pb2.PRODUCT_STATE_FAILED, GOOD_DEADLINE_S
    )
    assert controller.market["NO-SUCH"].reason
    assert list(controller.market) == ["BTC-USD", "ETH-USD", "NO-SUCH"]
    await controller.desire(wanted(1, controller.bundle(agent=ECHO)))  # says nothing of products: they stay
    await controller.until_running(1)
    await controller.desire_products("SOL-USD")
    await controller.until(lambda: controller.is_good("BTC-USD", "SOL-USD"), GOOD_DEADLINE_S)
    assert feed_status(node)["connects"] == 1
    await controller.desire_products()
    await controller.until(lambda: controller.is_good("BTC-USD"), GOOD_DEADLINE_S)
    assert list(controller.market_hello.products) == ["BTC-USD"]
    assert await node.stop() == 0
    assert node.processes() == []


async def test_a_daemon_alone_goes_on_feeding_what_was_assigned(
    node: Node, controller: ScriptedController, exchange: ExchangeServer
) -> None:
    await node.start(market=market(exchange), stop_replicas_on_exit=True)
    await controller.until(lambda: controller.market_measured.state == "idle", GOOD_DEADLINE_S)
    assert controller.market_reports > 0
    await controller.desire_products("ETH-USD")
    await controller.until(lambda: controller.is_good("ETH-USD"), GOOD_DEADLINE_S)
    before = feed_status(node)
    reports = controller.market_reports
    await node.kill()
    await node.start(market=market(exchange), stop_replicas_on_exit=True)  # this controller desires nothing
    await controller.until(
        lambda: controller.market_reports > reports and controller.is_good("ETH-USD"), GOOD_DEADLINE_S
    )
    assert feed_status(node)["pid"] == before["pid"]
    await node.kill()
    os.kill(before["pid"], signal.SIGKILL)
    (node.data / "feed" / "settings.json").unlink()
    await node.start(market=market(exchange), stop_replicas_on_exit=True)
    await until(lambda: "pid" in _read(node) and _read(node)["pid"] != before["pid"], GOOD_DEADLINE_S)
    await controller.until(lambda: controller.is_good("ETH-USD"), GOOD_DEADLINE_S)
    assert await node.stop() == 0


def _read(node: Node) -> dict[str, Any]:
    try:
        return feed_status(node)
    except (OSError, ValueError):
        return {}


async def test_a_damaged_list_is_set_aside(tmp_path: Path) -> None:
    from nodeagent.services.market.products import AssignedProducts

    path = tmp_path / "assigned.json"
    assigned = AssignedProducts(path)
    assert assigned.take(["A-USD", "B-USD", "A-USD"])
    assert not assigned.take(["A-USD", "B-USD"])
    assert AssignedProducts(path).products == ("A-USD", "B-USD")
    path.write_bytes(b'{"products": ["A-U')
    assert AssignedProducts(path).products == ()
    assert not path.exists()
    assert len(list(tmp_path.glob("assigned.json.damaged-*"))) == 1
