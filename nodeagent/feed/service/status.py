"""What a feed says about itself: one JSON file, replaced every second."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass(slots=True)
class ProductStatus:
    """One product."""

    last_trade_id: int
    trades: int
    missing_trades: int
    is_synced: bool
    """Its book can be trusted."""
    book_levels: int


@dataclass(slots=True)
class FeedStatus:
    """The feed now. Counts are since the process started."""

    pid: int
    source: str
    updated_at_ns: int
    started_at_ns: int
    state: str
    """`live`; `behind`: rows are made from the capture; `stopping`."""
    is_connected: bool
    connections: int
    connects: int
    frames: int
    frames_per_s: float
    rows_stored: int
    rows_by_table: dict[str, int]
    rows_queued: int
    rows_dropped: int
    rows_refused: int
    gaps: int
    repaired: int
    missing_trades: int
    rejected: int
    lag_ms: float
    """Mean age of live events at receipt in the last second, corrected for the clocks' skew."""
    skew_ms: float
    behind_s: float
    capture_bytes: int
    capture_raw_bytes: int
    rest_requests: int
    rest_failures: int
    metrics_port: int
    products: dict[str, ProductStatus] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """As in the file."""
        return asdict(self)

    def save(self, path: Path) -> None:
        """Replace the file atomically. Not fsynced: after a power cut there is no feed to describe."""
        staged = path.with_name(f".{path.name}.{os.getpid()}")
        staged.write_text(json.dumps(self.to_dict()))
        staged.replace(path)
