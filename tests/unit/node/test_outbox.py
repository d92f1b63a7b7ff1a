"""Results on their way: in two hands until they are acknowledged."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from agentfarm.wire import link_pb2 as wire
from nodeagent.link.outbox import Outbox


class Told:
    """What the replicas were told to forget."""

    def __init__(self) -> None:
        self.kept: list[tuple[int, int]] = []
        self._changed = asyncio.Event()

    def __call__(self, pairs: Sequence[tuple[int, int]]) -> None:
        self.kept.extend(pairs)
        self._changed.set()

    async def until(self, count: int) -> None:
        async with asyncio.timeout(60):
            while len(self.kept) < count:
                self._changed.clear()
                await self._changed.wait()


def result(token: int) -> wire.AttemptResult:
    return wire.AttemptResult(task_id=token, fencing_token=token, outcome=wire.OUTCOME_SUCCEEDED, output=b"1")


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
async def outbox(tmp_path: Path, told: Told) -> AsyncIterator[Outbox]:
    box = Outbox(tmp_path / "outbox.db", told)
    await box.start()
    yield box
    await box.stop()


async def test_what_is_acknowledged_at_once_is_never_written(outbox: Outbox, told: Told) -> None:
    outbox.keep([result(1), result(2)], 7)
    outbox.acknowledge([1, 2, 3])
    assert sorted(told.kept) == [(1, 7), (2, 7)]
    await outbox.stop()
    assert outbox.stored_total == 0


async def test_what_waits_is_written_and_only_then_may_the_replica_forget(
    outbox: Outbox, told: Told, tmp_path: Path
) -> None:
    outbox.keep([result(1)], 7)
    assert told.kept == []
    await told.until(1)
    assert told.kept == [(1, 7)]
    later = Outbox(tmp_path / "outbox.db", Told())
    await outbox.stop()
    await later.start()
    assert list(later.tokens) == [1]
    assert later.results == [result(1)]
    later.acknowledge([1])
    await later.stop()
    last = Outbox(tmp_path / "outbox.db", Told())
    await last.start()
    assert len(last) == 0
    await last.stop()


async def test_a_result_told_twice_is_kept_once(outbox: Outbox) -> None:
    outbox.keep([result(1)], 7)
    outbox.keep([result(1)], 7)
    assert len(outbox) == 1
    assert not outbox.emptied.is_set()
    outbox.acknowledge([1])
    assert outbox.emptied.is_set()


async def test_stopping_writes_what_waits(outbox: Outbox, tmp_path: Path) -> None:
    outbox.keep([result(token) for token in range(1, 1001)], 7)
    await outbox.stop()
    again = Outbox(tmp_path / "outbox.db", Told())
    await again.start()
    assert len(again) == 1000
    await again.stop()


async def test_a_folder_that_cannot_be_written_costs_nothing_but_the_disk_copy(tmp_path: Path, told: Told) -> None:
    box = Outbox(tmp_path / "not there" / "outbox.db", told)
    await box.start()
    assert box.problem
    box.keep([result(1)], 7)
    (tmp_path / "not there").mkdir()
    await told.until(1)
    assert not box.problem
    await box.stop()
