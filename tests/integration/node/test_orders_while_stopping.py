"""A daemon that ends with its replicas starts nothing more, whatever its controller still wants."""

from __future__ import annotations

from pathlib import Path

from agentfarm.wire import link_pb2 as wire
from tests.integration.node.conftest import Node
from tests.integration.node.controller import ScriptedController, task, wanted
from tests.integration.node.waiting import until

STUBBORN = """
import time, pathlib
def main(input):
    pathlib.Path(input).touch()
    time.sleep(600)
"""
ECHO = "async def main(input):\n    return input\n"


async def test_a_daemon_that_ends_its_replicas_starts_no_other(
    node: Node, controller: ScriptedController, tmp_path: Path
) -> None:
    mark = tmp_path / "at-work"
    await node.start(stop_replicas_on_exit=True)
    first = wanted(1, controller.bundle(agent=STUBBORN), timeouts={"shutdown_s": 1.0})
    await controller.desire(first)
    await controller.until_running(1)
    await controller.assign(task(1, 1, str(mark)))
    await until(mark.exists)
    assert node.process is not None
    node.process.terminate()
    await controller.until_state(1, wire.REPLICA_STATE_STOPPING)
    await controller.desire(first, wanted(2, controller.bundle(agent=ECHO)))
    assert await node.stop() == 0
    assert 2 not in controller.replicas
    assert node.processes() == []
