"""Capture first, then rows; and what happens when either side has no room."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from nodeagent.market.capture.reader import read_capture
from nodeagent.market.capture.writer import CaptureWriter
from nodeagent.market.feed.intake import Intake
from nodeagent.market.feed.progress import State
from nodeagent.market.feed.quarantine import Quarantine
from nodeagent.market.model.records import Connected, Position, Record, RecordKind
from nodeagent.market.model.rows import BookRow, TradeRow
from nodeagent.market.model.slices import SLICE_BYTES
from nodeagent.market.model.source import load_source
from nodeagent.market.pipeline.pipeline import Pipeline
from nodeagent.market.writer.writer import AnyRow, Mark
from tests.unit.market.pipeline.test_slices import snapshot_frame

CONNECTED = msgspec.json.encode(Connected("coinbase-exchange", "ws://x", ("A-USD",), ("trades",)))


class _Writer:
    """Room, or none, as a test wishes."""

    def __init__(self) -> None:
        self.rows: list[AnyRow] = []
        self.marks: list[Mark] = []
        self._room = asyncio.Event()
        self._room.set()

    @property
    def has_room(self) -> bool:
        return self._room.is_set()

    async def room(self) -> None:
        await self._room.wait()

    def put(self, rows: Sequence[AnyRow]) -> None:
        self.rows += rows

    def mark(self, mark: Mark) -> None:
        self.marks.append(mark)

    def fill(self) -> None:
        self._room.clear()

    def drain(self) -> None:
        self._room.set()

    def trade_ids(self) -> list[int]:
        return [row.trade_id for row in self.rows if isinstance(row, TradeRow)]


class _FullDisk(CaptureWriter):
    """A capture whose disk can run full."""

    is_full = False

    def append(self, record: Record) -> Position:
        if self.is_full:
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().append(record)


def _intake(
    folder: Path, writer: _Writer, start: State | None = None, products: Sequence[str] = ("A-USD",)
) -> tuple[Intake, _FullDisk]:
    capture, start = _FullDisk(folder), start or State()
    pipeline = Pipeline(load_source("coinbase-exchange"), products, memory=start.memory)
    intake = Intake(
        capture,
        pipeline,
        writer,  # type: ignore[arg-type]  # as much of a writer as the intake uses
        start,
        capture_dir=folder,
        quarantine=Quarantine(folder),
        on_damage=lambda damage: pytest.fail(str(damage)),
        on_venue_error=lambda error: None,
    )
    return intake, capture


def _trade(trade_id: int) -> bytes:
    said: dict[str, Any] = {
        "type": "match",
        "trade_id": trade_id,
        "maker_order_id": "m",
        "taker_order_id": "t",
        "side": "sell",
        "size": "1",
        "price": "10.00",
        "product_id": "A-USD",
        "sequence": trade_id,
        "time": "2026-08-09T21:05:48.170326Z",
    }
    return msgspec.json.encode(said)


async def _live(intake: Intake) -> asyncio.Task[None]:
    task = asyncio.create_task(intake.keep_up())
    async with asyncio.timeout(10):
        while not intake.is_live:  # noqa: ASYNC110 - one turn of the loop, not a wait
            await asyncio.sleep(0)
    return task


async def test_each_frame_is_in_the_capture_before_its_rows_are_made(tmp_path: Path) -> None:
    writer = _Writer()
    intake, _ = _intake(tmp_path, writer)
    task = await _live(intake)
    intake.take(RecordKind.CONNECT, 1, CONNECTED)
    for trade_id in range(5):
        intake.take(RecordKind.RECEIVED, 1, _trade(trade_id))
        assert writer.trade_ids() == list(range(trade_id + 1))
        captured = [r.payload for r in read_capture(tmp_path) if r.kind is RecordKind.RECEIVED]
        assert captured == [_trade(n) for n in range(trade_id + 1)]
    task.cancel()


async def test_without_room_nothing_is_kept_in_memory_and_all_is_made_later(tmp_path: Path) -> None:
    writer = _Writer()
    intake, _ = _intake(tmp_path, writer)
    task = await _live(intake)
    intake.take(RecordKind.CONNECT, 1, CONNECTED)
    intake.take(RecordKind.RECEIVED, 1, _trade(0))
    writer.fill()
    for trade_id in range(1, 1000):
        intake.take(RecordKind.RECEIVED, 1, _trade(trade_id))
    assert writer.trade_ids() == [0]
    assert not intake.is_live
    writer.drain()
    async with asyncio.timeout(10):
        while not intake.is_live:
            intake.take(RecordKind.RECEIVED, 1, _trade(intake.counts.frames))  # the world does not wait
            await asyncio.sleep(0)
        await intake.settled()
    assert writer.trade_ids() == list(range(intake.counts.frames))
    task.cancel()


async def test_restart_makes_only_the_rows_that_were_not_stored(tmp_path: Path) -> None:
    writer = _Writer()
    intake, capture = _intake(tmp_path, writer)
    task = await _live(intake)
    intake.take(RecordKind.CONNECT, 1, CONNECTED)
    for trade_id in range(10):
        intake.take(RecordKind.RECEIVED, 1, _trade(trade_id))
        if trade_id == 5:
            intake.mark()
    state = writer.marks[0].state
    task.cancel()
    capture.close()
    second = _Writer()
    intake, _ = _intake(tmp_path, second, state)
    task = await _live(intake)
    assert second.trade_ids() == [6, 7, 8, 9]
    assert state.first_open_connection == 1
    task.cancel()


async def test_full_disk_costs_the_capture_and_not_the_trades(tmp_path: Path) -> None:
    writer = _Writer()
    intake, capture = _intake(tmp_path, writer)
    task = await _live(intake)
    intake.take(RecordKind.CONNECT, 1, CONNECTED)
    intake.take(RecordKind.RECEIVED, 1, _trade(0))
    capture.is_full = True
    intake.take(RecordKind.RECEIVED, 1, _trade(1))
    assert "No space left" in intake.problem
    assert intake.counts.uncaptured == 1
    capture.is_full = False
    intake.take(RecordKind.RECEIVED, 1, _trade(2))
    assert intake.problem == ""
    assert writer.trade_ids() == [0, 1, 2]
    task.cancel()


async def test_refused_frames_are_kept_raw_with_their_reason(tmp_path: Path) -> None:
    writer = _Writer()
    intake, _ = _intake(tmp_path, writer)
    task = await _live(intake)
    intake.take(RecordKind.CONNECT, 1, CONNECTED)
    intake.take(RecordKind.RECEIVED, 1, b'{"type":"match","trade_id":#}')
    (line,) = (tmp_path / "quarantine.ndjson").read_text().splitlines()
    kept = msgspec.json.decode(line)
    assert kept["reason"] == "not_json"
    assert kept["frame"] == '{"type":"match","trade_id":#}'
    assert intake.counts.rejected == 1
    task.cancel()


async def test_a_restart_begins_where_all_books_of_the_connection_were_kept(tmp_path: Path) -> None:
    writer = _Writer()
    intake, _ = _intake(tmp_path, writer)
    task = await _live(intake)
    opened = Connected("coinbase-exchange", "ws://x", ("A-USD",), ("book",))
    intake.take(RecordKind.CONNECT, 1, msgspec.json.encode(opened))
    begun = intake.state().anchor
    assert begun > 0
    await intake.keep_books()
    assert intake.state().anchor == begun, "there was no book to keep"
    snapshot = {"type": "snapshot", "product_id": "A-USD", "bids": [["9.00", "1"]], "asks": [["11.00", "1"]]}
    intake.take(RecordKind.RECEIVED, 1, msgspec.json.encode(snapshot))
    await intake.keep_books()
    assert intake.state().anchor > begun
    (kept,) = [record for record in read_capture(tmp_path) if record.kind is RecordKind.KEPT]
    assert kept.position == intake.state().anchor
    assert intake.state().replay_after() == kept.position - 1
    task.cancel()


def _book_rows(folder: Path) -> list[AnyRow]:
    """What the capture leads to, in one go."""
    pipeline = Pipeline(load_source("coinbase-exchange"), ["A-USD", "B-USD"])
    return [row for record in read_capture(folder) for row in pipeline.feed(record).rows]


async def test_others_have_their_turn_while_long_snapshots_are_taken(tmp_path: Path) -> None:
    """Many at once, as after a reconnect; what comes meanwhile follows in order, and all is as a replay has it."""
    writer = _Writer()
    intake, _ = _intake(tmp_path, writer, products=("A-USD", "B-USD"))
    task = await _live(intake)
    intake.take(RecordKind.CONNECT, 1, CONNECTED)
    frames = [snapshot_frame(load_source("coinbase-exchange"), 20_000, product) for product in ("A-USD", "B-USD")]
    for trade_id, frame in enumerate(frames):
        intake.take(RecordKind.RECEIVED, 1, frame)
        intake.take(RecordKind.RECEIVED, 1, _trade(trade_id))
    assert intake.is_live
    assert writer.trade_ids() == []
    settled, turns = asyncio.create_task(intake.settled()), 0
    while not settled.done():
        turns += 1
        await asyncio.sleep(0)
    assert turns > sum(map(len, frames)) // SLICE_BYTES
    assert writer.trade_ids() == [0, 1]
    intake.finish()
    assert [row for row in writer.rows if isinstance(row, TradeRow)] == [
        row for row in _book_rows(tmp_path) if isinstance(row, TradeRow)
    ]
    books = [row for row in writer.rows if isinstance(row, BookRow)]
    assert {row.product: row.bid_levels + row.ask_levels for row in books} == {"A-USD": 20_000, "B-USD": 20_000}
    task.cancel()


async def test_a_long_snapshot_given_up_in_its_middle_is_taken_from_the_capture(tmp_path: Path) -> None:
    writer = _Writer()
    intake, _ = _intake(tmp_path, writer)
    task = await _live(intake)
    intake.take(RecordKind.CONNECT, 1, CONNECTED)
    intake.take(RecordKind.RECEIVED, 1, snapshot_frame(load_source("coinbase-exchange"), 20_000, "A-USD"))
    intake.take(RecordKind.RECEIVED, 1, _trade(0))
    await asyncio.sleep(0)
    writer.fill()
    intake.take(RecordKind.RECEIVED, 1, _trade(1))
    assert not intake.is_live
    assert writer.rows == []
    intake.mark()
    writer.drain()
    async with asyncio.timeout(10):
        while not intake.is_live:  # noqa: ASYNC110 - one turn of the loop, not a wait
            await asyncio.sleep(0)
        await intake.settled()
    assert writer.trade_ids() == [0, 1]
    intake.finish()
    (book,) = [row for row in writer.rows if isinstance(row, BookRow)]
    assert book.bid_levels + book.ask_levels == 20_000
    task.cancel()


async def test_what_was_not_captured_behind_a_long_snapshot_becomes_rows_all_the_same(tmp_path: Path) -> None:
    writer = _Writer()
    intake, capture = _intake(tmp_path, writer)
    task = await _live(intake)
    intake.take(RecordKind.CONNECT, 1, CONNECTED)
    intake.take(RecordKind.RECEIVED, 1, snapshot_frame(load_source("coinbase-exchange"), 20_000, "A-USD"))
    capture.is_full = True
    intake.take(RecordKind.RECEIVED, 1, _trade(0))
    capture.is_full = False
    intake.take(RecordKind.RECEIVED, 1, _trade(1))
    await intake.settled()
    assert writer.trade_ids() == [0, 1]
    assert (intake.counts.uncaptured, intake.counts.lost_behind) == (1, 0)
    task.cancel()


async def test_rows_are_made_again_from_the_beginning_for_another_database(tmp_path: Path) -> None:
    writer = _Writer()
    intake, _ = _intake(tmp_path, writer)
    task = await _live(intake)
    intake.take(RecordKind.CONNECT, 1, CONNECTED)
    for trade_id in range(5):
        intake.take(RecordKind.RECEIVED, 1, _trade(trade_id))
    intake.mark()
    intake.begin_again(Pipeline(load_source("coinbase-exchange"), ["A-USD"]), State())
    intake.take(RecordKind.RECEIVED, 1, _trade(5))
    assert writer.trade_ids() == list(range(5))
    async with asyncio.timeout(10):
        while not intake.is_live:  # noqa: ASYNC110 - one turn of the loop, not a wait
            await asyncio.sleep(0)
    assert writer.trade_ids() == [*range(5), *range(6)]
    intake.mark()
    assert [mark.era for mark in writer.marks] == [0, 1]
    task.cancel()
