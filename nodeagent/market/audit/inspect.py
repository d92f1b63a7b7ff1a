"""`python -m nodeagent.market.audit.inspect FILE [--json]`: what a recording holds, as the real path reads it.

Needs no farm. The file goes through the same pipeline as live data; what is printed per product is what the feed
would have known: `frames, trades, first_trade_id, last_trade_id, missing_trades, duplicates, rejected, gaps, crossed,
best_bid, best_ask, bid_levels, ask_levels`. `farmctl feed inspect` calls `inspect_file` and `render`.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import msgspec

from agentfarm.errors import FarmError, InvalidRequest
from nodeagent.market.capture.formats import open_recording
from nodeagent.market.capture.reader import Damage
from nodeagent.market.model.decimals import to_text
from nodeagent.market.model.source import load_source
from nodeagent.market.pipeline.pipeline import Pipeline
from nodeagent.market.pipeline.product import Product


class ProductReport(msgspec.Struct, frozen=True):
    """One product of a recording. Prices are exact decimal text; None where there is none."""

    product: str
    frames: int
    trades: int
    first_trade_id: int | None
    last_trade_id: int | None
    missing_trades: int
    duplicates: int
    rejected: int
    gaps: int
    crossed: int
    best_bid: str | None
    best_ask: str | None
    bid_levels: int
    ask_levels: int


class FileReport(msgspec.Struct, frozen=True):
    """A whole recording. Frame counts beyond the products': acknowledgements, heartbeats, unreadable ones."""

    file: str
    format: str
    source: str
    frames: int
    unreadable: int
    sequence_gaps: int
    duplicate_frames: int
    out_of_order: int
    unknown_types: dict[str, int]
    damages: list[str]
    products: list[ProductReport]


def inspect_file(path: Path) -> FileReport:
    """Send a recording through the feed. Raises InvalidRequest when the file is missing or of no known format."""
    if not path.exists():
        raise InvalidRequest(f"There is no file {path}.", remedy="Check the path.")
    damages: list[Damage] = []
    recording = open_recording(path, damages.append)
    pipeline = Pipeline(load_source(recording.source), None)
    for record in recording.records:
        pipeline.feed(record)
    pipeline.finish()
    state = pipeline.state
    return FileReport(
        str(path),
        recording.format,
        recording.source,
        state.frames,
        state.unreadable,
        state.sequence_gaps,
        state.duplicate_frames,
        state.out_of_order,
        state.unknown_types,
        [f"{damage.path} at byte {damage.offset}: {damage.problem}" for damage in damages],
        [_report(pipeline, product) for _, product in sorted(state.products.items())],
    )


def render(report: FileReport) -> str:
    """The report as a table for people."""
    names = list(ProductReport.__struct_fields__)
    cells = [names] + [
        ["-" if value is None else str(value) for value in msgspec.structs.astuple(product)]
        for product in report.products
    ]
    widths = [max(len(row[column]) for row in cells) for column in range(len(names))]
    lines = [
        f"{report.file}: {report.format}, source {report.source}, {report.frames} frames",
        *("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in cells),
    ]
    faults = {
        "unreadable frames": report.unreadable,
        "lost stretches of frames": report.sequence_gaps,
        "frames twice": report.duplicate_frames,
        "frames out of order": report.out_of_order,
        "frames of unknown type": sum(report.unknown_types.values()),
    }
    lines += [f"{name}: {count}" for name, count in faults.items() if count]
    lines += [f"damaged: {damage}" for damage in report.damages]
    return "\n".join(lines)


def _report(pipeline: Pipeline, product: Product) -> ProductReport:
    counts = product.all_counts()
    ledger = product.ledger
    has_trades = ledger.last_id >= 0
    keepers = [c.books[product.name] for c in pipeline.state.connections.values() if product.name in c.books]
    book = keepers[-1].levels if keepers else None
    best_bid = book.best_bid() if book is not None else None
    best_ask = book.best_ask() if book is not None else None
    return ProductReport(
        product.name,
        counts.frames,
        counts.trades,
        ledger.first_id if has_trades else None,
        ledger.last_id if has_trades else None,
        ledger.missing.total(),
        counts.duplicates,
        counts.rejected,
        counts.gaps,
        counts.crossed,
        None if best_bid is None else to_text(best_bid),
        None if best_ask is None else to_text(best_ask),
        len(book.bids) if book is not None else 0,
        len(book.asks) if book is not None else 0,
    )


def main(arguments: list[str] | None = None) -> int:
    """The command. Exit code 0, or 1 with one line on stderr."""
    parser = argparse.ArgumentParser(prog="nodeagent.market.audit.inspect", description="What a recording holds.")
    parser.add_argument("file", type=Path, help="a capture or recording of any known format; .gz and .zst too")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args(arguments)
    try:
        report = inspect_file(options.file)
    except FarmError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(msgspec.json.encode(report).decode() if options.json else render(report))
    return 0


if __name__ == "__main__":
    sys.exit(main())
