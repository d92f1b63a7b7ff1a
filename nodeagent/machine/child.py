"""A program that the daemon keeps and that outlives it: started, or found again, watched through a pidfd, ended."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

from nodeagent.runner.replica.output_log import rotate

LOG_BYTES_MAX = 8 * 2**20


class Child:
    """One process. Not asyncio's own kind, which would kill it when the daemon goes."""

    def __init__(self, pid: int, popen: subprocess.Popen[bytes] | None) -> None:
        loop = asyncio.get_running_loop()
        self.pid = pid
        self.exited: asyncio.Future[int | None] = loop.create_future()
        """Its exit code; None when it was not our child and nobody can tell."""
        self._popen = popen
        self._pidfd = os.pidfd_open(pid)
        loop.add_reader(self._pidfd, self._gone)

    @classmethod
    def start(cls, command: list[str], log: Path, environment: dict[str, str] | None = None) -> Child:
        """Start it in a session of its own, with what it writes in a file. Raises OSError."""
        log.parent.mkdir(parents=True, exist_ok=True)
        if log.exists() and log.stat().st_size > LOG_BYTES_MAX:
            rotate(log)
        with log.open("ab") as output:
            popen = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True,
                env=None if environment is None else {**os.environ, **environment},
            )  # fmt: skip
        return cls(popen.pid, popen)

    @classmethod
    def find(cls, pid: int, mark: str) -> Child | None:
        """The process of that pid, if its command line bears the mark."""
        try:
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
            return cls(pid, None) if mark.encode() in command else None
        except OSError:
            return None

    async def end(self, within_s: float) -> None:
        """Ask it to end; make it, after that long."""
        self.signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(asyncio.shield(self.exited), within_s)
        except TimeoutError:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)
            self.signal(signal.SIGKILL)
            await asyncio.shield(self.exited)

    def signal(self, number: int) -> None:
        """Send a signal, to this process and no other that may have its pid by now."""
        if self._pidfd >= 0:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, number)

    def detach(self) -> None:
        """Let it live on without us."""
        if self._pidfd >= 0:
            asyncio.get_running_loop().remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = -1

    def _gone(self) -> None:
        self.detach()
        code = self._popen.wait() if self._popen is not None else None
        if not self.exited.done():
            self.exited.set_result(code)
