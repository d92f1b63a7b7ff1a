"""Until when a node may trust its leases."""

from __future__ import annotations

import asyncio
import time

from nodeagent.core.lease import Lease
from tests.unit.node.clock import Clock


def test_a_lease_holds_from_before_the_beat_that_was_answered() -> None:
    clock, ends = Clock(), []
    lease = Lease(clock, lambda: ends.append(clock.now))
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


def test_it_is_over_once_and_again_after_it_was_proven_again() -> None:
    clock, ends = Clock(), []
    lease = Lease(clock, lambda: ends.append(clock.now))
    lease.proven(100.0)
    clock.advance(200.0)
    lease.proven(200.0)
    lease.proven(150.0)  # an old answer proves nothing new
    clock.advance(300.0)
    assert ends == [106.0, 206.0]


def test_a_shorter_lease_counts_from_its_welcome_on() -> None:
    clock, ends = Clock(), []
    lease = Lease(clock, lambda: ends.append(clock.now))
    lease.granted(100.0, 6.0)
    lease.granted(101.0, 2.0)
    clock.advance(200.0)
    assert ends == [103.0]


def test_a_daemon_that_has_just_started_holds_no_lease() -> None:
    lease = Lease(Clock(), lambda: None)
    assert lease.is_over
    assert lease.until_s == 0.0


def test_the_end_of_the_lease_is_told_on_the_machines_clock() -> None:
    clock = Clock()
    lease = Lease(clock, lambda: None)
    lease.stop_after_s = 6.0
    lease.proven(99.0)
    assert lease.until_s == 105.0
    clock.advance(105.0)
    assert lease.until_s == 0.0


async def test_the_clock_of_the_event_loop_is_the_machines_monotonic_clock() -> None:
    """Replicas and zygotes compare the end of the lease with it."""
    before_s = time.monotonic()
    assert before_s <= asyncio.get_running_loop().time() <= time.monotonic()
