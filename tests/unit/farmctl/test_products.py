"""Market products from the command line."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from controller.core.commands import NodeBeat
from controller.core.model import Measured, NodeName
from tests.unit.farmctl.conftest import Ran, ServedFarm

Farmctl = Callable[..., Ran]


@pytest.fixture
def feeds(farm: ServedFarm) -> ServedFarm:
    """Both nodes have a feed that takes products."""
    for node in farm.small.nodes.values():
        node.source = "coinbase-advanced"
        farm.do(node.join)
    return farm


def test_products_are_added_listed_and_removed(farmctl: Farmctl, feeds: ServedFarm) -> None:
    added = farmctl("feed", "add", "ETH-USD", "SOL-USD")
    assert (added.code, added.out) == (0, "ETH-USD is fed by node-1.\nSOL-USD is fed by node-2.\n")
    shown = farmctl("feed", "products")
    assert "by its own settings" in shown.out, "BTC-USD stands in the nodes' settings"
    assert max(map(len, shown.out.splitlines())) <= 80
    by_name = {product["name"]: product for product in farmctl("feed", "products", "--json").json["products"]}
    assert (by_name["ETH-USD"]["is_good"], by_name["ETH-USD"]["copies"]) == (True, 1)
    assert farmctl("feed", "add", "ETH-USD", "--json").json["changed"] == []
    assert farmctl("feed", "remove", "ETH-USD", "SOL-USD").out == "No longer fed: ETH-USD, SOL-USD.\n"
    assert {product["name"] for product in farmctl("feed", "products", "--json").json["products"]} == {"BTC-USD"}


def test_missing_copies_are_partly_done_and_explained(farmctl: Farmctl, feeds: ServedFarm) -> None:
    ran = farmctl("feed", "add", "ETH-USD", "--copies", 3)
    assert ran.code == 4
    assert "farmctl explain product ETH-USD" in ran.out
    assert "unplaced" in farmctl("feed", "products").out
    for words in (("product", "ETH-USD"), ("ETH-USD",)):
        why = farmctl("explain", *words)
        assert why.code == 0
        assert "no node can take 1 of 3 copies" in why.out
        assert "feeds it already" in why.out


def test_wrong_wishes_say_what_to_do(farmctl: Farmctl, feeds: ServedFarm) -> None:
    assert farmctl("feed", "add", "ETH-USD", "--copies", 0).code == 1
    assert farmctl("feed", "add", "ETH-USD", "--source", "kraken").code == 2
    assert "feed add PRODUCT" in farmctl("explain", "product", "ETH-USD").err
    farmctl("feed", "add", "ETH-USD")
    wrong = farmctl("feed", "remove", "ETH-USD", "ETH-USDT")
    assert (wrong.code, "Did you mean 'ETH-USD'?" in wrong.err) == (1, True)
    assert "ETH-USD" in farmctl("feed", "products").out, "all or none"


def test_farm_without_feeds_cannot_place_a_product(farmctl: Farmctl, farm: ServedFarm) -> None:
    ran = farmctl("feed", "add", "ETH-USD")
    assert (ran.code, "docs/market-data.md" in ran.err) == (2, True)


def test_status_says_where_each_product_is_fed(farmctl: Farmctl, feeds: ServedFarm) -> None:
    farmctl("feed", "add", "ETH-USD")
    beat = NodeBeat(NodeName("node-1"), 1, 1, Measured(market_rows=5, market_state="live"))
    feeds.do(lambda: feeds.small.engine.do(beat))
    ran = farmctl("feed", "status")
    assert "ETH-USD" in ran.out
    assert "good" in ran.out
    assert [row["name"] for row in farmctl("feed", "status", "--json").json["products"]] == [
        "BTC-USD",
        "ETH-USD",
    ]


def test_drain_shows_which_products_move(farmctl: Farmctl, feeds: ServedFarm) -> None:
    farmctl("feed", "add", "ETH-USD")
    ran = farmctl("drain", "node-1", "--plan")
    assert [line.split() for line in ran.out.splitlines() if "ETH-USD" in line] == [
        ["ETH-USD", "node-1", "node-2", "move"]
    ]
    assert farmctl("drain", "node-1", "--deadline", "30s").code == 0
    assert [node["node"] for node in _nodes(farmctl, "ETH-USD")] == ["node-2"]
    stuck = farmctl("drain", "node-2")
    assert (stuck.code, "ETH-USD" in stuck.err) == (2, True)


def _nodes(farmctl: Farmctl, name: str) -> list[dict[str, str]]:
    listed = farmctl("feed", "products", "--json").json["products"]
    return next(product["nodes"] for product in listed if product["name"] == name)


def test_task_may_name_products(farmctl: Farmctl, feeds: ServedFarm) -> None:
    made = farmctl("task", "submit", "echo", "--product", "ETH-USD", "--product", "BTC-USD", "--json").json
    assert made["products"] == ["ETH-USD", "BTC-USD"]
    assert "ETH-USD BTC-USD" in farmctl("task", "show", made["id"]).out
