"""The release before beside this one, as real processes: nodes and controller are upgraded in any order."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from benchmarks.farm import Farm
from tests.releases import BEFORE, UNMIXED, Installed, Release, installed

NODE = "node-1"
VERSION = version("agentfarm")
WHO = """
import importlib, importlib.metadata, os, pathlib, time

def main(imports=(), gate=None):
    for name in imports:
        importlib.import_module(name)
    while gate is not None and not pathlib.Path(gate).exists():
        time.sleep(0.02)
    return {"release": importlib.metadata.version("agentfarm"), "pid": os.getpid()}
"""
LOADED_LATE = (
    "agentfarm.sdk.models", "agentfarm.sdk.models.plain", "agentfarm.sdk.models.scripted",
    "agentfarm.sdk.models.endpoint", "agentfarm.sdk.market", "agentfarm.sdk.quality", "agentfarm.sdk.checkpoints",
    "agentfarm.sdk.graphs", "agentfarm.sdk.tracebacks",
)  # fmt: skip
"""What replicas of the release before import when it is first used."""


@pytest.fixture
def before() -> Installed:
    return installed(BEFORE)


@pytest.fixture
def farms(tmp_path: Path) -> Iterator[Any]:
    """Starts a farm; what `python` does not name runs this release."""
    with ExitStack() as stack:
        yield lambda market=None, **python: stack.enter_context(Farm(
            folder=tmp_path / "farm", environment=UNMIXED, python=python,
            node={"stop_replicas_on_exit": False, "market": market},
        ))  # fmt: skip


def deploy(farm: Farm, folder: Path) -> str:
    agent = folder / "who"
    agent.mkdir()
    (agent / "agent.py").write_text(WHO)
    (agent / "agent.yaml").write_text("concurrency: 1\n")
    return farm.deploy(agent)


def submit(farm: Farm, agent: str, given: Any) -> int:
    answer = farm.http.post("/v1/tasks", json={"agent": agent, "input": given})
    return int(answer.raise_for_status().json()["id"])


def wait(farm: Farm, task: int) -> Any:
    view = farm.http.get(f"/v1/tasks/{task}/wait?timeout=60").raise_for_status().json()
    assert view["state"] == "succeeded", view.get("error")
    return view["output"]


def deploy_steps(farm: Farm, folder: Path) -> str:
    agent = folder / "steps"
    agent.mkdir()
    (agent / "agent.py").write_text(STEPS)
    return farm.deploy(agent)


def first_pid(farm: Farm, gate: Path) -> int:
    """The process that did the first step, once the second one runs, and so the first one's checkpoint is kept."""
    farm.wait_for(gate.with_suffix(".second").exists, "the second step")
    return int(gate.with_name(f"{gate.name}.pid").read_text())


def node_of(farm: Farm) -> dict[str, Any]:
    (node,) = farm.http.get("/v1/nodes").raise_for_status().json()["nodes"]
    return dict(node)


def product_state(farm: Farm, name: str) -> str:
    """What its node says of a product."""
    products = farm.http.get("/v1/market/products").raise_for_status().json()["products"]
    return next((node["state"] for product in products if product["name"] == name for node in product["nodes"]), "")


def run(farm: Farm, agent: str, given: Any) -> Any:
    return wait(farm, submit(farm, agent, given))


def releases(farm: Farm) -> tuple[str, list[str]]:
    """Of the controller, and of its nodes."""
    nodes = farm.http.get("/v1/nodes").raise_for_status().json()["nodes"]
    controller = farm.http.get("/v1/status").raise_for_status().json()["version"]
    return controller, [node["daemon_version"] for node in nodes]


def test_node_of_the_release_before_joins_and_works(before: Installed, farms: Any, tmp_path: Path) -> None:
    farm = farms(**{NODE: before.python})
    assert releases(farm) == (VERSION, [BEFORE.version])
    assert run(farm, deploy(farm, tmp_path), {})["release"] == BEFORE.version


def test_controller_of_the_release_before_is_joined_and_served(before: Installed, farms: Any, tmp_path: Path) -> None:
    farm = farms(controller=before.python)
    assert releases(farm) == (BEFORE.version, [VERSION])
    assert run(farm, deploy(farm, tmp_path), {})["release"] == VERSION


def test_controller_is_upgraded_on_its_database(before: Installed, farms: Any, tmp_path: Path) -> None:
    farm = farms(controller=before.python, **{NODE: before.python})
    agent = deploy(farm, tmp_path)
    old = submit(farm, agent, {})
    output = wait(farm, old)
    kept = farm.http.get(f"/v1/tasks/{old}").raise_for_status().json()
    farm.stop("controller")
    del farm.python["controller"]
    farm.start_controller()
    farm.wait_for(lambda: farm.ready_nodes() == 1, "the node to be back")
    assert releases(farm) == (VERSION, [BEFORE.version])
    shown = farm.http.get(f"/v1/tasks/{old}").raise_for_status().json()
    assert (shown["state"], shown["output"]) == ("succeeded", output)
    assert {name: shown[name] for name in kept} == kept, "what was known of it is known still"
    new = submit(farm, agent, {})
    assert new > old
    assert wait(farm, new) == output, "by the same replica, which did not notice"


