"""Small turns on the event loop: as durable and as fenced as those of the thread, and never in the loop's way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import closing

import psycopg2
import pytest
import pytest_asyncio

from agentfarm.errors import Unavailable
from controller.core.lives import TaskState
from controller.core.model import Limits
from controller.core.transition import Changes, FinishedTask
from controller.journal.commit import COPY_FROM
from controller.journal.errors import LostLead
from controller.journal.express import BYTES_MAX, ROWS_MAX
from controller.journal.journal import Journal
from tests.integration.journal.contract import new_task, registered
from tests.integration.journal.histories import WALL_OFFSET_S, Clock

DEADLINE_S = 20.0
WAITING = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
END_EXPRESS = (
    "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
    " WHERE application_name = 'agentfarm journal express' AND datname = current_database()"
)


@pytest_asyncio.fixture
async def journal(database_url: str, clock: Clock) -> AsyncIterator[Journal]:
    """A leading journal with one deployment; its epoch is 1."""
    journal = Journal(database_url, clock=clock)
    journal.take_lead()
    journal.load(Limits(), clock())
    journal.commit(registered(), 1)
    yield journal
    journal.close()


@pytest.fixture
def clock() -> Clock:
    return Clock()


def query(url: str, statement: str) -> object:
    with closing(psycopg2.connect(url)) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(statement)
            row = cursor.fetchone()
            return row[0] if row else None


async def here(journal: Journal, changes: Changes, epoch: int = 1) -> None:
    """Commit on the loop; it must be taken there."""
    small = journal.commit_here(changes, epoch)
    assert small is not None
    async with asyncio.timeout(DEADLINE_S):
        await small


async def waits(url: str) -> None:
    """Until a statement waits for a lock."""
    async with asyncio.timeout(DEADLINE_S):
        while await asyncio.to_thread(query, url, WAITING) == 0:
            pass


async def test_a_small_turn_is_durable_when_it_was_awaited(journal: Journal, database_url: str) -> None:
    await here(journal, Changes(inserted_tasks=[new_task(1)]))
    assert query(database_url, "SELECT id FROM task") == 1
    task = new_task(1)
    await here(journal, Changes(finished_tasks=[FinishedTask(task, TaskState.SUCCEEDED, WALL_OFFSET_S + 1001, b"{}")]))
    assert query(database_url, "SELECT id FROM task_finished") == 1


async def test_the_loop_goes_on_while_postgresql_works(journal: Journal, database_url: str) -> None:
    with closing(psycopg2.connect(database_url)) as other, other.cursor() as cursor:
        cursor.execute("LOCK TABLE leader")
        turn = asyncio.create_task(here(journal, Changes(inserted_tasks=[new_task(1)])))
        await waits(database_url)
        assert not turn.done()
        other.rollback()
        await turn
    assert query(database_url, "SELECT id FROM task") == 1


async def test_what_is_large_is_left_to_the_thread(journal: Journal) -> None:
    many = [new_task(number) for number in range(1, ROWS_MAX + 2)]
    assert journal.commit_here(Changes(inserted_tasks=many), 1) is None
    assert journal.commit_here(Changes(inserted_tasks=[new_task(1, b"x" * (BYTES_MAX + 1))]), 1) is None


@pytest.mark.parametrize("number", [1, COPY_FROM - 1, COPY_FROM, ROWS_MAX, ROWS_MAX + 1])
async def test_any_number_of_tasks_is_stored_by_one_of_the_two_ways(
    journal: Journal, database_url: str, number: int
) -> None:
    changes = Changes(inserted_tasks=[new_task(each) for each in range(1, number + 1)])
    small = journal.commit_here(changes, 1)
    await (asyncio.to_thread(journal.commit, changes, 1) if small is None else small)
    assert query(database_url, "SELECT count(*) FROM task") == number


async def test_a_large_message_is_sent_whole(journal: Journal, database_url: str) -> None:
    await here(journal, Changes(inserted_tasks=[new_task(1, b"x" * BYTES_MAX)]))
    assert query(database_url, "SELECT length(input) FROM task") == BYTES_MAX


async def test_an_old_leader_is_fenced(journal: Journal, database_url: str, clock: Clock) -> None:
    query(database_url, "UPDATE leader SET epoch = epoch + 1 RETURNING epoch")
    with pytest.raises(LostLead):
        await here(journal, Changes(inserted_tasks=[new_task(1)]))
    assert query(database_url, "SELECT count(*) FROM task") == 0
    assert journal.commit_here(Changes(inserted_tasks=[new_task(1)]), 1) is None
    with pytest.raises(Unavailable, match="not read since"):
        journal.commit(Changes(inserted_tasks=[new_task(1)]), 1)


async def test_a_lost_connection_is_unavailable_and_the_next_lead_heals(
    journal: Journal, database_url: str, clock: Clock
) -> None:
    query(database_url, END_EXPRESS)
    with pytest.raises(Unavailable):
        await here(journal, Changes(inserted_tasks=[new_task(1)]))
    epoch = journal.take_lead()
    assert set(journal.load(Limits(), clock()).tasks) == set()
    await here(journal, Changes(inserted_tasks=[new_task(1)]), epoch)
    assert query(database_url, "SELECT id FROM task") == 1


async def test_loading_finds_a_line_that_was_lost_unnoticed(journal: Journal, database_url: str, clock: Clock) -> None:
    """Where another call noticed that PostgreSQL had died, the first turn after it must not fail once more."""
    query(database_url, END_EXPRESS)
    epoch = journal.take_lead()
    journal.load(Limits(), clock())
    await here(journal, Changes(inserted_tasks=[new_task(1)]), epoch)
    assert query(database_url, "SELECT id FROM task") == 1


async def test_closing_ends_a_turn_that_gets_no_answer(journal: Journal, database_url: str) -> None:
    """As of a server that stands still: a controller that stops must not wait for it."""
    with closing(psycopg2.connect(database_url)) as other, other.cursor() as cursor:
        cursor.execute("LOCK TABLE leader")
        turn = asyncio.create_task(here(journal, Changes()))
        await waits(database_url)
        journal.close()
        with pytest.raises(Unavailable):
            await turn


async def test_after_a_turn_that_was_given_up_nothing_is_written_unread(journal: Journal, database_url: str) -> None:
    with closing(psycopg2.connect(database_url)) as other, other.cursor() as cursor:
        cursor.execute("LOCK TABLE leader")
        turn = asyncio.create_task(here(journal, Changes(inserted_tasks=[new_task(1)])))
        await waits(database_url)
        turn.cancel()
        await asyncio.gather(turn, return_exceptions=True)
        assert turn.cancelled()
    assert journal.commit_here(Changes(), 1) is None
    with pytest.raises(Unavailable, match="not read since"):
        journal.commit(Changes(), 1)
