"""`farmctl dev --once`: the whole farm, checked by itself, twice in one folder, and nothing left of it."""

from __future__ import annotations

import signal
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.farms import FARMCTL, NO_FARM, Farm, farmctl, processes_of, until

pytestmark = pytest.mark.timeout(240)


def once(home: Path, *options: str) -> dict[str, Any]:
    """The report of a run that must find everything well."""
    folder = home / ".farm"
    done = farmctl("dev", "--once", "--json", "--data-dir", str(folder), *options, cwd=home, timeout_s=200)
    assert done.code == 0, done.out + done.err
    assert not processes_of(folder)
    assert not (folder / "dev.json").exists()
    report: dict[str, Any] = done.json
    assert report["ok"]
    assert report["left_behind"] == []
    assert all(check["is_ok"] for check in report["checks"])
    return report


def test_twice_in_one_folder_goes_on_and_fresh_forgets(tmp_path: Path) -> None:
    first = once(tmp_path, "--market", "simulated")
    assert [node["state"] for node in first["nodes"]] == ["ready"] * 3
    assert first["tasks"]["submitted"] == first["tasks"]["succeeded"] == 16
    assert first["market"]["source"] == "simulated"
    assert first["market"]["rows"] > 0
    assert len(first["market"]["briefs"]) == 4
    assert sum("figures of task" in check["name"] for check in first["checks"]) == 4

    second = once(tmp_path, "--market", "simulated")
    assert second["tasks"]["farm"]["succeeded"] == 32, "the first run's tasks are known"
    assert second["seconds_to_ready"] < 60
    for product in ("BTC-USD", "ETH-USD"):
        assert trades_known(second, product) > trades_known(first, product), "the first run's trades are stored"

    third = once(tmp_path, "--market", "off", "--fresh", "--nodes", "1")
    assert third["tasks"]["farm"]["succeeded"] == 12
    assert [node["name"] for node in third["nodes"]] == ["node-1"]
    assert [check["name"] for check in third["checks"] if check["is_skipped"]] == ["market data is stored"]


def trades_known(report: dict[str, Any], product: str) -> int:
    return max(brief["trades"] for brief in report["market"]["briefs"] if brief["product"] == product)


