"""Exclusive attempts: nobody works on one that the controller may have given to another, whatever is dead, stopped or
deaf on the node."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

from agentfarm.wire import link_pb2 as wire
from tests.integration.node.conftest import Node
from tests.integration.node.controller import ScriptedController, task, wanted
from tests.integration.node.gated import GATED, gated
from tests.integration.node.waiting import until

LEASE_MS = 3_000  # half of what a farm has: long against a machine that stands still for a moment, short to wait for
OVER_WITHIN_S = 15.0


async def test_exclusive_attempts_end_when_the_daemon_is_dead(
    node: Node, controller: ScriptedController, tmp_path: Path
) -> None:
    """Nobody is left to stop them, and after eight seconds the controller may give them to another node."""
    await _at_work(node, controller, tmp_path, exclusive=True)
    log = node.data / "replicas" / "1" / "running"
    await node.kill()
    await until(lambda: not any(log.read_bytes()), deadline_s=OVER_WITHIN_S)


async def test_exclusive_attempts_end_when_the_daemon_is_stopped_and_late_orders_are_refused(
    node: Node, controller: ScriptedController, tmp_path: Path
) -> None:
    """A daemon that sleeps past its lease stops nothing; when it wakes, what waited in its socket is not its work."""
    await _at_work(node, controller, tmp_path, exclusive=True, concurrency=2)
    running = node.data / "replicas" / "1" / "running"
    assert node.process is not None
    node.process.send_signal(signal.SIGSTOP)
    try:
        await until(lambda: not any(running.read_bytes()), deadline_s=OVER_WITHIN_S)
        await controller.assign(task(2, 1, gated(tmp_path), exclusive=True))
    finally:
        node.process.send_signal(signal.SIGCONT)
    assert (await controller.result_of(2)).outcome == wire.OUTCOME_INTERRUPTED
    assert 2 not in controller.started


async def test_a_silent_exclusive_replica_is_dead_before_a_new_daemon_says_hello(
    node: Node, controller: ScriptedController, tmp_path: Path
) -> None:
    """Its attempt is not in the Hello, so the controller gives it to another at once; it must not go on here."""
    pid = await _at_work(node, controller, tmp_path, exclusive=True, lease_ms=60_000)  # its zygote leaves it
    os.kill(pid, signal.SIGSTOP)  # as agent code does that holds the interpreter: it says nothing, but is there
    is_alive_at_hello = []
    controller.on_hello = lambda: is_alive_at_hello.append(_is_alive(pid))
    await node.kill()
    await node.start()
    assert is_alive_at_hello == [False]
    assert not controller.hellos[-1].running_tokens
    assert "replica.killed" in node.log
    await controller.until_running(1)
    assert controller.replicas[1].pid != pid


async def test_a_silent_replica_that_is_not_exclusive_may_go_on(
    node: Node, controller: ScriptedController, tmp_path: Path
) -> None:
    """Its result is fenced if another was faster."""
    pid = await _at_work(node, controller, tmp_path)
    os.kill(pid, signal.SIGSTOP)
    await node.kill()
    await node.start()
    assert not controller.hellos[-1].running_tokens
    os.kill(pid, signal.SIGCONT)
    (tmp_path / "gate").touch()
    assert json.loads((await controller.result_of(1)).output) == pid


async def test_an_exclusive_replica_that_does_not_look_is_ended_by_its_zygote(
    node: Node, controller: ScriptedController, tmp_path: Path
) -> None:
    """Its daemon is dead and its interpreter is held: neither can end it, and its lease is over all the same."""
    pid = await _at_work(node, controller, tmp_path, exclusive=True)
    os.kill(pid, signal.SIGSTOP)
    await node.kill()
    await until(lambda: not _is_alive(pid), deadline_s=OVER_WITHIN_S)


async def test_a_process_whose_seat_is_not_known_any_more_is_ended(
    node: Node, controller: ScriptedController, tmp_path: Path
) -> None:
    """A new daemon can say nothing of its attempts, so they are given to others."""
    await node.start()
    await controller.desire(wanted(1, controller.bundle(agent=GATED)))
    await controller.until_running(1)
    pid = controller.replicas[1].pid
    await node.kill()
    (node.data / "replicas" / "1" / "seat.json").write_text("{")
    is_alive_at_hello = []
    controller.on_hello = lambda: is_alive_at_hello.append(_is_alive(pid))
    await node.start()
    assert is_alive_at_hello == [False]


async def _at_work(
    node: Node,
    controller: ScriptedController,
    tmp_path: Path,
    *,
    exclusive: bool = False,
    concurrency: int = 1,
    lease_ms: int = LEASE_MS,
) -> int:
    """A daemon whose replica 1 works on task 1 until a gate opens; the replica's process."""
    controller.stop_exclusive_after_ms = lease_ms
    await node.start()
    digest = controller.bundle(agent=GATED)
    await controller.desire(wanted(1, digest, exclusive=exclusive, concurrency=concurrency))
    await controller.until_running(1)
    await controller.assign(task(1, 1, gated(tmp_path), exclusive=exclusive))
    await controller.until(lambda: 1 in controller.started)
    await until((tmp_path / "ran").exists)
    return controller.replicas[1].pid


def _is_alive(pid: int) -> bool:
    """Whether the process may still run: one that was killed and not yet collected does not."""
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False
