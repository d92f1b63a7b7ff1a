"""What becomes of replicas: imports that fail, crashes, retirement, and the death of every process around them."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from agentfarm.wire import link_pb2 as wire
from tests.integration.node.conftest import Node
from tests.integration.node.controller import ScriptedController, task, wanted
from tests.integration.node.gated import GATED, gated
from tests.integration.node.waiting import until

ECHO = "async def main(input):\n    return input\n"


async def test_an_import_that_fails_is_told_with_its_traceback(node: Node, controller: ScriptedController) -> None:
    await node.start()
    await controller.desire(wanted(1, controller.bundle(agent="import nothing_of_that_name\n")))
    status = await controller.until_state(1, wire.REPLICA_STATE_FAILED)
    assert status.reason == "import_failed"
    assert "No module named 'nothing_of_that_name'" in status.detail
    assert "agent.py" in status.detail
    assert not node.pids_named("af:")


@pytest.mark.parametrize(
    "text", ["import os\nos.abort()\n", "import sys\nprint('bye')\nsys.exit(4)\n"], ids=["abort", "sys-exit"]
)
async def test_an_import_that_kills_its_process_is_a_failed_import(
    node: Node, controller: ScriptedController, text: str
) -> None:
    await node.start()
    await controller.desire(wanted(1, controller.bundle(agent=text)))
    assert (await controller.until_state(1, wire.REPLICA_STATE_FAILED)).reason == "import_failed"


async def test_an_import_without_end_fails_in_time(node: Node, controller: ScriptedController) -> None:
    await node.start()
    agent = "import time\ntime.sleep(600)\n"
    await controller.desire(wanted(1, controller.bundle(agent=agent), timeouts={"healthy_s": 1.0}))
    status = await controller.until_state(1, wire.REPLICA_STATE_FAILED)
    assert status.reason == "import_failed"
    assert "longer than 1 s" in status.detail


async def test_an_agent_whose_import_starts_threads_runs_all_the_same(
    node: Node, controller: ScriptedController
) -> None:
    agent = """
import threading, time
threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
async def main(input):
    return threading.active_count()
"""
    await node.start()
    await controller.desire(wanted(1, controller.bundle(agent=agent)))
    await controller.until_running(1)
    await controller.assign(task(1, 1))
    assert (await controller.result_of(1)).outcome == wire.OUTCOME_SUCCEEDED
    assert "zygote.not_forkable" in node.log


async def test_a_crash_fails_what_ran_gives_back_what_waited_and_is_followed_by_a_restart(
    node: Node, controller: ScriptedController
) -> None:
    agent = """
import os
async def main(input):
    if input == "die":
        print("last words", flush=True)
        os.kill(os.getpid(), 11)
    return input
"""
    await node.start()
    await controller.desire(wanted(1, controller.bundle(agent=agent)))
    await controller.until_running(1)
    await controller.assign(task(1, 1, "die"), task(2, 1, "later"))
    crashed = await controller.result_of(1)
    assert (crashed.outcome, crashed.error_type) == (wire.OUTCOME_FAILED, "ReplicaCrashed")
    assert "SIGSEGV" in crashed.error_message
    assert "last words" in crashed.error_message
    assert (await controller.result_of(2)).outcome == wire.OUTCOME_INTERRUPTED
    await controller.until(lambda: controller.replicas[1].restarts == 1 and controller.replicas[1].state == 2)
    await controller.assign(task(3, 1, "again"))
    assert json.loads((await controller.result_of(3)).output) == "again"


async def test_a_crash_loop_is_left_alone(node: Node, controller: ScriptedController) -> None:
    agent = """
import os, threading
async def main(input):
    os._exit(1)
