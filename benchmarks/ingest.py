"""How fast market data goes in: `python -m benchmarks.ingest [--peer] [--repeat 15] [--live-s 20]`.

Replays the recorded Coinbase Advanced Trade session through the real path, parse + validate + book + rows, on one
core, and says frames and book levels a second (updates only, both books full), the time of the 5 MB snapshot, and the
size of our capture of it. With `--peer`, cryptofeed and ccxt handle the same frames in the same run, in an
environment that `uv` makes for them; both build the books and neither stores or validates anything. CPU time, the
median of all repetitions. Then a real feed process stores a live market into a real QuestDB, where one can be had, and
another keeps twenty of the largest books: how long was its event loop held up at most (`ingest_blocked`)?
The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

from benchmarks.ingest_live import LiveFigures, measure_live
from benchmarks.ingest_peers import PEERS, PeerResult, measure_peer
from nodeagent.market.capture.formats import open_recording
from nodeagent.market.capture.reader import segments
from nodeagent.market.capture.writer import CaptureWriter
from nodeagent.market.model.decimals import forget
from nodeagent.market.model.records import Record, RecordKind
from nodeagent.market.model.rows import TradeRow
from nodeagent.market.model.source import load_source
from nodeagent.market.model.times import NS
from nodeagent.market.pipeline.pipeline import Pipeline

RECORDING = (
    Path(__file__).resolve().parents[2] / "shared" / "data" / "coinbase" / "advtrade_2026-08-09_btc-eth_part1.jsonl.gz"
)
BIG_FRAME_BYTES = 100_000


@dataclass
class Figures:
    """What was measured; lists hold one value a repetition."""

    frames: int = 0
    levels: int = 0
    rows: int = 0
    updates_s: list[float] = field(default_factory=list)
    snapshot_s: list[float] = field(default_factory=list)
    trades: int = 0
    trades_s: list[float] = field(default_factory=list)
    capture_ratio: float = 0.0
    capture_s: list[float] = field(default_factory=list)


def main() -> int:
    """Print a table for people and one JSON object for programs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peer", action="store_true", help="also measure cryptofeed and ccxt on the same frames")
    parser.add_argument("--repeat", type=int, default=15)
    parser.add_argument("--live-s", type=float, default=20.0, help="seconds of the live part; 0 leaves it out")
    options = parser.parse_args()
    if not RECORDING.exists():
        print(f"the recording is not at {RECORDING}", file=sys.stderr)
        return 1
    records = list(open_recording(RECORDING).records)
    figures = Figures()
    for number in range(options.repeat):
        _progress(f"repetition {number + 1} of {options.repeat}")
        _replay(records, figures)
        _trades_alone(records, figures)
        _capture(records, figures)
    peers = []
    if options.peer:
        for name in PEERS:
            _progress(f"{name}: making its environment, then measuring")
            peers.append(measure_peer(name, [r.payload for r in records if r.kind is RecordKind.RECEIVED]))
    live = LiveFigures(problem="left out")
    if options.live_s:
        _progress(f"a feed, an exchange and a QuestDB for {options.live_s:g} s")
        live = measure_live(options.live_s)
    _progress("")
    _print(figures, peers, live)
    return 0


def _replay(records: list[Record], figures: Figures) -> None:
    """All records in order; the big frames timed one by one, each run of updates between them as one.

    Nothing is carried over from the repetition before: new books, and no number read yet.
    """
    forget()
    pipeline = Pipeline(load_source("coinbase-advanced"), ["BTC-USD", "ETH-USD"])
    feed = pipeline.feed
    frames = levels = rows = 0
    updates_s = largest_s = 0.0
    for is_update, group in groupby(records, _is_update):
        chosen = list(group)
        levels_before = _levels(pipeline)
        started = time.process_time()
        for record in chosen:
            rows += len(feed(record).rows)
        took_s = time.process_time() - started
        if is_update:
            frames += len(chosen)
            levels += _levels(pipeline) - levels_before
            updates_s += took_s
        else:
            largest_s = max(largest_s, took_s)
    figures.frames, figures.levels, figures.rows = frames, levels, rows
    figures.updates_s.append(updates_s)
    figures.snapshot_s.append(largest_s)


def _is_update(record: Record) -> bool:
    return record.kind is RecordKind.RECEIVED and len(record.payload) <= BIG_FRAME_BYTES


