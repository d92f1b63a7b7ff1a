"""An exclusive replica whose zygote dies ends with it: nobody else could end it, were its daemon dead as well."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from tests.integration.node.conftest import Node
from tests.integration.node.controller import ScriptedController, task, wanted
from tests.integration.node.gated import GATED, gated
from tests.integration.node.waiting import until


async def test_a_silent_exclusive_replica_ends_with_its_zygote_beside_a_dead_daemon(
    node: Node, controller: ScriptedController, tmp_path: Path
) -> None:
    await node.start()
    digest = controller.bundle(agent=GATED)
    await controller.desire(wanted(1, digest, exclusive=True), wanted(2, digest))
    await controller.until_running(1, 2)
    await controller.assign(task(1, 1, gated(tmp_path), exclusive=True))
    await controller.until(lambda: 1 in controller.started)
    exclusive, other = controller.replicas[1].pid, controller.replicas[2].pid
    os.kill(exclusive, signal.SIGSTOP)
    await node.kill()
    for zygote in node.pids_named("af-zygote"):
        os.kill(zygote, signal.SIGKILL)
    await until(lambda: not is_alive(exclusive))
    assert is_alive(other), "one that is not exclusive may go on: its result is fenced"


def is_alive(pid: int) -> bool:
    """Whether a process runs or stands still; a dead one that nobody collected does neither."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat[stat.rindex(")") + 2] not in "ZX"
