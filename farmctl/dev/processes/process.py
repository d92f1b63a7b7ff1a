"""One program as a process of ours: it runs in a session of its own, writes to a log, and ends for sure.

`keeper` decides when to start it again.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from agentfarm.errors import Unavailable
from agentfarm.process import kill_group, signal_name, spawn
from farmctl.dev.stop import StopWish

POLL_S: Final = 0.05
TAIL_BYTES: Final = 64 * 1024
TAIL_LINES: Final = 12
LOOPBACK_NAMES: Final = "127.0.0.1,localhost"


@dataclass(frozen=True, slots=True)
class Program:
    """What to run, and how to see that it serves."""

    name: str
    command: tuple[str, ...]
    log: Path
    is_ready: Callable[[Process], bool] = lambda _: True
    """Asked again and again while starting; must be quick."""
    ready_within_s: float = 60.0
    stop_within_s: float = 20.0
    environment: Mapping[str, str] = field(default_factory=dict)
    """Laid over ours."""


class Process:
    """One run of a program."""

    def __init__(self, program: Program, child: subprocess.Popen[bytes], log_start: int) -> None:
        self.program = program
        self.started_at_s = time.monotonic()
        self._child = child
        self._log_start = log_start

    @classmethod
    def start(cls, program: Program) -> Process:
        """Start it in its own session, so that a Ctrl-C in the terminal reaches only us. Raises Unavailable."""
        log_start = program.log.stat().st_size if program.log.exists() else 0
        try:
            child = spawn(program.command, program.log, environment(program.environment))
        except OSError as error:
            raise Unavailable(f"{program.name} cannot be started: {error}.") from error
        return cls(program, child, log_start)

    @property
    def name(self) -> str:
        return self.program.name

    @property
    def pid(self) -> int:
        return self._child.pid

    @property
    def is_running(self) -> bool:
        return self._child.poll() is None

    @property
    def exit_code(self) -> int | None:
        """Negative: the signal that ended it."""
        return self._child.poll()

    def wait_until_ready(self, wish: StopWish) -> None:
        """Return when it serves. Raises Unavailable with its last words, Interrupted when stopping is wished."""
        deadline = time.monotonic() + self.program.ready_within_s
        while not self.program.is_ready(self):
            if not self.is_running:
                raise Unavailable(self.obituary(), remedy=f"Its whole output is in {self.program.log}.")
            if time.monotonic() > deadline:
                raise Unavailable(
                    f"{self.name} was not ready within {self.program.ready_within_s:.0f} s.\n{self.tail()}",
                    remedy=f"Its whole output is in {self.program.log}.",
                )
            wish.pause(POLL_S)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the program alone; nothing when it has ended."""
        if self.is_running:
            self._child.send_signal(number)

    def kill_group(self) -> None:
        """SIGKILL to whatever is left of its process group, and reap it."""
        kill_group(self.pid)
        self._child.wait()

    def output(self) -> str:
        """What this run wrote, at most the last TAIL_BYTES."""
        try:
            with self.program.log.open("rb") as log:
                end = log.seek(0, os.SEEK_END)
                log.seek(max(self._log_start, end - TAIL_BYTES))
                return log.read().decode(errors="replace")
        except OSError:
            return ""

    def tail(self) -> str:
        """Its last lines, indented, for people."""
        lines = self.output().splitlines()[-TAIL_LINES:]
        return "\n".join(f"  {self.name}: {line}" for line in lines) or f"  {self.name} said nothing."

    def obituary(self) -> str:
        """How it ended, in words."""
        code = self.exit_code
        if code is None:
            return f"{self.name} runs."
        how = f"was killed by {signal_name(-code)}" if code < 0 else f"ended with status {code}"
        return f"{self.name} {how}.\n{self.tail()}"


def environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of our programs: our own, unbuffered output, and no proxy on this machine."""
    beside = {name: os.environ.get(name, "") for name in ("NO_PROXY", "no_proxy")}
    direct = {name: ",".join(filter(None, (hosts, LOOPBACK_NAMES))) for name, hosts in beside.items()}
    return {**os.environ, "PYTHONUNBUFFERED": "1", **direct, **(more or {})}
