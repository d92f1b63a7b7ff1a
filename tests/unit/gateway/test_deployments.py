"""Deployments, bundles and explanations over HTTP."""

from __future__ import annotations

import httpx

from agentfarm.agents.bundle import digest_of
from controller.gateway.agents.models import DeploymentView, ExplainView, PlanView
from tests.unit.gateway.small_farm import DIGEST, SmallFarm, spec_json


async def test_bundle_is_stored_once_and_only_under_its_own_name(http: httpx.AsyncClient, small: SmallFarm) -> None:
    data = b"agent files"
    digest = digest_of(data)
    assert (await http.head(f"/v1/bundles/{digest}")).status_code == 404
    refused = await http.put(f"/v1/bundles/{digest}", content=b"other bytes")
    assert refused.status_code == 400
    assert "does not match" in refused.json()["detail"]
    assert (await http.put(f"/v1/bundles/{digest}", content=data)).status_code == 204
    assert (await http.put(f"/v1/bundles/{digest}", content=data)).status_code == 204
    assert (await http.head(f"/v1/bundles/{digest}")).status_code == 200
    assert (await http.put(f"/v1/bundles/{digest}", content=b"")).status_code == 400


async def test_deploy_rolls_out_and_again_changes_nothing(http: httpx.AsyncClient, small: SmallFarm) -> None:
    body = {"spec": spec_json("brief", replicas=2), "digest": DIGEST}
    answer = (await http.post("/v1/deployments", json=body)).json()
    assert answer == {"name": "brief", "version": 1, "generation": 1, "is_changed": True}
    await small.settle()
    view = DeploymentView.model_validate((await http.get("/v1/deployments/brief")).json())
    assert view.rollout is not None
    assert (view.rollout.state, view.replicas_running) == ("complete", 2)
    assert (await http.post("/v1/deployments", json=body)).json()["is_changed"] is False


async def test_deploy_without_its_bundle_is_refused(http: httpx.AsyncClient) -> None:
    answer = await http.post("/v1/deployments", json={"spec": spec_json("brief"), "digest": "sha256:" + "0" * 64})
    assert answer.status_code == 409
    assert "PUT /v1/bundles" in answer.json()["remedy"]


async def test_spec_with_a_wrong_key_names_it_and_the_nearest_right_one(http: httpx.AsyncClient) -> None:
    answer = await http.post("/v1/deployments", json={"spec": spec_json("brief", replcas=2), "digest": DIGEST})
    assert answer.status_code == 400
    assert "replcas" in answer.json()["detail"]
    assert "replicas" in answer.json()["detail"]


async def test_agent_that_fails_to_import_is_taken_back_with_its_traceback(
    http: httpx.AsyncClient, small: SmallFarm
) -> None:
    small.nodes["node-1"].import_error = "Traceback: no module named nothing"
    new = digest_of(b"broken")
    await http.put(f"/v1/bundles/{new}", content=b"broken")
    await http.post("/v1/deployments", json={"spec": spec_json("echo"), "digest": new})
    await small.settle()
    view = DeploymentView.model_validate((await http.get("/v1/deployments/echo")).json())
    assert view.rollout is not None
    assert view.rollout.state == "reverted"
    assert "no module named nothing" in view.rollout.detail
    assert (view.version, view.replicas_running) == (1, 1)
    assert (await http.post("/v1/tasks?wait=5", json={"agent": "echo", "input": 1})).json()["output"] == 1


async def test_if_generation_refuses_when_somebody_was_faster(http: httpx.AsyncClient) -> None:
    generation = (await http.get("/v1/deployments/echo")).json()["generation"]
    assert (await http.post("/v1/deployments/echo/scale", json={"replicas": 2})).status_code == 200
    late = await http.post("/v1/deployments/echo/scale", json={"replicas": 3, "if_generation": generation})
    assert late.status_code == 409
    assert late.json()["generation"] == generation + 1


async def test_plans_change_nothing_and_name_every_node(http: httpx.AsyncClient, small: SmallFarm) -> None:
    body = {"spec": spec_json("echo", concurrency=4), "digest": digest_of(b"new"), "replicas": 3}
    plan = PlanView.model_validate((await http.post("/v1/deployments?plan=1", json=body)).json())
    assert (plan.before, plan.after, plan.replaced) == (1, 3, [0])
    assert [(seat.seat, seat.node) for seat in plan.placed] == [(1, "node-1"), (2, "node-1")]
    assert "concurrency" in [change.key for change in plan.spec_changes]
    assert (plan.version_before, plan.version_after, plan.code_changed) == (1, 2, True)
    await http.post("/v1/nodes/node-1/cordon", json={"reason": "new disk"})
    scale = PlanView.model_validate((await http.post("/v1/deployments/echo/scale?plan=1", json={"replicas": 2})).json())
    assert scale.refused == [1]
    assert "cordon" in " ".join(scale.nodes[0].reasons)
    assert (await http.get("/v1/deployments/echo")).json()["generation"] == 1


async def test_rollback_goes_to_the_earlier_version(http: httpx.AsyncClient, small: SmallFarm) -> None:
    new = digest_of(b"second")
    await http.put(f"/v1/bundles/{new}", content=b"second")
    await http.post("/v1/deployments", json={"spec": spec_json("echo"), "digest": new})
    await small.settle()
    answer = await http.post("/v1/deployments/echo/rollback")
    assert answer.json()["version"] == 1
    await small.settle()
    versions = (await http.get("/v1/deployments/echo")).json()["versions"]
    assert [(item["version"], item["is_current"]) for item in versions] == [(2, False), (1, True)]
    assert (await http.post("/v1/deployments/echo/rollback", json={"to_version": 9})).status_code == 404


async def test_remove_needs_the_whole_name(http: httpx.AsyncClient, small: SmallFarm) -> None:
    assert (await http.delete("/v1/deployments/ech")).status_code == 400
    assert (await http.delete("/v1/deployments/echo")).status_code == 204
    await small.settle()
    assert (await http.get("/v1/deployments/echo")).status_code == 404


async def test_explain_names_every_node_with_every_reason(http: httpx.AsyncClient, small: SmallFarm) -> None:
    task = (await http.post("/v1/tasks", json={"agent": "slow"})).json()["id"]
    await small.settle()
    for path in (f"task/{task}", "replica/slow/0", "deployment/slow", "deployment/sl"):
        answer = await http.get(f"/v1/explain/{path}")
        assert answer.status_code == 200, path
        assert ExplainView.model_validate(answer.json()).because
    await http.post("/v1/nodes/node-1/cordon")
    nodes = (await http.get("/v1/explain/deployment/slow")).json()["nodes"]
    assert [node["node"] for node in nodes] == ["node-1"]
    assert nodes[0]["reasons"]
    done = (await http.post("/v1/tasks?wait=5", json={"agent": "echo"})).json()["id"]
    assert "succeeded" in (await http.get(f"/v1/explain/task/{done}")).json()["because"]
    assert (await http.get("/v1/explain/task/999")).status_code == 404
    assert (await http.get("/v1/explain/deployment/nothing")).status_code == 404
