"""Lists, filters and limits of the reader; bundles, invitations and secrets of the store."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing

import psycopg2
import pytest
from sqlalchemy import Connection, event
from sqlalchemy.engine import Engine

from agentfarm.agents.bundle import digest_of
from agentfarm.errors import Forbidden, InvalidRequest, NotFound, Unavailable
from controller.core.lives import TaskState
from controller.core.model import Actor, DeploymentName, Limits, NodeName, ReplicaId, TaskId, Token
from controller.core.transition import Changes, EndedAttempt, Event, FinishedTask
from controller.journal.journal import Journal
from controller.journal.queries.reader import Reader
from controller.journal.queries.store import Store
from controller.journal.schema import BUNDLE_CHUNK_BYTES
from tests.integration.journal.contract import lease, new_task, registered
from tests.integration.journal.histories import ECHO, WALL_OFFSET_S, Clock


@pytest.fixture
def journal(database_url: str) -> Iterator[Journal]:
    clock = Clock()
    journal = Journal(database_url, clock=clock)
    journal.take_lead()
    journal.load(Limits(), clock())
    journal.commit(registered(), 1)
    yield journal
    journal.close()


@pytest.fixture
def reader(database_url: str) -> Iterator[Reader]:
    reader = Reader(database_url)
    yield reader
    reader.close()


class Wall:
    """A wall clock a test moves."""

    now = WALL_OFFSET_S

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def wall() -> Wall:
    return Wall()


@pytest.fixture
def store(database_url: str, wall: Wall) -> Iterator[Store]:
    store = Store(database_url, wall=wall)
    yield store
    store.close()


def ids(found: list[object]) -> list[int]:
    return [it.task.id if isinstance(it, FinishedTask) else it.id for it in found]  # type: ignore[attr-defined]


# ------------------------------------------------------------------ tasks


@pytest.fixture
def history(journal: Journal) -> Journal:
    """Ten tasks: odd ones ended (3 dead, 5 failed, others succeeded), even ones wait; 9 and 10 are of another agent."""
    tasks = [new_task(number, b"in%d" % number) for number in range(1, 11)]
    for task in tasks[8:]:
        task.deployment = DeploymentName("brief")
    how = {3: TaskState.DEAD, 5: TaskState.FAILED}
    ends = [
        FinishedTask(task, how.get(task.id, TaskState.SUCCEEDED), WALL_OFFSET_S + task.id, b"out", "E", "why", "trace")
        for task in tasks
        if task.id % 2
    ]
    journal.commit(Changes(inserted_tasks=tasks), 1)
    journal.commit(Changes(finished_tasks=ends), 1)
    return journal


def test_tasks_are_listed_newest_first_in_pages(history: Journal, reader: Reader) -> None:
    assert ids(reader.tasks(limit=4)) == [10, 9, 8, 7]
    assert ids(reader.tasks(after=7, limit=4)) == [6, 5, 4, 3]
    assert ids(reader.tasks(after=3)) == [2, 1]


def test_a_task_that_ends_while_tasks_are_listed_is_listed_once(history: Journal, reader: Reader) -> None:
    """The list asks for what lives, then for what ended: told from two moments, task 8 would push out another."""
    asked: list[str] = []

    def end_task_8(_: Connection, _cursor: object, statement: str, *_rest: object) -> None:
        asked.append(statement)
        if len(asked) == 1:
            ended = FinishedTask(new_task(8, b"in8"), TaskState.SUCCEEDED, WALL_OFFSET_S + 8, b"out")
            history.commit(Changes(finished_tasks=[ended]), 1)

    event.listen(Engine, "after_cursor_execute", end_task_8)
    try:
        assert ids(reader.tasks(limit=4)) == [10, 9, 8, 7]
    finally:
        event.remove(Engine, "after_cursor_execute", end_task_8)
    assert len(asked) > 1
    assert reader.counts()[TaskState.SUCCEEDED] == 4


def test_tasks_are_filtered_by_state_and_agent(history: Journal, reader: Reader) -> None:
    assert ids(reader.tasks(states=[TaskState.DEAD, TaskState.FAILED])) == [5, 3]
    assert ids(reader.tasks(states=[TaskState.SUCCEEDED], deployment="echo")) == [7, 1]
    assert ids(reader.tasks(states=[TaskState.QUEUED])) == [10, 8, 6, 4, 2]
    assert ids(reader.tasks(states=[TaskState.QUEUED, TaskState.DEAD], deployment="echo")) == [8, 6, 4, 3, 2]
    assert ids(reader.tasks(deployment="brief")) == [10, 9]
    assert reader.tasks(deployment="nobody") == []


def test_lists_carry_no_payloads_and_a_single_task_does(history: Journal, reader: Reader) -> None:
    listed = reader.tasks(states=[TaskState.DEAD])[0]
    assert isinstance(listed, FinishedTask)
    assert (listed.task.input, listed.output, listed.error_traceback) == (None, b"", "")
    assert (listed.task.input_size, listed.error_message) == (3, "why")
    whole = reader.task(TaskId(3))
    assert isinstance(whole, FinishedTask)
    assert (whole.task.input, whole.output, whole.error_traceback) == (b"in3", b"out", "trace")
    assert (whole.state, whole.finished_at) == (TaskState.DEAD, WALL_OFFSET_S + 3)
    waiting = reader.task(TaskId(4))
    assert waiting is not None
    assert not isinstance(waiting, FinishedTask)
    assert waiting.input == b"in4"
    assert reader.task(TaskId(11)) is None


def test_ends_are_counted_for_ever(history: Journal, reader: Reader) -> None:
    assert reader.counts() == {
        TaskState.CANCELLED: 0, TaskState.DEAD: 1, TaskState.FAILED: 1, TaskState.SUCCEEDED: 3,
    }  # fmt: skip


def test_attempts_of_a_task_in_order_with_the_last(journal: Journal, reader: Reader) -> None:
    task = new_task(1)
    batch = lease(1, [task], 1)
    assert task.token is not None
    ended = EndedAttempt(
        task.id, 1, task.token, NodeName("n1"), ReplicaId(1), WALL_OFFSET_S, WALL_OFFSET_S + 1, "timed_out", "Timeout"
    )
    journal.commit(Changes(inserted_tasks=[task], lease_batches=[batch]), 1)
    journal.commit(Changes(ended_attempts=[ended]), 1)
    assert reader.attempts(task.id) == [ended]
    task.attempt, task.token, task.leased_at = 2, Token(task.token + 5), WALL_OFFSET_S + 2
    end = FinishedTask(task, TaskState.DEAD, WALL_OFFSET_S + 3, error_type="ValueError", error_message="no")
    journal.commit(Changes(finished_tasks=[end]), 1)
    last = EndedAttempt(
        task.id, 2, task.token, NodeName("n1"), ReplicaId(1), WALL_OFFSET_S + 2, WALL_OFFSET_S + 3, "failed",
        "ValueError", "no",
    )  # fmt: skip
    assert reader.attempts(task.id) == [ended, last]


# ------------------------------------------------------------------ events


def test_events_resume_by_id_and_filter(journal: Journal, reader: Reader) -> None:
    told = [
        Event("node.ready", WALL_OFFSET_S, "a", node=NodeName("n1")),
        Event(
            "node.lost",
            WALL_OFFSET_S,
            "b",
            node=NodeName("n2"),
            severity="error",
            data={"for_s": 8},
            actor=Actor("account/ada"),
        ),
        Event("task.dead", WALL_OFFSET_S, "c", deployment=ECHO, task=TaskId(4), severity="warning"),
        Event("replica.ready", WALL_OFFSET_S, "d", deployment=ECHO, replica=ReplicaId(2)),
        Event("nodes_are_not_a_family", WALL_OFFSET_S, "e"),
    ]
    journal.commit(Changes(events=told), 1)
    every = reader.events()
    assert [it.event for it in every] == told
    assert [it.id for it in every] == sorted(it.id for it in every)
    assert [it.event.message for it in reader.events(limit=2)] == ["d", "e"], "without an id: the newest"
    assert [it.event.message for it in reader.events(after=every[1].id, limit=2)] == ["c", "d"]
    assert reader.events(after=every[-1].id) == []

    def messages(**filters: object) -> str:
        return "".join(it.event.message for it in reader.events(**filters))  # type: ignore[arg-type]

    assert messages(kinds=["node."]) == "ab"
    assert messages(kinds=["node.lost", "task."]) == "bc"
    assert messages(severities=["warning", "error"]) == "bc"
    assert messages(node="n1") == "a"
    assert messages(deployment="echo") == "cd"
    assert messages(task=4) == "c"
    assert messages(replica=2, kinds=["node."]) == ""


# ------------------------------------------------------------------ bundles


def test_bundle_is_stored_once_and_read_from_any_offset(store: Store, reader: Reader, database_url: str) -> None:
    data = bytes(range(256)) * (BUNDLE_CHUNK_BYTES * 5 // 2 // 256)
    digest = digest_of(data)
    assert not reader.has_bundle(digest)
    store.put_bundle(digest, data)
    store.put_bundle(digest, data)
    assert reader.has_bundle(digest)
    with closing(psycopg2.connect(database_url)) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM bundle_chunk")
        assert cursor.fetchone() == (3,)
    for offset in (0, 1, BUNDLE_CHUNK_BYTES - 1, BUNDLE_CHUNK_BYTES, len(data) - 1, len(data)):
        got = bytearray()
        while True:
            total, chunks = reader.bundle_chunks(digest, offset + len(got))
            assert total == len(data)
            if not chunks:
                break
            got += b"".join(chunks)
        assert bytes(got) == data[offset:]


def test_bundle_under_a_wrong_digest_is_refused(store: Store, reader: Reader) -> None:
    with pytest.raises(InvalidRequest, match="does not match"):
        store.put_bundle(digest_of(b"other"), b"data")
    assert not reader.has_bundle(digest_of(b"other"))
    with pytest.raises(NotFound):
        reader.bundle_chunks(digest_of(b"other"))


# ------------------------------------------------------------------ invitations and secrets


def test_invitation_works_once_and_its_secret_is_erased(store: Store, database_url: str) -> None:
    store.put_invite("n1", b"s3cret", WALL_OFFSET_S + 900)
    store.use_invite("n1", lambda secret: secret == b"s3cret")
    with pytest.raises(Forbidden, match="was used at") as refusal:
        store.use_invite("n1", lambda _: True)
    assert refusal.value.data["reason"] == "used"
    with closing(psycopg2.connect(database_url)) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT secret FROM invite")
        assert cursor.fetchall() == [(None,)]


def test_unproved_or_failing_use_leaves_the_invitation(store: Store) -> None:
    store.put_invite("n1", b"s3cret", WALL_OFFSET_S + 900)
    with pytest.raises(Forbidden) as refusal:
        store.use_invite("n1", lambda secret: secret == b"guess")
    assert refusal.value.data["reason"] == "unproved"

    def fail(_: bytes) -> bool:
        raise InvalidRequest("for another name")

    with pytest.raises(InvalidRequest, match="another name"):
        store.use_invite("n1", fail)
    store.use_invite("n1", lambda secret: secret == b"s3cret")


def test_expired_unknown_and_dropped_invitations_say_so(store: Store, wall: Wall) -> None:
    store.put_invite("n1", b"s", WALL_OFFSET_S + 900)
    store.put_invite("n2", b"s", WALL_OFFSET_S + 900)
    store.drop_invite("n2")
    wall.now += 900
    for name, reason in (("n1", "expired"), ("n2", "unknown"), ("n3", "unknown")):
        with pytest.raises(Forbidden) as refusal:
            store.use_invite(name, lambda _: True)
        assert refusal.value.data["reason"] == reason
        assert f"farmctl node invite {name}" in refusal.value.remedy


def test_new_invitation_voids_the_earlier_one(store: Store) -> None:
    store.put_invite("n1", b"old", WALL_OFFSET_S + 900)
    store.put_invite("n1", b"new", WALL_OFFSET_S + 900)
    with pytest.raises(Forbidden):
        store.use_invite("n1", lambda secret: secret == b"old")
    store.use_invite("n1", lambda secret: secret == b"new")
    store.put_invite("n1", b"again", WALL_OFFSET_S + 900)
    store.use_invite("n1", lambda secret: secret == b"again")


def test_of_two_machines_with_one_token_one_joins(store: Store) -> None:
    store.put_invite("n1", b"s", WALL_OFFSET_S + 900)
    both = threading.Barrier(2, timeout=60)
    outcomes: list[str] = []

    def use() -> None:
        both.wait()
        try:
            store.use_invite("n1", lambda _: True)
            outcomes.append("joined")
        except Forbidden as refusal:
            outcomes.append(str(refusal.data["reason"]))

    threads = [threading.Thread(target=use) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert sorted(outcomes) == ["joined", "used"]


def test_secrets_are_kept_and_forgotten(store: Store) -> None:
    assert store.secret("key") is None
    store.put_secret("key", b"\0one")
    store.put_secret("key", b"two")
    assert store.secret("key") == b"two"
    store.drop_secret("key")
    assert store.secret("key") is None


def test_without_a_server_everything_is_unavailable(tmp_path_factory: pytest.TempPathFactory) -> None:
    nowhere = f"postgresql://agentfarm@/agentfarm?host={tmp_path_factory.mktemp('nothing')}"
    store, reader, journal = Store(nowhere), Reader(nowhere), Journal(nowhere)
    for call in (reader.counts, lambda: store.secret("x"), journal.take_lead, lambda: journal.find_keys(["k"])):
        with pytest.raises(Unavailable, match="not available"):
            call()
    store.close()
    reader.close()
    journal.close()
