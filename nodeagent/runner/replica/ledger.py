"""What a replica holds: attempts in hand, and results that the daemon does not keep yet.

An attempt leaves only when the daemon says KEPT: its result is on the node's disk or acknowledged by the controller.
Until then every daemon that connects gets it again, so a daemon that dies with results in its memory loses nothing.
Used by the event loop and the control thread; each method holds the lock.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from threading import Lock

from nodeagent.runner.protocol.frames import GIVEN_BACK, Outcome, Result, Run, pack_result


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

    def start(self, token: int) -> bool:
        """The agent may work on it now; not on one that was given back meanwhile."""
        with self._lock:
            if token not in self._held:
                return False
            self._started.add(token)
        return True

    def give_back(self, tokens: Iterable[int]) -> list[bytes]:
        """Let go of those that no agent works on; they never begin. Returns their results, packed; the others go on."""
        with self._lock:
            waiting = [token for token in tokens if token in self._held and token not in self._started]
            given = [_given_back(self._held.pop(token), token) for token in waiting]
            self._ended.update(zip(waiting, given, strict=True))
        return given

    def end(self, result: Result) -> bytes | None:
        """The attempt ended. Returns the result packed for a RESULTS frame; None: it was given back before."""
        packed = pack_result(result)
        token = result.token
        with self._lock:
            if self._held.pop(token, None) is None:
                return None
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
    def tokens(self) -> tuple[int, ...]:
        """Tokens of every attempt in hand."""
        with self._lock:
            return tuple(self._held)

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


def _given_back(task_id: int, token: int) -> bytes:
    why = "It waited behind another attempt for long; it was not begun."
    return pack_result(Result(task_id, token, Outcome.INTERRUPTED, 0, b"", GIVEN_BACK, why))
