"""What the node keeps on disk: bundles, environments, results, logs; and a disk that does not do its part."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from agentfarm.wire import link_pb2 as wire
from tests.integration.node.conftest import Node
from tests.integration.node.controller import ScriptedController, task, wanted
from tests.integration.node.waiting import until

ECHO = "async def main(input):\n    return input\n"
TALKER = """
async def main(input):
    for number in range(input["first"], input["last"]):
        print("line", number, "x" * input.get("width", 0), flush=True)
    return "said"
"""


async def test_a_transfer_that_breaks_goes_on_where_it_stopped(node: Node, controller: ScriptedController) -> None:
    await node.start()
    digest = controller.bundle(agent=ECHO + "# " + "x" * 50_000)
    controller.fetch_breaks_after = 20_480
    await controller.desire(wanted(1, digest))
    await controller.until_running(1)
    assert controller.fetches == [0, 20_480]


async def test_a_transfer_that_a_broken_stream_cut_off_is_begun_again(
    node: Node, controller: ScriptedController
) -> None:
    await node.start()
    controller.calls_wait = True
    await controller.desire(wanted(1, controller.bundle(agent=ECHO)))
    await controller.until(lambda: controller.calls_asked == 1)
    controller.calls_wait = False
    controller.break_stream()
    await controller.until(lambda: len(controller.hellos) == 2)
    await controller.until_running(1)


async def test_a_bundle_that_is_not_what_its_digest_says_is_refused(node: Node, controller: ScriptedController) -> None:
    await node.start()
    digest = controller.bundle(agent=ECHO)
    controller.bundles[digest] = controller.bundles[digest].replace(b"return", b"retorn")
    await controller.desire(wanted(1, digest))
    status = await controller.until_state(1, wire.REPLICA_STATE_FAILED)
    assert status.reason == "bundle_failed"
    assert "does not match its name" in status.detail
    assert [entry.name for entry in (node.data / "bundles").iterdir()] == []


async def test_a_bundle_nobody_has_is_told(node: Node, controller: ScriptedController) -> None:
    await node.start()
    await controller.desire(wanted(1, "sha256:" + "0" * 64))
    assert (await controller.until_state(1, wire.REPLICA_STATE_FAILED)).reason == "bundle_failed"


async def test_an_environment_that_cannot_be_built_is_told_in_the_words_of_uv(
    node: Node, controller: ScriptedController, tmp_path: Path
) -> None:
    await node.start()
    lock = f"nothing-of-that-name @ file://{tmp_path}/missing.whl\n"
    await controller.desire(wanted(1, controller.bundle(**{"agent": ECHO, "requirements.txt": lock})))
    status = await controller.until_state(1, wire.REPLICA_STATE_FAILED)
    assert status.reason == "environment_failed"
    assert "missing.whl" in status.detail


async def test_an_agent_gets_an_environment_of_its_own_with_our_code_and_nothing_else_of_ours(
    node: Node, controller: ScriptedController, tmp_path: Path
) -> None:
    _make_wheel(tmp_path)
    await node.start()
    lock = f"greeting @ file://{tmp_path}/greeting-1.0-py3-none-any.whl\n"
    agent = """
import importlib.util, sys, greeting, agentfarm.sdk
async def main(input):
    return {"said": greeting.WORDS, "grpc": importlib.util.find_spec("grpc") is not None, "prefix": sys.prefix}
