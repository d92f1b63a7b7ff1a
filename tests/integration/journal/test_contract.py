"""Both journals keep the shared contract."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterator

import pytest

from controller.core.transition import Changes
from controller.journal.journal import Journal
from controller.journal.memory import MemoryJournal, Tables
from tests.integration.journal.contract import JournalContract
from tests.integration.journal.histories import Clock, OpenJournal


class TestMemoryJournal(JournalContract):
    @pytest.fixture
    def open_journal(self) -> OpenJournal:
        tables = Tables()
        return lambda: MemoryJournal(tables)


class TestPostgresJournal(JournalContract):
    @pytest.fixture
    def open_journal(self, database_url: str, clock: Clock) -> Iterator[OpenJournal]:
        yield from _opening(Journal, database_url, clock)


class _Express(Journal):
    """Commits on an event loop whatever is small enough for it."""

    def commit(self, changes: Changes, epoch: int) -> None:
        small = self.commit_here(changes, epoch)
        if small is None:
            super().commit(changes, epoch)
        else:
            asyncio.run(_done(small))


async def _done(small: Awaitable[None]) -> None:
    await small


class TestExpressJournal(JournalContract):
    @pytest.fixture
    def open_journal(self, database_url: str, clock: Clock) -> Iterator[OpenJournal]:
        yield from _opening(_Express, database_url, clock)


def _opening(kind: type[Journal], database_url: str, clock: Clock) -> Iterator[OpenJournal]:
    """Opens one after the other: the one before is closed first, as a controller that ended."""
    opened: list[Journal] = []

    def open_one() -> Journal:
        for earlier in opened:
            earlier.close()
        opened.append(kind(database_url, clock=clock))
        return opened[-1]

    yield open_one
    for journal in opened:
        journal.close()
