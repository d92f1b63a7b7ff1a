"""What only the journal on PostgreSQL can show: two controllers, lost connections, days, dirty text, large loads."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, date, datetime, timedelta

import psycopg2
import pytest

from agentfarm.errors import Unavailable
from controller.core.lives import NodeState, TaskState
from controller.core.model import Instant, Limits, Node, NodeName, TaskId
from controller.core.transition import Changes, CheckpointRow, Event, FinishedTask
from controller.journal.errors import DataRefused, JournalCorrupt, LostLead
from controller.journal.journal import Journal
from controller.journal.queries.reader import Reader
from tests.integration.journal.contract import lease, new_task, records, registered
from tests.integration.journal.histories import ECHO, WALL_OFFSET_S, Clock

NOON = datetime(2026, 12, 31, 12, tzinfo=UTC).timestamp()
DEADLINE_S = 60.0


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def journal(database_url: str, clock: Clock) -> Iterator[Journal]:
    """A leading journal with one deployment; its epoch is 1."""
    journal = Journal(database_url, clock=clock)
    assert journal.take_lead() == 1
    journal.load(Limits(), clock())
    journal.commit(registered(), 1)
    yield journal
    journal.close()


@pytest.fixture
def reader(database_url: str) -> Iterator[Reader]:
    reader = Reader(database_url)
    yield reader
    reader.close()


def query(url: str, statement: str, *arguments: object) -> list[tuple[object, ...]]:
    with closing(psycopg2.connect(url)) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(statement, arguments)
            return cursor.fetchall() if cursor.description else []


def test_closing_ends_a_commit_that_gets_no_answer(journal: Journal, database_url: str) -> None:
    """As of a server that stands still: a controller that stops must not wait for it."""
    with closing(psycopg2.connect(database_url)) as other, other.cursor() as cursor:
        cursor.execute("LOCK TABLE leader")  # in the way of every commit, until this connection is closed
        problems: list[BaseException] = []

        def commit() -> None:
            try:
                journal.commit(Changes(), 1)
            except Unavailable as problem:
                problems.append(problem)

        thread = threading.Thread(target=commit)
        thread.start()
        waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        while query(database_url, waiting) == [(0,)]:
            assert thread.is_alive()
        journal.close()
        thread.join(DEADLINE_S)
        assert not thread.is_alive(), "the lock is still held: only the close can have ended it"
        assert len(problems) == 1


@pytest.mark.parametrize(
    "bad",
    [
        Changes(checkpoints=[CheckpointRow("t", secrets.token_hex(9_000), "1", "", b"x", ())]),
        Changes(checkpoints=[CheckpointRow("t", "", "1", "", b"x", (("w", 2**31, b"x"),))]),
        Changes(events=[Event("test", NOON, "of no task", task=TaskId(2**64 - 1))]),
        Changes(events=[Event("test", NOON, "of no severity", severity="loud")]),
    ],
    ids=["index", "integer", "bigint", "word"],
)
def test_what_no_column_holds_is_refused_and_the_leader_goes_on(journal: Journal, clock: Clock, bad: Changes) -> None:
    with pytest.raises(DataRefused):
        journal.commit(bad, 1)
    journal.load(Limits(), clock())
    journal.commit(Changes(inserted_tasks=[new_task(1)]), 1)
    assert set(journal.load(Limits(), clock()).tasks) == {1}


# ------------------------------------------------------------------ two controllers


def test_standby_takes_over_when_the_leader_goes_and_fences_it(
    journal: Journal, database_url: str, clock: Clock
) -> None:
    standby = Journal(database_url, clock=clock)
    took: list[int] = []
    waiting = threading.Thread(target=lambda: took.append(standby.take_lead()))
    waiting.start()
    journal.commit(Changes(inserted_tasks=[new_task(1)]), 1)
    assert not took, "a standby must wait while the leader lives"
    # The leader's session that holds the lock is cut, as by a network; it goes on to write, and does not know.
    query(database_url, "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND granted")
    waiting.join(DEADLINE_S)
    assert took == [2]
    state = standby.load(Limits(), clock())
    assert set(state.tasks) == {1}
    with pytest.raises(LostLead):
        journal.commit(Changes(inserted_tasks=[new_task(2)]), 1)
    standby.commit(Changes(inserted_tasks=[new_task(3)]), 2)
    standby.take_lead()
    assert set(standby.load(Limits(), clock()).tasks) == {1, 3}
    standby.close()


def test_new_leader_waits_for_a_commit_in_progress(journal: Journal, database_url: str, clock: Clock) -> None:
    """The fence is a row lock: an old leader's commit is before the new epoch as a whole, or not at all."""
    with closing(psycopg2.connect(database_url)) as old, old.cursor() as cursor:
        cursor.execute("SELECT 1 FROM leader WHERE epoch = 1 FOR SHARE")
        done = threading.Event()

        def lead() -> None:
            journal.take_lead()
            done.set()

        threading.Thread(target=lead, daemon=True).start()
        blocked = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE 'UPDATE leader%%'"
        deadline = time.monotonic() + DEADLINE_S
        while not query(database_url, blocked):
            assert time.monotonic() < deadline
        assert not done.is_set()
        old.commit()
    assert done.wait(DEADLINE_S)


