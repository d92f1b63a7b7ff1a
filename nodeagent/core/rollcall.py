"""What a new daemon waits for before its Hello: each replica that lives says what it has in hand. Pure.

What a Hello does not name is given to others at once. So nothing may go on that must not overlap with that: an
exclusive replica that does not answer in time, and a process that belongs to no known replica, are ended and seen to
be gone before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from nodeagent.core.clock import Clock, Timer
from nodeagent.core.seat import Process, Seat

ANSWER_TIMEOUT_S: Final = 3.0
"""How long a new daemon waits for replicas that live to say what they run."""
KILL_TIMEOUT_S: Final = 5.0
"""A killed process that is not gone after this hangs in the kernel, and will not run the agent's code again."""


def may_go_on_unheard(seat: Seat) -> bool:
    """Whether a replica that says nothing may live on beside a Hello that does not name its attempts."""
    return not seat.spec.exclusive


class Rollcall:
    """Used once, at the daemon's start. `done` is called when the Hello may leave."""

    def __init__(self, clock: Clock, done: Callable[[], object]) -> None:
        self.silent: dict[int, Seat] = {}
        """Replicas that have not answered, by id."""
        self.hanging: set[int] = set()
        """Processes that were killed and are not gone, by pid."""
        self._clock = clock
        self._done = done
        self._timer: Timer | None = None
        self._is_late = self._is_over = False

    def begin(self, seats: Iterable[Seat], strangers: Iterable[Process]) -> None:
        """Wait for these replicas, and end these processes that belong to no seat."""
        self.silent = {seat.id: seat for seat in seats}
        for process in strangers:
            self._kill(process)
        self._timer = self._clock.call_at(self._clock.time() + ANSWER_TIMEOUT_S, self._late)
        self._look()

    def answered(self, replica_id: int) -> None:
        """A replica said what it has in hand."""
        if not self._is_over and self.silent.pop(replica_id, None) is not None:
            self._look()

    def gone(self, replica_id: int, pid: int) -> None:
        """A process has ended. replica_id: 0 for one that belongs to no seat."""
        if not self._is_over:
            self.silent.pop(replica_id, None)
            self.hanging.discard(pid)
            self._look()

    def _late(self) -> None:
        """Those that are silent had their time."""
        self._is_late = True
        for replica_id, seat in list(self.silent.items()):
            if not may_go_on_unheard(seat) and seat.process is not None:
                del self.silent[replica_id]
                self.hanging.add(seat.process.pid)
                seat.kill("it is exclusive, and did not say what it has in hand")
        if self.hanging:
            self._timer = self._clock.call_at(self._clock.time() + KILL_TIMEOUT_S, self._end)
        else:
            self._end()

    def _kill(self, process: Process) -> None:
        self.hanging.add(process.pid)
        process.kill()

    def _look(self) -> None:
        if not self.hanging and (self._is_late or not self.silent):
            self._end()

    def _end(self) -> None:
        if self._is_over:
            return
        self._is_over = True
        if self._timer is not None:
            self._timer.cancel()
        self._done()
