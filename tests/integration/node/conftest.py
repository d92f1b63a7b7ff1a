"""A scripted controller, and real daemons that are ended with everything they started."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest
import yaml

from tests.integration.node.certificates import Authority
from tests.integration.node.controller import ScriptedController

DEADLINE_S = 60.0


class Node:
    """A daemon process and its folder."""

    def __init__(self, folder: Path, controller: ScriptedController) -> None:
        self.folder = folder
        self.controller = controller
        self.process: asyncio.subprocess.Process | None = None
        self.settings = {"link": "", "link_name": "controller", "metrics_port": 0, "log_level": "debug"}

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def log(self) -> str:
        return (self.folder / "daemon.log").read_text()

    async def start(self, **settings: object) -> None:
        if not (self.data / "identity").exists():
            self.controller.authority.enrol("node-1", self.data / "identity")
        self.settings["link"] = f"127.0.0.1:{self.controller.port}"
        config = self.folder / "node.yaml"
        config.write_text(yaml.safe_dump({**self.settings, **settings, "data_dir": str(self.data)}))
        hellos = len(self.controller.hellos)
        with (self.folder / "daemon.log").open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "nodeagent.main", "run", "--config", str(config), stdout=log, stderr=log
            )
        await self.controller.until(lambda: len(self.controller.hellos) > hellos)

    async def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        await self.process.wait()

    async def stop(self) -> int:
        assert self.process is not None
        if self.process.returncode is None:
            self.process.terminate()
        async with asyncio.timeout(DEADLINE_S):
            return await self.process.wait()

    def processes(self) -> list[tuple[int, str]]:
        """(pid, command) of every process that has our folder in its command line or working files."""
        found = []
        mark = str(self.data).encode()
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and int(entry.name) != os.getpid():
                with suppress(OSError):
                    command = (entry / "cmdline").read_bytes()
                    if mark in command:
                        found.append((int(entry.name), (entry / "comm").read_text().strip()))
        return found

    def pids_named(self, name: str) -> list[int]:
        return [pid for pid, command in self.processes() if command.startswith(name)]


@pytest.fixture
async def controller() -> AsyncIterator[ScriptedController]:
    server = ScriptedController(Authority.make())
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
async def node(tmp_path: Path, controller: ScriptedController) -> AsyncIterator[Node]:
    one = Node(tmp_path, controller)
    yield one
    if one.process is not None and one.process.returncode is None:
        await one.kill()
    for pid, _ in one.processes():  # replicas and zygotes outlive the daemon; tests end them
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
