"""Counting what a minute of a product's data was like."""

from __future__ import annotations

import msgspec

from nodeagent.market.model.rows import HealthRow
from nodeagent.market.model.times import MS_NS


class Counts(msgspec.Struct, gc=False):
    """Facts of one product over some time; see `HealthRow` for their meaning."""

    frames: int = 0
    trades: int = 0
    level_changes: int = 0
    duplicates: int = 0
    rejected: int = 0
    gaps: int = 0
    repaired: int = 0
    crossed: int = 0
    resyncs: int = 0
    absent_removals: int = 0
    unknown_types: int = 0
    lag_sum_ns: int = 0
    lag_count: int = 0

    def add(self, other: Counts) -> None:
        """Sum another stretch of time into this one."""
        for name in self.__struct_fields__:
            setattr(self, name, getattr(self, name) + getattr(other, name))


def health_row(
    counts: Counts,
    *,
    minute_ns: int,
    venue: str,
    product: str,
    source: str,
    missing_trades: int,
    skew_ns: int,
    is_synced: bool,
) -> HealthRow:
    """The row of a closed minute."""
    return HealthRow(
        ts_ns=minute_ns,
        venue=venue,
        product=product,
        source=source,
        frames=counts.frames,
        trades=counts.trades,
        level_changes=counts.level_changes,
        duplicates=counts.duplicates,
        rejected=counts.rejected,
        gaps=counts.gaps,
        repaired=counts.repaired,
        missing_trades=missing_trades,
        crossed=counts.crossed,
        resyncs=counts.resyncs,
        absent_removals=counts.absent_removals,
        unknown_types=counts.unknown_types,
        skew_ms=skew_ns / MS_NS,
        lag_ms=counts.lag_sum_ns / counts.lag_count / MS_NS if counts.lag_count else 0.0,
        is_good=is_synced and not missing_trades and not counts.rejected and bool(counts.frames),
    )
