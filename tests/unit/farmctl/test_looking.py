"""status, events, explain, logs, version."""

from __future__ import annotations

import json
from collections.abc import Callable

from tests.unit.farmctl.conftest import Ran, ServedFarm

Farmctl = Callable[..., Ran]


def test_status_fits_80_columns_and_has_no_colours_when_piped(farmctl: Farmctl, farm: ServedFarm) -> None:
    farmctl("task", "submit", "echo", "--wait")
    ran = farmctl("status")
    assert ran.code == 0
    for word in ("node-1", "echo/0", "1 succeeded", "simulated"):
        assert word in ran.out
    assert "\x1b" not in ran.out
    assert max(map(len, ran.out.splitlines())) <= 80
    assert farmctl("status", "--json").json["tasks"]["succeeded"] == 1


def test_explain_takes_or_guesses_the_kind(farmctl: Farmctl, farm: ServedFarm) -> None:
    farmctl("task", "submit", "slow")
    for words in (["task", "1"], ["1"]):
        assert "task 1 of slow" in farmctl("explain", *words).out
    for words in (["replica", "slow/0"], ["slow/0"]):
        assert "replica slow/0" in farmctl("explain", *words).out
    for words in (["deployment", "slow"], ["slow"], ["slo"]):
        ran = farmctl("explain", *words)
        assert "node-1" in ran.out
        assert "node-2" in ran.out
    assert "Did you mean 'task'?" in farmctl("explain", "tsk", "1").err
    assert farmctl("explain", "task").code == 1
    assert farmctl("explain", "77").code == 1
    assert [node["node"] for node in farmctl("explain", "slow", "--json").json["nodes"]] == ["node-1", "node-2"]


def test_events_tell_the_story(farmctl: Farmctl, farm: ServedFarm) -> None:
    ran = farmctl("events", "--agent", "echo")
    assert "deployment.complete" in ran.out
    events = [json.loads(line) for line in farmctl("events", "--json", "-n", "3").out.splitlines()]
    assert len(events) == 3
    assert {event["actor"] for event in events} <= {"operator", "farm", "node/node-1", "node/node-2"}
    assert "echo: version 1 is rolled out (by operator)" in ran.out
    assert events[0]["id"] < events[2]["id"]


def test_logs_of_one_replica_and_of_all(farmctl: Farmctl, farm: ServedFarm) -> None:
    farmctl("scale", "echo", 2)
    one = farmctl("logs", "echo/0", "-n", "1")
    assert one.code == 0
    assert one.out.startswith("second line of")
    both = farmctl("logs", "echo")
    assert {line.split("  ")[0] for line in both.out.splitlines()} == {"echo/0", "echo/1"}
    followed = farmctl("logs", "echo/0", "-f", "--json")
    assert json.loads(followed.out.splitlines()[-1])["line"] == "third line"
    assert farmctl("logs", "ehco").code == 1


def test_version_names_both_releases(farmctl: Farmctl, farm: ServedFarm) -> None:
    releases = farmctl("version", "--json").json
    assert releases["farmctl"] == releases["farm"]
