"""Good days and bad days of one agent, as a person meets them: every verb against a real farm."""

from __future__ import annotations

import json
import subprocess

import pytest

from tests.acceptance.farms import FARMCTL, NO_FARM, Farm, until

pytestmark = pytest.mark.timeout(180)

GREETER = "async def main(input):\n    print('greeting', input)\n    return f'{WORD} {input}'\nWORD = 'hello'\n"
BLOCKER = (
    "import time\n"
    "def main(input):\n"
    "    while True:\n"
    "        time.sleep(0.01)\n"
)  # fmt: skip
MOODY = (
    "from pathlib import Path\n"
    "async def main(input):\n"
    "    if not Path(input).exists():\n"
    "        raise RuntimeError('the moon is wrong')\n"
    "    return 'fine now'\n"
)


def version(farm: Farm, agent: str) -> int:
    return next(one["version"] for one in farm.ask("status")["deployments"] if one["name"] == agent)


def result(farm: Farm, agent: str, given: object) -> object:
    """The output of a task that must succeed."""
    return farm.ask("task", "submit", agent, json.dumps(given), "--wait")["output"]


def test_an_agent_of_ones_own_is_deployed_changed_and_rolled_back(farm: Farm) -> None:
    farm.deploy("greeter", GREETER)
    assert result(farm, "greeter", "Ada") == "hello Ada"
    farm.deploy("greeter", GREETER.replace("'hello'", "'good day'"))
    assert result(farm, "greeter", "Ada") == "good day Ada"
    assert version(farm, "greeter") == 2
    farm.ask("rollback", "greeter")
    assert version(farm, "greeter") == 1
    assert result(farm, "greeter", "Ada") == "hello Ada"


def test_an_agent_that_cannot_be_imported_is_refused_and_the_old_version_never_stops(farm: Farm) -> None:
    farm.deploy("steady", GREETER)
    before = farm.replicas("steady")
    path = farm.write("steady", "import no_such_module_at_all\n\nasync def main(input):\n    return input\n")
    done = farm.ctl("deploy", str(path))
    assert done.code == 1
    assert "Traceback" in done.err
    assert "ModuleNotFoundError: No module named 'no_such_module_at_all'" in done.err
    assert "Version 1 runs on, untouched." in done.err
    after = farm.replicas("steady")
    assert [(r["id"], r["pid"]) for r in after] == [(r["id"], r["pid"]) for r in before]
    assert version(farm, "steady") == 1
    assert result(farm, "steady", "Ada") == "hello Ada"


def test_a_wrong_key_of_a_spec_is_named_with_the_nearest_right_one(farm: Farm) -> None:
    done = farm.ctl("deploy", str(farm.write("misspelt", GREETER, "replica: 2\n")))
    assert done.code == 1
    assert "'replica'" in done.err
    assert "'replicas'" in done.err
    assert "Traceback" not in done.err


def test_a_misspelt_verb_and_an_unknown_agent_are_answered_with_a_suggestion(farm: Farm) -> None:
    done = farm.ctl("depoly", "x")
    assert (done.code, "deploy" in done.err) == (1, True)
    done = farm.ctl("task", "submit", "ecoh", "1")
    assert (done.code, "echo" in done.err) == (1, True)


def test_more_replicas_than_there_is_room_for_exit_2_with_reasons(farm: Farm) -> None:
    farm.deploy("hungry", GREETER, "resources: {memory: 1Gi}\n")
    done = farm.ctl("scale", "hungry", "5000")
    assert done.code == 2
    assert "memory" in done.out + done.err
    assert "nothing was changed" in done.err
    assert len(farm.replicas("hungry")) == 1
    farm.ask("remove", "hungry")


def test_scaling_spreads_over_the_nodes_and_back(farm: Farm) -> None:
    farm.deploy("wide", GREETER)
    farm.ask("scale", "wide", "3")
    running = [replica for replica in farm.replicas("wide") if replica["state"] == "running"]
    assert {replica["node"] for replica in running} == {"node-1", "node-2", "node-3"}
    farm.ask("scale", "wide", "1")
    until(lambda: len(farm.replicas("wide")) == 1, "two replicas to go")


