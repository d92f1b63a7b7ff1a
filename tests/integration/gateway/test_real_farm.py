"""What the gateway promises, with PostgreSQL behind it."""

from __future__ import annotations

import asyncio

import orjson
import psycopg2
import pytest

from agentfarm import identity
from agentfarm.errors import Forbidden
from controller.gateway.farm.models import StatusView
from controller.gateway.tasks.models import TaskPage, TaskView
from tests.integration.gateway.conftest import RealFarm


async def test_task_goes_all_the_way_and_is_found_again(farm: RealFarm) -> None:
    await farm.deploy("echo")
    done = await farm.http.post("/v1/tasks?wait=10", json={"agent": "echo", "input": {"a": [1, 2**80]}})
    view = TaskView.model_validate(done.json())
    assert (done.status_code, view.state, view.output) == (201, "succeeded", {"a": [1, 2**80]})
    shown = TaskView.model_validate((await farm.http.get(f"/v1/tasks/{view.id}")).json())
    assert (shown.input, shown.output, shown.version) == (view.output, view.output, 1)
    assert shown.attempts is not None
    assert [(a.attempt, a.outcome, a.node) for a in shown.attempts] == [(1, "succeeded", "node-1")]
    page = TaskPage.model_validate((await farm.http.get("/v1/tasks?state=succeeded&agent=echo")).json())
    assert [(task.id, task.output) for task in page.tasks] == [(view.id, None)]


async def test_failed_task_keeps_every_attempt(farm: RealFarm) -> None:
    await farm.deploy("fail")
    task = (await farm.http.post("/v1/tasks?wait=10", json={"agent": "fail"})).json()
    assert task["state"] == "dead"
    shown = (await farm.http.get(f"/v1/tasks/{task['id']}")).json()
    assert [(a["attempt"], a["outcome"]) for a in shown["attempts"]] == [(1, "failed"), (2, "failed")]
    assert shown["error"]["traceback"] == "Traceback: it fails"


async def test_live_states_are_those_of_memory(farm: RealFarm) -> None:
    await farm.deploy("slow")
    ids = [(await farm.http.post("/v1/tasks", json={"agent": "slow"})).json()["id"] for _ in range(3)]
    watch = farm.engine.watch_task(ids[0])
    assert watch is not None
    while (await farm.http.get(f"/v1/tasks/{ids[0]}")).json()["state"] != "running":
        await anext(watch)
    running = (await farm.http.get("/v1/tasks?state=running")).json()["tasks"]
    assert ids[0] in [task["id"] for task in running]
    everything = (await farm.http.get("/v1/tasks")).json()["tasks"]
    assert [task["id"] for task in everything] == ids[::-1]
    assert everything[-1]["state"] == "running"
    assert (await farm.http.get("/v1/tasks?state=queued&state=leased&state=running&limit=1")).json()["next_after"]


async def test_idempotency_holds_over_both_doors_and_after_the_end(farm: RealFarm) -> None:
    await farm.deploy("echo")
    headers = {"Idempotency-Key": "order-1"}
    body = {"agent": "echo", "input": {"n": 1, "m": 2}}
    first = await farm.http.post("/v1/tasks?wait=10", json=body, headers=headers)
    again = await farm.http.post(
        "/v1/tasks?wait=10", content=b'{"input":{"m":2,"n":1},"agent":"echo"}', headers=headers
    )
    assert (first.status_code, again.status_code) == (201, 200)
    assert again.json()["id"] == first.json()["id"]
    assert again.json()["output"] == {"n": 1, "m": 2}
    assert (await farm.http.post("/v1/tasks", json={"agent": "echo"}, headers=headers)).status_code == 409
    line = b'{"agent":"echo","input":{"n":1,"m":2},"idempotency_key":"order-1"}\n'
    rows = [orjson.loads(row) for row in (await farm.http.post("/v1/tasks/batch", content=line * 2)).content.split()]
    assert [row["id"] for row in rows] == [first.json()["id"]] * 2


async def test_batch_of_thousands_is_stored_in_order(farm: RealFarm) -> None:
    await farm.deploy("slow")
    text = b"".join(b'{"agent":"slow","input":%d}\n' % n for n in range(2_500))
    answer = await farm.http.post("/v1/tasks/batch", content=text)
    ids = [orjson.loads(row)["id"] for row in answer.content.splitlines()]
    assert ids == list(range(ids[0], ids[0] + 2_500))
    assert (await farm.http.get(f"/v1/tasks/{ids[1234]}")).json()["input"] == 1234


