"""Nodes over HTTP: a drain is complete on the daemon's word and not before."""

from __future__ import annotations

import httpx
import pytest

from controller.core.commands import Command, ReplicaNews, ReplicasReported
from controller.core.lives import ReplicaState
from controller.core.model import NodeName, ReplicaId
from controller.gateway.farm.models import StatusView
from controller.gateway.nodes.models import DrainPlanView, NodeView
from tests.unit.gateway.small_farm import SmallFarm


@pytest.fixture
async def small() -> SmallFarm:
    farm = SmallFarm("node-1", "node-2")
    await farm.start("echo", "slow")
    return farm


async def test_cordon_and_uncordon(http: httpx.AsyncClient) -> None:
    view = NodeView.model_validate((await http.post("/v1/nodes/node-1/cordon", json={"reason": "new disk"})).json())
    assert (view.is_cordoned, view.cordon_reason) == (True, "new disk")
    assert (await http.post("/v1/nodes/node-1/uncordon")).json()["is_cordoned"] is False


async def test_drain_is_complete_only_when_the_daemon_has_said_so(http: httpx.AsyncClient, small: SmallFarm) -> None:
    host = next(r.node for r in small.engine.state.replicas.values())
    assert host is not None
    small.nodes[host].stays_silent = True
    started = NodeView.model_validate((await http.post(f"/v1/nodes/{host}/drain", json={"deadline_s": 60})).json())
    assert started.drain is not None
    assert not started.drain.is_complete
    await small.settle()
    silent = NodeView.model_validate((await http.get(f"/v1/nodes/{host}")).json())
    assert silent.drain is not None
    assert not silent.drain.is_complete
    assert silent.drain.blocked_by
    small.nodes[host].stays_silent = False
    desired = [r.id for r in small.engine.state.replicas.values() if r.node == host]
    small.engine.do(_stopped(host, desired))
    done = NodeView.model_validate((await http.get(f"/v1/nodes/{host}")).json())
    assert done.drain is not None
    assert (done.drain.is_complete, done.replica_count) == (True, 0)


def _stopped(node: str, replicas: list[int]) -> Command:
    news = tuple(ReplicaNews(ReplicaId(r), ReplicaState.STOPPED) for r in replicas)
    return ReplicasReported(NodeName(node), 1, news)


async def test_drain_plan_says_what_moves_where_and_what_cannot(http: httpx.AsyncClient) -> None:
    one = DrainPlanView.model_validate((await http.post("/v1/nodes/node-1/drain?plan=1")).json())
    assert one.fits
    assert all(move.to == "node-2" for move in one.replicas)
    both = DrainPlanView.model_validate((await http.post("/v1/nodes/node-1/drain?plan=1&beside=node-2")).json())
    assert not both.fits
    assert (await http.get("/v1/nodes/node-1")).json()["drain"] is None


async def test_invite_makes_the_node_known(http: httpx.AsyncClient, small: SmallFarm) -> None:
    answer = await http.post("/v1/nodes/invite", json={"name": "node-3"})
    assert (answer.status_code, answer.json()["token"]) == (201, "token-of-node-3")
    assert (await http.get("/v1/nodes/node-3")).json()["state"] == "joining"
    bad = await http.post("/v1/nodes/invite", json={"name": "Node 3"})
    assert bad.status_code == 400
    assert (await http.delete("/v1/nodes/node-3")).status_code == 204
    assert (await http.get("/v1/nodes/node-3")).status_code in (200, 404)
    assert small.joining.invited == []


async def test_node_that_works_cannot_be_forgotten(http: httpx.AsyncClient) -> None:
    answer = await http.delete("/v1/nodes/node-1")
    assert answer.status_code == 409
    assert "Drain" in answer.json()["remedy"]


async def test_status_is_the_farm_in_one_answer(http: httpx.AsyncClient, small: SmallFarm) -> None:
    await http.post("/v1/tasks?wait=5", json={"agent": "echo"})
    await http.post("/v1/tasks", json={"agent": "slow"})
    await small.settle()
    view = StatusView.model_validate((await http.get("/v1/status")).json())
    assert [node.name for node in view.nodes] == ["node-1", "node-2"]
    assert (view.tasks["succeeded"], view.tasks["running"]) == (1, 1)
    assert (view.market.state, view.market.rows, view.market.products) == ("simulated", 240, ["BTC-USD"])


async def test_prometheus_finds_the_nodes(http: httpx.AsyncClient) -> None:
    groups = (await http.get("/v1/sd/prometheus")).json()
    assert [group["labels"]["node"] for group in groups] == ["node-1", "node-2"]
    assert groups[0]["targets"] == ["127.0.0.1:9601"]