def test_a_drained_node_is_empty_by_its_daemons_word_and_gets_nothing_until_uncordoned(farm: Farm) -> None:
    farm.deploy("mover", GREETER)
    farm.ask("scale", "mover", "3")
    done = farm.ctl("drain", "node-3", "--deadline", "20s", "--json", timeout_s=90)
    assert done.code == 0, done.out + done.err
    node = farm.ask("node", "show", "node-3")
    assert node["drain"]["is_complete"]
    assert node["replicas"] == []
    assert all(replica["node"] != "node-3" for replica in farm.replicas("mover"))
    farm.ask("scale", "mover", "5")
    assert all(replica["node"] != "node-3" for replica in farm.replicas("mover"))
    farm.ask("node", "show", "node-3")
    farm.ask("uncordon", "node-3")
    farm.ask("scale", "mover", "8")
    assert any(replica["node"] == "node-3" for replica in farm.replicas("mover"))
    farm.ask("remove", "mover")


def test_a_blocking_agent_is_cancelled_and_its_replica_serves_again(farm: Farm) -> None:
    farm.deploy("blocker", BLOCKER, "timeouts: {shutdown: 1s}\n")
    task = farm.submit("blocker", 1)
    until(lambda: farm.task(task)["state"] == "running", "the blocker to run")
    farm.ask("task", "cancel", str(task))
    assert farm.wait(task)[0]["state"] == "cancelled"
    until(lambda: any(r["state"] == "running" for r in farm.replicas("blocker")), "a replica that serves again")
    farm.ask("remove", "blocker")


def test_a_task_that_always_fails_is_dead_and_a_retry_is_a_new_task(farm: Farm) -> None:
    farm.deploy("moody", MOODY, "retries: {max_attempts: 3, backoff: 50ms, backoff_max: 100ms}\n")
    mood = farm.home / "mood"
    task = farm.submit("moody", str(mood))
    ended = farm.wait(task)[0]
    assert ended["state"] == "dead"
    shown = farm.task(task)
    assert [attempt["outcome"] for attempt in shown["attempts"]] == ["failed"] * 3
    assert shown["error"]["type"] == "RuntimeError"
    assert "the moon is wrong" in shown["error"]["traceback"]
    assert task in [one["id"] for one in farm.ask("task", "list", "--state", "dead")["tasks"]]
    mood.write_text("better")
    again = farm.ask("task", "retry", str(task), "--wait")
    assert (again["state"], again["output"], again["retry_of"]) == ("succeeded", "fine now", task)
    assert farm.task(task)["state"] == "dead", "a final state never changes"


def test_logs_are_followed_while_the_agent_writes(farm: Farm) -> None:
    farm.deploy("talker", GREETER)
    follower = subprocess.Popen(
        [*FARMCTL, "logs", "talker", "-f"], cwd=farm.home, stdout=subprocess.PIPE, text=True, env=NO_FARM
    )
    try:
        assert result(farm, "talker", "Grace") == "hello Grace"
        assert follower.stdout is not None
        assert any("greeting Grace" in line for line in iter(follower.stdout.readline, ""))
    finally:
        follower.kill()
        follower.wait()
        if follower.stdout is not None:
            follower.stdout.close()


def test_events_tell_the_story_of_an_agent(farm: Farm) -> None:
    farm.deploy("told", GREETER)
    done = farm.ctl("events", "--agent", "told", "--json")
    kinds = [event["kind"] for event in done.lines]
    assert done.code == 0
    assert "replica.running" in kinds
    assert "deployment.rollout" in kinds


def test_oversized_and_broken_input_is_refused_in_words(farm: Farm) -> None:
    big = farm.home / "big.json"
    big.write_text(json.dumps("x" * (1024 * 1024 + 10)))
    done = farm.ctl("task", "submit", "echo", f"@{big}")
    assert done.code == 1
    assert "1 MiB" in done.err or "1,048,576" in done.err or "1048576" in done.err
    done = farm.ctl("task", "submit", "echo", '{"broken": ')
    assert done.code == 1
    assert "Traceback" not in done.err


def test_output_streams_while_a_graph_runs(farm: Farm) -> None:
    done = farm.ctl("task", "submit", "countdown", '{"start": 3, "pause_s": 0.05}', "--stream", "--events")
    pieces = [line["data"] for line in done.lines if line["event"] == "output"]
    assert done.code == 0
    assert [piece["left"] for piece in pieces if piece["type"] == "count"] == [3, 2, 1]
