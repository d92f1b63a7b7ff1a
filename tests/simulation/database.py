"""Simulated PostgreSQL: tables that survive, and everything that may happen to a commit on its way.

A commit is applied or not at one moment; its answer may come, come late, or be lost; the caller may be dead by then.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from agentfarm.errors import FarmError, Unavailable
from controller.core.transition import Changes
from controller.journal.errors import DataRefused
from controller.journal.memory import MemoryJournal, Tables
from tests.simulation.world import World

AWAY = "The database is away."


class Database:
    """The tables, the leader's lock, and the faults in force."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.tables = Tables(keeps_events=False)
        self._random = world.chance("database")
        self._blame = world.chance("blame")
        self._holder: object | None = None
        self._down = 0
        self._slow = 0
        self._next_commit: list[str] = []
        self.applied: Callable[[Changes, int], None] = lambda changes, epoch: None  # told of every commit

    # -------------------------------------------------------------- the lock

    def try_lock(self, who: object) -> bool:
        """The leader's advisory lock. Raises Unavailable when the database is away."""
        self.check()
        if self._holder is None or self._holder is who:
            self._holder = who
            return True
        return False

    def unlock(self, who: object) -> None:
        """Its connection is gone."""
        if self._holder is who:
            self._holder = None

    def drop_lock(self) -> None:
        """The lock's connection breaks and its holder has not noticed: another may lead now."""
        self._holder = None

    # -------------------------------------------------------------- commits

    def check(self) -> None:
        """Raises Unavailable while the database is away."""
        if self._down:
            raise Unavailable(AWAY)

    def commit(
        self, journal: MemoryJournal, changes: Changes, epoch: int, answered: Callable[[FarmError | None], Any]
    ) -> None:
        """Apply a turn at some moment from now, and tell how it went."""
        fault = self._next_commit.pop() if self._next_commit and not changes.is_empty() else ""
        there_s, back_s = self._latency_s(), self._latency_s() / 2
        self.world.at(there_s, self._apply, journal, changes, epoch, answered, fault, back_s)

    def _apply(
        self, journal: MemoryJournal, changes: Changes, epoch: int, answered: Callable[[FarmError | None], Any],
        fault: str, back_s: float,
    ) -> None:  # fmt: skip
        problem: FarmError | None = None
        if self._down or fault == "refused":
            problem = Unavailable(AWAY)
        elif fault == "data":
            problem = DataRefused("A value is beyond what a column holds.")
        else:
            try:
                journal.commit(changes, epoch)
            except FarmError as refused:
                problem = refused
            else:
                self.applied(changes, epoch)
                if fault == "answer_lost":
                    problem = Unavailable("The connection broke; nobody knows whether it was stored.")
        self.world.at(back_s, answered, problem)

    def _latency_s(self) -> float:
        draw = self._random.random()
        latency_s = 0.0005 + 0.002 * draw
        return latency_s + (1.5 * self._random.random() if self._slow else 0.0)

    def read_s(self) -> float:
        """How long reading the whole state takes."""
        return 0.01 + 0.1 * self._random.random()

    # -------------------------------------------------------------- faults

    def away(self, for_s: float) -> None:
        """Restarted or unreachable: every lock is lost with its connection."""
        self._down += 1
        self._holder = None
        self.world.at(for_s, self._back)

    def _back(self) -> None:
        self._down = max(0, self._down - 1)

    def heal(self) -> None:
        """Everything is well from now on."""
        self._down = self._slow = 0
        self._next_commit.clear()

    def slow(self, for_s: float) -> None:
        """Commits take seconds for a while."""
        self._slow += 1
        self.world.at(for_s, self._quick)

    def _quick(self) -> None:
        self._slow = max(0, self._slow - 1)

    def spoil_next(self, fault: str) -> None:
        """`refused`: not applied; in one of three cases because of the turn itself. `answer_lost`: applied, but the
        controller hears an error."""
        if fault == "refused" and self._blame.random() < 1 / 3:
            fault = "data"
        self._next_commit.append(fault)
