"""Ends exclusive replicas that are at work after their lease, when nothing else does.

The daemon stops them when the lease is over, and they stop by themselves. But a daemon can be dead or stopped, and an
interpreter can be held by what the agent runs, so that its replica does not look. A zygote is another process, has
little to do, and outlives the daemon; it knows its replicas and hears of the lease as they do.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Final

from nodeagent.runner.protocol.launch import SLOTS_NAME, Launch
from nodeagent.runner.protocol.slots import read_slots

GUARD_AFTER_S: Final = 1.0
"""After the end of the lease: later than the replica's own look, and before the controller gives its work to others."""
LOOK_EVERY_S: Final = 0.25


class LeaseGuard:
    """`replicas`: living ones by pid, read here."""

    def __init__(self, replicas: Mapping[int, Launch]) -> None:
        self._replicas = replicas
        self._until_s: float | None = None

    @property
    def look_every_s(self) -> float | None:
        """How often to look; None while there is nothing to guard."""
        if self._until_s is None or not any(launch.is_exclusive for launch in self._replicas.values()):
            return None
        return LOOK_EVERY_S

    def renew(self, until_s: float) -> None:
        """The lease holds until then, on the machine's monotonic clock. Before the first word no replica is ended."""
        self._until_s = max(until_s, self._until_s or 0.0)

    def overdue(self, now: float) -> list[tuple[int, Launch]]:
        """The exclusive replicas that must not be at work now, with their pids."""
        if self._until_s is None or now < self._until_s + GUARD_AFTER_S:
            return []
        return [(pid, launch) for pid, launch in self._replicas.items() if launch.is_exclusive]

    def look(self) -> None:
        """End what works without a lease, with everything in its session."""
        for pid, launch in self.overdue(time.monotonic()):
            if read_slots(launch.home / SLOTS_NAME):
                print(f"agentfarm: replica {launch.replica_id} works after the end of its lease", file=sys.stderr)
                with suppress(ProcessLookupError, PermissionError):
                    os.killpg(pid, signal.SIGKILL)
