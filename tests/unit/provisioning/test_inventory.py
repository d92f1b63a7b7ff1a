"""The inventory: the example in the repository is true, nesting means what it should, and mistakes are named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from agentfarm.errors import InvalidRequest
from provisioning.inventory import RANGE_MAX, expand, main, parse_inventory, read_inventory

EXAMPLE = Path(__file__).parents[3] / "inventory.example.yaml"


def test_the_example_is_true(capsys: pytest.CaptureFixture[str]) -> None:
    inventory = read_inventory(EXAMPLE)
    (controller,) = inventory.controllers
    assert (controller.name, controller.public_host, controller.gateway_port) == ("gpu-1", "farm.lan", 8600)
    nodes = {node.name: node for node in inventory.nodes}
    assert len(nodes) == 34
    assert (nodes["node-07"].address, nodes["node-30"].address) == ("10.20.1.7", "10.20.1.30")
    assert nodes["node-07"].reserve_memory_mib == 1024
    assert nodes["node-07"].market is None
    assert nodes["node-31"].labels == {"model": "microserver-gen8", "disk": "ssd"}
    assert nodes["node-31"].market is not None
    assert nodes["node-31"].market.products == ("BTC-USD", "ETH-USD")
    assert nodes["node-32"].market is not None
    assert nodes["node-32"].market.source == "coinbase-exchange"
    assert nodes["node-33"].market is not None
    assert (nodes["node-33"].market.source, nodes["node-33"].market.products) == ("binance", ("BTCUSDT", "ETHUSDT"))
    assert (nodes["gpu-node"].gpus, nodes["gpu-node"].reserve_memory_mib) == (16, 65536)
    assert all(machine.ssh_user == "ops" for machine in (*inventory.controllers, *inventory.nodes))
    assert main([str(EXAMPLE)]) == 0
    assert "nodes: 34" in capsys.readouterr().out


def inventory(**of_node: Any) -> dict[str, Any]:
    hosts = {"controllers": {"hosts": {"c": {"address": "c"}}}, "nodes": {"hosts": {"n": {"address": "n", **of_node}}}}
    return {"all": {"children": hosts}}


@pytest.mark.parametrize(
    ("of_node", "words"),
    [
        ({"adress": "x"}, "Did you mean 'address'?"),
        ({"address": None}, "address must be a text"),
        ({"gpus": -1}, "gpus must be a whole number"),
        ({"gpus": True}, "gpus must be a whole number"),
        ({"ssh_port": 70_000}, "ssh_port must be"),
        ({"labels": "x"}, "labels must be"),
        ({"market": {"source": "x"}}, "market must hold source and products"),
        ({"capabilities": "questdb"}, "capabilities must be a list"),
    ],
)
def test_a_wrong_variable_is_named_with_its_host(of_node: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse_inventory(inventory(**of_node))
    assert str(caught.value).startswith("n: ")
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (None, "begins with one group"),
        ({"hosts": {}}, "begins with one group"),
        ({"all": {"children": {"workers": {}}}}, "there is no group 'workers'"),
        ({"all": {"children": {"nodes": {"host": {}}}}}, "Did you mean 'hosts'?"),
        ({"all": {"children": {"nodes": {"hosts": ["n"]}}}}, "hosts must hold keys and values"),
        ({"all": {}}, "names no controller"),
    ],
)
def test_a_wrong_form_is_named(raw: Any, words: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse_inventory(raw)
    assert words in str(caught.value)


def test_a_host_in_two_groups_is_refused() -> None:
    raw = inventory()
    raw["all"]["children"]["nodes"]["children"] = {"more": {"hosts": {"n": {"address": "m"}}}}
    with pytest.raises(InvalidRequest, match="n is in the inventory twice"):
        parse_inventory(raw)


def test_ranges_keep_their_width() -> None:
    assert expand("n-[8:10]") == [("n-8", 8), ("n-9", 9), ("n-10", 10)]
    assert [name for name, _ in expand("n-[08:10]-x")] == ["n-08-x", "n-09-x", "n-10-x"]
    assert expand("plain") == [("plain", None)]
    for wrong in ("n-[5:4]", f"n-[0:{RANGE_MAX}]"):
        with pytest.raises(InvalidRequest, match="a range must rise"):
            expand(wrong)


def test_a_file_that_is_not_yaml_or_not_there_is_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "inventory.yaml"
    assert main([str(path)]) == 1
    path.write_text("all: [")
    assert main([str(path)]) == 1
    errors = capsys.readouterr().err
    assert "cannot be read" in errors
    assert "is not YAML" in errors
