"""Keeping programs running: what died is started again, after a wait that grows while it keeps dying young.

`next_start` decides; `Keeper` does. Stopping goes in the opposite order of starting.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from agentfarm.backoff import longest_s
from agentfarm.errors import Unavailable
from farmctl.dev.processes.process import POLL_S, Process, Program
from farmctl.dev.stop import StopWish

RESTART_FIRST_S: Final = 0.5
RESTART_MAX_S: Final = 15.0
HEALTHY_AFTER_S: Final = 20.0
"""A program that lived this long is started again at once."""
URGENT_STOP_S: Final = 2.0
"""What is left of a deadline after a second Ctrl-C."""


@dataclass(slots=True)
class Entry:
    """A program that should run."""

    program: Program
    process: Process
    quick_deaths: int = 0
    start_at_s: float | None = None
    """When to start it again; None while it runs."""
    restarts: int = 0


def next_start(died_at_s: float, lived_s: float, quick_deaths: int) -> tuple[float, int]:
    """When to start again something that died, and how many quick deaths in a row that makes.

    A program that lived for HEALTHY_AFTER_S does not wait. A death before that waits RESTART_FIRST_S; each further one
    doubles the wait, up to RESTART_MAX_S.
    """
    if lived_s >= HEALTHY_AFTER_S:
        return died_at_s, 0
    deaths = quick_deaths + 1
    wait_s = longest_s(deaths, RESTART_FIRST_S, RESTART_MAX_S)
    return died_at_s + wait_s, deaths


class Keeper:
    """The programs of one farm, by name, in the order of their start."""

    def __init__(self, say: Callable[[str], None], started: Callable[[], None] = lambda: None) -> None:
        self._say = say
        self._started = started
        self._entries: dict[str, Entry] = {}

    def start(self, program: Program, wish: StopWish) -> Process:
        """Start and wait until it serves. Raises Unavailable, Interrupted; the program is kept in either case."""
        process = self.launch(program)
        process.wait_until_ready(wish)
        return process

    def launch(self, program: Program) -> Process:
        """Start without waiting."""
        process = Process.start(program)
        self._entries[program.name] = Entry(program, process)
        self._started()
        return process

    def replace(self, program: Program) -> None:
        """Give a running program other settings for its next start."""
        self._entries[program.name].program = program

    @property
    def processes(self) -> list[Process]:
        """The latest run of each, in the order of their start."""
        return [entry.process for entry in self._entries.values()]

    @property
    def restarts(self) -> int:
        """How often something was started again."""
        return sum(entry.restarts for entry in self._entries.values())

    def look(self) -> None:
        """Notice deaths, report each with its last words, and start again what is due."""
        now = time.monotonic()
        for entry in self._entries.values():
            if entry.start_at_s is None and not entry.process.is_running:
                self._mourn(entry, now)
            if entry.start_at_s is not None and now >= entry.start_at_s:
                self._revive(entry, now)

    def stop(self, names: list[str], wish: StopWish) -> None:
        """End these together: SIGTERM, their deadline (shorter when urgent), then SIGKILL of what is left of each."""
        stopping = [self._entries.pop(name) for name in names if name in self._entries]
        for entry in stopping:
            entry.process.signal(signal.SIGTERM)
        began = time.monotonic()
        is_hurried = False
        for entry in stopping:
            deadline = began + entry.program.stop_within_s
            while entry.process.is_running and time.monotonic() < deadline:
                if wish.is_urgent and not is_hurried:
                    is_hurried = True
                    for other in stopping:  # a second SIGTERM means the same to a daemon as a second Ctrl-C to us
                        other.process.signal(signal.SIGTERM)
                if wish.is_urgent:
                    deadline = min(deadline, time.monotonic() + URGENT_STOP_S)
                wish.wait_for_more(POLL_S)
            if entry.process.is_running:
                self._say(f"{entry.process.name} did not stop in time and is killed.")
            entry.process.kill_group()

    @property
    def names(self) -> list[str]:
        return list(self._entries)

    def _mourn(self, entry: Entry, now: float) -> None:
        entry.start_at_s, entry.quick_deaths = next_start(now, now - entry.process.started_at_s, entry.quick_deaths)
        wait_s = entry.start_at_s - now
        again = f"in {wait_s:.1f} s" if wait_s > 0 else "at once"
        self._say(f"{entry.process.obituary()}\n  It is started again {again}.")

    def _revive(self, entry: Entry, now: float) -> None:
        try:
            entry.process = Process.start(entry.program)
        except Unavailable as problem:
            entry.start_at_s, entry.quick_deaths = next_start(now, 0.0, entry.quick_deaths)
            self._say(str(problem))
            return
        entry.start_at_s = None
        entry.restarts += 1
        self._started()
        self._say(f"{entry.process.name} runs again (process {entry.process.pid}).")
