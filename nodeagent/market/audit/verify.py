"""Is what the capture holds what QuestDB has? Every captured trade is looked up; nothing is changed.

The capture goes through the real pipeline, as far as QuestDB has acknowledged it, so the trades it gives are exactly
those that should be stored. Without a QuestDB the capture alone is judged: checksums, numbering, ids.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Final

import msgspec

from nodeagent.market.audit.recordings import Span, open_captured, products_asked
from nodeagent.market.audit.report import Tell, progress
from nodeagent.market.audit.tables import Tables
from nodeagent.market.audit.trades import Findings, Seen, seen_of
from nodeagent.market.capture.reader import Damage
from nodeagent.market.model.records import Record
from nodeagent.market.model.rows import TradeRow
from nodeagent.market.model.source import load_source
from nodeagent.market.pipeline.pipeline import Pipeline
from nodeagent.market.pipeline.product import Product
from nodeagent.market.store.endpoint import Endpoint

TRADES_AT_ONCE: Final = 20_000
"""Captured trades held in memory before they are compared."""
HOLES_NAMED_MAX: Final = 5
DAMAGES_MAX: Final = 20


class ProductVerdict(msgspec.Struct, frozen=True):
    """One product. Counts of trades, over those received in the time asked for."""

    product: str
    captured: int
    stored: int | None
    """Rows that QuestDB has of the captured trades; None where no QuestDB was asked."""
    lacking: int
    differing: int
    twice: int
    missing: int
    """Ids between the first and the last that neither capture nor QuestDB has."""
    uncaptured: int
    """Trades of that range that QuestDB has and the capture does not; no fault by itself."""
    open_gaps: int
    first_trade_id: int | None
    last_trade_id: int | None
    holes: list[tuple[int, int]]
    """The first few stretches of missing ids in the capture."""
    differences: list[dict[str, object]]
    is_good: bool


class Verdict(msgspec.Struct, frozen=True):
    """The whole."""

    is_good: bool
    format: str
    source: str
    records: int
    damages: list[str]
    problems: list[str]
    """Sentences about the whole: tables that are suspended or not there."""
    seconds: float


class _Checked:
    """One product on the way."""

    def __init__(self, product: Product) -> None:
        self.product = product
        self.findings = Findings()
        self.waiting: dict[int, Seen] = {}
        self.first_id = self.last_id = -1
        self.first_us = self.last_us = 0

    def take(self, row: TradeRow) -> None:
        """A captured trade."""
        seen = seen_of(row)
        is_first = self.first_id < 0
        self.waiting[row.trade_id] = seen
        self.first_id = row.trade_id if is_first else min(self.first_id, row.trade_id)
        self.last_id = max(self.last_id, row.trade_id)
        self.first_us = seen.ts_us if is_first else min(self.first_us, seen.ts_us)
        self.last_us = max(self.last_us, seen.ts_us)


class _Check:
    """One run."""

    def __init__(self, tables: Tables | None, product: str | None) -> None:
        self.products: dict[str, _Checked] = {}
        self.problems: list[str] = []
        self.asked: set[str] = set()
        """Products that the feed has subscribed to."""
        self._tables = tables
        self._only = product
        self._waiting = 0
        self._has_trades = tables is None or self._look_at(tables)

    def take(self, record: Record, rows: list[object], pipeline: Pipeline) -> None:
        """What a record led to."""
        self.asked |= products_asked(record)
        for row in rows:
            if type(row) is TradeRow and (self._only is None or row.product == self._only):
                if row.product not in self.products:
                    self.products[row.product] = _Checked(pipeline.state.products[row.product])
                self.products[row.product].take(row)
                self._waiting += 1
        if self._waiting >= TRADES_AT_ONCE:
            self.compare()

    def compare(self) -> None:
        """Look up the trades that wait."""
        for checked in self.products.values():
            if checked.waiting:
                product = checked.product
                if self._tables is None:
                    checked.findings.captured += len(checked.waiting)
                elif self._has_trades:
                    stored = self._tables.trades(product.venue, product.name, checked.waiting)
                    checked.findings.compare(checked.waiting, stored)
                else:
                    checked.findings.compare(checked.waiting, {})
                checked.waiting = {}
        self._waiting = 0

    def verdicts(self, now_ns: int, *, contiguous: bool) -> list[ProductVerdict]:
        """One per product. A product never asked for and not stored is a damaged name, and left out."""
        return [
            self._verdict(checked, contiguous=contiguous, now_ns=now_ns)
            for name, checked in sorted(self.products.items())
            if name in self.asked or not self.asked or checked.findings.stored
        ]

    def _verdict(self, checked: _Checked, *, contiguous: bool, now_ns: int) -> ProductVerdict:
        findings, product = checked.findings, checked.product
        ids = (checked.first_id, checked.last_id)
        width = ids[1] - ids[0] + 1
        missing = uncaptured = open_gaps = 0
        holes = [hole for hole in product.ledger.missing if hole[1] >= ids[0]]
        if self._tables is not None and self._has_trades:
            times = (checked.first_us, checked.last_us)
            held = self._tables.stored(product.venue, product.name, ids, times)
            captured = findings.captured - findings.lacking
            uncaptured = max(0, held.distinct - captured)
            missing = width - findings.captured - uncaptured
            gaps = self._tables.gaps(product.name, 0, is_open=True, now_ns=now_ns) if self._has_gaps else []
            open_gaps = len([gap for gap in gaps if gap.product == product.name])
        else:
            missing = width - findings.captured
        missing = max(0, missing) if contiguous else 0
        return ProductVerdict(
            product.name, findings.captured, None if self._tables is None else findings.stored,
            findings.lacking, findings.differing, findings.twice, missing, uncaptured, open_gaps,
            *ids, holes[:HOLES_NAMED_MAX] if missing else [],
            [msgspec.to_builtins(one) for one in findings.differences],
            findings.is_good and not missing,
        )  # fmt: skip

    def _look_at(self, tables: Tables) -> bool:
        """Whether there are trades to look up; what is wrong with the tables is a problem."""
        names = tables.names()
        self._has_gaps = "feed_gap" in names
        self.problems += [
            f"QuestDB has no table {name}: 'farmctl feed replay' makes it again from the capture."
            for name in ("trades", "ticker", "book", "feed_health", "feed_gap")
            if name not in names
        ]
        self.problems += [
            f"Table {name} is suspended: it takes rows and shows none of them." for name in tables.suspended()
        ]
        if "trades" in names and not tables.until_visible("trades"):
            self.problems.append("Table trades does not show what it has taken: rows wait in its log.")
        return "trades" in names


def verify(path: Path, endpoint: Endpoint | None, tell: Tell, *, product: str | None = None, since_ns: int = 0) -> bool:
    """Tell a `ProductVerdict` per product, then the `Verdict`; whether all is good.

    path: a recording, or a folder that a feed may be writing. since_ns: trades received before are not looked at.
    Raises InvalidRequest for what cannot be read, Unavailable when QuestDB does not answer.
    """
    began_s = time.monotonic()
    damages: list[Damage] = []
    span = Span(since_ns)
    captured = open_captured(path, span, damages.append, is_stored=endpoint is not None)
    check = _Check(Tables(endpoint) if endpoint is not None else None, product)
    source = load_source(captured.source)
    pipeline = Pipeline(source, None)
    records = 0
    for record in captured.records:
        rows = pipeline.feed(record).rows
        records += 1
        check.take(record, list(rows) if record.received_at_ns >= since_ns else [], pipeline)
        progress(tell, records, record.received_at_ns, captured.state)
    check.compare()
    verdicts = check.verdicts(time.time_ns(), contiguous=source.trade_ids_contiguous)
    if product is not None and not verdicts:
        check.problems.append(f"The capture holds no trade of {product} in that time.")
    for verdict in verdicts:
        tell("product", msgspec.to_builtins(verdict))
    is_good = not damages and not check.problems and all(verdict.is_good for verdict in verdicts)
    texts = [f"{one.path} at byte {one.offset}: {one.problem}" for one in damages[:DAMAGES_MAX]]
    seconds = time.monotonic() - began_s
    whole = Verdict(is_good, captured.format, captured.source, records, texts, check.problems, round(seconds, 3))
    tell("done", msgspec.to_builtins(whole))
    return is_good
