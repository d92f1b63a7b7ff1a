"""What a replica holds: attempts in hand, and results that the daemon does not keep yet.

An attempt leaves only when the daemon says KEPT: its result is on the node's disk or acknowledged by the controller.
Until then every daemon that connects gets it again, so a daemon that dies with results in its memory loses nothing.
Used by the event loop and the control thread; each method holds the lock.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from threading import Lock

from nodeagent.replica.frames import Result, Run, pack_result


class Ledger:
    """Attempts by fencing token."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._held: dict[int, int] = {}
        self._started: set[int] = set()
        self._ended: dict[int, bytes] = {}

    def take(self, runs: Sequence[Run]) -> list[Run]:
        """Take attempts in hand; those that are here already, run or ended, are left out."""
        with self._lock:
            fresh = [run for run in runs if run.token not in self._held and run.token not in self._ended]
            for run in fresh:
                self._held[run.token] = run.task_id
        return fresh

    def start(self, token: int) -> None:
        """The agent works on it now."""
        with self._lock:
            self._started.add(token)

    def end(self, result: Result) -> bytes:
        """The attempt ended. Returns the result packed for a RESULTS frame."""
        packed = pack_result(result)
        token = result.token
        with self._lock:
            self._held.pop(token, None)
            self._started.discard(token)
            self._ended[token] = packed
        return packed

    def forget(self, tokens: Iterable[int]) -> None:
        """The daemon keeps these results from now on."""
        with self._lock:
            for token in tokens:
                self._ended.pop(token, None)

    def snapshot(self) -> tuple[list[tuple[int, int, bool]], list[bytes]]:
        """(token, task, is started) of every attempt in hand, and every packed result not kept."""
        with self._lock:
            held = [(token, task, token in self._started) for token, task in self._held.items()]
            return held, list(self._ended.values())

    @property
    def running(self) -> tuple[int, ...]:
        """Tokens being worked on."""
        with self._lock:
            return tuple(self._started)

    @property
    def counts(self) -> tuple[int, int]:
        """Attempts running, attempts waiting."""
        running = len(self._started)
        return running, max(0, len(self._held) - running)
