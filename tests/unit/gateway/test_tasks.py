"""Tasks over HTTP, against the real core in memory."""

from __future__ import annotations

import asyncio
import tracemalloc

import httpx
import orjson
import pytest

from controller.core.lives import TaskState
from controller.core.model import OPERATOR
from controller.gateway.http.json_input import write_json
from controller.gateway.tasks import wait
from controller.gateway.tasks.models import TaskPage, TaskView
from controller.gateway.tasks.submission import submit_one
from tests.unit.gateway.small_farm import SmallFarm


async def test_submitted_task_is_durable_and_can_be_read(http: httpx.AsyncClient) -> None:
    answer = await http.post("/v1/tasks", json={"agent": "echo", "input": {"a": 1}, "labels": {"team": "x"}})
    assert answer.status_code == 201
    view = TaskView.model_validate(answer.json())
    assert answer.headers["location"] == f"/v1/tasks/{view.id}"
    assert (view.agent, view.labels) == ("echo", {"team": "x"})


async def test_wait_answers_with_the_result_without_reading_the_journal(
    http: httpx.AsyncClient, small: SmallFarm
) -> None:
    small.memory.is_away = True
    answer = await http.post("/v1/tasks?wait=5", json={"agent": "echo", "input": {"a": [1, 2.5, None]}})
    view = TaskView.model_validate(answer.json())
    assert view.state == "succeeded"
    assert view.is_final
    assert view.output == {"a": [1, 2.5, None]}
    assert view.node == "node-1"


async def test_agent_may_be_a_unique_prefix(http: httpx.AsyncClient) -> None:
    assert (await http.post("/v1/tasks", json={"agent": "ec"})).json()["agent"] == "echo"
    refused = await http.post("/v1/tasks", json={"agent": "s"})
    assert refused.status_code == 400
    assert "slow" in refused.json()["detail"]
    assert "stream" in refused.json()["detail"]


async def test_failed_task_shows_its_error_and_every_attempt(http: httpx.AsyncClient) -> None:
    task = (await http.post("/v1/tasks?wait=5", json={"agent": "fail"})).json()
    assert task["state"] == "dead"
    assert task["error"]["message"] == "it fails"
    shown = TaskView.model_validate((await http.get(f"/v1/tasks/{task['id']}")).json())
    assert shown.attempts is not None
    assert [attempt.attempt for attempt in shown.attempts] == [1, 2]


async def test_running_task_shows_its_current_attempt(http: httpx.AsyncClient, small: SmallFarm) -> None:
    task = (await http.post("/v1/tasks", json={"agent": "slow", "input": 7})).json()
    await small.settle()
    shown = (await http.get(f"/v1/tasks/{task['id']}")).json()
    assert shown["state"] == "running"
    assert shown["input"] == 7
    assert shown["attempts"][0]["outcome"] == "running"


async def test_wait_gives_the_present_state_when_its_time_is_over(http: httpx.AsyncClient) -> None:
    answer = await http.post("/v1/tasks?wait=0.01", json={"agent": "slow"})
    assert (answer.status_code, answer.json()["is_final"]) == (201, False)


async def test_wait_is_woken_by_the_result(http: httpx.AsyncClient, small: SmallFarm) -> None:
    task = (await http.post("/v1/tasks", json={"agent": "slow", "input": "x"})).json()
    waiting = asyncio.create_task(http.get(f"/v1/tasks/{task['id']}/wait?timeout=30"))
    while not small.engine.watchers._watches:  # noqa: ASYNC110 - a watch announces itself to nobody
        await asyncio.sleep(0)
    small.nodes["node-1"].release()
    assert (await waiting).json()["output"] == "x"
    assert not small.engine.watchers._watches


async def test_equal_idempotency_keys_make_one_task(http: httpx.AsyncClient) -> None:
    body, headers = {"agent": "slow", "input": 1}, {"Idempotency-Key": "k-1"}
    first = await http.post("/v1/tasks", json=body, headers=headers)
    again = await http.post("/v1/tasks", json=body, headers=headers)
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json()["id"] == again.json()["id"]
    other = await http.post("/v1/tasks", json={"agent": "slow", "input": 2}, headers=headers)
    assert other.status_code == 409
    assert other.json()["task"] == first.json()["id"]