def test_fresh_deletes_nothing_in_a_folder_of_somebody_else(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    done = farmctl("dev", "--fresh", "--once", "--json", "--data-dir", str(tmp_path), cwd=tmp_path)
    assert done.code == 5
    assert "not those of a farm" in done.json["problem"]["detail"]
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_wrong_options_are_refused_before_anything_starts(tmp_path: Path) -> None:
    for options, word in ((["--nodes", "0"], "--nodes"), (["--market", "liv"], "'live'"), (["--port", "0"], "--port")):
        done = farmctl("dev", "--once", "--data-dir", str(tmp_path / "f"), *options, cwd=tmp_path)
        assert done.code == 1, options
        assert word in done.err
        assert not processes_of(tmp_path / "f")


def test_second_farm_in_the_folder_is_refused_and_the_first_runs_on(farm: Farm) -> None:
    done = farmctl("dev", "--data-dir", str(farm.folder), cwd=farm.home)
    assert done.code == 5
    assert f"process {farm.process.pid}" in done.err
    assert farm.ask("status")["nodes"]


def test_a_port_by_hand_that_is_taken_is_refused(tmp_path: Path, farm: Farm) -> None:
    port = farm.announcement["server"].rpartition(":")[2]
    done = farmctl("dev", "--once", "--port", port, "--data-dir", str(tmp_path / ".farm"), cwd=tmp_path)
    assert done.code == 5
    assert f"Port {port} is taken" in done.err
    assert not processes_of(tmp_path / ".farm")


def test_the_default_port_that_is_taken_gives_way_with_a_note(tmp_path: Path) -> None:
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            holder.bind(("127.0.0.1", 8600))
            holder.listen()
        except OSError:
            pass  # somebody else has it, which does as well
        report = once(tmp_path, "--market", "off", "--nodes", "1")
    assert any("Port 8600 is taken" in note for note in report["notes"])


def test_without_the_jar_and_a_network_the_farm_runs_without_market_data_and_says_what_to_do(tmp_path: Path) -> None:
    nowhere = "http://127.0.0.1:9"
    env = {"XDG_CACHE_HOME": str(tmp_path / "cache"), "M2_REPO": str(tmp_path / "m2"), "HOME": str(tmp_path / "home"),
           "HTTPS_PROXY": nowhere, "HTTP_PROXY": nowhere, "https_proxy": nowhere, "http_proxy": nowhere}  # fmt: skip
    folder = tmp_path / ".farm"
    options = ("--once", "--json", "--nodes", "1", "--market", "simulated", "--data-dir", str(folder))
    done = farmctl("dev", *options, cwd=tmp_path, timeout_s=200, env=env)
    assert done.code == 0, done.out + done.err
    report = done.json
    assert report["market"]["source"] == "off"
    assert any("jar" in note and "--questdb" in note for note in report["notes"]), report["notes"]
    assert "The farm runs without it." in done.err
    assert report["tasks"]["succeeded"] == 12


def test_a_questdb_that_does_not_answer_is_named_and_fails_the_check(tmp_path: Path) -> None:
    options = ("--once", "--json", "--nodes", "1", "--market", "simulated", "--questdb", "http://127.0.0.1:9")
    done = farmctl("dev", *options, "--data-dir", str(tmp_path / ".farm"), cwd=tmp_path, timeout_s=200)
    assert done.code == 1, done.out + done.err
    (failed,) = [check for check in done.json["checks"] if not check["is_ok"]]
    assert "127.0.0.1:9" in failed["detail"]
    assert not processes_of(tmp_path / ".farm")


def test_after_kill_9_of_farmctl_dev_the_next_start_ends_what_was_left_and_goes_on(tmp_path: Path) -> None:
    farm = Farm(tmp_path, "--market", "off", "--nodes", "1")
    try:
        assert farm.ask("task", "submit", "echo", '"before"', "--wait")["output"] == "before"
        first_controller = farm.pid_of("controller")
        farm.process.kill()
        farm.process.wait()
        left = processes_of(farm.folder)
        assert {process.pid for process in left} >= {first_controller}
        again = Farm(tmp_path, "--market", "off", "--nodes", "1")
        try:
            assert "An earlier farm here was killed" in again.words
            assert again.pid_of("controller") != first_controller
            assert not any(process.is_running() and process.pid == first_controller for process in left)
            page = again.ask("task", "list", "--agent", "echo")["tasks"]
            assert [again.task(task["id"])["output"] for task in page] == ["before"]
            assert again.ask("task", "submit", "echo", '"after"', "--wait")["output"] == "after"
            assert again.stop() == 0
            until(lambda: not processes_of(again.folder), "every process to be gone", 5)
        finally:
            again.end()
    finally:
        farm.end()


@pytest.mark.parametrize("word", ["starting the controller", "starting the daemons"])
def test_ctrl_c_while_starting_leaves_nothing(tmp_path: Path, word: str) -> None:
    folder, words = tmp_path / ".farm", tmp_path / "dev.out"
    with words.open("wb") as out:
        started = subprocess.Popen(
            [*FARMCTL, "dev", "--market", "off", "--nodes", "1", "--data-dir", str(folder)], cwd=tmp_path, stdout=out,
            stderr=out, env=NO_FARM,
        )  # fmt: skip
    try:
        until(lambda: word in words.read_text(), word)
        started.send_signal(signal.SIGINT)
        assert started.wait(60) == 130
        assert "The farm is stopped" in words.read_text()
        assert not processes_of(folder)
    finally:
        started.kill()
        started.wait()
        for process in processes_of(folder):
            process.kill()


def test_a_second_ctrl_c_does_not_wait_for_work_to_end(tmp_path: Path) -> None:
    farm = Farm(tmp_path, "--market", "off", "--nodes", "1")
    try:
        patient = "import asyncio\nasync def main(input):\n    try:\n        await asyncio.sleep(600)\n"
        patient += "    except asyncio.CancelledError:\n        await asyncio.sleep(600)\n"
        farm.deploy("patient", patient, "timeouts: {shutdown: 10m}\n")
        task = farm.submit("patient", 1)
        until(lambda: farm.task(task)["state"] == "running", "the task to run")
        farm.process.send_signal(signal.SIGINT)
        until(lambda: "stopping the node daemons" in farm.words, "the stop to begin")
        assert farm.stop() == 0
        assert not processes_of(farm.folder)
    finally:
        farm.end()