def test_closing_ends_a_waiting_standby(journal: Journal, database_url: str) -> None:
    standby = Journal(database_url)
    refused = threading.Event()

    def wait() -> None:
        with pytest.raises(Unavailable):
            standby.take_lead()
        refused.set()

    threading.Thread(target=wait, daemon=True).start()
    standby.close()
    assert refused.wait(DEADLINE_S)


# ------------------------------------------------------------------ lost connections


def test_lost_connection_is_unavailable_and_the_next_lead_heals(
    journal: Journal, database_url: str, clock: Clock
) -> None:
    journal.commit(Changes(inserted_tasks=[new_task(1)]), 1)
    query(
        database_url,
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
        " WHERE application_name LIKE 'agentfarm%%' AND datname = current_database()",
    )
    with pytest.raises(Unavailable):
        journal.commit(Changes(inserted_tasks=[new_task(2)]), 1)
    with pytest.raises(Unavailable, match="not read since"):
        journal.commit(Changes(inserted_tasks=[new_task(2)]), 1)
    with pytest.raises(Unavailable):  # the session that held the lock is gone too; trying finds out
        journal.take_lead()
    assert journal.take_lead() == 2
    assert set(journal.load(Limits(), clock()).tasks) == {1}
    journal.commit(Changes(inserted_tasks=[new_task(2)]), 2)


def test_reader_heals_by_itself(journal: Journal, reader: Reader, database_url: str) -> None:
    assert reader.task(TaskId(1)) is None
    query(
        database_url,
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
        " WHERE application_name = 'agentfarm reader' AND datname = current_database()",
    )
    assert reader.task(TaskId(1)) is None


# ------------------------------------------------------------------ text


def test_what_postgresql_cannot_hold_is_made_storable(journal: Journal, reader: Reader, clock: Clock) -> None:
    dirty = 'a\0b "quoted" \\back {brace} \ud800 %s \' ü'
    clean = 'a\ufffdb "quoted" \\back {brace} ? %s \' ü'
    task = new_task(1, b'{"nul": "\\u0000\0"}', labels=(("k", dirty),), idempotency_key=dirty)
    end = FinishedTask(task, TaskState.FAILED, WALL_OFFSET_S, b"\0\xff", "E\0", dirty, dirty)
    node = Node(NodeName("n1"), NodeState.READY, cordon_reason=dirty, labels={"k": dirty})
    event = Event("x.y", WALL_OFFSET_S, dirty, data={"deep": [dirty, {"k": dirty}], "n": 1.5, "none": None})
    journal.commit(records(node, inserted_tasks=[task], finished_tasks=[end], events=[event]), 1)
    stored = reader.task(TaskId(1))
    assert isinstance(stored, FinishedTask)
    assert (stored.task.input, stored.output) == (b'{"nul": "\\u0000\0"}', b"\0\xff"), "bytes stay what they are"
    assert (stored.error_type, stored.error_message, stored.error_traceback) == ("E\ufffd", clean, clean)
    assert stored.task.options is not None
    assert stored.task.options.labels == (("k", clean),)
    assert reader.events()[0].event.data == {"deep": [clean, {"k": clean}], "n": 1.5, "none": None}
    assert journal.load(Limits(), clock()).nodes[NodeName("n1")].cordon_reason == clean
    assert journal.find_keys([dirty]) == {dirty: 1}


def test_large_payloads_of_one_turn_are_split(journal: Journal, reader: Reader) -> None:
    size = 1024 * 1024
    tasks = [new_task(number, b"i" * size) for number in range(1, 41)]
    ends = [FinishedTask(task, TaskState.SUCCEEDED, WALL_OFFSET_S, bytes([task.id]) * size) for task in tasks]
    journal.commit(Changes(inserted_tasks=tasks), 1)
    journal.commit(Changes(finished_tasks=ends), 1)
    stored = reader.task(TaskId(40))
    assert isinstance(stored, FinishedTask)
    assert stored.output == bytes([40]) * size
    assert stored.task.input == b"i" * size
    assert reader.counts()[TaskState.SUCCEEDED] == 40