"""
    digest = controller.bundle(**{"agent": agent, "requirements.txt": lock})
    await controller.desire(wanted(1, digest), wanted(2, digest))
    await controller.until_running(1, 2, deadline_s=90)
    await controller.assign(task(1, 1))
    said = json.loads((await controller.result_of(1)).output)
    assert said["said"] == "hello"
    assert not said["grpc"]
    assert said["prefix"].startswith(str(node.data / "environments"))
    assert node.log.count("environment.building") == 1


async def test_logs_are_rotated_and_followed_across_the_rotation(node: Node, controller: ScriptedController) -> None:
    await node.start()
    await controller.desire(wanted(1, controller.bundle(agent=TALKER)))
    await controller.until_running(1)
    await controller.assign(task(1, 1, {"first": 0, "last": 10}))
    await controller.result_of(1)
    await controller.send(log_request=wire.LogRequest(request_id=5, replica_id=1, tail_lines=3, follow=True))
    await controller.until(lambda: 5 in controller.logs)
    folder = node.data / "replicas" / "1"
    for token in range(2, 40):  # half a MiB each, until it has been rotated
        await controller.assign(task(token, 1, {"first": token * 1000, "last": token * 1000 + 500, "width": 1000}))
        await controller.result_of(token)
        if (folder / "log.1").exists():
            break
    await until((folder / "log.1").exists)
    await controller.assign(task(99, 1, {"first": 99_000, "last": 99_001}))
    await controller.until(lambda: b"line 99000" in controller.logs[5])
    numbers = [int(line.split()[1]) for line in controller.logs[5].splitlines()]
    assert numbers[:3] == [7, 8, 9]
    assert numbers[3:] == [n for t in range(2, token + 1) for n in range(t * 1000, t * 1000 + 500)] + [99_000]
    await controller.send(log_stop=wire.LogStop(request_id=5))


async def test_a_log_that_is_only_read_ends(node: Node, controller: ScriptedController) -> None:
    await node.start()
    await controller.desire(wanted(1, controller.bundle(agent=TALKER)))
    await controller.until_running(1)
    await controller.assign(task(1, 1, {"first": 0, "last": 5}))
    await controller.result_of(1)
    await controller.send(log_request=wire.LogRequest(request_id=6, replica_id=1, tail_lines=2))
    await controller.until(lambda: 6 in controller.log_ends)
    assert controller.log_ends[6] == ""
    assert [line.split()[1] for line in controller.logs[6].splitlines()] == [b"3", b"4"]
    await controller.send(log_request=wire.LogRequest(request_id=7, replica_id=77))
    await controller.until(lambda: 7 in controller.log_ends)
    assert "not on this node" in controller.log_ends[7]


async def test_what_native_code_and_children_write_is_in_the_log(node: Node, controller: ScriptedController) -> None:
    agent = """
import ctypes, subprocess
def main(input):
    ctypes.CDLL(None).write(1, b"from native code\\n", 17)
    subprocess.run(["sh", "-c", "echo from a child >&2"], check=True)
"""
    await node.start()
    await controller.desire(wanted(1, controller.bundle(agent=agent)))
    await controller.until_running(1)
    await controller.assign(task(1, 1))
    await controller.result_of(1)
    assert (node.data / "replicas" / "1" / "log").read_text() == "from native code\nfrom a child\n"


async def test_a_damaged_outbox_is_set_aside_and_never_keeps_the_node_from_starting(
    node: Node, controller: ScriptedController
) -> None:
    node.data.mkdir()
    (node.data / "outbox.db").write_bytes(b"SQLite format 3\0" + os.urandom(8192))
    await node.start()
    assert "outbox.damaged" in node.log
    assert len(list(node.data.glob("outbox.db.damaged-*"))) == 1
    await controller.desire(wanted(1, controller.bundle(agent=ECHO)))
    await controller.until_running(1)
    await controller.assign(task(1, 1, "fine"))
    assert (await controller.result_of(1)).outcome == wire.OUTCOME_SUCCEEDED


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own for the node's folder, which can be filled."""
    folder = tmp_path / "data"
    folder.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if made.returncode != 0:
        pytest.skip("a small file system can only be mounted by root")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


async def test_a_full_disk_is_told_and_healed_when_there_is_room(
    small_disk: Path, node: Node, controller: ScriptedController
) -> None:
    """Results wait in memory, bundles are tried again; attempts that run do not notice."""
    await node.start()
    await controller.desire(wanted(1, controller.bundle(agent=ECHO), concurrency=8))
    await controller.until_running(1)
    ballast = small_disk / "ballast"
    _fill(ballast)
    controller.acknowledges = False
    await controller.assign(*(task(token, 1, "x" * 1000) for token in range(1, 101)))
    await controller.until(lambda: len(controller.results) == 100)
    await until(lambda: "outbox.not_written" in node.log)
    big = controller.bundle(agent=ECHO + "#" + "y" * 200_000)
    await controller.desire(*(wanted(1, controller.bundle(agent=ECHO), concurrency=8), wanted(2, big)))
    await controller.until(lambda: 2 in controller.replicas and controller.replicas[2].reason == "bundle_failed")
    assert "cannot write" in controller.replicas[2].detail
    ballast.unlink()
    await controller.until_running(2)
    await until(lambda: "outbox.healed" in node.log)
    controller.acknowledges = True
    controller.results.clear()
    controller.break_stream()
    await controller.until(lambda: len(controller.results) == 100)
    assert {result.outcome for result in controller.results} == {wire.OUTCOME_SUCCEEDED}


def _fill(ballast: Path) -> None:
    with ballast.open("wb", buffering=0) as file:
        size = 2**20
        while size >= 512:
            try:
                file.write(b"\0" * size)
            except OSError:
                size //= 2


def _make_wheel(folder: Path) -> None:
    """The smallest wheel there can be."""
    import zipfile

    info = "greeting-1.0.dist-info"
    with zipfile.ZipFile(folder / "greeting-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("greeting.py", 'WORDS = "hello"\n')
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: greeting\nVersion: 1.0\n")
        wheel.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{info}/RECORD", f"greeting.py,,\n{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n")
