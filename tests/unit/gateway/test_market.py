"""Market products over HTTP."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from controller.core.lives import ProductState
from controller.gateway.http.limits import FEED_PRODUCTS_MAX, TASK_PRODUCTS_MAX
from controller.gateway.market.models import ExplainProductView, FeedAnswer, ProductList
from controller.gateway.nodes.models import DrainPlanView, NodeView
from tests.unit.gateway.small_farm import SmallFarm

PATH = "/v1/market/products"


@pytest.fixture
async def small() -> SmallFarm:
    """Two nodes whose own settings name BTC-USD; node-2 has a feed that takes more."""
    farm = SmallFarm("node-1", "node-2")
    farm.nodes["node-2"].source = "coinbase-advanced"
    await farm.start("echo")
    return farm


async def feed(http: httpx.AsyncClient, *names: str, **more: Any) -> FeedAnswer:
    answer = await http.put(PATH, json={"products": list(names), **more})
    assert answer.status_code == 200, answer.text
    return FeedAnswer.model_validate(answer.json())


async def listed(http: httpx.AsyncClient) -> dict[str, dict[str, Any]]:
    answer = ProductList.model_validate((await http.get(PATH)).json())
    return {product.name: product.model_dump() for product in answer.products}


async def test_products_are_fed_and_listed_with_their_nodes(http: httpx.AsyncClient, small: SmallFarm) -> None:
    first = await feed(http, "ETH-USD")
    assert (first.changed, [node.state for node in first.products[0].nodes]) == (["ETH-USD"], ["unsaid"])
    await small.settle()
    products = await listed(http)
    assert products["ETH-USD"]["nodes"] == [
        {"node": "node-2", "state": "good", "reason": "", "is_assigned": True, "is_leaving": False}
    ]
    assert products["ETH-USD"]["is_good"]
    assert products["BTC-USD"]["copies"] is None, "only nodes' own settings name it"
    assert (await feed(http, "ETH-USD", copies=1, source="")).changed == []
    node = NodeView.model_validate((await http.get("/v1/nodes/node-2")).json())
    assert (node.products, node.assigned) == (["BTC-USD", "ETH-USD"], ["ETH-USD"])
    assert (node.takes_products, node.market_source) == (True, "coinbase-advanced")
    assert "ETH-USD" in (await http.get("/v1/status")).json()["market"]["products"]


async def test_copies_without_a_node_are_counted_and_explained(http: httpx.AsyncClient, small: SmallFarm) -> None:
    [eth] = (await feed(http, "ETH-USD", copies=2)).products
    assert (eth.missing, eth.is_good) == (1, False)
    numbers = (await http.get("/metrics")).text
    assert 'agentfarm_product_copies_missing{product="ETH-USD"} 1.0' in numbers
    assert 'agentfarm_product_good{product="ETH-USD"} 0.0' in numbers
    why = ExplainProductView.model_validate((await http.get("/v1/explain/product/ETH-USD")).json())
    assert why.because == "no node can take 1 of 2 copies"
    assert {row.node: row.reasons for row in why.nodes} == {
        "node-1": ["node has no feed that takes products"],
        "node-2": ["feeds it already"],
    }
    events = (await http.get("/v1/events?limit=500")).text
    assert "product.unplaced" in events


async def test_explanation_says_which_copy_is_not_good(http: httpx.AsyncClient, small: SmallFarm) -> None:
    small.nodes["node-2"].product_state = ProductState.DOUBTFUL
    await feed(http, "ETH-USD")
    await small.settle()
    why = (await http.get("/v1/explain/product/ETH-USD")).json()["because"]
    assert why == "every copy has a node; node-2 is doubtful"


@pytest.mark.parametrize(
    ("body", "word"),
    [
        ({"products": ["ETH-USD"], "copies": 0}, "copies"),
        ({"products": ["ETH-USD"], "copies": 99}, "copies"),
        ({"products": []}, "products"),
        ({"products": ["P"] * (FEED_PRODUCTS_MAX + 1)}, "products"),
        ({"products": ["ETH USD"]}, "cannot be the name"),
        ({"products": ["ETH-USD"], "node": "node-1"}, "node"),
    ],
)
async def test_wrong_wishes_are_refused(http: httpx.AsyncClient, body: dict[str, Any], word: str) -> None:
    answer = await http.put(PATH, json=body)
    assert answer.status_code == 400
    assert word in answer.text
    assert set(await listed(http)) == {"BTC-USD"}


async def test_source_that_no_feed_has_cannot_be_placed(http: httpx.AsyncClient) -> None:
    answer = await http.put(PATH, json={"products": ["ETH-USD"], "source": "kraken"})
    assert (answer.status_code, answer.json()["code"]) == (409, "cannot_place")
    assert answer.json()["remedy"] == "There are: coinbase-advanced."


async def test_removing_needs_the_name_and_finds_the_nearest(http: httpx.AsyncClient, small: SmallFarm) -> None:
    await feed(http, "ETH-USD", "XBT/USD")
    wrong = await http.delete(f"{PATH}/ETH-USDT")
    assert (wrong.status_code, wrong.json()["remedy"]) == (404, "Did you mean 'ETH-USD'?")
    own = await http.delete(f"{PATH}/BTC-USD")
    assert "settings of node-1, node-2" in own.json()["detail"]
    for path in ("ETH-USD", "XBT%2FUSD"):
        assert (await http.delete(f"{PATH}/{path}")).status_code == 204
    assert set(await listed(http)) == {"BTC-USD"}
    assert (await http.get("/v1/explain/product/ETH-USD")).status_code == 404


async def test_drain_plan_says_which_products_move(http: httpx.AsyncClient, small: SmallFarm) -> None:
    await feed(http, "ETH-USD")
    plan = "/v1/nodes/node-2/drain?plan=1"
    stuck = DrainPlanView.model_validate((await http.post(plan)).json())
    assert [(it.product, it.to, it.action) for it in stuck.products] == [("ETH-USD", None, "move")]
    assert not stuck.fits
    small.nodes["node-1"].source = "coinbase-advanced"
    small.nodes["node-1"].join()
    moved = DrainPlanView.model_validate((await http.post(plan)).json())
    assert [(it.product, it.from_, it.to) for it in moved.products] == [("ETH-USD", "node-2", "node-1")]
    assert moved.fits


async def test_drain_says_for_which_products_it_waits(http: httpx.AsyncClient, small: SmallFarm) -> None:
    node = small.nodes["node-1"]
    node.source, node.product_state = "coinbase-advanced", ProductState.STARTING
    node.join()
    await feed(http, "AAA-USD", "ETH-USD")
    await small.settle()
    await http.post("/v1/nodes/node-2/drain", json={"deadline_s": 60})
    await small.settle()
    waiting = (await http.get("/v1/nodes/node-2")).json()["drain"]
    assert waiting["blocked_by"] == ["ETH-USD waits until it is good on node-1 (starting)"]
    assert not waiting["is_complete"]


async def test_task_may_name_products(http: httpx.AsyncClient, small: SmallFarm) -> None:
    made = (await http.post("/v1/tasks?wait=5", json={"agent": "echo", "products": ["ETH-USD", "ETH-USD"]})).json()
    assert made["products"] == ["ETH-USD"]
    again = (await http.post(f"/v1/tasks/{made['id']}/retry")).json()
    assert again["products"] == ["ETH-USD"]
    batch = await http.post("/v1/tasks/batch", content=b'{"agent": "echo", "products": ["SOL-USD"]}\n')
    options = small.memory.inputs[batch.json()["id"]].options
    assert options is not None
    assert options.products == ("SOL-USD",)
    many = await http.post("/v1/tasks", json={"agent": "echo", "products": ["P"] * (TASK_PRODUCTS_MAX + 1)})
    assert many.status_code == 400