# ------------------------------------------------------------------ days


def finish(journal: Journal, number: int, at: float) -> None:
    task = new_task(number)
    end = FinishedTask(task, TaskState.SUCCEEDED, at, b"1")
    journal.commit(Changes(inserted_tasks=[task], finished_tasks=[end]), 1)


def day_tables(url: str) -> dict[str, int]:
    """Partition -> rows."""
    rows = query(url, "SELECT tableoid::regclass::text, count(*) FROM task_finished GROUP BY 1")
    return {str(name): int(str(count)) for name, count in rows}


def test_each_day_has_its_partition_across_midnight_and_the_year(journal: Journal, database_url: str) -> None:
    for number, hours in enumerate((0, 11.99, 12.01, 36, 60), start=1):
        finish(journal, number, NOON + hours * 3600)
    assert day_tables(database_url) == {
        "task_finished_20261231": 2, "task_finished_20270101": 1, "task_finished_20270102": 1,
        "task_finished_20270103": 1,
    }  # fmt: skip


def test_day_that_cannot_be_made_is_stored_all_the_same(journal: Journal, database_url: str, reader: Reader) -> None:
    """The wall clock jumps back after rows of a far day went to the default partition, then forward again."""
    query(database_url, "INSERT INTO task_finished (id, deployment, priority, submitted_at, input, state, finished_at,"
                        " output) VALUES (99, 'echo', 0, now(), '', 'succeeded', '2026-12-31 01:00Z', '')")  # fmt: skip
    finish(journal, 1, NOON)
    assert day_tables(database_url)["task_finished_default"] == 2
    assert isinstance(reader.task(TaskId(1)), FinishedTask)


def test_retention_drops_days_and_never_their_ids(
    journal: Journal, database_url: str, reader: Reader, clock: Clock
) -> None:
    finish(journal, 7, NOON)
    journal.commit(Changes(inserted_tasks=[new_task(3, idempotency_key="live")]), 1)
    journal.commit(Changes(events=[Event("a.b", NOON, "old"), Event("a.b", NOON + 86_400, "new")]), 1)
    day = date(2027, 1, 1)
    assert journal.forget_before(day) == 5, "yesterday, and the days made ahead at the start"
    assert reader.task(TaskId(7)) is None
    assert reader.task(TaskId(3)) is not None
    assert [it.event.message for it in reader.events()] == ["new"]
    assert journal.find_keys(["live"]) == {"live": 3}
    assert reader.counts()[TaskState.SUCCEEDED] == 1, "what was ever done stays counted"
    assert journal.forget_before(day) == 0
    journal.take_lead()
    assert journal.load(Limits(), clock()).next_task == 8


def test_ended_task_is_found_by_its_index(journal: Journal, database_url: str) -> None:
    for number in range(1, 4):
        finish(journal, number, NOON + number * 86_400)
    plan = query(database_url, "EXPLAIN SELECT * FROM task_finished WHERE id = 2")
    assert "Seq Scan on task_finished_2" not in str(plan)


# ------------------------------------------------------------------ loads


def test_hundred_thousand_queued_tasks_are_loaded_as_they_wait(journal: Journal, clock: Clock) -> None:
    tasks = [new_task(number, b'{"symbol": "BTC-USD"}') for number in range(1, 100_001)]
    for start in range(0, len(tasks), 10_000):
        journal.commit(Changes(inserted_tasks=tasks[start : start + 10_000]), 1)
    leased = tasks[:1_000]
    journal.commit(Changes(lease_batches=[lease(1, leased, 1)]), 1)
    journal.take_lead()
    state = journal.load(Limits(), clock())  # how long it takes is told by benchmarks.journal
    assert len(state.tasks) == 100_000
    assert len(state.deployments[ECHO].queues[0]) == 99_000
    assert state.deployments[ECHO].queues[0][0] == 1_001
    assert state.tasks[TaskId(100_000)].input == b'{"symbol": "BTC-USD"}'


