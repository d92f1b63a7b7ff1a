"""While a node's market data is on its way, agents that need it wait for it, and no old news is told as new."""

from __future__ import annotations

import json
from pathlib import Path

from agentfarm.wire import link_pb2 as wire
from nodeagent.machine.programs import RuntimeFolder
from nodeagent.services.market.programs import Market
from nodeagent.services.market.settings import MarketSettings
from tests.integration.node.conftest import Node
from tests.integration.node.controller import ScriptedController, wanted

ECHO = "async def main(input):\n    return input\n"
NOBODY = "http://127.0.0.1:9"


async def test_a_replica_that_needs_market_data_is_not_started_before_it_is_there(
    node: Node, controller: ScriptedController
) -> None:
    await node.start(market={"questdb_url": NOBODY, "products": ["BTC-USD"]}, stop_replicas_on_exit=True)
    digest = controller.bundle(agent=ECHO)
    await controller.desire(wanted(1, digest, placement={"capabilities": ["questdb"]}), wanted(2, digest))
    await controller.until_running(2)
    assert controller.replicas[1].state == wire.REPLICA_STATE_STARTING
    assert controller.replicas[1].pid == 0
    assert await node.stop() == 0
    assert node.processes() == []


async def test_the_status_of_an_earlier_feed_is_not_believed(tmp_path: Path) -> None:
    (tmp_path / "feed").mkdir()
    said = {"pid": 1, "rows_stored": 258, "is_connected": True, "connects": 1, "lag_ms": 3}
    (tmp_path / "feed" / "status.json").write_text(json.dumps(said))
    market = Market(MarketSettings(products=("BTC-USD",)), tmp_path, RuntimeFolder(tmp_path / "runtime"), print)
    status = market.status()
    assert (status.state, status.rows) == ("starting", 0)
