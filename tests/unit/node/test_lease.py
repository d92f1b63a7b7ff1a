"""Until when a node may trust its leases."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

from nodeagent.core.lease import Lease


class Clock:
    """As much of an event loop as a lease needs, with a time that the test moves."""

    def __init__(self) -> None:
        self.now = 100.0
        self.timers: list[tuple[float, Any]] = []

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, callback: Any) -> Any:
        self.timers.append((when, callback))
        return SimpleNamespace(cancel=lambda: None)

    def advance(self, to: float) -> None:
        while due := sorted(entry for entry in self.timers if entry[0] <= to):
            self.timers.remove(due[0])
            self.now = due[0][0]
            due[0][1]()
        self.now = to


def test_a_lease_holds_from_before_the_beat_that_was_answered() -> None:
    clock, ends = Clock(), []
    lease = Lease(clock, lambda: ends.append(clock.now))  # type: ignore[arg-type]
    lease.stop_after_s = 6.0
    lease.proven(100.0)
    clock.advance(103.0)
    lease.proven(101.0)  # sent at 101, answered at 103
    clock.advance(106.9)
    assert not ends
    assert not lease.is_over
    clock.advance(120.0)
    assert ends == [107.0]
    assert lease.is_over


def test_it_is_over_once_and_again_after_it_was_proven_anew() -> None:
    clock, ends = Clock(), []
    lease = Lease(clock, lambda: ends.append(clock.now))  # type: ignore[arg-type]
    lease.proven(100.0)
    clock.advance(200.0)
    lease.proven(200.0)
    lease.proven(150.0)  # an old answer proves nothing new
    clock.advance(300.0)
    assert ends == [106.0, 206.0]


def test_a_daemon_that_has_just_started_holds_no_lease() -> None:
    lease = Lease(Clock(), lambda: None)  # type: ignore[arg-type]
    assert lease.is_over
    assert lease.until_s == 0.0


def test_the_end_of_the_lease_is_told_on_the_machines_clock() -> None:
    clock = Clock()
    lease = Lease(clock, lambda: None)  # type: ignore[arg-type]
    lease.stop_after_s = 6.0
    lease.proven(99.0)
    before_s = time.monotonic()
    until_s = lease.until_s
    assert before_s + 5.0 <= until_s <= time.monotonic() + 5.0
    clock.advance(105.0)
    assert lease.until_s == 0.0
