"""A recording, or a capture of ours, into a QuestDB: `python -m nodeagent.feed.service.replay PATH --endpoint FILE`.

The live path without sockets: records, pipeline, writer. Equal recordings give equal rows, so replaying twice changes
nothing, and replaying a capture into an empty QuestDB brings back what the feed had stored.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

from agentfarm.errors import FarmError
from nodeagent.feed.formats import open_recording
from nodeagent.feed.pipeline import Pipeline
from nodeagent.feed.source import load_source
from nodeagent.feed.state import PipelineSettings
from nodeagent.feed.writer import AnyRow, Mark, RowWriter, WriterSettings
from nodeagent.questdb.endpoint import Endpoint
from nodeagent.questdb.migrate import migrate

YIELD_EVERY: Final = 200
STORE_WITHIN_S: Final = 120.0


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
    seconds: float = 0.0
    is_stored: bool = True
    """False: QuestDB did not take everything in time."""


async def replay(
    path: Path,
    endpoint: Endpoint,
    *,
    products: Sequence[str] | None = None,
    settings: PipelineSettings | None = None,
) -> Replayed:
    """Replay everything in `path`. Raises InvalidRequest for an unknown format, Unavailable without a server."""
    began_s = time.monotonic()
    await migrate(endpoint)
    recording = open_recording(path)
    result = Replayed(recording.format, recording.source)
    pipeline = Pipeline(load_source(recording.source), products, settings=settings)
    writer = RowWriter(
        lambda: endpoint, WriterSettings(), source=recording.source, on_ack=_acknowledged, on_refused=_refused
    )
    writer.start()
    for record in recording.records:
        out = pipeline.feed(record)
        result.records += 1
        result.rejected += len(out.rejects)
        writer.put(out.rows)
        if not writer.has_room:
            await writer.room()
        elif result.records % YIELD_EVERY == 0:
            await asyncio.sleep(0)
    writer.put(pipeline.finish().rows)
    result.is_stored = await writer.stop(STORE_WITHIN_S)
    result.rows = dict(writer.counts.stored)
    result.refused = writer.counts.refused
    result.seconds = time.monotonic() - began_s
    return result


def _acknowledged(_mark: Mark) -> None:
    """A replay has no position to save."""


def _refused(row: AnyRow, problem: str) -> None:
    print(f"QuestDB refuses {row!r}: {problem}", file=sys.stderr)


def main(arguments: list[str] | None = None) -> int:
    """Exit: 0 all stored, 1 not all, 5 the recording or the server cannot be used."""
    parser = argparse.ArgumentParser(prog="python -m nodeagent.feed.service.replay", description=__doc__)
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
