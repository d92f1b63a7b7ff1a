"""Two recordings of the same products, perhaps from two feeds of one venue: do they tell the same?

Trades must: of the ids that both were there for, each has all, with equal price, size, side and time. Books are cut
at the same moments only as far as the feeds batch alike and the clocks agree, so mid prices are measured, not equated.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

from agentfarm.errors import InvalidRequest
from nodeagent.market.audit.recordings import Span, open_captured
from nodeagent.market.audit.report import Tell, progress
from nodeagent.market.audit.trades import NAMED_MAX, Difference, Seen, in_words, seen_of
from nodeagent.market.capture.reader import Damage
from nodeagent.market.model.rows import BookRow, TradeRow
from nodeagent.market.model.source import load_source
from nodeagent.market.model.times import NS
from nodeagent.market.pipeline.pipeline import Pipeline

TRADES_MAX: Final = 2_000_000
"""Trades and seconds of one side kept in memory; about 600 MB at worst."""
MID_MEDIAN_MAX_BPS: Final = 5.0
"""Half of all seconds must be nearer than this (hundredths of a percent): more is another market, not another cut."""


class Agreement(msgspec.Struct, frozen=True):
    """One product in both."""

    product: str
    first_trade_id: int | None
    last_trade_id: int | None
    """The ids that both were there for; None when there are none."""
    common: int
    only_a: int
    only_b: int
    differing: int
    seconds: int
    """Seconds at whose end both had a trusted book that had changed."""
    equal_mids: int
    mid_median_bps: float | None
    mid_max_bps: float | None
    differences: list[dict[str, object]]
    is_good: bool


class _Side:
    """One recording, read."""

    def __init__(self, path: Path, span: Span, product: str | None, tell: Tell) -> None:
        self.path = path
        self.trades: dict[str, dict[int, Seen]] = {}
        self.mids: dict[str, dict[int, float]] = {}
        self.damages: list[Damage] = []
        captured = open_captured(path, span, self.damages.append, is_stored=False)
        self.source = captured.source
        pipeline = Pipeline(load_source(captured.source), None)
        count = 0
        for number, record in enumerate(captured.records, 1):
            if record.received_at_ns >= span.until_ns:
                break
            for row in pipeline.feed(record).rows:
                if span.holds(record.received_at_ns) and (product is None or row.product == product):
                    count += self._keep(row)
            if count > TRADES_MAX:
                raise InvalidRequest(
                    f"{path} holds more than {TRADES_MAX:,} trades and books of that time.",
                    remedy="Compare less: --product, --since, --until.",
                )
            progress(tell, number, record.received_at_ns, captured.state)

    def _keep(self, row: object) -> bool:
        if type(row) is TradeRow:
            self.trades.setdefault(row.product, {})[row.trade_id] = seen_of(row)
        elif type(row) is BookRow and row.best_bid is not None and row.best_ask is not None:
            self.mids.setdefault(row.product, {})[row.ts_ns // NS] = float(row.best_bid + row.best_ask) / 2
        else:
            return False
        return True


def compare(a: Path, b: Path, tell: Tell, *, product: str | None = None, span: Span | None = None) -> bool:
    """Tell an `Agreement` per product that both hold, then how it is on the whole; whether they agree.

    Raises InvalidRequest for what cannot be read, and when both hold no product in common.
    """
    began_s = time.monotonic()
    sides = [_Side(path, span or Span(), product, tell) for path in (a, b)]
    first, second = sides
    both = sorted((first.trades.keys() | first.mids.keys()) & (second.trades.keys() | second.mids.keys()))
    if not both:
        raise InvalidRequest(
            f"{a} and {b} have no product in common" + (f" called {product}." if product else "."),
            remedy="See what they hold: farmctl feed inspect.",
        )
    comparisons = [
        agreement(
            name, first.trades.get(name, {}), second.trades.get(name, {}),
            first.mids.get(name, {}), second.mids.get(name, {}),
        )
        for name in both
    ]  # fmt: skip
    for one in comparisons:
        tell("agreement", msgspec.to_builtins(one))
    damages = [f"{one.path}: {one.problem}" for side in sides for one in side.damages]
    is_good = all(one.is_good for one in comparisons) and not damages
    seconds = round(time.monotonic() - began_s, 3)
    sources = [side.source for side in sides]
    tell("done", {"is_good": is_good, "sources": sources, "damages": damages, "seconds": seconds})
    return is_good


def agreement(
    product: str,
    a: Mapping[int, Seen],
    b: Mapping[int, Seen],
    mids_a: Mapping[int, float],
    mids_b: Mapping[int, float],
) -> Agreement:
    """What two sides say of one product. Pure."""
    first, last = (max(min(a), min(b)), min(max(a), max(b))) if a and b else (0, -1)
    ids_a = {trade_id for trade_id in a if first <= trade_id <= last}
    ids_b = {trade_id for trade_id in b if first <= trade_id <= last}
    common = ids_a & ids_b
    unlike = [trade_id for trade_id in sorted(common) if a[trade_id] != b[trade_id]]
    alone = sorted(ids_a ^ ids_b)
    gaps = sorted(
        abs(mids_a[second] - mids_b[second]) / mids_a[second] * 10_000
        for second in mids_a.keys() & mids_b.keys()
        if mids_a[second] > 0
    )
    median = gaps[len(gaps) // 2] if gaps else None
    is_near = median is None or median <= MID_MEDIAN_MAX_BPS
    return Agreement(
        product, first if common else None, last if common else None,
        len(common), len(ids_a - ids_b), len(ids_b - ids_a), len(unlike),
        len(gaps), sum(gap == 0 for gap in gaps),
        None if median is None else round(median, 4), round(gaps[-1], 4) if gaps else None,
        [msgspec.to_builtins(one) for one in _named(alone, unlike, a, b)],
        bool(common) and not alone and not unlike and is_near,
    )  # fmt: skip


def _named(alone: list[int], unlike: list[int], a: Mapping[int, Seen], b: Mapping[int, Seen]) -> list[Difference]:
    """The first few differences."""
    named = [
        Difference(trade_id, "only in A" if trade_id in a else "only in B", *_both(trade_id, a, b))
        for trade_id in alone[:NAMED_MAX]
    ]
    named += [Difference(trade_id, "differing", *_both(trade_id, a, b)) for trade_id in unlike[:NAMED_MAX]]
    return named[:NAMED_MAX]


def _both(trade_id: int, a: Mapping[int, Seen], b: Mapping[int, Seen]) -> tuple[str, str]:
    return (in_words(a[trade_id]) if trade_id in a else "", in_words(b[trade_id]) if trade_id in b else "")
