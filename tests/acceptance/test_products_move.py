"""Market products across a farm of real parts: given to nodes, moved when one dies, moved when one is drained."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from benchmarks.farm import Farm
from tests.acceptance.farms import FARMCTL, farmctl
from tests.questdb import questdb_runtime

pytestmark = pytest.mark.timeout(420)

GOOD_S = 120.0  # a QuestDB is made and started on each node, on a machine that runs other tests too
MOVED_S = 60.0  # 8 s to notice a node's death, and the feed's first snapshot after that
PRODUCTS = ("BTC-USD", "ETH-USD")
READER = """
from agentfarm.sdk import tsdb

async def main(product):
    quality = await tsdb().aquality(product)
    return {"is_good": quality.is_good, "reasons": list(quality.reasons)}
"""


@contextmanager
def exchange() -> Iterator[dict[str, str]]:
    """An exchange of our own; the feed's settings that lead to it."""
    command = [sys.executable, "-m", "nodeagent.market.exchange", "--products", ",".join(PRODUCTS), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        addresses = json.loads(process.stdout.readline())
        try:
            yield {"ws_url": addresses["ws_url"], "rest_url": addresses["rest_url"]}
        finally:
            process.kill()


class Products:
    """What the farm says of its products."""

    def __init__(self, farm: Farm) -> None:
        self._farm = farm

    def now(self) -> dict[str, dict[str, dict[str, Any]]]:
        """By product and node."""
        answer = self._farm.http.get("/v1/market/products").raise_for_status().json()["products"]
        return {product["name"]: {node["node"]: node for node in product["nodes"]} for product in answer}

    def good_on(self, product: str) -> set[str]:
        return {name for name, node in self.now().get(product, {}).items() if node["state"] == "good"}

    def wait_good(self, deadline_s: float, *, apart_from: str = "") -> dict[str, str]:
        """Until each is good on one node that is not that one; says which."""

        def look() -> dict[str, str]:
            homes = {product: self.good_on(product) - {apart_from} for product in PRODUCTS}
            return {product: min(nodes) for product, nodes in homes.items()} if all(homes.values()) else {}

        homes: dict[str, str] = self._farm.wait_for(look, "products to be good", deadline_s)
        return homes


def ask(farm: Farm, agent: str, product: str) -> dict[str, Any]:
    """What the agent says of a product, wherever it runs."""
    answer = farm.http.post(
        "/v1/tasks?wait=30", json={"agent": agent, "input": {"product": product}, "products": [product]}
    )
    task: dict[str, Any] = answer.raise_for_status().json()
    assert task["state"] == "succeeded", task["error"]
    return task


def test_products_follow_the_nodes_that_live(tmp_path: Path) -> None:
    asyncio.run(questdb_runtime(offline=True))
    with (
        exchange() as feed,
        Farm(nodes=2, node={"market": {"products": [], "takes_products": True, "feed": feed}}) as farm,
    ):
        products = Products(farm)
        token = str(farm.folder / "controller" / "operator.token")
        to_farm = ("--server", farm.gateway, "--token-file", token)
        added = farmctl("feed", "add", *PRODUCTS, *to_farm, cwd=tmp_path)
        assert added.code == 0, added.out + added.err
        first = products.wait_good(GOOD_S)
        assert set(first.values()) == {"node-1", "node-2"}, "one each"

        (tmp_path / "reader.py").write_text(READER)
        (tmp_path / "reader.yaml").write_text("replicas: 2\nplacement: {capabilities: [questdb]}\n")
        agent = farm.deploy(tmp_path / "reader.py", replicas=2)
        for product, home in first.items():
            farm.wait_for(lambda p=product, h=home: answered_well(ask(farm, agent, p), h), f"{product} good on {home}")

        lost, left = first["BTC-USD"], first["ETH-USD"]
        farm.kill_node(lost)
        died_at = time.monotonic()
        assert products.wait_good(MOVED_S, apart_from=lost) == dict.fromkeys(PRODUCTS, left)
        print(f"good again after {time.monotonic() - died_at:.1f} s")
        farm.wait_for(lambda: answered_well(ask(farm, agent, "BTC-USD"), left), "BTC-USD good for agents")

        farm.start_node(lost)
        farm.wait_for(lambda: is_back(farm, lost), "the node to be back with its QuestDB")
        farm.wait_for(lambda: set(products.now()["BTC-USD"]) == {left}, "it to learn that its product went")
        words = [*FARMCTL, "drain", left, "--deadline", "120s", *to_farm]
        drained = subprocess.Popen(words, cwd=tmp_path, stdout=subprocess.PIPE, text=True)
        while drained.poll() is None:  # make before break: somebody feeds it well at every moment
            for product in PRODUCTS:
                assert products.good_on(product), products.now()
        assert drained.returncode == 0, drained.communicate()[0]
        assert products.wait_good(MOVED_S, apart_from=left) == dict.fromkeys(PRODUCTS, lost)
        assert set(products.now()["ETH-USD"]) == {lost}


def is_back(farm: Farm, name: str) -> bool:
    """Whether a node is heard again, and has said that its QuestDB runs."""
    view: dict[str, Any] = farm.http.get(f"/v1/nodes/{name}").raise_for_status().json()
    return view["state"] == "ready" and "questdb" in view["capabilities"]


def answered_well(task: dict[str, Any], home: str) -> bool:
    """Whether the agent ran there and found the data good."""
    return bool(task["node"] == home and task["output"]["is_good"])
