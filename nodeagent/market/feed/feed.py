"""The feed: everything put together, and the order in which it starts and stops."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import replace
from typing import Any, Final

import msgspec
import structlog

from agentfarm.files import FileLock
from agentfarm.service import Tasks
from nodeagent.market.capture.reader import Damage, segments
from nodeagent.market.capture.writer import CaptureWriter
from nodeagent.market.feed import progress as progress_file
from nodeagent.market.feed.intake import Intake
from nodeagent.market.feed.metrics import serve_metrics
from nodeagent.market.feed.needs import lock_folder, open_session, open_signer, open_source
from nodeagent.market.feed.progress import Past, Progress, State
from nodeagent.market.feed.quarantine import Quarantine
from nodeagent.market.feed.retention import Disk, Room, disk_state, disk_words, expendable, left_out
from nodeagent.market.feed.settings import FeedSettings
from nodeagent.market.feed.status import FeedStatus, Rate, product_statuses
from nodeagent.market.model.events import VenueError
from nodeagent.market.model.records import Following, RecordKind, segment_of
from nodeagent.market.model.source import RestRequest
from nodeagent.market.model.times import MS_NS, NS
from nodeagent.market.pipeline.pipeline import Pipeline
from nodeagent.market.pipeline.quality import refused
from nodeagent.market.pipeline.questions import Resubscribe, Subscribe
from nodeagent.market.pipeline.state import PipelineSettings
from nodeagent.market.session.rest import RestClient
from nodeagent.market.store.endpoint import Endpoint
from nodeagent.market.store.health import disk_room
from nodeagent.market.store.migrate import Database
from nodeagent.market.writer.writer import AnyRow, Mark, RowWriter, WriterSettings

MARK_EVERY_S: Final = 0.1
QUESTIONS_EVERY_S: Final = 0.5
ROOM_EVERY_S: Final = 5.0
BEHIND_MAX_S: Final = 2.0
"""Further behind, no product is good."""

log = structlog.get_logger("feed")


class Feed:
    """One feed process's work. `start`, then `stop`; both once."""

    def __init__(self, settings: FeedSettings) -> None:
        self.settings = settings
        self._source = open_source(settings)
        self._signer = open_signer(settings)
        self._tasks = Tasks("feed", self.died)
        self._started_at_ns = time.time_ns()
        self._is_stopping = False
        self._rate = Rate()
        self._lock: FileLock | None = None
        self._metrics_port = 0
        self._disk, self._left_out, self._disk_problem = Disk.OK, frozenset[str](), ""
        self._loop = asyncio.get_running_loop()
        self.failed: asyncio.Future[BaseException] = self._loop.create_future()
        """Done when a part of the feed has died: the process should end, loudly."""

    async def start(self) -> None:
        """Open the capture, continue from the acknowledged position, connect. Raises Conflict, OSError."""
        settings, folder = self.settings, self.settings.capture_dir
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = lock_folder(folder)
        self._progress, state = progress_file.load(folder, int(time.time())).resumed(progress_file.boot_id())
        self._saved: Progress | None = None
        self._open_path(state)
        self._intake.take(RecordKind.TICK, 0, b"")
        self._end_old_connections(state.first_open_connection)
        self._take_products()
        self._rest = RestClient(self._source, self._intake, self._is_open_question)
        self._sessions = [
            open_session(self._source, settings, self._intake, self._next_connection_id, self._signer)
            for _ in range(settings.connections)
        ]
        self._metrics_port = serve_metrics(self.status, settings.metrics_port)
        self._writer.start()
        log.info("feed.started", source=self._source.name, products=len(settings.products), after=state.position)
        await self._run_parts()

    def _open_path(self, state: State) -> None:
        """Put together what a record passes: capture, pipeline, writer, and the intake that joins them."""
        settings, folder = self.settings, self.settings.capture_dir
        self._capture = CaptureWriter(folder, on_damage=self._damaged)
        self._quarantine = Quarantine(folder)
        self._past = Past(folder)
        self._pipeline = self._new_pipeline(state)
        self._writer = RowWriter(
            lambda: Endpoint.load(settings.endpoint_file),
            WriterSettings(settings.flush_interval_s, settings.flush_rows_max, settings.queue_max),
            source=self._source.name,
            on_ack=self._acknowledged,
            on_refused=self._refused,
            on_database=self._writes_to,
            database=state.database,
            drops=state.drops,
        )
        self._intake = Intake(
            self._capture,
            self._pipeline,
            self._writer,
            state,
            capture_dir=folder,
            quarantine=self._quarantine,
            on_damage=self._damaged,
            on_venue_error=self._venue_error,
        )

    async def _run_parts(self) -> None:
        """Start what runs until the feed stops."""
        settings = self.settings
        self._run(self._intake.keep_up)
        for session in self._sessions:
            self._run(session.run)
        self._run(self._every(MARK_EVERY_S, self._mark))
        self._run(self._every(QUESTIONS_EVERY_S, self._ask))
        self._run(self._every(settings.fsync_interval_s, self._sync))
        self._run(self._every(1.0, self._second))
        await self._make_room()
        self._run(self._every(ROOM_EVERY_S, self._make_room))
        self._run(self._every(settings.keep_books_interval_s, self._intake.keep_books))

    async def stop(self) -> None:
        """Take no new records, store those that are here, save the progress, close."""
        self._is_stopping = True
        await self._tasks.end()
        await self._rest.close()
        self._intake.mark()
        is_stored = await self._writer.stop(self.settings.stop_within_s)
        try:
            self._capture.close()
            progress_file.save(self.settings.capture_dir, self._progress)
        except OSError as error:
            log.error("feed.not_saved", problem=str(error))
        await self._second()
        if self._lock is not None:
            self._lock.release()
        log.info("feed.stopped", is_stored=is_stored, position=self._progress.state.position)

    def status(self) -> FeedStatus:
        """The feed now."""
        intake, writer, feed = self._intake, self._writer, self._pipeline.state
        connected = [session for session in self._sessions if session.is_connected]
        problems = [session.problem for session in self._sessions if session.problem]
        problems += [
            text for text in (self._disk_problem, intake.problem, writer.counts.problem, self._rest.problem) if text
        ]
        state = "stopping" if self._is_stopping else "live" if intake.is_live else "behind"
        if state == "live" and not self.settings.products:
            state = "idle"
        if state == "live" and any(session.is_over for session in self._sessions):
            state = "over"
        return FeedStatus(
            pid=os.getpid(),
            source=self._source.name,
            updated_at_ns=time.time_ns(),
            started_at_ns=self._started_at_ns,
            state=state,
            is_connected=bool(connected),
            connections=len(connected),
            connects=sum(session.connects for session in self._sessions),
            frames=intake.counts.frames,
            frames_per_s=self._rate.per_s,
            rows_stored=writer.counts.stored.total(),
            rows_by_table=dict(writer.counts.stored),
            rows_queued=writer.queued,
            rows_dropped=writer.counts.dropped.total(),
            rows_refused=writer.counts.refused,
            gaps=intake.counts.gaps,
            repaired=intake.counts.repaired,
            missing_trades=feed.missing_trades(),
            rejected=intake.counts.rejected,
            lag_ms=self._rate.lag_ms,
            skew_ms=-feed.skew.offset_ns / MS_NS,
            behind_s=intake.behind_s,
            capture_bytes=self._capture.stored_bytes,
            capture_raw_bytes=self._capture.raw_bytes,
            rest_requests=self._rest.requests,
            rest_failures=self._rest.failures,
            metrics_port=self._metrics_port,
            disk=self._disk,
            left_out=sorted(self._left_out),
            products=product_statuses(feed, self._doubt()),
            problems=problems,
        )

    def follow(self, products: tuple[str, ...]) -> None:
        """Follow these products from now on. Frames of those that stay keep coming; new ones start as at a connect."""
        before, self.settings = self.settings.products, replace(self.settings, products=products)
        added, gone = sorted(set(products) - set(before)), sorted(set(before) - set(products))
        if added or gone:
            log.info("feed.products_changed", added=added, gone=gone)
            self._take_products()
            for session in self._sessions:
                session.follow(products)
                self._start(session.change(added, gone))

    def _take_products(self) -> None:
        self._intake.take(RecordKind.PRODUCTS, 0, msgspec.json.encode(Following(self.settings.products)))

    def _new_pipeline(self, state: State) -> Pipeline:
        """For records after the state's position; a PRODUCTS record leads from the products of then to those of now."""
        settings, memory = self.settings, state.memory
        return Pipeline(
            self._source,
            settings.products if memory.products is None else memory.products,
            settings=PipelineSettings(settings.book_depth, settings.every_change, settings.book_check_interval_s),
            memory=memory,
        )

    def _doubt(self) -> str:
        """Why no product is good now, whatever the pipeline knows; empty when there is no such reason."""
        if not self._intake.is_live and self._intake.behind_s > BEHIND_MAX_S:
            return "the feed is behind: rows are made from its capture"
        return self._writer.counts.problem and "rows wait: QuestDB takes none"

    def _next_connection_id(self) -> int:
        """A number never used in this capture. Saved before it is used, so that a restart can end what we leave
        open."""
        self._progress = self._progress.connected(self._progress.last_connection_id + 1)
        self._save()
        return self._progress.last_connection_id

    def _end_old_connections(self, first_open: int) -> None:
        """Write into the capture that the connections of the process before us are gone."""
        last = self._progress.last_connection_id
        for connection_id in range(first_open or max(1, last), last + 1):
            self._intake.take(RecordKind.DISCONNECT, connection_id, b"the process ended")

    async def _mark(self) -> None:
        self._intake.mark()

    async def _ask(self) -> None:
        """Put the pipeline's questions to the venue. Only when it is up to date: old holes may be filled already."""
        if not self._intake.is_live:
            return
        for action in self._pipeline.due(time.time_ns(), may_ask=not self._rest.is_waiting):
            if isinstance(action, Resubscribe):
                for session in self._sessions:
                    self._start(session.resubscribe(action.connection_id, action.products, action.channels))
            elif isinstance(action, Subscribe):
                refusals = refused(self._pipeline.state, self._pipeline.state.connections[action.connection_id])
                for session in self._sessions:
                    self._start(session.subscribe(action.connection_id, action.product, refusals))
            else:
                self._start(self._rest.ask(action))

    def _is_open_question(self, request: RestRequest) -> bool:
        """Whether its answer is still of use: not when it is about a book of a connection that is gone."""
        return request.connection_id < 0 or request.connection_id in self._pipeline.state.connections

    async def _sync(self) -> None:
        try:
            await self._intake.flush()
            await asyncio.to_thread(self._capture.sync)
        except OSError as error:
            self._intake.problem = f"the capture cannot be written: {error}"

    async def _second(self) -> None:
        """Once a second: bring time to a silent pipeline, save the progress, publish the status."""
        now_ns = time.time_ns()
        if not self._is_stopping and now_ns - self._intake.taken_at_ns > NS:
            self._intake.take(RecordKind.TICK, 0, b"")
        self._rate.tick(self._intake.counts.frames, self._pipeline.state)
        self._save()
        try:
            self.status().save(self.settings.status_file)
        except OSError as error:
            log.warning("feed.status_not_written", problem=str(error))

    async def _make_room(self) -> None:
        """Delete old segments when a disk runs full."""
        settings = self.settings
        folders = [settings.capture_dir, *([settings.questdb_dir] if settings.questdb_dir else [])]
        rooms = [Room(*disk_room(folder)) for folder in folders if folder.exists()]
        room = min(rooms, key=lambda room: room.free_bytes)
        self._see_disk(room)
        state = self._progress.state
        keep_from = segment_of(min(state.replay_after() or state.position, self._progress.older.position))
        for segment in expendable(
            segments(settings.capture_dir), keep_from, settings.capture_max_bytes, room, settings.disk_low_bytes
        ):
            log.info("feed.capture_deleted", segment=segment.number, bytes=segment.size_bytes)
            segment.path.unlink(missing_ok=True)

    def _see_disk(self, room: Room) -> None:
        """Leave out what there is no room for, and say so."""
        low_bytes = self.settings.disk_low_bytes
        disk, self._left_out = disk_state(room, low_bytes), left_out(room, low_bytes)
        self._writer.leave_out(self._left_out)
        self._disk_problem = disk_words(disk, room, self._left_out)
        if disk is not self._disk:
            log.warning("feed.disk", state=disk, free_bytes=room.free_bytes, left_out=sorted(self._left_out))
        self._disk = disk

    def _acknowledged(self, mark: Mark) -> None:
        """On the writer's thread: rows up to here are stored."""
        self._loop.call_soon_threadsafe(self._advance, mark)

    def _advance(self, mark: Mark) -> None:
        if mark.era == self._intake.era:
            state = msgspec.structs.replace(mark.state, database=mark.database, drops=mark.drops)
            self._progress = self._progress.advanced(state)
            self._past.note(state)

    def _writes_to(self, before: Database, now: Database) -> None:
        """On the writer's thread: which database takes the rows from now on, and what it was before."""
        self._loop.call_soon_threadsafe(self._see_database, before, now)

    def _see_database(self, before: Database, now: Database) -> None:
        """Store again what the database does not hold, as far back as the capture goes."""
        progress = self._progress
        if progress.state.database is None:
            self._progress = msgspec.structs.replace(
                progress, state=msgspec.structs.replace(progress.state, database=now)
            )
            return
        held = self._past.newest_in(before, (progress.state, progress.middle, progress.older))
        start = held or State(memory=self._pipeline.state.memory_of_start())
        log.warning(
            "feed.database_went_back" if held else "feed.database_is_new",
            known=progress.state.database.identity,
            found=before.identity,
            after=start.position,
        )
        self._progress = progress.restarted_at(msgspec.structs.replace(start, database=now))
        self._pipeline = self._new_pipeline(start)
        self._intake.begin_again(self._pipeline, start)

    def _save(self) -> None:
        if self._progress is self._saved:
            return
        try:
            progress_file.save(self.settings.capture_dir, self._progress)
            self._saved = self._progress
        except OSError as error:
            log.warning("feed.progress_not_saved", problem=str(error))

    def _refused(self, row: AnyRow, problem: str) -> None:
        log.error("feed.row_refused", table=type(row).__name__, problem=problem)
        self._quarantine.keep_row(row, problem)

    def _damaged(self, damage: Damage) -> None:
        log.warning("feed.capture_damaged", path=damage.path, problem=damage.problem, offset=damage.offset)

    def _venue_error(self, error: VenueError) -> None:
        log.warning("feed.venue_error", message=error.message)

    def _run(self, work: Callable[[], Awaitable[None]]) -> None:
        self._tasks.run(_as_task(work))

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        self._tasks.run(work)

    def died(self, problem: BaseException) -> None:
        """A part that dies takes the process with it. A supervisor starts it again, and nothing is lost."""
        if not self.failed.done():
            self.failed.set_result(problem)

    def _every(self, seconds: float, work: Callable[[], Awaitable[None]]) -> Callable[[], Awaitable[None]]:
        async def run() -> None:
            while True:
                await asyncio.sleep(seconds)
                await work()

        return run


async def _as_task(work: Callable[[], Awaitable[None]]) -> None:
    await work()