async def test_cancel_of_queued_running_and_ended_tasks(http: httpx.AsyncClient, small: SmallFarm) -> None:
    running = (await http.post("/v1/tasks", json={"agent": "slow"})).json()["id"]
    queued = (await http.post("/v1/tasks", json={"agent": "slow"})).json()["id"]
    assert (await http.post(f"/v1/tasks/{queued}/cancel")).json()["state"] == "cancelled"
    assert (await http.post(f"/v1/tasks/{running}/cancel")).json()["state"] in ("running", "cancelled")
    await small.settle()
    assert (await http.get(f"/v1/tasks/{running}")).json()["state"] == "cancelled"
    assert (await http.post(f"/v1/tasks/{running}/cancel")).status_code == 200
    done = (await http.post("/v1/tasks?wait=5", json={"agent": "echo"})).json()["id"]
    refused = await http.post(f"/v1/tasks/{done}/cancel")
    assert refused.status_code == 409
    assert "succeeded already" in refused.json()["detail"]


async def test_retry_makes_a_new_task_of_an_ended_one(http: httpx.AsyncClient) -> None:
    old = (await http.post("/v1/tasks?wait=5", json={"agent": "fail", "input": [3]})).json()
    new = await http.post(f"/v1/tasks/{old['id']}/retry")
    assert new.status_code == 201
    assert (new.json()["retry_of"], new.json()["input"]) == (old["id"], [3])
    running = (await http.post("/v1/tasks", json={"agent": "slow"})).json()
    assert (await http.post(f"/v1/tasks/{running['id']}/retry")).status_code == 409


async def test_list_pages_and_filters(http: httpx.AsyncClient, small: SmallFarm) -> None:
    for number in range(5):
        await http.post("/v1/tasks?wait=5", json={"agent": "echo", "input": number})
    await http.post("/v1/tasks", json={"agent": "slow"})
    await small.settle()
    page = TaskPage.model_validate((await http.get("/v1/tasks?agent=echo&limit=2")).json())
    rest = (await http.get(f"/v1/tasks?agent=echo&limit=100&after={page.next_after}")).json()
    assert len(page.tasks) + len(rest["tasks"]) == 5
    assert rest["next_after"] is None
    states = await http.get("/v1/tasks?state=running&state=queued")
    assert {task["agent"] for task in states.json()["tasks"]} == {"slow"}


async def test_integers_of_any_length_stay_exact(http: httpx.AsyncClient) -> None:
    number = 2**70 + 1
    answer = await http.post("/v1/tasks?wait=5", content=b'{"agent":"echo","input":%d}' % number)
    assert answer.json()["output"] == number