def test_plan_of_finishing_uses_the_index_however_the_queue_grew(journal: Journal, database_url: str) -> None:
    finish(journal, 1, NOON)  # plans are made while the table is empty
    for _ in range(6):
        finish(journal, int(time.monotonic_ns() % 10**12), NOON)
    journal.commit(Changes(inserted_tasks=[new_task(2 * 10**12 + n) for n in range(20_000)]), 1)
    before = query(database_url, "SELECT seq_scan, seq_tup_read FROM pg_stat_user_tables WHERE relname = 'task'")
    end = FinishedTask(new_task(2 * 10**12), TaskState.SUCCEEDED, NOON, b"1")
    journal.commit(Changes(finished_tasks=[end]), 1)
    journal.close()  # its statistics are flushed with its session
    deadline = time.monotonic() + DEADLINE_S
    while query(database_url, "SELECT 1 FROM pg_stat_activity WHERE application_name = 'agentfarm journal'"
                              " AND datname = current_database()"):  # fmt: skip
        assert time.monotonic() < deadline
    after = query(database_url, "SELECT seq_scan, seq_tup_read FROM pg_stat_user_tables WHERE relname = 'task'")
    assert int(str(after[0][1])) - int(str(before[0][1])) < 20_000


# ------------------------------------------------------------------ guards and checkpoints


def test_lease_row_that_is_not_there_cannot_end(journal: Journal) -> None:
    with pytest.raises(JournalCorrupt, match="lease rows"):
        journal.commit(Changes(ended_lease_batches=[5]), 1)


def test_task_stored_twice_is_refused(journal: Journal) -> None:
    journal.commit(Changes(inserted_tasks=[new_task(1)]), 1)
    with pytest.raises(JournalCorrupt, match="task_pkey"):
        journal.commit(Changes(inserted_tasks=[new_task(1)]), 1)


def test_lease_rows_that_hold_nothing_are_cleared_at_load(journal: Journal, database_url: str, clock: Clock) -> None:
    journal.commit(Changes(inserted_tasks=[new_task(1)], lease_batches=[lease(4, [new_task(77)], 1)]), 1)
    state = journal.load(Limits(), clock())
    assert not state.lease_batches
    assert state.next_batch == 5
    assert query(database_url, "SELECT count(*) FROM lease") == [(0,)]


def test_checkpoints_are_kept_replaced_and_dropped(journal: Journal, reader: Reader) -> None:
    def row(checkpoint: str, payload: bytes | None, *writes: tuple[str, int, bytes], parent: str = "") -> CheckpointRow:
        return CheckpointRow("task-1", "", checkpoint, parent, payload, writes)

    journal.commit(Changes(checkpoints=[row("c1", b"one"), row("c1", None, ("w", 0, b"early"))]), 1)
    journal.commit(
        Changes(checkpoints=[row("c2", b"two", parent="c1"), row("c1", b"uno", ("w", 0, b"late"), ("w", 1, b"x"))]), 1
    )
    newest = reader.checkpoints("task-1", "")
    assert newest == [row("c2", b"two", parent="c1")]
    older = reader.checkpoints("task-1", "", before_id="c2", limit=10)
    assert older == [row("c1", b"uno", ("w", 0, b"late"), ("w", 1, b"x"))]
    assert reader.checkpoints("task-1", "", "c1") == older
    assert reader.checkpoints("task-1", "sub") == []
    journal.commit(Changes(dropped_threads=["task-1"]), 1)
    assert reader.checkpoints("task-1", "", limit=10) == []
    assert reader.checkpoints("task-1", "", "c1") == []


def test_wall_clock_that_jumps_does_not_move_deadlines(database_url: str) -> None:
    """A machine that boots in 1970 and learns the time later: what is ahead on its own clock stays ahead."""
    moments = [Instant(100.0, 0.0), Instant(101.0, 1_800_000_000.0)]
    journal = Journal(database_url, clock=lambda: moments[0])
    epoch = journal.take_lead()
    journal.load(Limits(), moments[0])
    moments.pop(0)
    task = new_task(1)
    journal.commit(Changes(inserted_tasks=[task], records=registered().records), epoch)
    task.not_before = 130.0
    journal.commit(Changes(requeued_tasks=[task]), epoch)
    loaded = journal.load(Limits(), Instant(102.0, 1_800_000_001.0))
    assert loaded.tasks[TaskId(1)].not_before == pytest.approx(130.0, abs=1e-3)
    journal.close()


def test_today_and_the_next_days_are_made_ahead(journal: Journal, database_url: str, clock: Clock) -> None:
    today = datetime.fromtimestamp(clock().wall, UTC).date()
    expected = [f"task_finished_{today + timedelta(days=n):%Y%m%d}" for n in range(4)]
    found = query(database_url, "SELECT relname FROM pg_class WHERE relname ~ '^task_finished_[0-9]+$' ORDER BY 1")
    assert [row[0] for row in found] == expected
