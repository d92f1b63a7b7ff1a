"""Making node folders nodes of the farm: invited over HTTP, joined by the node's own program, side by side."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Sequence
from typing import Final

from agentfarm.errors import Unavailable
from farmctl.api.client import FarmClient
from farmctl.dev.folder import FarmFolder
from farmctl.dev.processes.process import environment
from farmctl.dev.processes.programs import join_command
from farmctl.dev.stop import StopWish

JOIN_WITHIN_S: Final = 30.0
LOOK_EVERY_S: Final = 0.1


def has_joined(folder: FarmFolder, name: str) -> bool:
    """Whether the node has an identity already."""
    return (folder.node(name) / "identity" / "certificate.pem").exists()


def join_nodes(farm: FarmClient, folder: FarmFolder, names: Sequence[str], wish: StopWish) -> None:
    """Join them all. Raises Unavailable with the words of the one that could not."""
    joining: dict[str, subprocess.Popen[str]] = {}
    try:
        for name in names:
            joining[name] = _start(folder, name, str(farm.post("/v1/nodes/invite", {"name": name})["token"]))
        deadline = time.monotonic() + JOIN_WITHIN_S
        while any(child.poll() is None for child in joining.values()) and time.monotonic() < deadline:
            wish.pause(LOOK_EVERY_S)
    finally:
        for child in joining.values():
            child.kill()
    for name, child in joining.items():
        _, words = child.communicate()
        if child.returncode != 0:
            raise Unavailable(f"{name} could not join the farm: {words.strip() or 'it did not end in time'}")


def _start(folder: FarmFolder, name: str, token: str) -> subprocess.Popen[str]:
    child = subprocess.Popen(
        join_command(folder, name), stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        text=True, start_new_session=True, env=environment(),
    )  # fmt: skip
    assert child.stdin is not None  # it is a pipe
    child.stdin.write(token)  # not on the command line, where every user of the machine could read it
    child.stdin.close()
    child.stdin = None  # communicate() must not touch it again
    return child