@pytest.mark.parametrize(
    ("content", "status", "words"),
    [
        (b"{not json", 400, "is not JSON"),
        (b"", 400, "empty"),
        (b"[1]", 400, "the body"),
        (b'{"input": 1}', 400, "agent: is missing"),
        (b'{"agent": "echo", "inptu": 1}', 400, "inptu"),
        (b'{"agent": "echo", "priority": 9}', 400, "priority"),
        (b'{"agent": "nobody"}', 404, "no agent 'nobody'"),
        (b'{"agent": "echo", "input": "a\\u0000b"}', 400, "NUL"),
        (b'{"agent": "echo", "input": {"a\\u0000": 1}}', 400, "a key of $.input"),
        (b'{"agent": "echo", "input": NaN}', 400, "is not JSON"),
        (b'{"agent": "echo", "input": "\\ud800"}', 400, "is not JSON"),
        (b'{"agent": "echo", "input": "\xff"}', 400, "is not JSON"),
        (b'{"agent": "echo", "input": ' + b"[" * 200 + b"]" * 200 + b"}", 400, "128 levels"),
        (b'{"agent": "echo", "input": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", 413, "bytes"),
        (b'{"agent": "echo", "input": "' + b"x" * 65_536 + b'"}', 413, "input has 65,538 bytes"),
        (b'{"agent": "echo", "input": "' + b"x" * 200_000 + b'"}', 413, "body is larger"),
        (b'{"agent": "echo", "thread_id": ""}', 400, "thread_id"),
        (b'{"agent": "echo", "max_attempts": 0}', 400, "max_attempts"),
        (b'{"agent": "echo", "run_timeout_s": "soon"}', 400, "run_timeout_s"),
    ],
)
async def test_bad_submit_is_refused_in_words(
    http: httpx.AsyncClient, small: SmallFarm, content: bytes, status: int, words: str
) -> None:
    answer = await http.post("/v1/tasks", content=content)
    problem = answer.json()
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    assert words in problem["detail"]
    assert problem["status"] == status
    assert not small.engine.state.tasks


async def test_wrong_key_is_answered_with_the_nearest_right_one(http: httpx.AsyncClient) -> None:
    answer = await http.post("/v1/tasks", json={"agent": "echo", "inptu": 1})
    assert answer.json()["remedy"] == "Did you mean 'input'?"


async def test_oversized_body_is_refused_before_it_is_read(http: httpx.AsyncClient) -> None:
    sent = 0

    async def endless() -> object:
        nonlocal sent
        while sent < 10_000_000:
            sent += 65_536
            yield b"x" * 65_536

    answer = await http.post("/v1/tasks", content=endless())  # type: ignore[arg-type] - httpx takes async generators
    assert answer.status_code == 413
    assert sent < 1_000_000


async def test_batch_answers_each_line_in_order(http: httpx.AsyncClient, small: SmallFarm) -> None:
    lines = [
        b'{"agent":"echo","input":1}',
        b"{nonsense",
        b'{"agent":"nobody"}',
        b"",
        b'{"agent":"echo","input":2,"idempotency_key":"b-1"}',
        b'{"agent":"echo","input":2,"idempotency_key":"b-1"}',
        b'{"agent":"echo","input":"' + b"x" * 300_000 + b'"}',
        b'{"agent":"echo","labels":{"a":"b"},"priority":5}',
        b'{"agent":"echo","input":"\\u0000"}',
    ]
    answer = await http.post("/v1/tasks/batch", content=b"\n".join(lines))
    rows = [orjson.loads(line) for line in answer.content.splitlines()]
    assert [row["index"] for row in rows] == list(range(8))
    assert ["id" in row for row in rows] == [True, False, False, True, True, False, True, False]
    assert rows[3]["id"] == rows[4]["id"]
    assert [rows[i]["problem"]["status"] for i in (1, 2, 5, 7)] == [400, 404, 413, 400]


async def test_batch_refuses_a_key_that_was_used_for_other_work(http: httpx.AsyncClient) -> None:
    lines = [
        b'{"agent": "slow", "input": {"a": 1.0}, "idempotency_key": "k"}',
        b'{"agent": "slow", "input": {"a": 1.00}, "idempotency_key": "k"}',  # the same value
        b'{"agent": "slow", "input": {"a": 2}, "idempotency_key": "k"}',
        b'{"agent": "echo", "input": {"a": 1.0}, "idempotency_key": "k"}',
        b'{"agent": "slow", "input": {"a": 2}}',
    ]
    for _ in range(2):  # known within the batch, then from before
        answer = await http.post("/v1/tasks/batch", content=b"\n".join(lines))
        first, same, other_input, other_agent, no_key = (orjson.loads(line) for line in answer.text.splitlines())
        assert first["id"] == same["id"]
        assert no_key["id"] > first["id"]
        for refused in (other_input, other_agent):
            assert (refused["problem"]["status"], refused["problem"]["task"]) == (409, first["id"])


async def test_batch_cuts_lines_wherever_the_network_does(http: httpx.AsyncClient) -> None:
    text = b"".join(b'{"agent":"echo","input":%d}\n' % n for n in range(50))

    async def dribble() -> object:
        for start in range(0, len(text), 7):
            yield text[start : start + 7]

    answer = await http.post("/v1/tasks/batch", content=dribble())  # type: ignore[arg-type]
    rows = [orjson.loads(line) for line in answer.content.splitlines()]
    assert [row["id"] for row in rows] == list(range(rows[0]["id"], rows[0]["id"] + 50))


async def test_batch_goes_to_the_engine_in_chunks(http: httpx.AsyncClient, small: SmallFarm) -> None:
    text = b'{"agent":"slow"}\n' * 2_500
    answer = await http.post("/v1/tasks/batch", content=text)
    assert answer.content.count(b"\n") == 2_500
    sizes = [len(command.tasks) for command in small.engine.commands if type(command).__name__ == "SubmitTasks"]
    assert sizes == [1_000, 1_000, 500]
    assert len(small.engine.state.tasks) == 2_500


async def test_batch_says_on_each_line_when_the_engine_is_away(http: httpx.AsyncClient, small: SmallFarm) -> None:
    from agentfarm.errors import Unavailable

    small.engine.refusal = Unavailable("PostgreSQL is away.")
    answer = await http.post("/v1/tasks/batch", content=b'{"agent":"echo"}\n{"agent":"echo"}\n')
    rows = [orjson.loads(line) for line in answer.content.splitlines()]
    assert [row["problem"]["status"] for row in rows] == [503, 503]


def test_a_small_input_that_waits_takes_little_memory() -> None:
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        waiting = [write_json({"n": number}) for number in range(1_000)]
        taken = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert taken / len(waiting) < 200


async def test_a_long_wait_that_is_over_answers_with_the_moment_it_looked(
    small: SmallFarm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wait, "SOON_S", 0.001)
    farm = small.app.state.farm
    task = (await submit_one(farm, b'{"agent": "slow"}', None, OPERATOR)).task
    await small.settle()
    item = await wait.wait_while_wanted(farm, task, 0.02, asyncio.Event().wait)  # type: ignore[arg-type] - stays
    small.nodes["node-1"].release()
    assert item.state is TaskState.RUNNING, "the live task has ended meanwhile, and its output is not in it"
