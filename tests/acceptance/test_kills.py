"""kill -9 of everything that can die, while tasks run: every acknowledged task ends exactly once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.acceptance.farms import FARMCTL, NO_FARM, Farm, until

pytestmark = pytest.mark.timeout(240)

RECORDER = '''
import asyncio, os
from agentfarm.sdk import context

def note(path, word, number):
    """One line, whole, also when others write beside us."""
    line = f"{word} {number} {context().task_id} {context().attempt}\\n".encode()
    handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(handle, line)
    os.close(handle)

async def main(input):
    note(input["path"], "begin", input["number"])
    await asyncio.sleep(input["pause_s"])
    note(input["path"], "end", input["number"])
    return input["number"]
'''
TASKS = 40
PAUSE_S = 0.5
SPEC = "replicas: 3\nconcurrency: 2\nretries: {max_attempts: 5, backoff: 100ms}\n"


@pytest.fixture(scope="module")
def recorder(farm: Farm) -> str:
    farm.deploy("recorder", RECORDER, SPEC)
    return "recorder"


def kill_replica(farm: Farm) -> None:
    busy = [replica for replica in farm.replicas("recorder") if replica["running"]]
    os.kill(int(busy[0]["pid"]), signal.SIGKILL)


def kill_daemon(farm: Farm) -> None:
    os.kill(farm.pid_of("node-2"), signal.SIGKILL)


def kill_controller(farm: Farm) -> None:
    os.kill(farm.pid_of("controller"), signal.SIGKILL)


def kill_postgres(farm: Farm) -> None:
    """The postmaster and its children, at once."""
    pid = int((postgres(farm) / "postmaster.pid").read_text().split()[0])
    server = psutil.Process(pid)
    for process in (server, *server.children(recursive=True)):
        process.kill()


def postgres(farm: Farm) -> Path:
    return next((farm.folder / "controller" / "postgres").rglob("postmaster.pid")).parent


@pytest.mark.parametrize(
    "kill", [kill_replica, kill_daemon, kill_controller, kill_postgres], ids=lambda one: str(one.__name__)
)
def test_every_acknowledged_task_ends_exactly_once(farm: Farm, recorder: str, kill: Callable[[Farm], None]) -> None:
    notes = farm.home / f"{kill.__name__}.notes"
    ids = submit_all(farm, recorder, notes)
    until(lambda: count(notes, "begin") >= 6, "tasks to run")
    kill(farm)
    tasks = [task for part in parts(ids) for task in farm.wait(*part)]
    assert {task["state"] for task in tasks} == {"succeeded"}
    assert sorted(task["output"] for task in tasks) == list(range(TASKS))
    ends = Counter(words[1] for words in lines(notes) if words[0] == "end")
    assert set(ends) == {str(number) for number in range(TASKS)}, "a task succeeded whose work was not done"
    for task in tasks:
        if task["attempt"] > 1 or ends[str(task["output"])] > 1:
            outcomes = [attempt["outcome"] for attempt in farm.task(task["id"])["attempts"]]
            assert outcomes.count("succeeded") == 1, outcomes
    until(lambda: len(farm.ask("status")["nodes"]) == 3 and healed(farm), "the farm to be whole again")


def submit_all(farm: Farm, agent: str, notes: Path) -> list[int]:
    batch = farm.home / "batch.ndjson"
    rows = [{"input": {"path": str(notes), "number": n, "pause_s": PAUSE_S}} for n in range(TASKS)]
    batch.write_text("".join(json.dumps(row) + "\n" for row in rows))
    answer = farm.ask("task", "submit", agent, "--batch", str(batch))
    assert answer["accepted"] == TASKS
    page = farm.ask("task", "list", "--agent", agent, "-n", str(TASKS))["tasks"]
    return [task["id"] for task in page]


def parts(ids: list[int]) -> list[list[int]]:
    return [ids[start : start + 20] for start in range(0, len(ids), 20)]


def healed(farm: Farm) -> bool:
    status = farm.ask("status")
    is_ready = all(node["state"] == "ready" for node in status["nodes"])
    return is_ready and sum(r["state"] == "running" for r in farm.replicas("recorder")) == 3


def lines(notes: Path) -> list[list[str]]:
    return [line.split() for line in notes.read_text().splitlines()] if notes.exists() else []


def count(notes: Path, word: str) -> int:
    return sum(words[0] == word for words in lines(notes))


def test_a_killed_graph_goes_on_from_its_last_checkpoint_and_its_watcher_sees_it_all(farm: Farm) -> None:
    watcher = subprocess.Popen(
        [*FARMCTL, "task", "submit", "countdown", '{"start": 12, "pause_s": 0.5}', "--stream", "--events"],
        cwd=farm.home, stdout=subprocess.PIPE, text=True, env=NO_FARM,
    )  # fmt: skip
    try:
        assert watcher.stdout is not None
        counted = 0
        for line in watcher.stdout:
            event = json.loads(line)
            if event["event"] == "result":
                break
            if event["event"] == "output" and event["data"]["type"] == "count":
                counted += 1
                if counted == 4:
                    (replica,) = [one for one in farm.replicas("countdown") if one["running"]]
                    os.kill(int(replica["pid"]), signal.SIGKILL)
        assert event["event"] == "result"
        ended = event["result"]
    finally:
        watcher.kill()
        watcher.wait()
        if watcher.stdout is not None:
            watcher.stdout.close()
    assert ended["state"] == "succeeded"
    steps = ended["output"]["steps"]
    assert [step["number"] for step in steps] == list(range(12, 0, -1)), "each number counted once, none left out"
    by_attempt = Counter(step["attempt"] for step in steps)
    assert by_attempt[1] >= 2, "the steps of the killed attempt are kept"
    assert by_attempt[2] >= 1
    assert set(by_attempt) == {1, 2}


def test_tasks_run_on_while_the_controller_is_away(farm: Farm, recorder: str) -> None:
    """Stopped, not killed, so that it stays away for as long as the test needs it to."""
    notes = farm.home / "away.notes"
    ids = [farm.submit(recorder, {"path": str(notes), "number": number, "pause_s": 2.0}) for number in range(6)]
    until(lambda: count(notes, "begin") == 6, "six tasks to run")
    controller = farm.pid_of("controller")
    os.kill(controller, signal.SIGSTOP)
    try:
        until(lambda: count(notes, "end") == 6, "six tasks to end without a controller", 20)
    finally:
        os.kill(controller, signal.SIGCONT)
    tasks = farm.wait(*ids)
    assert [(task["state"], task["attempt"]) for task in tasks] == [("succeeded", 1)] * 6
