"""One operating-system process: start it, find it again, wait for its end, end it.

A server is known by its command line (the class and the root folder), not by a file with a number in it: that
identity survives a supervisor killed between starting the server and writing anything down.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import psutil

POLL_S: Final = 0.2
MAIN_CLASS: Final = "io.questdb/io.questdb.ServerMain"


class ServerProcess:
    """A running server, started by us or found."""

    def __init__(self, process: psutil.Process, child: subprocess.Popen[bytes] | None = None) -> None:
        self._process = process
        self._child = child
        self.pid = process.pid

    @classmethod
    def spawn(cls, command: Sequence[str], environment: Mapping[str, str], log: Path) -> ServerProcess:
        """Start it in a session of its own, so that a Ctrl-C meant for us does not reach it; output is appended to
        `log`."""
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as output:
            child = subprocess.Popen(
                command,
                env={**os.environ, **environment},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return cls(psutil.Process(child.pid), child)

    @property
    def exit_code(self) -> int | None:
        """The exit status once gone; None while running, or when it was no child of ours."""
        return self._child.poll() if self._child else None

    @property
    def is_running(self) -> bool:
        """Whether this very process (not another with its number) is alive."""
        if self._child is not None:
            return self._child.poll() is None
        return self._process.is_running() and self._process.status() != psutil.STATUS_ZOMBIE

    def rss_bytes(self) -> int:
        """Resident memory; 0 once gone."""
        with suppress(psutil.Error):
            return int(self._process.memory_info().rss)
        return 0

    def cpu_s(self) -> float:
        """Processor time used so far; 0 once gone."""
        with suppress(psutil.Error):
            times = self._process.cpu_times()
            return float(times.user + times.system)
        return 0.0

    async def gone(self) -> None:
        """Return when the process has ended."""
        if hasattr(os, "pidfd_open"):
            with suppress(ProcessLookupError):
                await _pidfd_readable(os.pidfd_open(self.pid))
        while self.is_running:  # noqa: ASYNC110 - also reaps a child; loops only where there are no pidfds
            await asyncio.sleep(POLL_S)

    def send(self, number: signal.Signals) -> None:
        """Send a signal; nothing happens to a process that has gone."""
        with suppress(psutil.Error, ProcessLookupError):
            if self.is_running:
                self._process.send_signal(number)

    async def end(self, within_s: float) -> bool:
        """SIGTERM, then SIGKILL after `within_s`. True when it went by itself."""
        self.send(signal.SIGTERM)
        try:
            async with asyncio.timeout(within_s):
                await self.gone()
            return True
        except TimeoutError:
            self.send(signal.SIGKILL)
            await self.gone()
            return False


async def _pidfd_readable(descriptor: int) -> None:
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[None] = loop.create_future()
    loop.add_reader(descriptor, _settle, ended)
    try:
        await ended
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)


def _settle(ended: asyncio.Future[None]) -> None:
    if not ended.done():
        ended.set_result(None)


def find_servers(root: Path) -> list[ServerProcess]:
    """Every QuestDB of this user that runs on `root`."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            words = process.cmdline()
            if MAIN_CLASS in words and str(root) in words and process.status() != psutil.STATUS_ZOMBIE:
                found.append(ServerProcess(process))
    return found


def rotate_log(log: Path, max_bytes: int, files: int) -> bool:
    """Copy a grown log to `log.1` … and empty it. The server goes on writing to the same file, opened for appending, so
    lines written between copy and cut may be lost: the price of not restarting it."""
    if not log.exists() or log.stat().st_size <= max_bytes:
        return False
    for number in range(files - 1, 0, -1):
        older = log.with_name(f"{log.name}.{number}")
        if older.exists():
            older.replace(log.with_name(f"{log.name}.{number + 1}"))
    shutil.copyfile(log, log.with_name(f"{log.name}.1"))
    os.truncate(log, 0)
    log.with_name(f"{log.name}.{files + 1}").unlink(missing_ok=True)
    return True


def log_tail(log: Path, max_bytes: int = 4096) -> str:
    """The end of a log, for an error message."""
    if not log.exists():
        return ""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - max_bytes))
        return file.read().decode(errors="replace")
