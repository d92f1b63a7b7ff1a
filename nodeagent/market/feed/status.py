"""What a feed says about itself: one JSON file, replaced every second."""

from __future__ import annotations

import errno
import json
import os
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from agentfarm.files import write_file
from nodeagent.market.model.times import MS_NS
from nodeagent.market.pipeline.quality import Quality, QualityState, followed, quality
from nodeagent.market.pipeline.state import FeedState

BLOCK_BYTES: Final = 4096
SPARE_BYTES: Final = 2048
"""Room in the file for words that only a full disk brings."""


@dataclass(slots=True)
class ProductStatus:
    """One product."""

    last_trade_id: int
    trades: int
    missing_trades: int
    is_synced: bool
    """Its book can be trusted."""
    book_levels: int
    state: str
    """starting, good, doubtful, failed: `nodeagent.market.pipeline.quality`."""
    reason: str
    """For people; empty while good."""


@dataclass(slots=True)
class FeedStatus:
    """The feed now. Counts are since the process started."""

    pid: int
    source: str
    updated_at_ns: int
    started_at_ns: int
    state: str
    """`live`; `behind`: rows are made from the capture; `idle`: no products; `over`: the recording
    has been played; `stopping`."""
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
    disk: str = "ok"
    """`ok`; `low`: tables are left out; `full`."""
    left_out: list[str] = field(default_factory=list)
    """Tables of which rows are left out now, for want of room."""
    products: dict[str, ProductStatus] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """As in the file."""
        return asdict(self)

    def save(self, path: Path) -> None:
        """Replace the file atomically. Not fsynced: after a power cut there is no feed to describe.

        On a full disk the file is written in place, within what the disk has given it already: that is when it is read
        most. Raises OSError when neither is possible.
        """
        text = json.dumps(self.to_dict()).encode()
        text = text.ljust(-(-(len(text) + SPARE_BYTES) // BLOCK_BYTES) * BLOCK_BYTES)
        try:
            write_file(path, text, is_durable=False)
        except OSError:
            _overwrite(path, text)


class Rate:
    """Frames a second, and the mean lag, over the last second."""

    def __init__(self) -> None:
        self.per_s = 0.0
        self.lag_ms = 0.0
        self._frames = 0
        self._at_s = time.monotonic()
        self._lag = (0, 0)

    def tick(self, frames: int, feed: FeedState) -> None:
        """A second has passed."""
        now_s = time.monotonic()
        self.per_s = (frames - self._frames) / max(0.001, now_s - self._at_s)
        self._frames, self._at_s = frames, now_s
        counts = [product.all_counts() for product in feed.products.values()]
        total = (sum(count.lag_sum_ns for count in counts), sum(count.lag_count for count in counts))
        if total[1] > self._lag[1]:
            self.lag_ms = (total[0] - self._lag[0]) / (total[1] - self._lag[1]) / MS_NS
        self._lag = total


def product_statuses(feed: FeedState, doubt: str) -> dict[str, ProductStatus]:
    """Every product followed. doubt: why none can be good, whatever the feed knows of it; empty: no such reason."""
    return {name: _product_status(feed, name, doubt) for name in followed(feed)}


def _product_status(feed: FeedState, name: str, doubt: str) -> ProductStatus:
    product = feed.products.get(name)
    connection = feed.synced_connection(name)
    book = connection.books[name].levels if connection is not None else None
    now = quality(feed, name)
    if doubt and now.state is QualityState.GOOD:
        now = Quality(QualityState.DOUBTFUL, doubt)
    return ProductStatus(
        last_trade_id=product.ledger.last_id if product is not None else -1,
        trades=product.all_counts().trades if product is not None else 0,
        missing_trades=product.ledger.missing.total() if product is not None else 0,
        is_synced=product is not None and feed.is_synced(name),
        book_levels=len(book.bids) + len(book.asks) if book is not None else 0,
        state=now.state.value,
        reason=now.reason,
    )


def _overwrite(path: Path, text: bytes) -> None:
    """In one write, padded to the file's size, which stays: no reader meets the end of what was there before."""
    file = os.open(path, os.O_WRONLY)
    try:
        size = os.fstat(file).st_size
        text = text.rstrip().ljust(size)
        if len(text) > size:
            raise OSError(errno.ENOSPC, "the status has outgrown its file")
        os.pwrite(file, text, 0)
    finally:
        os.close(file)
