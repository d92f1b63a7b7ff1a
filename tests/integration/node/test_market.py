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
from nodeagent.market.exchange import ExchangeServer
from tests.integration.node.conftest import Node
from tests.integration.node.controller import ScriptedController, task, wanted
from tests.integration.node.waiting import until
from tests.questdb import questdb_runtime

ROWS_DEADLINE_S = 60.0


@pytest.fixture
async def exchange() -> AsyncIterator[dict[str, Any]]:
    await questdb_runtime(offline=True)
    command = [sys.executable, "-m", "nodeagent.market.exchange", "--port", "0", "--seed", "1", "--products", "BTC-USD"]
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
    assert list(controller.market_hello.products) == ["BTC-USD"]
    await controller.until(lambda: controller.market_measured.rows > 0, ROWS_DEADLINE_S)
    assert controller.market_measured.state == "simulated"
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


async def test_a_node_is_set_to_binance_by_its_settings_file(node: Node, controller: ScriptedController) -> None:
    await questdb_runtime(offline=True)
    async with ExchangeServer("binance") as exchange:
        feed = {"source": "binance", "ws_url": exchange.ws_url, "rest_url": exchange.rest_url}
        await node.start(market={"products": ["BTCUSDT", "ETHUSDT"], "feed": feed}, stop_replicas_on_exit=True)
        await controller.until(lambda: controller.market_measured.rows > 20, ROWS_DEADLINE_S)
        assert list(controller.market_hello.products) == ["BTCUSDT", "ETHUSDT"]
        assert controller.market_measured.state == "simulated"

        def is_good() -> bool:
            said = json.loads((node.data / "feed" / "status.json").read_text())
            return [product["state"] for product in said["products"].values()] == ["good", "good"]

        await until(is_good, ROWS_DEADLINE_S)
        assert exchange.refused == {}
        assert await node.stop() == 0
    assert node.processes() == []


async def test_without_a_questdb_the_node_works_and_says_why(node: Node, controller: ScriptedController) -> None:
    await node.start(market={"products": ["BTC-USD"], "questdb_url": "http://127.0.0.1:1"})
    await controller.until(lambda: controller.market_measured.state.startswith("failed: "))
    assert not controller.hellos[-1].capabilities
    await controller.desire(wanted(1, controller.bundle(agent="async def main(input):\n    return input\n")))
    await controller.until_running(1)
    await controller.assign(task(1, 1, "fine"))
    assert (await controller.result_of(1)).outcome == wire.OUTCOME_SUCCEEDED


async def test_a_question_is_answered_by_a_program_beside_the_feed(
    node: Node, controller: ScriptedController, exchange: dict[str, Any]
) -> None:
    await node.start(market=exchange, stop_replicas_on_exit=True)
    await controller.until(lambda: controller.market_measured.rows > 20, ROWS_DEADLINE_S)
    await controller.ask_market(1, "verify", product="BTC-USD")
    await controller.ask_market(2, "gaps")  # while the first is being answered
    await controller.until(lambda: {1, 2} <= set(controller.log_ends), ROWS_DEADLINE_S)
    assert "is answering another question (verify)" in controller.log_ends[2]
    assert controller.log_ends[1] == ""
    said = [json.loads(line) for line in controller.logs[1].splitlines()]
    assert said[0]["event"] == "started"
    assert [line["product"] for line in said if line["event"] == "product"] == ["BTC-USD"]
    assert said[-1]["is_good"], said
    await controller.ask_market(3, "replay", until="2000-01-01T00:00:00Z")
    await controller.until(lambda: 3 in controller.log_ends, ROWS_DEADLINE_S)
    assert json.loads(controller.logs[3].splitlines()[-1])["records"] == 0
    await controller.ask_market(4, "verify")
    await controller.until(lambda: 4 in controller.logs)
    await controller.send(log_stop=wire.LogStop(request_id=4))
    await until(lambda: node.log.count("market.answered") == 3)
    assert not any("nodeagent.market.audit" in command for _, command in node.processes())
    await controller.ask_market(5, "gaps", since="2000-01-01T00:00:00Z")
    await controller.until(lambda: 5 in controller.log_ends, ROWS_DEADLINE_S)
    assert controller.log_ends[5] == ""
    assert json.loads(controller.logs[5].splitlines()[-1])["event"] == "done"


@pytest.mark.parametrize("is_0_1", [False, True], ids=["this_release", "beside_0_1"])
async def test_a_node_without_market_data_says_so(node: Node, controller: ScriptedController, is_0_1: bool) -> None:
    controller.is_0_1 = is_0_1
    await node.start()
    await controller.ask_market(1, "gaps")
    await controller.until(lambda: 1 in controller.log_ends)
    assert controller.log_ends[1] == "This node has no market data."
