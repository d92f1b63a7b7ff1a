"""From records to rows: the one path of live data, replay and inspection.

    frame  ─▶ parse ─▶ frame number ─▶ rules: validate, count, ledger, book, trust ─▶ rows, rejects
    answer ─▶ read  ─▶ answers ────────┘                                    │
    fact   ─▶ lives: connections and products come and go                  └─▶ due(now): questions for the venue

Pure: no clock, no I/O. A record brings its own time, so the same records give equal rows each time. Book rows come at
whole seconds of receipt time, health rows at whole minutes. `due` is for the live shell alone and changes no row.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from nodeagent.market.model.events import (
    UNKNOWN_TIME_NS,
    BookDelta,
    BookSnapshot,
    Event,
    GapKind,
    Heartbeat,
    Instrument,
    OrderEvent,
    Parsed,
    Trade,
)
from nodeagent.market.model.records import Record, RecordKind
from nodeagent.market.model.slices import SLICE_BYTES, Steps, whole
from nodeagent.market.model.source import Source, parse_in_slices
from nodeagent.market.model.times import MINUTE_NS, NS
from nodeagent.market.pipeline.answers import Answer, read_answer, take_answer
from nodeagent.market.pipeline.ledger import Seen
from nodeagent.market.pipeline.lives import connect, disconnect, follow, followed_events, minute_row, take_kept
from nodeagent.market.pipeline.quality import NOW_EVERY_S, followed, now_row
from nodeagent.market.pipeline.questions import Action, Questions
from nodeagent.market.pipeline.rules import RULES, reject
from nodeagent.market.pipeline.state import Connection, FeedState, Memory, Output, PipelineSettings

BACK_STEP_S: Final = 5
"""Receipt times further back than this are a new clock, not jitter."""
_TIMED: Final = (BookDelta, BookSnapshot, Heartbeat, OrderEvent)


class Pipeline:
    """One feed, fed record by record. `state` is open to readers: inspection, metrics, the session."""

    def __init__(
        self,
        source: Source,
        products: Iterable[str] | None,
        *,
        settings: PipelineSettings | None = None,
        instruments: Mapping[str, Instrument] | None = None,
        memory: Memory | None = None,
    ) -> None:
        """`products` None: any product is welcome. `memory`: what a pipeline knew where this one begins."""
        self.state = FeedState(source, products, settings or PipelineSettings(), instruments or {}, memory or Memory())
        self._questions = Questions(self.state)
        self._second = self.state.now_ns // NS
        self._minute = self._second // 60

    def feed(self, record: Record) -> Output:
        """Take the next record. Never raises for what a venue may send or a damaged file may contain."""
        payload = record.payload
        if len(payload) > SLICE_BYTES:
            return whole(self.steps(record))
        if record.kind is RecordKind.RECEIVED:
            return self._frame(record, self.state.source.parse(payload, record.received_at_ns))
        return self._fact(record, whole(self._answer(record)))

    def steps(self, record: Record) -> Steps[Output]:
        """`feed` in slices. Only reading a record takes long. Nothing changes until it is read, so the pipeline's state
        in between is that before the record."""
        if record.kind is RecordKind.RECEIVED:
            source = self.state.source
            return self._frame(record, (yield from parse_in_slices(source, record.payload, record.received_at_ns)))
        return self._fact(record, (yield from self._answer(record)))

    def due(self, now_ns: int, *, may_ask: bool = True) -> list[Action]:
        """What the live shell should ask the venue now; see `questions`."""
        return self._questions.due(now_ns, may_ask=may_ask)

    def finish(self) -> Output:
        """Close the running second and minute: the end of a file, or of a clean shutdown."""
        out = Output()
        if self.state.now_ns:
            self._close_second(out)
            self._close_minute(out)
        return out

    def _answer(self, record: Record) -> Steps[Answer]:
        if record.kind is not RecordKind.REST:
            return None
        return (yield from read_answer(self.state, record.payload))

    def _fact(self, record: Record, answer: Answer) -> Output:
        """Take a record that is no frame."""
        out = Output()
        feed = self.state
        feed.position = record.position
        kind = record.kind
        if record.received_at_ns:
            self._advance(record.received_at_ns, out)
        if kind is RecordKind.CONNECT:
            connect(feed, record.connection_id, record.payload)
        elif kind is RecordKind.DISCONNECT:
            disconnect(feed, record.connection_id)
        elif kind is RecordKind.REST:
            take_answer(feed, answer, out)
        elif kind is RecordKind.PRODUCTS:
            follow(feed, record.payload, out)
        elif kind is RecordKind.KEPT:
            take_kept(feed, record.connection_id, record.payload)
        return out

    def _frame(self, record: Record, parsed: Parsed) -> Output:
        """Take a frame: the clocks first, then its number, then its events."""
        out = Output()
        feed = self.state
        feed.position = record.position
        venue_ns = parsed.sent_at_ns or _time_of(parsed)
        now_ns = record.received_at_ns or max(feed.now_ns, _latest_time(parsed))
        if now_ns // NS == self._second:
            feed.now_ns = now_ns
        elif now_ns:
            self._advance(now_ns, out)
        feed.frames += 1
        feed.venue_now_ns = feed.skew.observe(now_ns, record.monotonic_ns, venue_ns)
        connection = feed.connections.get(record.connection_id)
        if connection is None:
            connection = Connection(record.connection_id, now_ns, None)
            feed.connections[record.connection_id] = connection
        connection.frame_at_ns = now_ns
        events = parsed.events
        rejects = parsed.rejects
        if feed.left:
            events = followed_events(feed, events)
            rejects = [refusal for refusal in rejects if refusal.product not in feed.left]
        if connection.subscriptions.waiting:
            connection.subscriptions.brought(events)
        sequence = parsed.sequence
        if sequence >= 0 and feed.source.has_connection_sequence:
            if sequence == connection.sequence.expected:
                connection.sequence.expected = sequence + 1
            else:
                events = self._out_of_turn(connection, sequence, events, out)
        for event in events:
            RULES[type(event)](feed, event, connection, out)
        for refusal in rejects:
            reject(feed, refusal, connection, out)
        if parsed.unknown_type:
            feed.count_unknown(parsed.unknown_type)
        return out

    def _out_of_turn(self, connection: Connection, sequence: int, events: list[Event], out: Output) -> list[Event]:
        """A frame that is not the next one: after a loss, late, or again. Returns the events that still count."""
        seen, hole = connection.sequence.observe(sequence)
        if hole is not None:
            self._lost_frames(connection, hole, out)
        elif seen is Seen.DUPLICATE:
            self.state.duplicate_frames += 1
            self._note_frame(GapKind.DUPLICATE, sequence, connection, out)
            return []
        elif seen is Seen.FILLS:
            self.state.out_of_order += 1
            self._note_frame(GapKind.OUT_OF_ORDER, sequence, connection, out)
            # It is older than what the books hold; its hole has put them in doubt already.
            return [event for event in events if not isinstance(event, BookDelta | BookSnapshot)]
        return events

    def _lost_frames(self, connection: Connection, hole: tuple[int, int], out: Output) -> None:
        """Frames of unknown content are gone: any book of the connection may be wrong."""
        feed = self.state
        feed.sequence_gaps += 1
        row = feed.gap_row(GapKind.CONNECTION_SEQUENCE, "", hole, connection.connection_id)
        if connection.books:
            out.rows.append(row)
            connection.open_gaps.append(row)
            connection.doubt_books(feed.now_ns)
        else:
            out.rows.append(row.repaired(feed.now_ns))  # lost trades show by their ids; the rest cannot come back

    def _note_frame(self, kind: GapKind, sequence: int, connection: Connection, out: Output) -> None:
        """A frame came twice or late: a fact, with nothing to repair."""
        row = self.state.gap_row(kind, "", (sequence, sequence), connection.connection_id)
        out.rows.append(row.repaired(self.state.now_ns))

    def _advance(self, now_ns: int, out: Output) -> None:
        """Move the feed's time to the record's, and first close the seconds and minutes that are over."""
        second = now_ns // NS
        if second != self._second and (second > self._second or second < self._second - BACK_STEP_S):
            if self._second:
                self._close_second(out)
                if second // 60 != self._minute:
                    self._close_minute(out)
            self._second = second
            self._minute = second // 60
        self.state.now_ns = now_ns
        self.state.venue_now_ns = self.state.skew.venue_time(now_ns)

    def _close_second(self, out: Output) -> None:
        """A row for each trusted book that changed in the second, at the second's end."""
        feed = self.state
        ts_ns = (self._second + 1) * NS
        for product in feed.products.values():
            connection = feed.synced_connection(product.name)
            if connection is not None:
                state = connection.books[product.name]
                if state.is_changed:
                    state.is_changed = False
                    out.rows.append(product.book_row(state.levels, ts_ns, feed.settings.book_depth))
        if self._second % NOW_EVERY_S == 0:
            out.rows += [now_row(feed, name, ts_ns) for name in followed(feed)]

    def _close_minute(self, out: Output) -> None:
        """A health row for each product."""
        feed = self.state
        for connection in feed.connections.values():
            feed.collect_absent_removals(connection)
        for product in feed.products.values():
            out.rows.append(minute_row(feed, product, self._minute * MINUTE_NS))


def _time_of(parsed: Parsed) -> int:
    """The venue's time of a frame whose envelope has none, for the clock's skew: the first live event's."""
    if not parsed.events:
        return UNKNOWN_TIME_NS
    event = parsed.events[0]
    if isinstance(event, _TIMED) or (isinstance(event, Trade) and not event.is_history):
        return event.time_ns
    return UNKNOWN_TIME_NS


def _latest_time(parsed: Parsed) -> int:
    """The newest time in a frame: the clock of recordings that kept no receipt times."""
    times = (getattr(event, "time_ns", UNKNOWN_TIME_NS) for event in parsed.events)
    return max(parsed.sent_at_ns, max(times, default=UNKNOWN_TIME_NS))
