"""The one way in: capture first, then rows.

`take` appends each fact to the capture and, while the writer has room, turns it into rows at once. When QuestDB is away
and the writer is full, nothing more is kept in memory: the intake falls *behind*, and the capture is read from where
the rows stopped as soon as there is room again, until the end of the capture is met. A start is the same, from the
acknowledged position. So there is one order of records and one pipeline, and memory does not grow with an outage.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from nodeagent.market.capture.reader import Damage, read_capture
from nodeagent.market.capture.writer import CaptureWriter
from nodeagent.market.feed.anchors import Anchors
from nodeagent.market.feed.backlog import Waiting, next_records
from nodeagent.market.feed.progress import State
from nodeagent.market.feed.quarantine import Quarantine
from nodeagent.market.model.events import VenueError
from nodeagent.market.model.records import START, Position, Record, RecordKind
from nodeagent.market.model.rows import GapRow
from nodeagent.market.model.slices import SLICE_BYTES, Portion
from nodeagent.market.pipeline.pipeline import Pipeline
from nodeagent.market.pipeline.state import Output
from nodeagent.market.writer.writer import Mark, RowWriter

WAITING_MAX_BYTES: Final = 32 * 1024 * 1024
"""Of records that wait in memory behind a long one; with more, the intake falls behind."""
JOIN_MAX_BYTES: Final = 1024 * 1024
"""Of records that came while the intake read the capture to its end. With no more, they wait in memory and the intake
is live again; with more, it reads on."""


@dataclass(slots=True)
class IntakeCounts:
    """What happened since the process started."""

    records: int = 0
    frames: int = 0
    bytes: int = 0
    gaps: int = 0
    repaired: int = 0
    rejected: int = 0
    uncaptured: int = 0
    """Records that the disk did not take."""
    lost_behind: int = 0
    """Of those, the records that made no rows either: the feed asks for their trades over REST."""
    venue_errors: int = 0


class Intake:
    """Implements `session.Sink`."""

    def __init__(
        self,
        capture: CaptureWriter,
        pipeline: Pipeline,
        writer: RowWriter,
        start: State,
        *,
        capture_dir: Path,
        quarantine: Quarantine,
        on_damage: Callable[[Damage], None],
        on_venue_error: Callable[[VenueError], None],
    ) -> None:
        """Rows of records up to `start.position` are stored already; the intake does not make them again."""
        self.counts = IntakeCounts()
        self.problem = ""
        """Why the capture cannot be written; empty when it can."""
        self.taken_at_ns = 0
        """Receipt time of the newest record."""
        self.era = 0
        """How often the rows began again from an earlier place."""
        self._is_behind = True
        self._is_joining = False
        self._called = asyncio.Event()
        """Set while there is something to work off."""
        self._called.set()
        self._waiting = Waiting()
        """A long record under way, and the records behind it."""
        self._settled = asyncio.Event()
        self._course = 0
        """Changes when the intake falls behind: what waits comes from the capture then."""
        self._capture = capture
        self._capture_dir = capture_dir
        self._pipeline = pipeline
        self._writer = writer
        self._quarantine = quarantine
        self._stored_until = start.position
        self._read_after = start.replay_after()
        self._done = start.position
        self._done_ns = start.at_ns
        self._marked = start.position
        self._last: Position = START
        self._anchors = Anchors()
        self._on_damage = on_damage
        self._on_venue_error = on_venue_error

    def take(self, kind: RecordKind, connection_id: int, payload: bytes) -> None:
        """Capture a fact, and make its rows if that is possible now."""
        self.taken_at_ns = time.time_ns()
        record = Record(kind, connection_id, self.taken_at_ns, time.monotonic_ns(), payload)
        self.counts.records += 1
        if kind is RecordKind.RECEIVED:
            self.counts.frames += 1
            self.counts.bytes += len(payload)
        try:
            position = self._capture.append(record)
        except OSError as error:
            self._without_capture(record, error)
            return
        self.problem = ""
        self._last = position
        if self.is_live and self._writer.has_room:
            self._accept(msgspec.structs.replace(record, position=position))
        elif self._is_behind:
            self._wait_to_join(msgspec.structs.replace(record, position=position))
        else:
            self._fall_behind()

    def begin_again(self, pipeline: Pipeline, start: State) -> None:
        """Make every row again from there on; new records wait in the capture meanwhile."""
        self.era += 1
        self._pipeline = pipeline
        self._stored_until = self._done = self._marked = start.position
        self._done_ns = start.at_ns
        self._read_after = start.replay_after()
        self._anchors.forget()
        self._is_behind = False
        self._fall_behind()

    @property
    def is_live(self) -> bool:
        """Whether each record becomes rows as it comes; else the intake reads the capture."""
        return not self._is_behind

    async def settled(self) -> None:
        """Return when no record waits in memory, neither to become rows nor to be packed."""
        while self._waiting and self.is_live:
            self._settled.clear()
            await self._settled.wait()
        with suppress(OSError):  # the next flush reports it
            while self._capture.is_flush_due:
                self._capture.flush_slice()
                await asyncio.sleep(0)

    async def flush(self) -> None:
        """Move all that was captured into the segment; others have their turn after each slice. Raises OSError."""
        while self._capture.flush_slice():  # noqa: ASYNC110 - a turn of the loop, not a wait
            await asyncio.sleep(0)

    async def keep_up(self) -> None:
        """Work off what could not become rows when it came. Runs until it is cancelled."""
        while True:
            await self._called.wait()
            if self.is_live:
                await self._work_off()
            else:
                await self._writer.room()
                await self._read_back()
            if self.is_live and not self._waiting:
                self._called.clear()

    def state(self) -> State:
        """What a restart needs, as of the last record that became rows."""
        return self._anchors.state(self._done, self._done_ns, self._pipeline.state.memory)

    @property
    def behind_s(self) -> float:
        """Age of the newest record that became rows, against the newest taken."""
        return 0.0 if self.is_live else max(0.0, (self.taken_at_ns - self._done_ns) / 1e9)

    async def keep_books(self) -> None:
        """Write the trusted books into the capture, if they stand at its end. One at a time: a big one takes some
        milliseconds."""
        for connection_id, connection in list(self._pipeline.state.connections.items()):
            books = connection.kept_books()
            while True:
                await self.settled()
                if not self.is_live or connection_id not in self._pipeline.state.connections:
                    return  # the round stays unfinished, and counts for nothing
                payload = next(books, None)
                if payload is None:
                    break
                self.take(RecordKind.KEPT, connection_id, payload)
                await asyncio.sleep(0)

    def finish(self) -> None:
        """The clean end: close the running second and minute. Call it after everything else has stopped."""
        if self.is_live and not self._waiting:
            self._put(self._pipeline.finish(), None)

    async def _read_back(self) -> None:
        """One pass over the capture, up to what is in it now. Live when nothing came meanwhile."""
        try:
            await self.flush()
        except OSError as error:
            self.problem = f"the capture cannot be written: {error}"
            await asyncio.sleep(1.0)
            return
        until, course, portion = self._last, self._course, Portion()
        self._forget_waiting()
        self._is_joining = True
        records = read_capture(self._capture_dir, self._read_after, self._on_damage)
        while batch := await asyncio.to_thread(next_records, records, until):
            for record in batch:
                if self._course != course:
                    return
                out = await self._in_turns(record)
                if out is None:
                    return
                self._took(record, out)
                if portion.is_full_with(record.payload):
                    await asyncio.sleep(0)
                    await self._writer.room()
            if batch[-1].position == until:
                break
        if self._course == course and self._is_joining and self._writer.has_room:
            self._is_behind = False

    async def _work_off(self) -> None:
        """What waits in memory, in order."""
        portion = Portion()
        while self._waiting:
            if not self._writer.has_room:
                self._fall_behind()
                return
            record = self._waiting.first
            out = await self._in_turns(record)
            if out is None:
                return
            self._waiting.take_first()
            self._took(record, out)
            if portion.is_full_with(record.payload):
                await asyncio.sleep(0)
        self._settled.set()

    async def _in_turns(self, record: Record) -> Output | None:
        """What a record leads to; others have their turn after each slice of a long one. None: the intake fell behind
        meanwhile, and the pipeline has not taken the record."""
        if len(record.payload) <= SLICE_BYTES:
            return self._pipeline.feed(record)
        course, steps = self._course, self._pipeline.steps(record)
        while self._course == course:
            try:
                next(steps)
            except StopIteration as end:
                out: Output = end.value
                return out
            await asyncio.sleep(0)
        return None

    def _accept(self, record: Record) -> None:
        """Make a record's rows, at once if it is a short one and none waits."""
        if not self._waiting and len(record.payload) <= SLICE_BYTES:
            self._took(record, self._pipeline.feed(record))
            return
        self._waiting.add(record)
        if self._waiting.bytes > WAITING_MAX_BYTES and len(self._waiting) > 1:
            self._fall_behind()
        else:
            self._called.set()

    def _wait_to_join(self, record: Record) -> None:
        """A record came while the intake reads the capture: it may wait for the capture's end."""
        if self._is_joining:
            self._waiting.add(record)
            if self._waiting.bytes > JOIN_MAX_BYTES:
                self._is_joining = False
                self._forget_waiting()

    def _forget_waiting(self) -> None:
        """Let none wait: the capture has them, apart from those that the disk did not take."""
        self.counts.lost_behind += self._waiting.forget()
        self._settled.set()

    def _fall_behind(self) -> None:
        """From here on all rows come from the capture, also those of records that wait in memory."""
        if self._is_behind:
            return
        self._is_behind = True
        self._is_joining = False
        self._course += 1
        self._forget_waiting()
        self._called.set()

    def _took(self, record: Record, out: Output) -> None:
        """The pipeline took a record: pass its rows on, and note the place."""
        if record.position == START:  # the capture does not have it
            self._put(out, record)
            return
        self._anchors.take(record, self._pipeline.state.memory)
        self._read_after = record.position
        if record.position > self._stored_until:
            self._done = record.position
            self._done_ns = record.received_at_ns
            self._put(out, record)

    def _without_capture(self, record: Record, error: OSError) -> None:
        """The disk did not take the record. Its rows may still be stored."""
        self.problem = f"the capture cannot be written: {error}"
        self.counts.uncaptured += 1
        if self.is_live and self._writer.has_room:
            self._accept(record)
        else:
            self.counts.lost_behind += 1

    def _put(self, out: Output, record: Record | None) -> None:
        self._writer.put(out.rows)
        for row in out.rows:
            if type(row) is GapRow:
                self.counts.gaps += row.repaired_at_ns is None
                self.counts.repaired += row.repaired_at_ns is not None
        if out.rejects:
            self.counts.rejected += len(out.rejects)
            self._quarantine.keep(out.rejects, record)
        for error in out.venue_errors:
            self.counts.venue_errors += 1
            self._on_venue_error(error)

    def mark(self) -> None:
        """Tell the writer how far the rows put so far reach."""
        if self._done != self._marked:
            self._marked = self._done
            self._writer.mark(Mark(self._done, self.state(), self.era))
