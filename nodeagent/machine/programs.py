"""Running other programs. The daemon never forks: gRPC's threads would not survive it. It starts programs with
`posix_spawn`/`vfork` and `exec` (the standard library's way when there is no `preexec_fn`), which no thread can notice.

Python programs of ours see the farm's packages through the runtime folder: symbolic links to `agentfarm` and
`nodeagent`, and nothing else. So an agent's own environment gets our code without getting our dependencies.
"""

from __future__ import annotations

import asyncio
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import agentfarm
import nodeagent
from agentfarm.process import read_program

OUTPUT_BYTES_MAX: Final = 256 * 1024
_BOOT: Final = (
    "import runpy, sys; sys.path.insert(0, sys.argv.pop(1)); "
    "runpy.run_module(sys.argv.pop(1), run_name='__main__', alter_sys=True)"
)


@dataclass(frozen=True, slots=True)
class Ended:
    """How a program ended, and the end of what it wrote."""

    code: int
    output: str


class RuntimeFolder:
    """The folder on `sys.path` of every program of ours."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def prepare(self) -> None:
        """Make the links, or point them at this release after an upgrade."""
        self.path.mkdir(parents=True, exist_ok=True)
        for package in (agentfarm, nodeagent):
            assert package.__file__ is not None
            link, target = self.path / package.__name__, Path(package.__file__).parent
            if not link.is_symlink() or link.readlink() != target:
                staged = self.path / f".{package.__name__}.{os.getpid()}"
                staged.unlink(missing_ok=True)
                staged.symlink_to(target)
                staged.replace(link)

    def command(self, python: Path | str, module: str, *arguments: str) -> list[str]:
        """The command line that runs a module of ours with this interpreter, shielded from the user's settings."""
        return [str(python), "-I", "-c", _BOOT, str(self.path), module, *arguments]


OUR_PYTHON: Final = sys.executable


async def run_program(command: list[str], *, timeout_s: float, cwd: Path | None = None) -> Ended:
    """Run to the end, in a session of its own. One that takes too long is killed with what it started: code 124."""
    tail = bytearray()
    async with read_program(command, errors=asyncio.subprocess.STDOUT, cwd=cwd) as (process, output):
        try:
            async with asyncio.timeout(timeout_s):
                while chunk := await output.read(65_536):
                    tail += chunk
                    del tail[:-OUTPUT_BYTES_MAX]
                code = await process.wait()
        except TimeoutError:
            code = 124
    return Ended(code, tail.decode(errors="replace").strip())