"""
    await node.start()
    await controller.desire(wanted(1, controller.bundle(agent=agent)))
    for token in range(1, 6):
        await controller.until(
            lambda token=token: (
                controller.replicas.get(1) is not None
                and controller.replicas[1].state == wire.REPLICA_STATE_RUNNING
                and controller.replicas[1].restarts == token - 1
            )
        )
        await controller.assign(task(token, 1))
        await controller.result_of(token)
    status = await controller.until_state(1, wire.REPLICA_STATE_FAILED)
    assert status.reason == "crash_loop"
    assert "code 1" in status.detail
    assert not node.pids_named("af:")


async def test_retiring_lets_attempts_end_and_then_nothing_remains(
    node: Node, controller: ScriptedController, tmp_path: Path
) -> None:
    await node.start()
    digest = controller.bundle(agent=GATED)
    await controller.desire(wanted(1, digest))
    await controller.until_running(1)
    await controller.assign(task(1, 1, gated(tmp_path)))
    await controller.until(lambda: 1 in controller.started)
    await controller.desire(wanted(1, digest, stopping=True))
    await controller.until_state(1, wire.REPLICA_STATE_STOPPING)
    assert not controller.results
    (tmp_path / "gate").touch()
    assert (await controller.result_of(1)).outcome == wire.OUTCOME_SUCCEEDED
    await controller.until_state(1, wire.REPLICA_STATE_STOPPED)
    assert not node.pids_named("af:")


async def test_a_replica_that_is_not_listed_stops_now_with_its_children(
    node: Node, controller: ScriptedController, tmp_path: Path
) -> None:
    """Even a child that left the session, which no signal to a group would reach."""
    agent = f"""
import asyncio, subprocess, sys
async def main(input):
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)", "{tmp_path}/data/stray"],
                     start_new_session=True)
    print("begun", flush=True)
    await asyncio.sleep(600)
