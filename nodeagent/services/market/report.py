"""What the controller hears of the market: what the feed is, how it does, and how each product does."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from prometheus_client.core import GaugeMetricFamily, Metric

from agentfarm.wire import market_pb2 as wire
from nodeagent.metrics import counter, gauge
from nodeagent.services.market.status import MarketStatus

_STATES: Final = {
    "starting": wire.PRODUCT_STATE_STARTING,
    "good": wire.PRODUCT_STATE_GOOD,
    "doubtful": wire.PRODUCT_STATE_DOUBTFUL,
    "failed": wire.PRODUCT_STATE_FAILED,
}
_FEED_METRICS: Final = (
    ("frames", counter, "Frames received."),
    ("gaps", counter, "Gaps found in the venue's sequences."),
    ("repaired", counter, "Gaps repaired over REST."),
    ("missing_trades", gauge, "Trades known to be missing."),
    ("rejected", counter, "Frames that could not be understood."),
    ("rows_queued", gauge, "Rows waiting for QuestDB."),
    ("rows_dropped", counter, "Rows not kept."),
    ("capture_bytes", gauge, "Size of the capture."),
)


class Reports:
    """Reports name the products while something in them changed, and on each new stream."""

    def __init__(self) -> None:
        self._statuses: list[wire.ProductStatus] = []
        """Of the last report."""

    def next(
        self, statuses: list[wire.ProductStatus], market: wire.MarketMeasured, *, is_first: bool
    ) -> wire.MarketReport:
        """is_first: the controller has heard no report on this stream."""
        is_unchanged = not is_first and statuses == self._statuses
        self._statuses = statuses
        return wire.MarketReport(
            products=() if is_unchanged else statuses, products_unchanged=is_unchanged, measured=market
        )


def measured(status: MarketStatus) -> wire.MarketMeasured:
    """The feed in three numbers."""
    return wire.MarketMeasured(state=status.state, rows=status.rows, lag_ms=status.lag_ms)


def product_statuses(
    served: Iterable[str], feed: Mapping[str, Any] | None, failed: str
) -> list[wire.ProductStatus]:  # fmt: skip
    """From the products to serve, the feed's status (None: there is none) and why there is no market data at all."""
    return [_product(name, feed, failed) for name in served]


def metrics(status: MarketStatus) -> Iterator[Metric]:
    """The market's numbers in Prometheus form."""
    if status.state:
        word = status.state.partition(":")[0]
        state = GaugeMetricFamily("agentfarm_node_market_state", "1 for the state it is in.", labels=("state",))
        state.add_metric((word,), 1)
        yield state
        yield counter("agentfarm_node_market_rows", "Rows the feed has stored.", status.rows)
        yield gauge("agentfarm_node_market_lag_seconds", "Age of events at receipt.", status.lag_ms / 1000)
    for name, make, text in _FEED_METRICS:
        if status.feed is not None and name in status.feed:
            yield make(f"agentfarm_node_feed_{name}", text, float(status.feed[name]))


def _product(name: str, feed: Mapping[str, Any] | None, failed: str) -> wire.ProductStatus:
    if failed:
        return wire.ProductStatus(product=name, state=wire.PRODUCT_STATE_FAILED, reason=failed)
    if feed is None:
        return wire.ProductStatus(product=name, state=wire.PRODUCT_STATE_STARTING, reason="the feed is starting")
    if feed.get("is_stale"):
        return wire.ProductStatus(product=name, state=wire.PRODUCT_STATE_DOUBTFUL, reason="the feed says nothing")
    mine = feed.get("products", {}).get(name, {})
    state = _STATES.get(mine.get("state"), wire.PRODUCT_STATE_STARTING)
    reason = "" if state == wire.PRODUCT_STATE_GOOD else mine.get("reason") or "the feed has not taken it up yet"
    return wire.ProductStatus(product=name, state=state, reason=reason)
