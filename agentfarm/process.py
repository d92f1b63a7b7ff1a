"""Processes of the machine: started so that they outlive us, identified, awaited, ended for sure.

Another process can get a pid; it cannot get a pid with its start time, or a pidfd. A process that ends with its group
takes along what it started itself. Linux; standard library only, without psutil, which costs the node daemon too much.

Not here: what farmctl runs for a user, which has no event loop (farmctl/dev/nodes.py, farmctl/dev/market/questdb.py,
farmctl/display/market_answers.py); PostgreSQL (controller/postgres/cluster.py), which is ended by three signals and may
run as another user; and replicas (nodeagent/replicas/process.py), which are children of their zygote and report their
exit through it.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import IO, Final, Self

STARTED_FIELD: Final = 19
"""Of /proc/PID/stat, counted from the state behind the name: ticks from the machine's boot to the process's start."""
_IMPORTED_AT: Final = time.monotonic()


def start_ticks(pid: int) -> int:
    """When a process started, in clock ticks since boot: with the pid it names one process. 0: there is none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return 0
    return int(stat[stat.rindex(b")") + 2 :].split()[STARTED_FIELD])


def age_s() -> float:
    """Seconds since this process began, to a hundredth; where the kernel does not tell, since this module came in.

    A fork begins when it is forked. An `exec` begins nothing: it is the same process.
    """
    try:
        ticks = start_ticks(os.getpid())
        started_s = ticks / os.sysconf("SC_CLK_TCK")
        return max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - started_s) if ticks else _since_import_s()
    except (OSError, ValueError, IndexError, AttributeError):
        return _since_import_s()


def _since_import_s() -> float:
    return time.monotonic() - _IMPORTED_AT


def signal_name(number: int) -> str:
    """SIGKILL, say; "signal 99" for what has no name."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def spawn(command: Sequence[str], log: Path, environment: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
    """Start a program in a session of its own: a Ctrl-C meant for us does not reach it.

    What it writes is appended to `log`. environment: the whole of it; None: ours. Raises OSError.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True, env=environment
        )


def kill_group(leader: int) -> None:
    """SIGKILL to what is left of the group of a process that leads one."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal.SIGKILL)


@asynccontextmanager
async def read_program(
    command: Sequence[str], *, errors: int | IO[bytes], patience_s: float = 0.0, cwd: Path | None = None
) -> AsyncIterator[tuple[asyncio.subprocess.Process, asyncio.StreamReader]]:
    """A program in a session of its own, and its output, which the caller reads. At the end of the block it is over.

    One that still runs then is ended with its group: by SIGTERM, and by SIGKILL where `patience_s` does not suffice;
    without patience by SIGKILL alone. Raises OSError.
    """
    process = await asyncio.create_subprocess_exec(
        *command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, start_new_session=True, cwd=cwd
    )
    assert process.stdout is not None  # it is a pipe
    try:
        yield process, process.stdout
    finally:
        if process.returncode is None:
            await _end_group(process, patience_s)


async def _end_group(process: asyncio.subprocess.Process, patience_s: float) -> None:
    if patience_s:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        with suppress(TimeoutError):
            async with asyncio.timeout(patience_s):
                await process.wait()
            return
    kill_group(process.pid)
    await process.wait()


class Child:
    """A program kept by this process, which outlives it: started, or found again. On the event loop.

    Not asyncio's own kind, which kills it when we go.
    """

    def __init__(self, pid: int, popen: subprocess.Popen[bytes] | None = None) -> None:
        """Watch a process. Raises ProcessLookupError when there is none."""
        loop = asyncio.get_running_loop()
        self.pid = pid
        self.exited: asyncio.Future[int | None] = loop.create_future()
        """Its exit code; None when it is not our child, because only a parent learns the code."""
        self._popen = popen
        self._pidfd = os.pidfd_open(pid)
        loop.add_reader(self._pidfd, self._gone)

    @classmethod
    def start(cls, command: Sequence[str], log: Path, environment: Mapping[str, str] | None = None) -> Self:
        """As `spawn`."""
        popen = spawn(command, log, environment)
        return cls(popen.pid, popen)

    @classmethod
    def find(cls, pid: int, mark: str) -> Self | None:
        """The process of that pid, if its command line bears the mark."""
        try:
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
            return cls(pid) if mark.encode() in command else None
        except OSError:
            return None

    async def gone(self) -> None:
        """Return when it has ended."""
        await asyncio.wait((self.exited,))

    async def end(self, within_s: float) -> bool:
        """SIGTERM; after `within_s` SIGKILL, to its whole group. True when it went by itself."""
        self.signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(within_s):
                await self.gone()
            return True
        except TimeoutError:
            kill_group(self.pid)
            self.signal(signal.SIGKILL)
            await self.gone()
            return False

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
