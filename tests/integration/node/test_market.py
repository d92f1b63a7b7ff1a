"""Market data beside the daemon: a real QuestDB and feed on our own exchange, and what happens when there is none."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest

from agentfarm.wire import link_pb2 as wire
from nodeagent.questdb.runtime import MarketDataUnavailable, obtain_runtime
from tests.integration.node.conftest import Node
from tests.integration.node.controller import ScriptedController, task, wanted
from tests.integration.node.waiting import until

ROWS_DEADLINE_S = 60.0


@pytest.fixture
async def exchange() -> AsyncIterator[dict[str, Any]]:
    try:
        await obtain_runtime(offline=True)
    except MarketDataUnavailable as missing:
        pytest.skip(f"no QuestDB on this machine: {missing}")
    command = [sys.executable, "-m", "agentfarm.exchange", "--port", "0", "--seed", "1", "--products", "BTC-USD"]
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    said = json.loads(await process.stdout.readline())
    yield {"products": ["BTC-USD"], "feed": {"ws_url": said["ws_url"], "rest_url": said["rest_url"]}}
    process.terminate()
    await process.wait()


def market_pids(node: Node) -> set[int]:
    return {pid for pid, command in node.processes() if command.startswith(("java", "python")) and pid != _daemon(node)}


def _daemon(node: Node) -> int:
    return node.process.pid if node.process is not None else 0


async def test_rows_are_stored_told_and_both_processes_outlive_the_daemon(
    node: Node, controller: ScriptedController, exchange: dict[str, Any]
) -> None:
    await node.start(market=exchange, stop_replicas_on_exit=True)
    await controller.until(lambda: list(controller.hellos[-1].capabilities) == ["questdb"], ROWS_DEADLINE_S)
    assert list(controller.hellos[-1].products) == ["BTC-USD"]
    await controller.until(lambda: controller.measured.market_rows > 0, ROWS_DEADLINE_S)
    assert controller.measured.market_state == "simulated"
    before = market_pids(node)
    await node.kill()
    await node.start(market=exchange, stop_replicas_on_exit=True)
    await controller.until(lambda: "questdb" in controller.hellos[-1].capabilities, ROWS_DEADLINE_S)
    await until(lambda: "market.feed_found" in node.log)
    assert market_pids(node) == before
    feed = json.loads((node.data / "feed" / "status.json").read_text())["pid"]
    os.kill(feed, signal.SIGKILL)
    await until(lambda: "market.feed_ended" in node.log)
    await until(lambda: market_pids(node) - before)
    assert await node.stop() == 0
    assert node.processes() == []


async def test_without_a_questdb_the_node_works_and_says_why(node: Node, controller: ScriptedController) -> None:
    await node.start(market={"products": ["BTC-USD"], "questdb_url": "http://127.0.0.1:1"})
    await controller.until(lambda: controller.measured.market_state.startswith("failed: "))
    assert not controller.hellos[-1].capabilities
    await controller.desire(wanted(1, controller.bundle(agent="async def main(input):\n    return input\n")))
    await controller.until_running(1)
    await controller.assign(task(1, 1, "fine"))
    assert (await controller.result_of(1)).outcome == wire.OUTCOME_SUCCEEDED
