"""Who may come in, what leaves when something breaks, and what the description says."""

from __future__ import annotations

import httpx
import pytest
from structlog.testing import capture_logs

from agentfarm.errors import Unavailable
from controller.gateway.app import OPEN_PATHS
from tests.unit.gateway.small_farm import TOKEN, SmallFarm

ANYWHERE = "http://farm"


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer wrong"}, {"Authorization": TOKEN}])
async def test_without_the_token_every_call_is_refused(small: SmallFarm, headers: dict[str, str]) -> None:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(small.app), base_url=ANYWHERE) as client:
        for path in ("/v1/status", "/v1/tasks", "/v1/nothing"):
            answer = await client.get(path, headers=headers)
            assert answer.status_code == 401
            assert answer.headers["www-authenticate"].startswith("Bearer")
            assert "operator.token" in answer.json()["remedy"]


async def test_open_calls_need_no_token(small: SmallFarm) -> None:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(small.app), base_url=ANYWHERE) as client:
        assert (await client.get("/healthz")).json()["status"] == "ok"
        assert (await client.get("/metrics")).status_code == 200
        assert (await client.get("/openapi.json")).status_code == 200
        assert (await client.post("/v1/nodes/join", content=b"{}")).status_code == 400


async def test_unknown_path_and_method_are_problems_with_a_remedy(http: httpx.AsyncClient) -> None:
    lost = await http.get("/v1/deployment")
    assert lost.status_code == 404
    assert "/v1/deployments" in lost.json()["remedy"]
    slash = await http.get("/v1/tasks/")
    assert slash.status_code == 404
    assert "last slash" in slash.json()["remedy"]
    wrong = await http.patch("/v1/status")
    assert wrong.status_code == 405
    assert "GET" in wrong.headers["allow"]
    assert wrong.json()["code"] == "method_not_allowed"


@pytest.mark.parametrize(
    "path",
    ["/v1/tasks?limit=0", "/v1/tasks?state=happy", "/v1/tasks/zero", "/v1/tasks/0", "/v1/tasks/1/wait?timeout=-1",
     "/v1/tasks?agent=%00", "/v1/bundles/sha256:xyz", "/v1/explain/task/one", "/v1/tasks/99999999999999999999999"],
)  # fmt: skip
async def test_bad_parameters_are_problems(http: httpx.AsyncClient, path: str) -> None:
    answer = await (http.put(path, content=b"x") if "bundles" in path else http.get(path))
    assert answer.status_code == 400
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["detail"]


async def test_postgresql_away_is_503_with_retry_after(http: httpx.AsyncClient, small: SmallFarm) -> None:
    small.memory.is_away = True
    small.engine.refusal = Unavailable("PostgreSQL cannot be reached.")
    for answer in (await http.get("/v1/tasks"), await http.post("/v1/tasks", json={"agent": "echo"})):
        assert answer.status_code == 503
        assert answer.headers["retry-after"] == "1"
        assert answer.json()["code"] == "unavailable"


async def test_standby_is_503_everywhere_but_tells_its_health(http: httpx.AsyncClient, small: SmallFarm) -> None:
    small.engine.live = None
    assert (await http.get("/v1/status")).status_code == 503
    health = await http.get("/healthz")
    assert (health.status_code, health.json()["status"]) == (503, "standby")
    assert b"agentfarm_leading 0.0" in (await http.get("/metrics")).content


async def test_mistake_of_ours_is_a_correlation_id_and_nothing_more(
    http: httpx.AsyncClient, small: SmallFarm, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken() -> dict[str, int]:
        raise RuntimeError("secret words")

    monkeypatch.setattr(small.memory, "ended_counts", broken)
    with capture_logs() as records:
        answer = await http.get("/v1/status")
    assert answer.status_code == 500
    assert records[0]["correlation_id"] == answer.json()["correlation_id"]
    assert "secret words" in repr(records[0]["exc_info"])
    assert "secret words" not in answer.text


async def test_description_is_complete(http: httpx.AsyncClient) -> None:
    schema = (await http.get("/openapi.json")).json()
    names = set()
    for path, methods in schema["paths"].items():
        for method, operation in methods.items():
            assert operation["operationId"] not in names, operation["operationId"]
            names.add(operation["operationId"])
            assert operation.get("description") or operation.get("summary")
            assert "application/problem+json" in operation["responses"]["default"]["content"]
            assert ("security" in operation) == (path not in OPEN_PATHS), (method, path)
    text = (await http.get("/openapi.json")).text
    for reference in {part.split('"')[0] for part in text.split("#/components/schemas/")[1:]}:
        assert reference in schema["components"]["schemas"], reference
    for name in ("SubmitBody", "DeployBody", "JoinBody"):
        assert schema["components"]["schemas"][name]["examples"]


async def test_metrics_name_no_task(http: httpx.AsyncClient) -> None:
    await http.post("/v1/tasks?wait=5", json={"agent": "echo"})
    await http.post("/v1/tasks", json={"agent": "slow"})
    text = (await http.get("/metrics")).text
    assert 'agentfarm_leases{deployment="slow"} 1.0' in text
    assert 'agentfarm_nodes{state="ready"} 1.0' in text
    assert 'agentfarm_tasks_finished_total{state="succeeded"}' in text
    assert "agentfarm_engine_commit_seconds_bucket" in text
    assert "task=" not in text


async def test_page_for_people_names_every_call_and_needs_nothing_from_elsewhere(http: httpx.AsyncClient) -> None:
    page = await http.get("/docs")
    assert page.headers["content-type"].startswith("text/html")
    for path in (await http.get("/openapi.json")).json()["paths"]:
        assert f"<code>{path}</code>" in page.text
    assert "<script" not in page.text
    assert "src=" not in page.text
    assert "market-brief" in page.text
    assert (await http.get("/")).headers["location"] == "/docs"
