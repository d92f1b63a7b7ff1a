"""The node's certificate, renewed at half of its life, over the link, while the old one is still good.

Keys and certificates are handled by a program of their own (`python -m nodeagent.link.renewal`): the library for it
would cost the daemon a quarter of its memory, for a second's work every two weeks.
"""

from __future__ import annotations

import asyncio
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

from agentfarm.backoff import backoff_s
from agentfarm.errors import FarmError
from agentfarm.identity import Identity
from nodeagent.core.problems import LinkAway
from nodeagent.link.calls import Calls
from nodeagent.machine.logging import log
from nodeagent.machine.programs import OUR_PYTHON, RuntimeFolder, run_program

LOOK_EVERY_S: Final = 3_600.0
RETRY_S: Final = 60.0
PROGRAM_TIMEOUT_S: Final = 30.0
WARN_DAYS_LEFT: Final = 5.0


class Renewal:
    """Holds the identity in use."""

    def __init__(self, folder: Path, identity: Identity, calls: Calls, runtime: RuntimeFolder) -> None:
        self.identity = identity
        self._folder = folder
        self._calls = calls
        self._runtime = runtime

    async def run(self) -> None:
        """Look now and then, until cancelled. The next stream uses what was renewed."""
        while True:
            wait_s = LOOK_EVERY_S
            if self.identity.is_due_for_renewal(time.time()):
                try:
                    await self._renew()
                except (LinkAway, FarmError, OSError) as problem:
                    wait_s = RETRY_S
                    self._complain(problem)
            await asyncio.sleep(backoff_s(1, wait_s, wait_s, random.random()))  # noqa: S311 - nodes come apart

    async def _renew(self) -> None:
        csr_pem = await self._program("csr", str(self._folder))
        certificate_pem = await self._calls.renew_certificate(csr_pem.encode())
        with tempfile.NamedTemporaryFile(dir=self._folder, suffix=".pem") as file:
            file.write(certificate_pem)
            file.flush()
            await self._program("install", str(self._folder), file.name)
        self.identity = Identity.load(self._folder)
        log.info("certificate.renewed", days_left=round(self.identity.days_left(time.time()), 1))

    async def _program(self, *arguments: str) -> str:
        command = self._runtime.command(OUR_PYTHON, "nodeagent.link.renewal", *arguments)
        ended = await run_program(command, timeout_s=PROGRAM_TIMEOUT_S)
        if ended.code != 0:
            raise FarmError(f"The certificate could not be renewed: {ended.output[-500:]}")
        return ended.output

    def _complain(self, problem: Exception) -> None:
        days_left = self.identity.days_left(time.time())
        level = "error" if days_left < WARN_DAYS_LEFT else "warning"
        log.tell(level, "certificate.not_renewed", {"problem": str(problem), "days_left": round(days_left, 1)})


def main(arguments: list[str]) -> int:
    """`csr FOLDER`: print a request. `install FOLDER FILE`: put a renewed certificate in its place."""
    identity = Identity.load(Path(arguments[1]))
    if arguments[0] == "csr":
        print(identity.csr().decode())
    else:
        identity.renewed(Path(arguments[2]).read_bytes()).save(Path(arguments[1]))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