def test_node_is_upgraded_under_its_replicas(before: Installed, farms: Any, tmp_path: Path) -> None:
    """What runs goes on, with its attempt in hand; what is new is of the new release."""
    farm = farms(**{NODE: before.python})
    agent = deploy(farm, tmp_path)
    pid = run(farm, agent, {})["pid"]
    gate = tmp_path / "gate"
    in_hand = submit(farm, agent, {"gate": str(gate)})
    farm.wait_for(lambda: _state(farm, in_hand) == "running", "the attempt to begin")
    farm.stop(NODE)
    del farm.python[NODE]
    farm.start_node(NODE)
    farm.wait_for(lambda: releases(farm) == (VERSION, [VERSION]) and farm.ready_nodes(), "the new daemon")
    second = submit(farm, agent, {"gate": str(gate)})
    farm.http.post(f"/v1/deployments/{agent}/scale", json={"replicas": 2}).raise_for_status()
    farm.wait_running(agent, 2)
    farm.wait_for(lambda: _state(farm, second) == "running", "the new replica's attempt to begin")
    gate.touch()
    assert wait(farm, in_hand) == {"release": BEFORE.version, "pid": pid}
    newer = wait(farm, second)
    assert newer["release"] == VERSION
    assert newer["pid"] != pid
    zygotes = {folder.name.split("-plain-")[1].split("-")[0] for folder in (farm.folder / NODE / "zygotes").iterdir()}
    assert zygotes == {BEFORE.version, VERSION}


def test_replica_of_the_release_before_finds_what_it_loads_late(before: Installed, farms: Any, tmp_path: Path) -> None:
    """It imports through links that the new daemon has pointed at the new release."""
    farm = farms(**{NODE: before.python})
    agent = deploy(farm, tmp_path)
    pid = run(farm, agent, {})["pid"]
    farm.stop(NODE)
    del farm.python[NODE]
    farm.start_node(NODE)
    farm.wait_for(lambda: releases(farm) == (VERSION, [VERSION]) and farm.ready_nodes(), "the new daemon")
    assert run(farm, agent, {"imports": LOADED_LATE}) == {"release": BEFORE.version, "pid": pid}


# ------------------------------------------------------------------ market data

NO_DATABASE = {"questdb_url": "http://127.0.0.1:9", "products": ["OWN-USD"], "takes_products": True}
"""Nobody listens there: the node takes products, and says of each why it does not feed it."""


@pytest.mark.parametrize("older", [NODE, "controller"])
def test_market_data_is_told_and_asked_across_releases(before: Installed, farms: Any, older: str) -> None:
    farm: Farm = farms(NO_DATABASE, **{older: before.python})
    assert sorted((releases(farm)[0], *releases(farm)[1])) == [BEFORE.version, VERSION]
    farm.wait_for(lambda: node_of(farm)["measured"]["market_state"].startswith("failed: "), "the market's state")
    assert node_of(farm)["market_source"] == "coinbase-advanced"
    farm.http.put("/v1/market/products", json={"products": ["BTC-USD"]}).raise_for_status()
    farm.wait_for(lambda: product_state(farm, "BTC-USD") == "failed", "the product's state")
    answer = farm.http.get(f"/v1/market/gaps?node={NODE}")
    assert "QuestDB is not there yet" in answer.text


# ------------------------------------------------------------------ checkpoints

STEPS = """
import os, pathlib, time
from typing import TypedDict

from langgraph.graph import END, START, StateGraph


class State(TypedDict):
    gate: str
    steps: list[str]


def first(state):
    pathlib.Path(state["gate"] + ".pid").write_text(str(os.getpid()))
    return {"steps": [*state["steps"], f"first in {os.getpid()}"]}


def second(state):
    gate = pathlib.Path(state["gate"])
    gate.with_suffix(".second").touch()
    while not gate.exists():
        time.sleep(0.02)
    return {"steps": [*state["steps"], f"second in {os.getpid()}"]}


builder = StateGraph(State)
builder.add_node("first", first)
builder.add_node("second", second)
builder.add_edge(START, "first")
builder.add_edge("first", "second")
builder.add_edge("second", END)
graph = builder.compile()
"""


@pytest.mark.parametrize("older", [NODE, "controller"])
def test_checkpoints_are_kept_across_releases(before: Installed, farms: Any, tmp_path: Path, older: str) -> None:
    """A second attempt goes on from what the first one's node stored."""
    farm: Farm = farms(**{older: before.python})
    agent = deploy_steps(farm, tmp_path)
    gate = tmp_path / "gate"
    task = submit(farm, agent, {"gate": str(gate), "steps": []})
    pid = first_pid(farm, gate)
    os.kill(pid, signal.SIGKILL)
    gate.touch()
    first, second = wait(farm, task)["steps"]
    assert first == f"first in {pid}", "it was not done again"
    assert second != f"second in {pid}"


def test_replica_of_the_release_before_keeps_its_checkpoints(before: Installed, farms: Any, tmp_path: Path) -> None:
    """The new daemon that adopts it serves the frames of its release."""
    farm: Farm = farms(**{NODE: before.python})
    agent = deploy_steps(farm, tmp_path)
    gate = tmp_path / "gate"
    task = submit(farm, agent, {"gate": str(gate), "steps": []})
    pid = first_pid(farm, gate)
    farm.stop(NODE)
    del farm.python[NODE]
    farm.start_node(NODE)
    farm.wait_for(lambda: releases(farm) == (VERSION, [VERSION]) and farm.ready_nodes(), "the new daemon")
    gate.touch()
    assert wait(farm, task)["steps"] == [f"first in {pid}", f"second in {pid}"]


def test_release_whose_commit_is_not_here_is_skipped_saying_so() -> None:
    with pytest.raises(pytest.skip.Exception, match="its commit 0123456 is not in this clone"):
        installed(Release("0.0.1", "0123456789" * 4))


def _state(farm: Farm, task: int) -> Any:
    return farm.http.get(f"/v1/tasks/{task}").raise_for_status().json()["state"]