"""
    await node.start()
    await controller.desire(wanted(1, controller.bundle(agent=agent)))
    await controller.until_running(1)
    await controller.assign(task(1, 1))
    log = node.data / "replicas" / "1" / "log"
    await until(lambda: log.exists() and "begun" in log.read_text())
    await controller.desire()
    assert (await controller.result_of(1)).outcome == wire.OUTCOME_INTERRUPTED
    await controller.until_state(1, wire.REPLICA_STATE_STOPPED)
    await until(lambda: not _strays(tmp_path))


async def test_desired_twice_starts_nothing_twice(node: Node, controller: ScriptedController) -> None:
    await node.start()
    item = wanted(1, controller.bundle(agent=ECHO))
    await controller.desire(item)
    await controller.desire(item)
    await controller.until_running(1)
    await controller.desire(item)
    await controller.assign(task(1, 1))
    await controller.result_of(1)
    assert len(node.pids_named("af:")) == 1


async def test_attempts_survive_the_daemon(node: Node, controller: ScriptedController, tmp_path: Path) -> None:
    """Killed while attempts run: the next daemon finds the replica, says what runs, and delivers each result once."""
    await node.start()
    digest = controller.bundle(agent=GATED)
    await controller.desire(wanted(1, digest, concurrency=2), wanted(2, digest))
    await controller.until_running(1, 2)
    pids = {number: controller.replicas[number].pid for number in (1, 2)}
    await controller.assign(*(task(token, 1, gated(tmp_path)) for token in (1, 2, 3)), task(4, 2, gated(tmp_path)))
    await controller.until(lambda: {1, 2, 4} <= set(controller.started))
    await node.kill()
    (tmp_path / "gate").touch()
    await until(lambda: len((tmp_path / "ran").read_text().splitlines()) == 4)  # 3 began while nobody was there
    await node.start()
    known = set(controller.hellos[-1].running_tokens) | set(controller.hellos[-1].finished_tokens)
    assert known == {1, 2, 3, 4}
    for token in (1, 2, 3, 4):
        assert json.loads((await controller.result_of(token)).output) == pids[2 if token == 4 else 1]
    assert sorted(result.fencing_token for result in controller.results) == [1, 2, 3, 4]
    await controller.assign(task(5, 1, gated(tmp_path)))
    await controller.result_of(5)
    assert {status.pid for status in controller.replicas.values()} == set(pids.values())


async def test_results_not_acknowledged_survive_the_daemon_and_the_replica(
    node: Node, controller: ScriptedController
) -> None:
    await node.start()
    await controller.desire(wanted(1, controller.bundle(agent=ECHO), concurrency=8))
    await controller.until_running(1)
    controller.acknowledges = False
    await controller.assign(*(task(token, 1, token) for token in range(1, 51)))
    await controller.until(lambda: len(controller.results) == 50)
    await until(lambda: _stored(node) == 50)
    await node.kill()
    os.kill(controller.replicas[1].pid, signal.SIGKILL)
    controller.results.clear()
    controller.acknowledges = True
    await node.start()
    assert set(controller.hellos[-1].finished_tokens) == set(range(1, 51))
    await controller.until(lambda: len(controller.results) == 50)
    assert {result.outcome for result in controller.results} == {wire.OUTCOME_SUCCEEDED}
    await until(lambda: _stored(node) == 0)


async def test_a_replica_killed_while_the_daemon_was_away_is_told_as_crashed(
    node: Node, controller: ScriptedController, tmp_path: Path
) -> None:
    await node.start()
    await controller.desire(wanted(1, controller.bundle(agent=GATED)))
    await controller.until_running(1)
    await controller.assign(task(1, 1, gated(tmp_path)))
    await controller.until(lambda: 1 in controller.started)
    pid = controller.replicas[1].pid
    await node.kill()
    os.kill(pid, signal.SIGKILL)
    await node.start()
    assert 1 not in controller.hellos[-1].running_tokens  # so the controller gives it to another
    await controller.until_running(1)
    assert controller.replicas[1].pid != pid


async def test_replicas_live_on_when_their_zygotes_die_and_new_ones_can_be_made(
    node: Node, controller: ScriptedController, tmp_path: Path
) -> None:
    await node.start()
    digest = controller.bundle(agent=GATED)
    await controller.desire(wanted(1, digest))
    await controller.until_running(1)
    pid = controller.replicas[1].pid
    await controller.assign(task(1, 1, gated(tmp_path)))
    await controller.until(lambda: 1 in controller.started)
    for zygote in node.pids_named("af-zygote"):
        os.kill(zygote, signal.SIGKILL)
    await controller.desire(wanted(1, digest), wanted(2, digest))
    await controller.until_running(2)
    (tmp_path / "gate").touch()
    assert json.loads((await controller.result_of(1)).output) == pid
    os.kill(pid, signal.SIGKILL)  # its zygote cannot tell how it ended; it is started again all the same
    await controller.until(lambda: controller.replicas[1].pid not in (0, pid))


async def test_stop_of_the_daemon_leaves_agents_or_ends_them_as_set(
    node: Node, controller: ScriptedController, tmp_path: Path
) -> None:
    await node.start()
    await controller.desire(wanted(1, controller.bundle(agent=GATED)))
    await controller.until_running(1)
    await controller.assign(task(1, 1, gated(tmp_path)))
    await controller.until(lambda: 1 in controller.started)
    assert await node.stop() == 0
    assert node.pids_named("af:")
    await node.start(stop_replicas_on_exit=True)
    assert list(controller.hellos[-1].running_tokens) == [1]
    assert await node.stop() == 0
    assert (await controller.result_of(1)).outcome == wire.OUTCOME_INTERRUPTED
    assert not node.processes()


async def test_a_second_daemon_in_the_folder_is_refused(node: Node, controller: ScriptedController) -> None:
    await node.start()
    config = str(node.folder / "node.yaml")
    second = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "nodeagent.main", "run", "--config", config, stderr=subprocess.PIPE
    )
    _, said = await second.communicate()
    assert second.returncode == 5
    assert b"already serves" in said
    assert str(node.process.pid if node.process else 0).encode() in said


async def test_a_node_whose_folder_is_taken_away_leaves_nothing_running(
    node: Node, controller: ScriptedController
) -> None:
    await node.start()
    await controller.desire(wanted(1, controller.bundle(agent=ECHO)))
    await controller.until_running(1)
    await node.kill()
    shutil.rmtree(node.data)
    await until(lambda: not node.processes())


def _stored(node: Node) -> int:
    with sqlite3.connect(f"file:{node.data / 'outbox.db'}?mode=ro", uri=True) as db:
        return int(db.execute("SELECT count(*) FROM result").fetchone()[0])


def _strays(tmp_path: Path) -> list[str]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if f"{tmp_path}/data/stray".encode() in (entry / "cmdline").read_bytes().split(b"\0"):
                    found.append(entry.name)
            except OSError:
                continue
    return found
