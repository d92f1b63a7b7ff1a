"""One task of many turns out long: the others, parked behind it, do not wait for it."""

from __future__ import annotations

import json
from collections.abc import Iterator

import httpx
import pytest

from tests.acceptance.farms import Farm, until

pytestmark = pytest.mark.timeout(240)

SLEEPER = """
import asyncio, time

async def main(input):
    if input.get("blocks"):
        time.sleep(input["s"])  # and nothing else runs in this replica
    else:
        await asyncio.sleep(input["s"])
"""
SPEC = "replicas: 2\n"
LONG_S = 60.0


@pytest.fixture
def http(farm: Farm) -> Iterator[httpx.Client]:
    """The gateway, without a process for each question."""
    dev = json.loads((farm.folder / "dev.json").read_text())
    token = (farm.folder / "controller" / "operator.token").read_text().strip()
    with httpx.Client(base_url=dev["server"], headers={"Authorization": f"Bearer {token}"}, timeout=30) as client:
        yield client


def submit(http: httpx.Client, inputs: list[dict[str, object]]) -> list[int]:
    """In one batch; returns the ids in its order."""
    lines = "".join(json.dumps({"agent": "sleeper", "input": each}) + "\n" for each in inputs)
    answer = http.post("/v1/tasks/batch", content=lines).raise_for_status()
    return [json.loads(line)["id"] for line in answer.text.splitlines()]


def states(http: httpx.Client, ids: list[int]) -> set[str]:
    """The states of these tasks, all seen at one moment."""
    page = http.get("/v1/tasks", params={"agent": "sleeper", "limit": len(ids) + 1}).raise_for_status().json()
    tasks = {task["id"]: task["state"] for task in page["tasks"]}
    return {tasks[each] for each in ids}


@pytest.mark.parametrize("blocks", [False, True], ids=["awaits", "blocks"])
def test_what_waits_behind_a_long_task_is_done_by_the_other_replica(
    farm: Farm, http: httpx.Client, *, blocks: bool
) -> None:
    farm.deploy("sleeper", SLEEPER, SPEC)
    before = submit(http, [{"s": 0}] * 200)
    until(lambda: states(http, before[100:]) == {"succeeded"}, "short work to be expected")
    short, long = {"s": 0.005}, {"s": LONG_S, "blocks": blocks}
    ids = submit(http, [*[short] * 20, long, *[short] * 20])
    others = [each for each in ids if each != ids[20]]
    until(lambda: states(http, others) == {"succeeded"}, "the others to end", LONG_S)
    assert states(http, [*ids]) == {"succeeded", "running"}, "it ended before them"
    again = [http.get(f"/v1/tasks/{each}").json()["attempts"] for each in others]
    given_back = [attempts[0] for attempts in again if len(attempts) > 1]
    assert given_back, "nothing was parked: this shows nothing"
    assert {(attempt["outcome"], attempt["error"]["type"]) for attempt in given_back} == {("interrupted", "GivenBack")}
    http.post(f"/v1/tasks/{ids[20]}/cancel").raise_for_status()
    until(lambda: states(http, ids) == {"succeeded", "cancelled"}, "the long one to be cancelled")
