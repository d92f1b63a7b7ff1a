"""A recording, or a capture of ours, into a QuestDB: `python -m nodeagent.market.audit.replay PATH --endpoint FILE`.

The live path without sockets: records, pipeline, writer. Equal recordings give equal rows, so replaying twice changes
nothing, and replaying a capture into an empty QuestDB brings back what the feed had stored.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

from agentfarm.errors import FarmError, Unavailable
from nodeagent.market.audit.recordings import EVER_NS, Captured, Span, open_captured, products_asked
from nodeagent.market.audit.tables import Tables
from nodeagent.market.capture.reader import Damage
from nodeagent.market.feed.progress import State
from nodeagent.market.model.records import Record
from nodeagent.market.model.rows import GapRow, HealthRow, Row
from nodeagent.market.model.source import load_source
from nodeagent.market.model.times import MINUTE_NS
from nodeagent.market.pipeline.pipeline import Pipeline
from nodeagent.market.pipeline.state import PipelineSettings
from nodeagent.market.store.endpoint import Endpoint
from nodeagent.market.store.migrate import restore_tables
from nodeagent.market.writer.writer import AnyRow, Mark, RowWriter, WriterSettings

YIELD_EVERY: Final = 200
STORE_WITHIN_S: Final = 120.0
WAIT_MAX_S: Final = 5.0
"""Replaying at the recorded speed, a silence lasts no longer than this."""

OnRecord = Callable[[int, Record, State | None], None]


@dataclass(slots=True)
class Replayed:
    """What a replay did."""

    format: str
    source: str
    records: int = 0
    rejected: int = 0
    rows: dict[str, int] = field(default_factory=dict)
    """Rows stored, by table."""
    refused: int = 0
    damages: int = 0
    """Stretches of the capture that could not be read."""
    seconds: float = 0.0
    is_stored: bool = True
    """False: QuestDB did not take everything in time."""


async def replay(
    path: Path,
    endpoint: Endpoint,
    *,
    products: Sequence[str] | None = None,
    feed_products: Sequence[str] = (),
    settings: PipelineSettings | None = None,
    span: Span | None = None,
    speed: float = 0.0,
    on_record: OnRecord | None = None,
) -> Replayed:
    """Replay what `path` holds of `span`; tables that are gone are made again first.

    products: only rows of these; None: of all. feed_products: those of a feed at work, beside those that its capture
    says it asked for; others are damaged names. speed: 1 is as fast as it happened, 0 as fast as it goes.
    The folder of a feed at work is replayed up to this moment. A part of a recording cannot tell all: it leaves out
    minutes cut in two, and gaps without their end.
    Raises InvalidRequest for an unknown format, Unavailable without a server.
    """
    began_s = time.monotonic()
    await restore_tables(endpoint)
    damages: list[Damage] = []
    choice = _Choice(span or Span(), products, feed_products)
    captured = open_captured(path, choice.span, damages.append, is_stored=False)
    result = Replayed(captured.format, captured.source)
    pipeline = Pipeline(load_source(captured.source), None if captured.state or span else products, settings=settings)
    writer = _started_writer(endpoint, captured.source)
    async for record in _until_the_end(captured, choice.span, _Pace(speed)):
        if captured.state is not None:
            choice.learn(products_asked(record))
        out = pipeline.feed(record)
        result.records += 1
        result.rejected += len(out.rejects)
        writer.put(choice.of(out.rows, record.received_at_ns))
        if on_record is not None:
            on_record(result.records, record, captured.state)
        await _take_turns(writer, result.records)
    is_whole = captured.state is None and choice.span.is_open_ended
    if is_whole:
        writer.put(choice.of(pipeline.finish().rows, choice.span.until_ns - 1))
    writer.put(await asyncio.to_thread(choice.gaps, None if is_whole else Tables(endpoint)))
    result.is_stored = await writer.stop(STORE_WITHIN_S)
    result.rows, result.refused = dict(writer.counts.stored), writer.counts.refused
    result.damages, result.seconds = len(damages), round(time.monotonic() - began_s, 3)
    return result


def _started_writer(endpoint: Endpoint, source: str) -> RowWriter:
    writer = RowWriter(lambda: endpoint, WriterSettings(), source=source, on_ack=_acknowledged, on_refused=_refused)
    writer.start()
    return writer


async def _until_the_end(captured: Captured, span: Span, pace: _Pace) -> AsyncIterator[Record]:
    """The records of the span at their pace; of a feed at work those up to this moment."""
    end_ns = min(span.until_ns, time.time_ns() if captured.state is not None else EVER_NS)
    for record in captured.records:
        if record.received_at_ns >= end_ns:
            return
        await pace.keep(record.received_at_ns, span.since_ns)
        yield record


class _Choice:
    """Which rows of a replay are stored. Gaps wait for the end: only their last word counts."""

    def __init__(self, span: Span, products: Sequence[str] | None, feed_products: Sequence[str]) -> None:
        self.span = span
        self._only = frozenset(products) if products is not None else None
        self._feed_products = set(feed_products)
        self._gaps: dict[tuple[object, ...], GapRow] = {}

    def learn(self, products: set[str]) -> None:
        """The feed has asked for these."""
        self._feed_products |= products

    def of(self, rows: Sequence[Row], received_at_ns: int) -> list[Row]:
        """Those of these, which a record of that time led to, that are wanted now."""
        is_in = self.span.holds(received_at_ns)
        rows_in_span: list[Row] = []
        for row in rows:
            if not self._is_wanted(row.product):
                continue
            if type(row) is GapRow:
                self._gaps[row.ts_ns, row.source, row.product, row.kind, row.first_id, row.last_id] = row
            elif is_in and (type(row) is not HealthRow or self._is_whole_minute(row.ts_ns)):
                rows_in_span.append(row)
        return rows_in_span

    def gaps(self, tables: Tables | None) -> list[Row]:
        """The gaps of the time.

        Of a part (`tables` are where it goes) an open one only if nothing is known of it there: its end may have come
        later, and must not be overwritten.
        """
        return [
            row
            for row in self._gaps.values()
            if self.span.holds(row.ts_ns)
            and (
                tables is None
                or row.repaired_at_ns is not None
                or (self.span.is_open_ended and not tables.has_gap(row))
            )
        ]

    def _is_wanted(self, product: str) -> bool:
        if self._only is not None:
            return product in self._only
        return not self._feed_products or not product or product in self._feed_products

    def _is_whole_minute(self, minute_ns: int) -> bool:
        return self.span.since_ns <= minute_ns and minute_ns + MINUTE_NS <= self.span.until_ns


class _Pace:
    """Holds a replay to the speed at which it was recorded."""

    def __init__(self, speed: float) -> None:
        self._speed = speed
        self._before_ns = 0

    async def keep(self, at_ns: int, since_ns: int) -> None:
        """Wait until it is time for a record of `at_ns`. What lies before `since_ns` is only read."""
        if self._speed <= 0 or at_ns < since_ns or not at_ns:
            return
        wait_s = (at_ns - self._before_ns) / 1e9 / self._speed if self._before_ns else 0.0
        self._before_ns = at_ns
        if wait_s > 0:
            await asyncio.sleep(min(wait_s, WAIT_MAX_S))


async def _take_turns(writer: RowWriter, records: int) -> None:
    """Let others have their turn now and then; where the writer is full, wait until QuestDB has taken something.

    Raises Unavailable when it takes nothing for too long.
    """
    if writer.has_room:
        if records % YIELD_EVERY == 0:
            await asyncio.sleep(0)
        return
    try:
        async with asyncio.timeout(STORE_WITHIN_S):
            await writer.room()
    except TimeoutError:
        await writer.stop(0.0)
        raise Unavailable(
            writer.counts.problem or "QuestDB takes no rows.", remedy="See: farmctl feed status. Then replay again."
        ) from None


def _acknowledged(_mark: Mark) -> None:
    """A replay has no position to save."""


def _refused(row: AnyRow, problem: str) -> None:
    print(f"QuestDB refuses {row!r}: {problem}", file=sys.stderr)


def main(arguments: list[str] | None = None) -> int:
    """Exit: 0 all stored, 1 not all, 5 the recording or the server cannot be used."""
    parser = argparse.ArgumentParser(prog="python -m nodeagent.market.audit.replay", description=__doc__)
    parser.add_argument("path", type=Path)
    parser.add_argument("--endpoint", type=Path, required=True, help="endpoint.json of a node's QuestDB")
    parser.add_argument("--products", default="", help="comma-separated; default: all")
    options = parser.parse_args(arguments)
    products = tuple(options.products.split(",")) if options.products else None
    try:
        result = asyncio.run(replay(options.path, Endpoint.load(options.endpoint), products=products))
    except (FarmError, OSError) as error:
        print(error, file=sys.stderr)
        return 5
    print(json.dumps(asdict(result)))
    return 0 if result.is_stored and not result.refused else 1


if __name__ == "__main__":
    sys.exit(main())
