"""Results on their way: in two hands until they are acknowledged."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import pytest

from agentfarm.wire import link_pb2 as wire
from nodeagent.core.outbox import Outbox, Row, Written
from nodeagent.link.storage import Storage
from tests.unit.node.clock import Clock


class Kept:
    """What the replicas may forget."""

    def __init__(self) -> None:
        self.pairs: list[tuple[int, int]] = []
        self._changed = asyncio.Event()

    def __call__(self, pairs: Sequence[tuple[int, int]]) -> None:
        self.pairs.extend(pairs)
        self._changed.set()

    async def until(self, count: int) -> None:
        async with asyncio.timeout(60):
            while len(self.pairs) < count:
                self._changed.clear()
                await self._changed.wait()


class Box(Outbox):
    """An outbox on a real file."""

    def __init__(self, path: Path, kept: Kept) -> None:
        self.storage = Storage(path)
        super().__init__(asyncio.get_running_loop(), self.storage, kept)

    async def start(self) -> None:
        await self.storage.start(self)

    async def stop(self) -> None:
        await self.storage.stop(self)


def result(token: int) -> wire.AttemptResult:
    return wire.AttemptResult(task_id=token, fencing_token=token, outcome=wire.OUTCOME_SUCCEEDED, output=b"1")


@pytest.fixture
def kept() -> Kept:
    return Kept()


@pytest.fixture
async def outbox(tmp_path: Path, kept: Kept) -> AsyncIterator[Box]:
    box = Box(tmp_path / "outbox.db", kept)
    await box.start()
    yield box
    await box.stop()


async def test_what_is_acknowledged_at_once_is_never_written(outbox: Box, kept: Kept) -> None:
    outbox.keep([result(1), result(2)], 7)
    outbox.acknowledge([1, 2, 3])
    assert sorted(kept.pairs) == [(1, 7), (2, 7)]
    await outbox.stop()
    assert outbox.stored_total == 0


async def test_what_waits_is_written_and_only_then_may_the_replica_forget(
    outbox: Box, kept: Kept, tmp_path: Path
) -> None:
    outbox.keep([result(1)], 7)
    assert kept.pairs == []
    await kept.until(1)
    assert kept.pairs == [(1, 7)]
    later = Box(tmp_path / "outbox.db", Kept())
    await outbox.stop()
    await later.start()
    assert list(later.tokens) == [1]
    assert later.results == [result(1)]
    later.acknowledge([1])
    await later.stop()
    last = Box(tmp_path / "outbox.db", Kept())
    await last.start()
    assert len(last) == 0
    await last.stop()


async def test_a_result_told_twice_is_kept_once(outbox: Box) -> None:
    outbox.keep([result(1)], 7)
    outbox.keep([result(1)], 7)
    assert len(outbox) == 1
    emptied = asyncio.Event()
    outbox.when_empty(emptied.set)
    assert not emptied.is_set()
    outbox.acknowledge([1])
    assert emptied.is_set()


async def test_an_empty_outbox_says_so_at_once(outbox: Box) -> None:
    emptied = asyncio.Event()
    outbox.when_empty(emptied.set)
    assert emptied.is_set()


async def test_stopping_writes_what_waits(outbox: Box, tmp_path: Path) -> None:
    outbox.keep([result(token) for token in range(1, 1001)], 7)
    await outbox.stop()
    again = Box(tmp_path / "outbox.db", Kept())
    await again.start()
    assert len(again) == 1000
    await again.stop()


async def test_a_folder_that_cannot_be_written_costs_nothing_but_the_disk_copy(tmp_path: Path, kept: Kept) -> None:
    box = Box(tmp_path / "not there" / "outbox.db", kept)
    await box.start()
    assert box.storage.problem
    box.keep([result(1)], 7)
    (tmp_path / "not there").mkdir()
    await kept.until(1)
    assert not box.storage.problem
    await box.stop()


class Disk:
    """A disk whose commits end when the test says so, and how."""

    def __init__(self) -> None:
        self.commits: list[tuple[list[int], list[int], Callable[[Written], None]]] = []

    def write(self, rows: list[Row], removed: list[int], done: Callable[[Written], None]) -> None:
        self.commits.append(([token for token, _, _ in rows], removed, done))


def test_one_commit_at_a_time_and_again_after_one_that_failed(kept: Kept) -> None:
    clock, disk = Clock(), Disk()
    outbox = Outbox(clock, disk, kept)
    outbox.keep([result(1)], 7)
    clock.advance(200.0)
    outbox.keep([result(2)], 7)
    clock.advance(300.0)
    [(tokens, removed, done)] = disk.commits
    assert (tokens, removed) == ([1], [])
    done(Written.FAILED)
    assert kept.pairs == []
    clock.advance(302.0)
    tokens, _, done = disk.commits[-1]
    assert tokens == [1]
    outbox.acknowledge([1])  # while it is being written
    assert kept.pairs == [(1, 7)]
    done(Written.DONE)
    clock.advance(400.0)
    assert disk.commits[-1][:2] == ([2], [1])


def test_what_a_damaged_file_held_is_written_again(kept: Kept) -> None:
    clock, disk = Clock(), Disk()
    outbox = Outbox(clock, disk, kept)
    outbox.keep([result(1)], 7)
    clock.advance(200.0)
    disk.commits[-1][2](Written.DONE)
    outbox.keep([result(2)], 7)
    clock.advance(300.0)
    disk.commits[-1][2](Written.LOST)
    for moment in (400.0, 500.0, 600.0):
        clock.advance(moment)
        disk.commits[-1][2](Written.DONE)
    assert {token for tokens, _, _ in disk.commits[2:] for token in tokens} == {1, 2}
