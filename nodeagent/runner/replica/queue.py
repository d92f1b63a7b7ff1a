"""Attempts that wait in a replica, and which of them begins next. Pure; used on the event loop alone."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable

from nodeagent.runner.protocol.frames import Outcome, Result, Run
from nodeagent.runner.replica.lease import ReplicaLease
from nodeagent.runner.replica.ledger import Ledger


class Queue:
    """`end` is called with the result of each attempt that ends without having begun."""

    def __init__(
        self,
        ledger: Ledger,
        lease: ReplicaLease,
        concurrency: int,
        clock: Callable[[], float],
        end: Callable[[Result], None],
    ) -> None:
        self.is_stopped = False
        self._ledger = ledger
        self._lease = lease if lease.is_needed else None
        self._concurrency = concurrency
        self._clock = clock
        self._end = end
        self.waiting: deque[Run] = deque()
        """Read by the runtime."""

    def take(self, runs: Iterable[Run]) -> None:
        """Attempts that the ledger has taken in hand. After `stop` they end at once."""
        if self.is_stopped:
            for run in runs:
                self._end(Result(run.task_id, run.token, Outcome.INTERRUPTED, 0))
        else:
            self.waiting.extend(runs)

    def begin(self, running: int) -> Run | None:
        """The attempt to begin now, while `running` others run; None: no more may.

        One whose lease is over is interrupted instead, and one that was given back is left out.
        """
        waiting, lease = self.waiting, self._lease
        while waiting and running < self._concurrency:
            run = waiting.popleft()
            if lease is not None and lease.is_over(self._clock()):
                self._end(Result(run.task_id, run.token, Outcome.INTERRUPTED, 0))
            elif self._ledger.start(run.token):
                return run
        return None

    def cancel(self, tokens: Iterable[int]) -> None:
        """Those of these that wait end now."""
        named = set(tokens)
        for run in [run for run in self.waiting if run.token in named]:
            self.waiting.remove(run)
            self._end(Result(run.task_id, run.token, Outcome.CANCELLED, 0))

    def stop(self) -> None:
        """Everything that waits is interrupted, and so is what comes later."""
        self.is_stopped = True
        waiting = list(self.waiting)
        self.waiting.clear()
        for run in waiting:
            self._end(Result(run.task_id, run.token, Outcome.INTERRUPTED, 0))
