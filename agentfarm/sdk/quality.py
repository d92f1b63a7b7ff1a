"""Whether a product's data on this node is good now: the judgement, apart from the question to the database."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

MAX_AGE_S: Final = 10.0
"""The feed reports on each product every two seconds. If its report is older than this, it is behind or dead."""
QUALITY_SQL: Final = (
    "SELECT ts, state, reason, missing_trades, lag_ms, now() asked_at FROM feed_now"
    " WHERE product = %s AND ts > dateadd('d', -1, now()) LATEST ON ts PARTITION BY source, product"
)


@dataclass(frozen=True, slots=True)
class Quality:
    """How good a product's data is. As a condition it is true when the data is good."""

    product: str
    is_good: bool
    """The feed is connected and up to date, the order book is trusted, no trade is known to be missing."""
    reasons: tuple[str, ...] = ()
    """Why not, for people; empty while good."""
    as_of: datetime | None = None
    """The moment of this judgement; None where nothing is known."""
    lag_ms: float = 0.0
    """Mean age of the newest events when they were received."""
    missing_trades: int = 0
    """Trades known to be missing then."""

    def __bool__(self) -> bool:
        return self.is_good


def unknown(product: str, reason: str) -> Quality:
    """Nothing is known, so it is not good."""
    return Quality(product, is_good=False, reasons=(reason,))


def judge(product: str, rows: Sequence[Mapping[str, Any]], max_age_s: float) -> Quality:
    """From the newest row of each source that has the product, as QUALITY_SQL gives them. The best one counts."""
    verdicts = [_judge(product, row, max_age_s) for row in rows]
    if not verdicts:
        return unknown(product, f"{product} is not held on this node: its feed has said nothing of it in a day")
    return max(verdicts, key=lambda each: (each.is_good, each.as_of))


def _judge(product: str, row: Mapping[str, Any], max_age_s: float) -> Quality:
    age: timedelta = row["asked_at"] - row["ts"]
    reasons: tuple[str, ...] = ()
    if row["state"] == "gone":
        reasons = (f"{product} is not held on this node any more",)
    elif age.total_seconds() > max_age_s:
        reasons = (f"the feed has said nothing of {product} for {age.total_seconds():.0f} s: it is behind, or dead",)
    elif row["state"] != "good":
        reasons = (row["reason"] or str(row["state"]),)
    return Quality(
        product,
        is_good=not reasons,
        reasons=reasons,
        as_of=row["ts"],
        lag_ms=row["lag_ms"],
        missing_trades=row["missing_trades"],
    )