def _trades_alone(records: list[Record], figures: Figures) -> None:
    """Frames that carry trades, to their rows."""
    mark = b'"channel":"market_trades"'
    forget()
    chosen = [r for r in records if r.kind is RecordKind.RECEIVED and mark in r.payload[:40]]
    pipeline = Pipeline(load_source("coinbase-advanced"), ["BTC-USD", "ETH-USD"])
    started = time.process_time()
    rows = [row for record in chosen for row in pipeline.feed(record).rows]
    figures.trades_s.append(time.process_time() - started)
    figures.trades = sum(isinstance(row, TradeRow) for row in rows)


def _capture(records: list[Record], figures: Figures) -> None:
    """The write-ahead log with a chunk each second, as live."""
    with tempfile.TemporaryDirectory() as folder:
        writer = CaptureWriter(Path(folder))
        flushed_ns = 0
        started = time.process_time()
        for record in records:
            writer.append(record)
            if record.received_at_ns - flushed_ns >= NS:
                writer.flush()
                flushed_ns = record.received_at_ns
        writer.close()
        figures.capture_s.append(time.process_time() - started)
        figures.capture_ratio = writer.raw_bytes / sum(segment.size_bytes for segment in segments(Path(folder)))


def _levels(pipeline: Pipeline) -> int:
    return sum(product.all_counts().level_changes for product in pipeline.state.products.values())


def _print(figures: Figures, peers: list[PeerResult], live: LiveFigures) -> None:
    updates_s = statistics.median(figures.updates_s)
    frames_per_s = figures.frames / updates_s
    levels_per_s = figures.levels / updates_s
    snapshot_ms = statistics.median(figures.snapshot_s) * 1e3
    capture_ms = statistics.median(figures.capture_s) * 1e3
    trades_per_s = figures.trades / statistics.median(figures.trades_s)
    machine = f"one core of {platform.machine()}, Python {platform.python_version()}"
    print(f"{figures.frames} frames with {figures.levels} level changes; {machine}; median of {len(figures.updates_s)}")
    print(f"{'system':<22} {'frames/s':>10} {'levels/s':>10}  does")
    print(f"{'agentfarm':<22} {frames_per_s:>10,.0f} {levels_per_s:>10,.0f}  parse, validate, book, gap ledger, rows")
    for peer in peers:
        rate = f"{peer.frames_per_s:>10,.0f} {peer.levels_per_s:>10,.0f}"
        print(f"{peer.name:<22} {rate}  {peer.problem or peer.does}")
    print(f"snapshot of 46,000 levels, 5.1 MB: {snapshot_ms:.0f} ms; trades to rows: {trades_per_s:,.0f}/s")
    print(f"capture: {figures.capture_ratio:.1f} times smaller than raw, {capture_ms:.0f} ms for all of it")
    if live.problem:
        print(f"live: not measured, {live.problem}")
    else:
        print(
            f"live, 20 products, {live.frames_per_s:.0f} frames/s, {live.trades} trades: receipt to visible p50 "
            f"{live.visible_p50_ms:.0f} ms, p99 {live.visible_p99_ms:.0f} ms; feed {live.core_pct:.1f} % of a core, "
            f"{live.rss_mib:.0f} MiB; QuestDB {live.questdb_core_pct:.0f} %"
        )
        print(
            f"live, 20 books of 46,000 levels, all at once and one a second: the loop was held up for at most "
            f"{live.loop_blocked_max_ms:.0f} ms ({live.loop_blocked_cpu_ms:.0f} ms of processor time); a snapshot was "
            f"done after at most {live.snapshot_max_ms:.0f} ms"
        )
    result: dict[str, object] = {
        "frames_per_s": round(frames_per_s),
        "levels_per_s": round(levels_per_s),
        "snapshot_ms": round(snapshot_ms, 1),
        "trades_per_s": round(trades_per_s),
        "capture_ratio": round(figures.capture_ratio, 2),
    }
    if not live.problem:
        result |= {
            "visible_p99_ms": round(live.visible_p99_ms, 1),
            "core_pct": round(live.core_pct, 1),
            "rss_mib": round(live.rss_mib, 1),
            "live_frames_per_s": round(live.frames_per_s),
            "loop_blocked_max_ms": round(live.loop_blocked_max_ms, 1),
            "loop_blocked_cpu_ms": round(live.loop_blocked_cpu_ms, 1),
            "snapshot_max_ms": round(live.snapshot_max_ms, 1),
        }
    for peer in peers:
        if not peer.problem:
            result[peer.name] = {"frames_per_s": round(peer.frames_per_s), "levels_per_s": round(peer.levels_per_s)}
    print(json.dumps(result))


def _progress(text: str) -> None:
    """One line on stderr that overwrites itself."""
    if sys.stderr.isatty() or not text:
        print(f"\r\x1b[K{text}" if sys.stderr.isatty() else "", end="", file=sys.stderr, flush=True)
    else:
        print(text, file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