async def test_retry_takes_the_input_from_the_journal(farm: RealFarm) -> None:
    await farm.deploy("fail")
    old = (await farm.http.post("/v1/tasks?wait=10", json={"agent": "fail", "input": [3], "labels": {"a": "b"}})).json()
    new = (await farm.http.post(f"/v1/tasks/{old['id']}/retry")).json()
    done = (await farm.http.get(f"/v1/tasks/{new['id']}/wait?timeout=60")).json()
    assert (done["retry_of"], done["labels"], done["state"]) == (old["id"], {"a": "b"}, "dead")
    assert (await farm.http.get(f"/v1/tasks/{new['id']}")).json()["input"] == [3]


async def test_events_have_ids_that_resume_without_loss(farm: RealFarm) -> None:
    await farm.deploy("echo")
    stored = [orjson.loads(line) for line in (await farm.http.get("/v1/events?limit=500")).content.splitlines()]
    assert [event["id"] for event in stored] == sorted({event["id"] for event in stored})
    assert "deployment.complete" in [event["kind"] for event in stored]
    async with farm.http.stream("GET", f"/v1/events?follow=1&after={stored[-1]['id']}") as answer:
        lines = answer.aiter_lines()
        await farm.http.post("/v1/nodes/node-1/cordon", json={"reason": "new disk"})
        event = orjson.loads(await anext(lines))
    assert (event["kind"], event["node"]) == ("node.cordoned", "node-1")


async def test_status_counts_what_ended(farm: RealFarm) -> None:
    await farm.deploy("echo")
    for _ in range(3):
        await farm.http.post("/v1/tasks?wait=10", json={"agent": "echo"})
    view = StatusView.model_validate((await farm.http.get("/v1/status")).json())
    assert view.tasks["succeeded"] == 3
    assert [(node.name, node.state) for node in view.nodes] == [("node-1", "ready")]


async def test_machine_joins_with_its_token_and_only_once(farm: RealFarm) -> None:
    token = (await farm.http.post("/v1/nodes/invite", json={"name": "node-9"})).json()["token"]
    invite = identity.Invite.decode(token, 0.0)
    assert (invite.gateway, invite.link) == (farm.url, "127.0.0.1:8601")
    request, key_pem = identity.join_request(invite)
    body = {"name": request.name, "csr_pem": request.csr_pem, "proof": request.proof}
    wrong = await farm.http.post("/v1/nodes/join", json=body | {"proof": "AAAA"})
    assert wrong.status_code == 403
    answer = await farm.http.post("/v1/nodes/join", json=body, headers={"Authorization": ""})
    assert answer.status_code == 200
    joined = identity.verify_join_answer(invite, key_pem, identity.JoinAnswer(**answer.json()))
    assert joined.name == "node-9"
    again = await farm.http.post("/v1/nodes/join", json=body)
    assert again.status_code == 403
    assert again.json()["reason"] == "used"
    assert "farmctl node invite node-9" in again.json()["remedy"]


async def test_token_is_bound_to_the_name_it_was_made_for(farm: RealFarm) -> None:
    token = (await farm.http.post("/v1/nodes/invite", json={"name": "node-8"})).json()["token"]
    invite = identity.Invite.decode(token, 0.0)
    request, _ = identity.join_request(invite)
    body = {"name": "node-1", "csr_pem": request.csr_pem, "proof": request.proof}
    assert (await farm.http.post("/v1/nodes/join", json=body)).status_code == 403
    with pytest.raises(Forbidden):
        identity.Invite.decode(token, 9e9)


async def test_lost_backends_are_503_for_a_moment_and_nothing_is_lost(farm: RealFarm, database_url: str) -> None:
    await farm.deploy("echo")
    kept = (await farm.http.post("/v1/tasks?wait=10", json={"agent": "echo", "input": "kept"})).json()
    connection = psycopg2.connect(database_url)
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                       "WHERE datname = current_database() AND pid <> pg_backend_pid()")  # fmt: skip
    connection.close()
    again = {"Idempotency-Key": "again"}
    async with asyncio.timeout(60):  # a backend hears its end when it next runs: more than one commit may meet it
        while (answer := await farm.http.post("/v1/tasks", json={"agent": "echo"}, headers=again)).status_code == 503:
            assert answer.headers["retry-after"] == "1"
            await farm.engine.leading.wait()
    assert answer.status_code in (200, 201)
    assert (await farm.http.get(f"/v1/tasks/{kept['id']}")).json()["output"] == "kept"


async def test_metrics_count_every_commit_in_a_bucket(farm: RealFarm) -> None:
    await farm.deploy("echo")
    await farm.http.post("/v1/tasks?wait=10", json={"agent": "echo"})
    values = dict(line.rsplit(" ", 1) for line in (await farm.http.get("/metrics")).text.splitlines() if line[0] != "#")
    buckets = [float(v) for k, v in values.items() if k.startswith("agentfarm_engine_commit_seconds_bucket")]
    assert buckets == sorted(buckets)
    assert buckets[-1] == float(values["agentfarm_engine_commit_seconds_count"]) > 0
    assert buckets[-2] > 0
