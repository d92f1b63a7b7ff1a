"""deploy, plan, scale, rollback, remove: plan first, watch, and the exit codes people script with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.unit.farmctl.conftest import Ran, ServedFarm

Farmctl = Callable[..., Ran]


def test_deploy_shows_the_plan_uploads_and_watches(farmctl: Farmctl, farm: ServedFarm, tmp_path: Path) -> None:
    path = tmp_path / "new_agent.py"
    path.write_text("def main(value):\n    return value\n")
    ran = farmctl("deploy", path, "--replicas", 2)
    assert ran.code == 0
    assert "new-agent: version 1, 0 → 2 replicas" in ran.out
    assert "uploaded 1 files" in ran.err
    assert "new-agent version 1 is deployed." in ran.out
    again = farmctl("deploy", path)
    assert again.code == 0
    assert "nothing changes" in again.out
    assert "uploaded" not in again.err


def test_deploy_of_a_broken_agent_shows_its_traceback_and_keeps_the_old_version(
    farmctl: Farmctl, farm: ServedFarm, echo_agent: Path
) -> None:
    for node in farm.small.nodes.values():
        node.import_error = "ImportError: no module named nothing"
    ran = farmctl("deploy", echo_agent)
    assert ran.code == 1
    assert "ImportError: no module named nothing" in ran.err
    assert "Version 1 runs on, untouched." in ran.err
    assert farmctl("task", "submit", "echo", "5", "--wait").json == 5
    events = farmctl("deploy", echo_agent, "--events").events
    assert any("no module named nothing" in event.get("detail", "") for event in events)


def test_deploy_that_does_not_fit_is_exit_2_and_changes_nothing(
    farmctl: Farmctl, farm: ServedFarm, echo_agent: Path
) -> None:
    farmctl("cordon", "node-1", "node-2", "--reason", "new disk")
    ran = farmctl("deploy", echo_agent, "--replicas", 3)
    assert ran.code == 2
    assert "cannot be placed" in ran.out
    assert "cordoned" in ran.out
    assert "nothing was changed" in ran.err
    assert farmctl("status", "--json").json["deployments"][0]["generation"] == 1
    assert farmctl("plan", echo_agent, "--replicas", 3).code == 2
    assert farmctl("deploy", echo_agent, "--replicas", 3, "--anyway", "--timeout", "0.3").code == 2


def test_wrong_spec_is_said_before_the_farm_is_asked(farmctl: Farmctl, tmp_path: Path) -> None:
    (tmp_path / "thing.py").write_text("def main(value):\n    return value\n")
    (tmp_path / "thing.yaml").write_text("replcas: 2\n")
    ran = farmctl("deploy", tmp_path / "thing.py")
    assert ran.code == 1
    assert "replcas" in ran.err
    assert "replicas" in ran.err
    lost = farmctl("deploy", tmp_path / "nothing")
    assert (lost.code, "There is no file or folder" in lost.err) == (1, True)


def test_scale_up_and_down(farmctl: Farmctl, farm: ServedFarm) -> None:
    up = farmctl("scale", "ec", 3)
    assert (up.code, "echo has 3 replicas." in up.out) == (0, True)
    assert farmctl("scale", "echo", 1).code == 0
    assert farmctl("status", "--json").json["deployments"][0]["replicas_running"] == 1


def test_stale_generation_is_exit_5(farmctl: Farmctl, farm: ServedFarm) -> None:
    farmctl("scale", "echo", 2)
    late = farmctl("scale", "echo", 3, "--if-generation", 1)
    assert late.code == 5
    assert "somebody changed it" in late.err


def test_rollback(farmctl: Farmctl, farm: ServedFarm, echo_agent: Path) -> None:
    farmctl("deploy", echo_agent)
    ran = farmctl("rollback", "echo")
    assert (ran.code, "echo version 1 is deployed." in ran.out) == (0, True)
    assert farmctl("rollback", "echo", "--to", 9).code == 1


def test_remove_needs_the_whole_name_and_waits_until_it_is_gone(farmctl: Farmctl, farm: ServedFarm) -> None:
    refused = farmctl("remove", "ech")
    assert (refused.code, "whole name" in refused.err) == (1, True)
    gone = farmctl("remove", "echo")
    assert (gone.code, gone.out) == (0, "echo is gone.\n")
