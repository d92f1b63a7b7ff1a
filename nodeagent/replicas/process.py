"""One replica process, as the daemon sees it: found by pid and socket, heard, spoken to, ended with all it started.

The daemon is not its parent. It watches the process through a pidfd (a pid can be given to another process; a pidfd
cannot) and learns the exit status from the zygote, by news or from the file it leaves.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from agentfarm.process import signal_name
from nodeagent.machine.logging import log
from nodeagent.runner.protocol.frames import FrameReader
from nodeagent.runner.protocol.launch import EXIT_NAME, PROCESS_NAME, SOCKET_NAME, start_ticks
from nodeagent.runner.protocol.unix_sockets import connect

CONNECT_POLL_S: Final = 0.003
EXIT_WORD_S: Final = 0.5
"""How long to wait for the zygote's word on a process that is gone."""

OnFrame = Callable[[int, bytes], None]


@dataclass(frozen=True, slots=True)
class Exit:
    """How a process ended. status: as of waitpid, None when that is not known. was_ours: we killed it."""

    status: int | None
    was_ours: bool

    @property
    def words(self) -> str:
        """For people."""
        if self.status is None:
            return "it ended, and its zygote was not there to see how"
        if os.WIFSIGNALED(self.status):
            return f"it was killed by {signal_name(os.WTERMSIG(self.status))}"
        return f"it exited with code {os.waitstatus_to_exitcode(self.status)}"

    @property
    def is_kill(self) -> bool:
        """Ended by SIGKILL: by an operator, or by the kernel for want of memory."""
        return self.status is not None and os.WIFSIGNALED(self.status) and os.WTERMSIG(self.status) == signal.SIGKILL


class ReplicaProcess(asyncio.Protocol):
    """Made by `attach`."""

    def __init__(self, folder: Path, pid: int, on_frame: OnFrame) -> None:
        loop = asyncio.get_running_loop()
        self.pid = pid
        self.exited: asyncio.Future[Exit] = loop.create_future()
        self._folder = folder
        self._on_frame = on_frame
        self._reader = FrameReader()
        self._transport: asyncio.Transport | None = None
        self._was_ours = False
        self._word: asyncio.Future[int] = loop.create_future()
        self._pidfd = -1
        self._settling: asyncio.TimerHandle | None = None

    @classmethod
    def attach(cls, folder: Path, pid: int, ticks: int, on_frame: OnFrame) -> ReplicaProcess:
        """Watch this process. Raises ProcessLookupError when it is gone already, or the pid is another's by now."""
        process = cls(folder, pid, on_frame)
        process._pidfd = os.pidfd_open(pid)
        if start_ticks(pid) != ticks:
            os.close(process._pidfd)
            raise ProcessLookupError(pid)
        asyncio.get_running_loop().add_reader(process._pidfd, process._gone)
        return process

    async def connect(self) -> bool:
        """Reach its socket, which it opens early in its life. False when it died before it did."""
        loop = asyncio.get_running_loop()
        while not self.exited.done() and self._settling is None:
            try:
                sock = connect(self._folder / SOCKET_NAME)
            except OSError:
                await asyncio.sleep(CONNECT_POLL_S)
                continue
            await loop.create_unix_connection(lambda: self, sock=sock)
            return True
        return False

    def send(self, data: bytes) -> None:
        """Send frames. Those to a process that is gone go nowhere: its exit settles everything."""
        if self._transport is not None:
            self._transport.write(data)

    def kill(self) -> None:
        """End it and everything in its session, now. `exited` says when it has happened."""
        self._was_ours = True
        self._signal_group(signal.SIGKILL)

    def take_exit(self, pid: int, status: int) -> None:
        """The zygote's news of an exit."""
        if pid == self.pid and not self._word.done():
            self._word.set_result(status)

    def detach(self) -> None:
        """Let go of it; it lives on."""
        if self._pidfd >= 0:
            asyncio.get_running_loop().remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = -1
        if self._transport is not None:
            self._transport.close()
            self._transport = None

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        try:
            for kind, body in self._reader.feed(data):
                self._on_frame(kind, body)
        except Exception as problem:  # ProtocolError, or what the reading of a damaged body raises
            log.error("replica.frame_not_read", pid=self.pid, problem=repr(problem))
            self.kill()  # what speaks like this cannot be trusted with work

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None

    # the end

    def _gone(self) -> None:
        asyncio.get_running_loop().remove_reader(self._pidfd)
        self._signal_group(signal.SIGKILL)  # children that it left in its session
        self._settling = asyncio.get_running_loop().call_later(EXIT_WORD_S, self._end)
        self._word.add_done_callback(lambda _: self._end())

    def _end(self) -> None:
        """The zygote has said how it exited, or says nothing."""
        if self._settling is not None:
            self._settling.cancel()
        status = self._word.result() if self._word.done() else read_exit(self._folder, self.pid)
        self.detach()
        if not self.exited.done():
            self.exited.set_result(Exit(status, self._was_ours))

    def _signal_group(self, number: int) -> None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)
        if self._pidfd >= 0:
            with suppress(ProcessLookupError):  # it may not have become the leader of its session yet
                signal.pidfd_send_signal(self._pidfd, number)


def living_process(folder: Path, on_frame: OnFrame) -> ReplicaProcess | None:
    """The process of a replica's folder, if an earlier daemon started one that still lives."""
    identity = read_identity(folder)
    if identity is None:
        return None
    try:
        return ReplicaProcess.attach(folder, *identity, on_frame)
    except ProcessLookupError:
        return None


def read_identity(folder: Path) -> tuple[int, int] | None:
    """Pid and start ticks of the process that last lived in a replica's folder."""
    try:
        data = json.loads((folder / PROCESS_NAME).read_text())
        return int(data["pid"]), int(data["start_ticks"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def read_exit(folder: Path, pid: int) -> int | None:
    """The wait status that the zygote left for this pid."""
    try:
        data = json.loads((folder / EXIT_NAME).read_text())
        return int(data["status"]) if data["pid"] == pid else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
